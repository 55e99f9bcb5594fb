"""The store's queries about uploaded files, as ``Store.files``. What is left out: their bytes."""

from familiar.memory import rows, users
from familiar.memory.database import Connection, Row
from familiar.memory.errors import NotFound
from familiar.memory.finetuning_types import FilePurpose, StoredFile


class Files:
    """The files of an open store. Another user's are as unknown as those that never were."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, file: StoredFile) -> None:
        """Keep a file's row. Raises ``NotFound`` when its user was removed."""
        with self._connection.write():
            users.require(self._connection, file.user_id)
            self._connection.execute(
                "INSERT INTO files (id, user_id, created_at_s, filename, purpose) VALUES (?, ?, ?, ?, ?)",
                (file.id, file.user_id, file.created_at, file.filename, file.purpose),
            )

    def get(self, user_id: int, id: str) -> StoredFile:
        """The user's file of that id. Raises ``NotFound`` (param ``file_id``)."""
        row = self._connection.first("SELECT * FROM files WHERE id = ? AND user_id = ?", (id, user_id))
        if row is None:
            raise _unknown(id)
        return _file(row)

    def listed(self, user_id: int, purpose: FilePurpose | None = None) -> list[StoredFile]:
        """The user's files, or those of one purpose, as they came."""
        sql = "SELECT * FROM files WHERE user_id = ?1 AND (?2 IS NULL OR purpose = ?2) ORDER BY created_at_s, seq"
        return [_file(row) for row in self._connection.read(sql, (user_id, purpose))]

    def delete(self, user_id: int, id: str) -> None:
        """Take a file's row away. Raises ``NotFound`` (param ``file_id``)."""
        with self._connection.write():
            if not self._connection.execute("DELETE FROM files WHERE id = ? AND user_id = ?", (id, user_id)):
                raise _unknown(id)


def _unknown(id: str) -> NotFound:
    return NotFound(f"No such file: {id}. `GET /v1/files` lists those there are.", "file_id")


def _file(row: Row) -> StoredFile:
    return rows.value(StoredFile, row)

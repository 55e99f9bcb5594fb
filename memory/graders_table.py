"""The store's queries about graders: checks of replies that a user keeps, alone or with a rule that they check.

Functions over a ``Connection``; ``Store`` is their face to the rest of the program. What a definition says is not
looked at here: ``feedback`` reads it.
"""

from familiar.memory import memories, rows, users
from familiar.memory.database import Connection
from familiar.memory.errors import InvalidInput, NotFound
from familiar.memory.types import StoredGrader

MAX_GRADERS = 1000
"""A user may keep so many."""


def add(connection: Connection, grader: StoredGrader) -> StoredGrader:
    """See ``Store.add_grader``."""
    with connection.write():
        users.require(connection, grader.user_id)
        if grader.memory_id is not None:
            memories.get(connection, grader.user_id, grader.memory_id)
        definition = rows.to_json(grader.definition)
        same = connection.first(
            "SELECT * FROM graders WHERE user_id = ? AND memory_id IS ? AND definition_json = ?",
            (grader.user_id, grader.memory_id, definition),
        )
        if same is not None:
            return rows.grader(same)
        have = connection.first("SELECT count(*) FROM graders WHERE user_id = ?", (grader.user_id,))
        if have is not None and have[0] >= MAX_GRADERS:
            raise InvalidInput(f"There are {have[0]} graders and {MAX_GRADERS} is the most: delete one.", "grader")
        connection.execute(
            "INSERT INTO graders (id, user_id, created_at_s, name, definition_json, memory_id)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (grader.id, grader.user_id, grader.created_at, grader.name, definition, grader.memory_id),
        )
    return grader


def listed(connection: Connection, user_id: int, memory_id: str | None = None) -> list[StoredGrader]:
    """See ``Store.graders``."""
    if memory_id is not None:
        memories.get(connection, user_id, memory_id)
    found = connection.read(
        "SELECT g.* FROM graders AS g LEFT JOIN memories AS m ON m.id = g.memory_id WHERE g.user_id = ?1"
        " AND CASE WHEN ?2 IS NULL THEN g.memory_id IS NULL OR m.state = 'active' ELSE g.memory_id = ?2 END"
        " ORDER BY g.created_at_s, g.id",
        (user_id, memory_id),
    )
    return [rows.grader(row) for row in found]


def get(connection: Connection, user_id: int, id: str) -> StoredGrader:
    """See ``Store.grader``."""
    row = connection.first("SELECT * FROM graders WHERE id = ? AND user_id = ?", (id, user_id))
    if row is None:
        raise _missing(id)
    return rows.grader(row)


def delete(connection: Connection, user_id: int, id: str) -> None:
    """See ``Store.delete_grader``."""
    with connection.write():
        if not connection.execute("DELETE FROM graders WHERE id = ? AND user_id = ?", (id, user_id)):
            raise _missing(id)


def _missing(id: str) -> NotFound:
    return NotFound(f'No grader has the id "{id}": check the id.', "grader_id")

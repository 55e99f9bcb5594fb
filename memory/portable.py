"""Everything that a user owns, out of one store and into another. The lines are ``portable_format``'s.

Importing adds to what is there and is all or nothing. Doing it twice changes nothing: a row is known again by its id
and what it says, a memory by what it says alone. An id that has another meaning here is replaced by one that follows
from the row itself, and what refers to it follows. What is left out: what is not in the store, such as the files of
adapters; a version without its files is kept for its lineage, and is not made the current one.
"""

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from familiar.memory import lineage, rows, users
from familiar.memory.database import Connection
from familiar.memory.errors import InvalidInput
from familiar.memory.portable_format import Header, Reader, Row, Writer
from familiar.memory.portable_tables import REFERENCES, REQUIRED, TABLES, exported, problem
from familiar.memory.redact import FORGOTTEN
from familiar.memory.types import Memory

_AT_ONCE = 500
_USED = (
    "(SELECT json_group_array(json_array(memory_id, reason, score)) FROM (SELECT memory_id, reason, score"
    " FROM exchange_memories AS u WHERE u.exchange_id = t.id ORDER BY u.position)) AS used_json"
)
_FEEDBACK_IDS = (
    "(SELECT json_group_array(feedback_id) FROM (SELECT feedback_id FROM adapter_version_feedback AS f"
    " WHERE f.user_id = t.user_id AND f.number = t.number ORDER BY f.position)) AS feedback_ids_json"
)
_EXTRA = {"exchanges": f", {_USED}", "adapter_versions": f", {_FEEDBACK_IDS}"}


@dataclass(frozen=True)
class Imported:
    """What an import did: rows added, and rows that were here already, by table; ids that were replaced, by theirs.

    ``versions`` says which number each adapter version of the file has here.
    """

    added: Mapping[str, int]
    known: Mapping[str, int]
    ids: Mapping[str, Mapping[Any, Any]]
    versions: Mapping[int, int]

    @property
    def renamed(self) -> int:
        """How many ids were replaced."""
        return sum(map(len, self.ids.values()))


def export(connection: Connection, user_id: int, now: float) -> Iterator[bytes]:
    """The lines of a user's export, as they are at this moment. The connection is for this alone until they end."""
    # One read transaction: what is written meanwhile is not in it, and nobody waits for it.
    connection.read("BEGIN")
    try:
        users.require(connection, user_id)
        name = str(connection.read("SELECT name FROM users WHERE id = ?", (user_id,))[0][0])
        counts = {
            table: int(connection.read(f"SELECT count(*) FROM {table} WHERE user_id = ?", (user_id,))[0][0])
            for table in TABLES
        }
        writer = Writer()
        yield writer.header(Header(now, name, counts))
        for table in TABLES:
            for values in _exported(connection, table, user_id):
                yield writer.row(Row(table, values))
        yield writer.trailer()
    finally:
        connection.read("COMMIT")


def import_(connection: Connection, user_id: int, file: BinaryIO, *, anyones: bool = False) -> Imported:
    """Add an export to what a user has; see ``Store.import_data``."""
    reader = Reader(file)
    with connection.write():
        users.require(connection, user_id)
        name = connection.read("SELECT name FROM users WHERE id = ?", (user_id,))[0][0]
        theirs = reader.header.user
        if not anyones and theirs.casefold() != name.casefold():
            raise InvalidInput(
                f'The export is of "{theirs}" and would be imported for "{name}": name the user that it is for, or say '
                f"that anyone's is wanted.",
                "file",
            )
        merge = _Merge(connection, user_id)
        try:
            for row in reader.rows():
                if row.table not in TABLES:
                    reader.refuse(f'there is no table "{row.table}": the file was changed')
                wrong = problem(row.table, row.values)
                if wrong:
                    reader.refuse(f"{wrong}: the file was changed")
                merge.add(row.table, dict(row.values))
            merge.follow()
        except _Refused as error:
            reader.refuse(str(error))
        except sqlite3.IntegrityError as error:
            reader.refuse(f"the store does not take the row ({error}): the file was changed")
        except (UnicodeEncodeError, OverflowError):
            reader.refuse("a value cannot be stored, half a character or too large a number: the file was changed")
        finally:
            merge.close()
    return merge.done()


class _Refused(Exception):
    """A row that cannot be imported; the message has no line number and no full stop."""


class _Merge:
    """An import in progress, in a transaction: what became of the ids of the file."""

    def __init__(self, connection: Connection, user_id: int) -> None:
        self._connection = connection
        self._user_id = user_id
        self._added = Counter[str]()
        self._known = Counter[str]()
        self._renamed: dict[str, dict[Any, Any]] = {table: {} for table in TABLES}
        self._versions: dict[int, int] = {}
        self._run_versions: list[tuple[str, int]] = []
        self._added_versions: list[int] = []
        # In SQLite and not here: a file may have a hundred thousand rows.
        connection.execute("CREATE TEMP TABLE fresh (id TEXT PRIMARY KEY) WITHOUT ROWID")
        connection.execute("CREATE TEMP TABLE renamed (old TEXT PRIMARY KEY, new TEXT) WITHOUT ROWID")

    def close(self) -> None:
        for table in ("fresh", "renamed"):
            self._connection.execute(f"DROP TABLE IF EXISTS temp.{table}")

    def done(self) -> Imported:
        return Imported(dict(self._added), dict(self._known), self._renamed, dict(self._versions))

    def add(self, table: str, values: dict[str, Any]) -> None:
        """Add one row, unless it is here."""
        for (source, column), target in REFERENCES.items():
            if source == table and values[column] is not None and (source, column) != ("learning_runs", "version"):
                values[column] = self._renamed[target].get(values[column], values[column])
                if (source, column) in REQUIRED and not self._owned(target, values[column]):
                    raise _Refused(f"{column} names {values[column]}, which is not in the file before this line")
        if table == "adapter_versions":
            fresh = self._number(values)
        elif table == "probes":
            fresh = not self._same("probes", values)
        else:
            fresh = self._name(table, values)
        (self._added if fresh else self._known)[table] += 1
        if fresh:
            self._insert(table, values)

    def follow(self) -> None:
        """Let what was added refer to the new ids where it was written before these were known."""
        renamed = self._renamed["feedback"] | self._renamed["memories"]
        self._connection.execute_many("INSERT INTO temp.renamed VALUES (?, ?)", list(renamed.items()))
        new = "(SELECT new FROM temp.renamed WHERE old = {column})"
        for table, key, column in (
            ("exchange_memories", "exchange_id", "memory_id"),
            ("memories", "id", "superseded_by"),
        ):
            self._connection.execute(
                f"UPDATE {table} SET {column} = {new.format(column=column)} WHERE {key} IN (SELECT id FROM temp.fresh)"
                f" AND {column} IN (SELECT old FROM temp.renamed)"
            )
        self._connection.execute_many(
            f"UPDATE adapter_version_feedback SET feedback_id = {new.format(column='feedback_id')}"
            " WHERE user_id = ? AND number = ? AND feedback_id IN (SELECT old FROM temp.renamed)",
            [(self._user_id, number) for number in self._added_versions],
        )
        self._connection.execute_many(
            "UPDATE learning_runs SET version = ? WHERE id = ?",
            [(self._versions.get(version, version), run_id) for run_id, version in self._run_versions],
        )

    def _name(self, table: str, values: dict[str, Any]) -> bool:
        """Give a row the id that it has here; whether it is new."""
        old = values["id"]
        if table == "memories" and self._said_already(values):
            return False
        here = self._here(table, values["id"])
        while here is not None and not (
            here["user_id"] == self._user_id and _is_same(table, exported(table, here), values)
        ):
            values["id"] = self._other_id(table, values)
            here = self._here(table, values["id"])
        fresh = here is None
        if table == "feedback" and fresh and values["key"] is not None:
            of_key = self._connection.first(
                "SELECT id FROM feedback WHERE user_id = ? AND key = ?", (self._user_id, values["key"])
            )
            if of_key is not None:
                values["id"], fresh = of_key["id"], False
        if values["id"] != old:
            self._renamed[table][old] = values["id"]
        return fresh

    def _number(self, values: dict[str, Any]) -> bool:
        """Give an adapter version the number that it has here; whether it is new."""
        old = values["number"]
        here = self._connection.first(
            "SELECT number FROM adapter_versions WHERE user_id = ? AND gguf_sha256 = ? AND created_at_s = ?",
            (self._user_id, values["gguf_sha256"], values["created_at_s"]),
        )
        if here is not None:
            values["number"] = here["number"]
        elif self._owned("adapter_versions", old):
            values["number"] = lineage.next_version(self._connection, self._user_id)
        self._versions[old] = values["number"]
        if values["number"] != old:
            self._renamed["adapter_versions"][old] = values["number"]
        return here is None

    def _said_already(self, values: dict[str, Any]) -> bool:
        """Whether the user has a memory that says this; it takes on what is newer in the file."""
        here = self._connection.first(
            "SELECT * FROM memories WHERE user_id = ? AND content_sha256 = ?", (self._user_id, self._content(values))
        )
        if here is None:
            return False
        if here["id"] != values["id"]:
            self._renamed["memories"][values["id"]] = here["id"]
        if (values["created_at_s"], values["ended_at_s"] or 0) > (here["created_at_s"], here["ended_at_s"] or 0):
            taken = ("created_at_s", "scope", "pinned", "source", "state", "superseded_by", "ended_at_s", "feedback_id")
            self._connection.execute(
                f"UPDATE memories SET {', '.join(f'{column} = ?' for column in taken)} WHERE id = ?",
                (*(values[column] for column in taken), here["id"]),
            )
            self._connection.execute("INSERT OR IGNORE INTO temp.fresh VALUES (?)", (here["id"],))
        used = [at for at in (here["last_used_at_s"], values["last_used_at_s"]) if at is not None]
        self._connection.execute(
            "UPDATE memories SET uses = ?, last_used_at_s = ? WHERE id = ?",
            (max(here["uses"], values["uses"]), max(used, default=None), here["id"]),
        )
        return True

    def _insert(self, table: str, values: Mapping[str, Any]) -> None:
        spec = TABLES[table]
        stored = {
            spec.stored(column): rows.to_json(values[column])
            if kind in "jJ" and values[column] is not None
            else values[column]
            for column, kind in spec.columns.items()
            if kind != "s"
        }
        stored["user_id"] = self._user_id
        if table == "memories":
            stored["content_sha256"] = self._content(values)
        if table == "adapter_versions":
            stored["folder"] = lineage.version_folder(self._user_id, values["number"])
        self._connection.execute(
            f"INSERT INTO {table} ({', '.join(stored)}) VALUES ({', '.join('?' * len(stored))})",
            tuple(stored.values()),
        )
        if table == "exchanges":
            self._insert_used(values)
        if table == "adapter_versions":
            self._added_versions.append(values["number"])
            self._connection.execute_many(
                "INSERT INTO adapter_version_feedback (user_id, number, position, feedback_id) VALUES (?, ?, ?, ?)",
                [(self._user_id, values["number"], position, id) for position, id in enumerate(values["feedback_ids"])],
            )
        if table in ("exchanges", "memories"):
            self._connection.execute("INSERT OR IGNORE INTO temp.fresh VALUES (?)", (values["id"],))
        if table == "learning_runs" and values["version"] is not None:
            self._run_versions.append((values["id"], values["version"]))

    def _insert_used(self, values: Mapping[str, Any]) -> None:
        try:
            used = [(values["id"], position, *each) for position, each in enumerate(values["used"])]
        except TypeError:
            raise _Refused("used is not a list of [memory, reason, score]: the file was changed") from None
        if any(len(each) != 5 for each in used):
            raise _Refused("used is not a list of [memory, reason, score]: the file was changed")
        self._connection.execute_many(
            "INSERT INTO exchange_memories (exchange_id, position, memory_id, reason, score) VALUES (?, ?, ?, ?, ?)",
            used,
        )

    def _content(self, values: Mapping[str, Any]) -> str:
        memory = Memory(
            id=values["id"],
            user_id=self._user_id,
            created_at=values["created_at_s"],
            kind=values["kind"],
            text=values["text"],
            prompt=values["prompt"],
            conversation_id=values["conversation_id"],
        )
        return rows.content_sha256(memory)

    def _here(self, table: str, id: str) -> sqlite3.Row | None:
        return self._connection.first(f"SELECT t.*{_EXTRA.get(table, '')} FROM {table} AS t WHERE t.id = ?", (id,))

    def _owned(self, table: str, id: str | int) -> bool:
        column = "number" if table == "adapter_versions" else "id"
        sql = f"SELECT 1 FROM {table} WHERE {column} = ? AND user_id = ?"
        return self._connection.first(sql, (id, self._user_id)) is not None

    def _same(self, table: str, values: Mapping[str, Any]) -> bool:
        columns = TABLES[table].same
        where = " AND ".join(f"{column} IS ?" for column in columns)
        params = (self._user_id, *(values[column] for column in columns))
        return self._connection.first(f"SELECT 1 FROM {table} WHERE user_id = ? AND {where}", params) is not None

    def _other_id(self, table: str, values: Mapping[str, Any]) -> str:
        """An id that the same row gets each time that it is imported for this user."""
        said = [self._user_id, values["id"], [values[column] for column in TABLES[table].same]]
        digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
        return f"{values['id'].split('-')[0]}-{digest[:24]}"


def _exported(connection: Connection, table: str, user_id: int) -> Iterator[dict[str, Any]]:
    """A user's rows of a table, some at a time."""
    order = TABLES[table].order
    last: object = "" if order == "id" else -1
    sql = (
        f"SELECT t.*{_EXTRA.get(table, '')} FROM {table} AS t WHERE t.user_id = ? AND t.{order} > ?"
        f" ORDER BY t.{order} LIMIT {_AT_ONCE}"
    )
    while found := connection.read(sql, (user_id, last)):
        yield from (exported(table, row) for row in found)
        last = found[-1][order]


def _is_same(table: str, here: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """Whether a row of the store is the one of the file. What was forgotten here since stays forgotten."""
    columns = TABLES[table].same
    if table == "exchanges" and FORGOTTEN in json.dumps([here["messages"], here["completion"]]):
        columns = ("created_at_s", "model")
    if table == "feedback" and here["state"] == "dismissed" and here["text"] is None and here["note"] is None:
        columns = ("created_at_s", "kind", "exchange_id")
    return all(here[column] == values[column] for column in columns)

"""Take what is to be forgotten out of the rows of one database file: the store, or a backup of it.

Rows that say it go; other texts that hold it have it replaced (``redact``). What goes whole and what is only redacted:

- the memories that were named go, with the older ones that they took the place of, and what the same signals made;
- any memory or signal that holds a forgotten text goes whole too: with a hole in it, it would teach the hole;
- exchanges, probes, graders, runs and versions keep their row. An exchange that was corrected stays as it was answered,
  unless it holds the text; a text too short to be looked for everywhere (``redact.tells``) is replaced in it as well.

A signal that was read from a deed keeps a blank row, so that the same deed is not read again. Lineage keeps the ids of
signals and memories that are gone. What is left out: files (``scrub``), and the weights of adapters.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from familiar.memory import free_space, memories, rows
from familiar.memory.database import Connection, Row
from familiar.memory.errors import NotFound
from familiar.memory.redact import Redactor, redactor, tells
from familiar.memory.words import same_text_key

_PLAIN = {
    "exchanges": ("completion",),
    "probes": ("prompt", "completion"),
    "graders": ("name",),
    "learning_runs": ("error",),
    "files": ("filename",),
    "fine_tuning_jobs": ("suffix",),
    "fine_tuning_events": ("message",),
}
_JSON = {
    "exchanges": ("messages_json", "sampling_json"),
    "graders": ("definition_json",),
    "learning_runs": ("config_json", "report_json"),
    "adapter_versions": ("report_json",),
    "fine_tuning_jobs": ("method_json", "metadata_json", "error_json"),
    "fine_tuning_events": ("data_json",),
}
_KEYS = {"graders": "id", "adapter_versions": "number"}
_AT_ONCE = 500
_IDS = "(SELECT value FROM json_each(?))"


@dataclass(frozen=True)
class Targets:
    """What a user wants forgotten: rows by their ids, the exchanges that these are about, and their texts.

    ``statements`` are those of the texts that are rules or facts, which the user may have stated more than once.
    """

    user_id: int
    memory_ids: frozenset[str] = frozenset()
    feedback_ids: frozenset[str] = frozenset()
    exchange_ids: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()
    statements: frozenset[str] = frozenset()

    @cached_property
    def everywhere(self) -> Redactor:
        """Finds the texts that say enough to be looked for in all that is stored."""
        return redactor(text for text in self.texts if tells(text))

    @cached_property
    def nearby(self) -> Redactor:
        """Finds the other texts, as whole words: for the exchanges that they were said about."""
        return redactor((text for text in self.texts if not tells(text)), whole_words=True)


@dataclass(frozen=True)
class Purged:
    """The rows that went, the number of others in which text was replaced, and the versions trained on what went."""

    memory_ids: tuple[str, ...] = ()
    feedback_ids: tuple[str, ...] = ()
    exchanges: int = 0
    others: int = 0
    versions: tuple[int, ...] = ()


def require(connection: Connection, user_id: int, ids: Sequence[str]) -> None:
    """Raise ``NotFound`` (param ``memory_id``) unless the user has all of these memories."""
    known = {row["id"] for row in _memories(connection, user_id, ids)}
    missing = next((id for id in ids if id not in known), None)
    if missing is not None:
        raise NotFound(f'No memory has the id "{missing}": check the id.', "memory_id")


def collect(connection: Connection, targets: Targets) -> Targets:
    """``targets`` with all that belongs to them in this file: older wordings, signals, what else these made, texts."""
    user_id = targets.user_id
    chain = connection.read(
        "WITH RECURSIVE older (id) AS (SELECT value FROM json_each(?1) UNION"
        " SELECT m.id FROM memories AS m JOIN older ON m.superseded_by = older.id WHERE m.user_id = ?2)"
        " SELECT id FROM older",
        (_ids(targets.memory_ids), user_id),
    )
    found = _memories(connection, user_id, [row["id"] for row in chain])
    feedback_ids = targets.feedback_ids | {row["feedback_id"] for row in found if row["feedback_id"]}
    signals = connection.read(
        f"SELECT * FROM feedback WHERE user_id = ? AND id IN {_IDS}", (user_id, _ids(feedback_ids))
    )
    found += connection.read(
        f"SELECT * FROM memories WHERE user_id = ? AND feedback_id IN {_IDS}", (user_id, _ids(feedback_ids))
    )
    said = {row["text"] for row in found}
    said |= {text for row in signals for text in (row["text"], row["note"]) if text}
    return replace(
        targets,
        memory_ids=targets.memory_ids | {row["id"] for row in found},
        feedback_ids=feedback_ids,
        exchange_ids=targets.exchange_ids | {row["exchange_id"] for row in signals if row["exchange_id"]},
        texts=targets.texts | said,
        statements=targets.statements | {row["text"] for row in found if row["kind"] != "example"},
    )


def purge(connection: Connection, targets: Targets) -> Purged:
    """Take ``targets`` out of the rows in one transaction. ``free_space.finish`` then takes them out of the file."""
    everywhere, nearby = targets.everywhere, targets.nearby
    with connection.write():
        feedback_ids = signals_to_go(connection, targets)
        memory_ids = targets.memory_ids | _holding(connection, targets.user_id, everywhere)
        gone = connection.read(
            f"SELECT id FROM memories WHERE user_id = ? AND (id IN {_IDS} OR feedback_id IN {_IDS}) ORDER BY seq",
            (targets.user_id, _ids(memory_ids), _ids(feedback_ids)),
        )
        versions = connection.read(
            f"SELECT DISTINCT number FROM adapter_version_feedback WHERE user_id = ? AND feedback_id IN {_IDS}"
            " ORDER BY number",
            (targets.user_id, _ids([*feedback_ids, *(row["id"] for row in gone)])),
        )
        connection.execute(f"DELETE FROM memories WHERE id IN {_IDS}", (_ids(row["id"] for row in gone),))
        connection.execute(
            f"DELETE FROM feedback WHERE user_id = ? AND id IN {_IDS} AND key IS NULL",
            (targets.user_id, _ids(feedback_ids)),
        )
        connection.execute(
            f"UPDATE feedback SET text = NULL, note = NULL, state = 'dismissed' WHERE user_id = ? AND id IN {_IDS}",
            (targets.user_id, _ids(feedback_ids)),
        )
        changed = _redact_tables(connection, targets.user_id, everywhere)
        others = sum(changed.values()) - changed["exchanges"] + _redact_prompts(connection, targets.user_id, everywhere)
        near = f"user_id = ? AND id IN {_IDS}", (targets.user_id, _ids(targets.exchange_ids))
        exchanges = changed["exchanges"] + _redact_table(connection, "exchanges", nearby, *near)
        memories.merge_index(connection)
        free_space.mark(connection)
    return Purged(
        memory_ids=tuple(row["id"] for row in gone),
        feedback_ids=tuple(sorted(feedback_ids)),
        exchanges=exchanges,
        others=others,
        versions=tuple(row["number"] for row in versions),
    )


def wipe(connection: Connection, user_id: int, *, keep_user: bool) -> None:
    """Delete every row of a user's in one transaction, or all but the user and their keys."""
    with connection.write():
        for table in ("current_versions", "adapter_versions", "learning_runs", "graders", "memories", "feedback"):
            connection.execute(f"DELETE FROM {table} WHERE user_id = ?", (user_id,))
        for table in ("exchanges", "conversations", "fine_tuning_jobs", "files"):
            connection.execute(f"DELETE FROM {table} WHERE user_id = ?", (user_id,))
        if not keep_user:
            connection.execute("DELETE FROM users WHERE id = ?", (user_id,))
        memories.merge_index(connection)
        free_space.mark(connection)


def signals_to_go(connection: Connection, targets: Targets) -> frozenset[str]:
    """The signals of ``targets``, and the user's others that hold a text, or state again what was a rule or a fact."""
    everywhere = targets.everywhere
    stated = {same_text_key(text) for text in targets.statements}
    found = set()
    for row in connection.read(
        "SELECT id, kind, text, note FROM feedback WHERE user_id = ? AND (text IS NOT NULL OR note IS NOT NULL)",
        (targets.user_id,),
    ):
        again = row["kind"] == "rule" and same_text_key(row["text"] or "") in stated
        again = again or same_text_key(row["note"] or "") in stated
        if again or everywhere.holds(row["text"]) or everywhere.holds(row["note"]):
            found.add(row["id"])
    return targets.feedback_ids | found


def _holding(connection: Connection, user_id: int, everywhere: Redactor) -> set[str]:
    rows_read = connection.read("SELECT id, text FROM memories WHERE user_id = ?", (user_id,))
    return {row["id"] for row in rows_read if everywhere.holds(row["text"])}


def _redact_prompts(connection: Connection, user_id: int, everywhere: Redactor) -> int:
    """Replace the texts in the messages that examples answer; one that says what another says then goes."""
    changed = 0
    for row in connection.read("SELECT * FROM memories WHERE user_id = ? AND prompt IS NOT NULL", (user_id,)):
        if not everywhere.holds(row["prompt"]):
            continue
        memory = rows.memory(row)
        memory = replace(memory, prompt=everywhere.text(memory.prompt or ""))
        sha256 = rows.content_sha256(memory)
        if connection.first("SELECT 1 FROM memories WHERE user_id = ? AND content_sha256 = ?", (user_id, sha256)):
            connection.execute("DELETE FROM memories WHERE id = ?", (memory.id,))
        else:
            connection.execute(
                "UPDATE memories SET prompt = ?, content_sha256 = ? WHERE id = ?", (memory.prompt, sha256, memory.id)
            )
        changed += 1
    return changed


def _redact_tables(connection: Connection, user_id: int, everywhere: Redactor) -> dict[str, int]:
    """Replace the texts in every other table; returns how many rows changed in each."""
    tables = dict.fromkeys([*_PLAIN, *_JSON])
    return {table: _redact_table(connection, table, everywhere, "user_id = ?", (user_id,)) for table in tables}


def _redact_table(connection: Connection, table: str, found: Redactor, where: str, params: Sequence[object]) -> int:
    if found.pattern is None:
        return 0
    key = _KEYS.get(table, "seq")
    ways: dict[str, Callable[[str], str]] = dict.fromkeys(_PLAIN.get(table, ()), found.text)
    ways |= dict.fromkeys(_JSON.get(table, ()), found.json)
    changed = 0
    for row in _rows(connection, table, key, list(ways), found.needles, where, params):
        after = {column: row[column] and ways[column](row[column]) for column in ways}
        if any(after[column] != row[column] for column in ways):
            sets = ", ".join(f"{column} = ?" for column in ways)
            connection.execute(
                f"UPDATE {table} SET {sets} WHERE {key} = ? AND {where}", (*after.values(), row[key], *params)
            )
            changed += 1
    return changed


def _rows(
    connection: Connection,
    table: str,
    key: str,
    columns: Sequence[str],
    needles: Sequence[str],
    where: str,
    params: Sequence[object],
) -> Iterator[Row]:
    """The rows that may hold a text, some at a time: a hundred thousand exchanges are not to be in memory at once."""
    may = " OR ".join(f"instr(lower({column}), ?)" for column in columns for _ in needles) or "1"
    looked_for = [needle for _ in columns for needle in needles]
    last: object = "" if key == "id" else -1
    while found := connection.read(
        f"SELECT {key}, {', '.join(columns)} FROM {table}"
        f" WHERE {where} AND ({may}) AND {key} > ? ORDER BY {key} LIMIT {_AT_ONCE}",
        (*params, *looked_for, last),
    ):
        yield from found
        last = found[-1][key]


def _memories(connection: Connection, user_id: int, ids: Iterable[str]) -> list[Row]:
    return connection.read(f"SELECT * FROM memories WHERE user_id = ? AND id IN {_IDS}", (user_id, _ids(ids)))


def _ids(ids: Iterable[str]) -> str:
    return json.dumps(sorted(ids))

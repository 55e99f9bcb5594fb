"""The store's queries that tell what a new memory says again, and what it ends. Functions over a ``Connection``.

The search index finds what to compare it with; ``contradiction`` compares.
"""

from familiar.memory import contradiction, rows
from familiar.memory.database import Connection
from familiar.memory.quoted import quoted_value
from familiar.memory.types import Memory
from familiar.memory.words import words

MAX_QUERY_WORDS = 128
"""A search takes the first so many different words of its text: a pasted book must not become the query."""

_CANDIDATES = 50
"""So many stored memories at most are compared with a new one, those that share its words best."""

_MATCHING = (
    "SELECT m.* FROM memories_fts JOIN memories AS m ON m.seq = memories_fts.rowid"
    " WHERE memories_fts MATCH ? AND m.user_id = ? AND m.state = 'active' AND m.id <> ?"
)


def supersede(connection: Connection, newer: Memory, now: float) -> bool:
    """Within a transaction: end the active memories that an active one contradicts; whether there were any."""
    older = contradiction.contradicted(newer, _candidates(connection, newer))
    older += [each for rule in older for each in _showing(connection, newer, rule)]
    connection.execute_many(
        "UPDATE memories SET state = 'superseded', superseded_by = ?, ended_at_s = ? WHERE id = ?",
        [(newer.id, now, each.id) for each in older],
    )
    if any(each.pinned for each in older):
        # What the user always wants shown is the subject; its value is what has changed.
        connection.execute("UPDATE memories SET pinned = 1 WHERE id = ?", (newer.id,))
    return bool(older)


def _showing(connection: Connection, newer: Memory, older: Memory) -> list[Memory]:
    """The active examples that show what the older wish asked for between quotes, and not what the newer one does."""
    values = [quoted_value(memory.text) for memory in (newer, older)]
    if values[0] is None or values[1] is None:
        return []
    now, then = values[0][1], values[1][1]
    phrase = words(then)[:MAX_QUERY_WORDS]
    if not phrase:
        return []
    found = connection.read(
        f"{_MATCHING} AND m.kind = 'example'", (f"text : {quoted(' '.join(phrase))}", newer.user_id, newer.id)
    )
    return [each for each in map(rows.memory, found) if then in each.text and now not in each.text]


def same(connection: Connection, memory: Memory) -> Memory | None:
    """The user's memory, in whatever state, that says what this one says, spelt alike."""
    row = connection.first(
        "SELECT * FROM memories WHERE user_id = ? AND content_sha256 = ?",
        (memory.user_id, rows.content_sha256(memory)),
    )
    return None if row is None else rows.memory(row)


def alike(connection: Connection, memory: Memory) -> Memory | None:
    """An active memory of the user's that says it in other words for the same."""
    candidates = _candidates(connection, memory)
    return next((each for each in candidates if contradiction.says_the_same(memory, each)), None)


def _candidates(connection: Connection, memory: Memory) -> list[Memory]:
    """The active memories that ``memory`` may say again or contradict, by the index: never all of them are read."""
    if memory.kind == "example":
        return with_prompt(connection, memory.user_id, memory.prompt or "", but=memory.id)
    groups = [" AND ".join(quoted(word) for word in group) for group in contradiction.lookups(memory)]
    if not groups:
        return []
    found = connection.read(
        f"{_MATCHING} AND m.kind <> 'example' ORDER BY bm25(memories_fts), m.seq DESC LIMIT ?",
        (" OR ".join(f"({group})" for group in groups), memory.user_id, memory.id, _CANDIDATES),
    )
    return [rows.memory(row) for row in found]


def with_prompt(connection: Connection, user_id: int, prompt: str, *, but: str = "") -> list[Memory]:
    """The active examples with a prompt's words in their order, the shortest first; without the memory ``but``.

    A prompt that is just these is the shortest of those that hold them.
    """
    phrase = words(prompt)[:MAX_QUERY_WORDS]
    if phrase:
        found = connection.read(
            f"{_MATCHING} AND m.kind = 'example' ORDER BY length(m.prompt), m.seq DESC LIMIT ?",
            (f"prompt : {quoted(' '.join(phrase))}", user_id, but, _CANDIDATES),
        )
    else:
        found = connection.read(
            "SELECT * FROM memories WHERE user_id = ? AND state = 'active' AND kind = 'example' AND prompt = ?",
            (user_id, prompt),
        )
    return [rows.memory(row) for row in found]


def quoted(text: str) -> str:
    """``text`` as a phrase of FTS5, to which AND, OR, NEAR and * are then words like any other."""
    return f'"{text}"'

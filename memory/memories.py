"""The store's queries about memories: read, search, and put so that nothing is twice and the newest word counts.

Functions over a ``Connection``; ``Store`` is their face to the rest of the program. What a new memory says again, and
what it ends, is found in ``restating``; what has to make room for it, in ``eviction``.
"""

from collections.abc import Sequence
from dataclasses import replace

from familiar.memory import eviction, exchanges, restating, rows, users
from familiar.memory.database import Connection, Row
from familiar.memory.errors import InvalidInput, NotFound
from familiar.memory.types import Memory, MemoryChanges, MemoryKind, MemoryState
from familiar.memory.words import words

_ACTIVE: tuple[MemoryState, ...] = ("active",)


# Reading


def listed(
    connection: Connection, user_id: int, kind: MemoryKind | None = None, states: Sequence[MemoryState] = _ACTIVE
) -> list[Memory]:
    """See ``Store.memories``."""
    found = connection.read(
        f"SELECT * FROM memories WHERE user_id = ? AND state IN ({_marks(states)}) AND (? IS NULL OR kind = ?)"
        " ORDER BY created_at_s, seq",
        (user_id, *states, kind, kind),
    )
    return [rows.memory(row) for row in found]


def get(connection: Connection, user_id: int, id: str) -> Memory:
    """See ``Store.memory``."""
    return rows.memory(_row(connection, user_id, id))


def search(
    connection: Connection,
    user_id: int,
    text: str,
    limit: int = 20,
    kind: MemoryKind | None = None,
    states: Sequence[MemoryState] = _ACTIVE,
) -> list[tuple[Memory, float]]:
    """See ``Store.search_memories``."""
    different = list(dict.fromkeys(words(text)))[: restating.MAX_QUERY_WORDS]
    if not different:
        return []
    found = connection.read(
        "SELECT m.*, -bm25(memories_fts) AS score"
        " FROM memories_fts JOIN memories AS m ON m.seq = memories_fts.rowid"
        f" WHERE memories_fts MATCH ? AND m.user_id = ? AND m.state IN ({_marks(states)}) AND (? IS NULL OR m.kind = ?)"
        " ORDER BY score DESC, m.created_at_s DESC, m.seq DESC LIMIT ?",
        (" OR ".join(restating.quoted(word) for word in different), user_id, *states, kind, kind, limit),
    )
    return [(rows.memory(row), row["score"]) for row in found]


def by_seqs(connection: Connection, user_id: int, seqs: Sequence[int]) -> dict[int, Memory]:
    """The user's active memories of those sequence numbers."""
    # The + keeps SQLite from going through all of the user's memories by another index.
    found = connection.read(
        f"SELECT * FROM memories WHERE +user_id = ? AND +state = 'active' AND seq IN ({_marks(seqs)})", (user_id, *seqs)
    )
    return {row["seq"]: rows.memory(row) for row in found}


def standing(connection: Connection, user_id: int, conversation_id: str | None, limit: int) -> list[Memory]:
    """What is shown whatever is asked: pinned memories, those of scope always, and those of this conversation.

    The pinned ones come first, then those of this conversation, and of each the newest.
    """
    # Left to itself SQLite would go through all active memories: it knows nothing of how few of them this index holds.
    found = connection.read(
        "SELECT * FROM memories INDEXED BY memories_standing"
        " WHERE user_id = ? AND state = 'active' AND (scope <> 'related' OR pinned)"
        " AND (scope <> 'conversation' OR conversation_id = ?)"
        " ORDER BY pinned DESC, scope <> 'conversation', created_at_s DESC, seq DESC LIMIT ?",
        (user_id, conversation_id, limit),
    )
    return [rows.memory(row) for row in found]


def history(connection: Connection, user_id: int, id: str) -> list[Memory]:
    """See ``Store.history_of``."""
    get(connection, user_id, id)
    found = connection.read(
        "WITH RECURSIVE chain (id) AS (SELECT ?1 UNION"
        " SELECT CASE WHEN m.id = chain.id THEN m.superseded_by ELSE m.id END"
        " FROM chain JOIN memories AS m ON m.user_id = ?2 AND (m.superseded_by = chain.id OR m.id = chain.id))"
        " SELECT * FROM memories WHERE user_id = ?2 AND id IN (SELECT id FROM chain) ORDER BY created_at_s, seq",
        (id, user_id),
    )
    return [rows.memory(row) for row in found]


# Writing


def put(connection: Connection, memory: Memory, now: float, cap: int) -> Memory:
    """See ``Store.put_memory``; ``cap`` is how many memories of a user may be active."""
    with connection.write():
        users.require(connection, memory.user_id)
        return put_all(connection, (memory,), now, cap)[0]


def put_all(connection: Connection, made: Sequence[Memory], now: float, cap: int) -> tuple[Memory, ...]:
    """Within a transaction: store what was just said, each once, ending what it contradicts; return it as stored."""
    ids = []
    superseded = False
    for memory in made:
        kept = _put(connection, memory)
        superseded |= restating.supersede(connection, kept, now)
        ids.append(kept.id)
    for user_id in {memory.user_id for memory in made}:
        eviction.make_room(connection, user_id, cap, now, spared=ids, superseded=superseded)
    return tuple(get(connection, memory.user_id, id) for memory, id in zip(made, ids, strict=True))


def edit(connection: Connection, user_id: int, id: str, now: float, changes: MemoryChanges) -> Memory:
    """See ``Store.edit_memory``."""
    with connection.write():
        before = get(connection, user_id, id)
        after = replace(before, **changes)
        after = replace(after, text=after.text.strip(), prompt=None if after.prompt is None else after.prompt.strip())
        if after.kind != "example" and "prompt" not in changes:
            after = replace(after, prompt=None)
        if not after.text:
            raise InvalidInput("The memory is empty: write what is to be remembered, or forget it.", "text")
        _check(connection, after)
        said_anew = (after.kind, after.text, after.prompt) != (before.kind, before.text, before.prompt)
        if said_anew:
            after = replace(after, created_at=now)
        same = restating.same(connection, after)
        if said_anew and (same is None or same.id == id):
            same = restating.alike(connection, after)
        if same is not None and same.id != id:
            raise InvalidInput(
                f'The memory "{same.id}" ({same.state}) says the same: forget one of them, or restore that one.', "text"
            )
        _update(connection, after)
        if said_anew and after.state == "active":
            restating.supersede(connection, after, now)
        return get(connection, user_id, id)


def restore(connection: Connection, user_id: int, id: str, now: float) -> Memory:
    """See ``Store.restore_memory``."""
    with connection.write():
        memory = get(connection, user_id, id)
        if memory.state != "active":
            same = restating.alike(connection, memory)
            if same is not None:
                raise InvalidInput(f'The memory "{same.id}" says the same and is active: edit that one.', "memory_id")
            memory = replace(memory, created_at=now, state="active", superseded_by=None, ended_at=None)
            _update(connection, memory)
            restating.supersede(connection, memory, now)
        return get(connection, user_id, id)


def merge_index(connection: Connection) -> None:
    """Within a transaction: drop deleted words from the search index, which else only marks them as gone."""
    connection.execute("INSERT INTO memories_fts (memories_fts) VALUES ('optimize')")


def _put(connection: Connection, memory: Memory) -> Memory:
    _check(connection, memory)
    stored = restating.same(connection, memory) or restating.alike(connection, memory)
    if stored is None:
        kept = memory
        connection.execute(
            "INSERT INTO memories (id, user_id, created_at_s, kind, text, prompt, feedback_id, scope, conversation_id,"
            " pinned, source, state, superseded_by, ended_at_s, uses, last_used_at_s, content_sha256)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                kept.id,
                kept.user_id,
                kept.created_at,
                kept.kind,
                kept.text,
                kept.prompt,
                kept.feedback_id,
                kept.scope,
                kept.conversation_id,
                kept.pinned,
                kept.source,
                kept.state,
                kept.superseded_by,
                kept.ended_at,
                kept.uses,
                kept.last_used_at,
                rows.content_sha256(kept),
            ),
        )
    else:
        kept = replace(
            memory,
            id=stored.id,
            conversation_id=memory.conversation_id or stored.conversation_id,
            pinned=memory.pinned or stored.pinned,
        )
        _update(connection, kept)
    return kept


def _update(connection: Connection, memory: Memory) -> None:
    # The texts are left alone where they are the same: to change them is to index and embed them again.
    connection.execute(
        "UPDATE memories SET text = ?, prompt = ? WHERE id = ? AND (text <> ? OR prompt IS NOT ?)",
        (memory.text, memory.prompt, memory.id, memory.text, memory.prompt),
    )
    connection.execute(
        "UPDATE memories SET created_at_s = ?, kind = ?, feedback_id = ?, scope = ?, conversation_id = ?, pinned = ?,"
        " source = ?, state = ?, superseded_by = ?, ended_at_s = ?, content_sha256 = ? WHERE id = ?",
        (
            memory.created_at,
            memory.kind,
            memory.feedback_id,
            memory.scope,
            memory.conversation_id,
            memory.pinned,
            memory.source,
            memory.state,
            memory.superseded_by,
            memory.ended_at,
            rows.content_sha256(memory),
            memory.id,
        ),
    )


def _check(connection: Connection, memory: Memory) -> None:
    if memory.kind != "example" and memory.prompt is not None:
        raise InvalidInput(f"A {memory.kind} has no prompt: leave it out, or make it an example.", "prompt")
    if memory.kind == "example" and memory.prompt is None:
        raise InvalidInput("An example needs a prompt, the message that it answers: send it.", "prompt")
    if memory.conversation_id is not None:
        exchanges.require_conversation(connection, memory.user_id, memory.conversation_id)
    elif memory.scope == "conversation":
        raise InvalidInput("A memory for one conversation needs its conversation_id: send it.", "conversation_id")


def _row(connection: Connection, user_id: int, id: str) -> Row:
    row = connection.first("SELECT * FROM memories WHERE id = ? AND user_id = ?", (id, user_id))
    if row is None:
        raise _missing(id)
    return row


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _missing(id: str) -> NotFound:
    return NotFound(f'No memory has the id "{id}": check the id.', "memory_id")

"""The store's queries about exchanges: what was asked and answered, in which conversation, with which memories.

Functions over a ``Connection``; ``Store`` is their face to the rest of the program.
"""

import secrets
from collections.abc import Sequence

from familiar.memory import rows, users
from familiar.memory.database import Connection
from familiar.memory.errors import NotFound
from familiar.memory.history import history_key, last_reply, previous_key, user_turns
from familiar.memory.types import Exchange, Message, Used

REGENERATED_WITHIN_S = 3600.0
"""A first message that is sent again within this time, with nothing said since, asks for another reply to it."""

SELECT = """
SELECT e.*, (SELECT json_group_array(json_array(memory_id, reason, score)) FROM (
    SELECT memory_id, reason, score FROM exchange_memories AS used
    WHERE used.exchange_id = e.id ORDER BY used.position)) AS used_json
FROM exchanges AS e
"""
"""The rows that ``rows.exchange`` reads; ``e`` is the exchange."""


def add(connection: Connection, exchange: Exchange) -> str:
    """See ``Store.add_exchange``."""
    with connection.write(durable=False):
        users.require(connection, exchange.user_id)
        conversation_id = _conversation_for(connection, exchange)
        connection.execute(
            "INSERT INTO exchanges (id, user_id, created_at_s, conversation_id, history_sha256, model, messages_json,"
            " completion, adapter_version, sampling_json, prompt_tokens, completion_tokens, finish_reason, duration_ms)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                exchange.id,
                exchange.user_id,
                exchange.created_at,
                conversation_id,
                history_key(exchange.messages),
                exchange.model,
                rows.to_json(exchange.messages),
                exchange.completion,
                exchange.adapter_version,
                rows.to_json(exchange.sampling),
                exchange.prompt_tokens,
                exchange.completion_tokens,
                exchange.finish_reason,
                exchange.duration_ms,
            ),
        )
        connection.execute_many(
            "INSERT INTO exchange_memories (exchange_id, position, memory_id, reason, score) VALUES (?, ?, ?, ?, ?)",
            [
                (exchange.id, position, used.memory_id, used.reason, used.score)
                for position, used in enumerate(exchange.used)
            ],
        )
        connection.execute_many(
            "UPDATE memories SET uses = uses + 1, last_used_at_s = max(coalesce(last_used_at_s, ?1), ?1)"
            " WHERE id = ?2 AND user_id = ?3",
            [(exchange.created_at, used.memory_id, exchange.user_id) for used in exchange.used],
        )
    return conversation_id


def get(connection: Connection, user_id: int, id: str) -> Exchange:
    """See ``Store.exchange``."""
    row = connection.first(f"{SELECT} WHERE e.id = ? AND e.user_id = ?", (id, user_id))
    if row is None:
        raise missing(id)
    return rows.exchange(row)


def newest(connection: Connection, user_id: int, limit: int, until: float) -> list[Exchange]:
    """See ``Store.exchanges``."""
    sql = f"{SELECT} WHERE e.user_id = ? AND e.created_at_s <= ? ORDER BY e.created_at_s DESC, e.seq DESC LIMIT ?"
    return [rows.exchange(row) for row in connection.read(sql, (user_id, until, limit))]


def replies_to(connection: Connection, user_id: int, messages: Sequence[Message], limit: int) -> list[Exchange]:
    """See ``Store.replies_to``."""
    sql = f"{SELECT} WHERE e.user_id = ? AND e.history_sha256 = ? ORDER BY e.seq DESC LIMIT ?"
    return [rows.exchange(row) for row in connection.read(sql, (user_id, history_key(messages), limit))]


def conversation_of(connection: Connection, user_id: int, messages: Sequence[Message], now: float) -> str | None:
    """See ``Store.conversation_of``; ``now`` is when the request came, in seconds since the epoch."""
    before = previous_key(messages)
    if before is None:
        return _regenerated(connection, user_id, messages, now)
    # Several conversations may begin alike, with "Hello" say: the reply that the client shows tells which one it is.
    row = connection.first(
        "SELECT conversation_id FROM exchanges WHERE user_id = ? AND history_sha256 = ? AND conversation_id IS NOT NULL"
        " ORDER BY trim(completion, ' ' || char(9, 10, 13)) = ? DESC, seq DESC LIMIT 1",
        (user_id, before, (last_reply(messages) or "").strip(" \t\n\r")),
    )
    return None if row is None else str(row["conversation_id"])


def new_conversation(connection: Connection, user_id: int, now: float) -> str:
    """Within a transaction: make a conversation and return its id."""
    id = f"conv-{secrets.token_hex(12)}"
    connection.execute("INSERT INTO conversations (id, user_id, created_at_s) VALUES (?, ?, ?)", (id, user_id, now))
    return id


def using(connection: Connection, user_id: int, memory_id: str, limit: int) -> list[tuple[Exchange, Used]]:
    """See ``Store.use_of``."""
    sql = (
        f"{SELECT} JOIN exchange_memories AS shown ON shown.exchange_id = e.id"
        " WHERE shown.memory_id = ? AND e.user_id = ? ORDER BY e.created_at_s DESC, e.seq DESC LIMIT ?"
    )
    found = [rows.exchange(row) for row in connection.read(sql, (memory_id, user_id, limit))]
    return [(exchange, used) for exchange in found for used in exchange.used if used.memory_id == memory_id]


def require(connection: Connection, user_id: int, id: str) -> None:
    """Raise ``NotFound`` (param ``completion_id``) unless the user has that exchange."""
    if connection.first("SELECT 1 FROM exchanges WHERE id = ? AND user_id = ?", (id, user_id)) is None:
        raise missing(id)


def require_conversation(connection: Connection, user_id: int, id: str) -> None:
    """Raise ``NotFound`` (param ``conversation_id``) unless the user has that conversation."""
    if not _is_conversation(connection, user_id, id):
        raise NotFound(f'No conversation has the id "{id}": use one that an exchange names.', "conversation_id")


def missing(id: str) -> NotFound:
    """The error for an exchange that the user does not have."""
    return NotFound(f'No completion has the id "{id}": use the id of a reply from this service.', "completion_id")


def _conversation_for(connection: Connection, exchange: Exchange) -> str:
    given = exchange.conversation_id
    if given is not None and _is_conversation(connection, exchange.user_id, given):
        return given
    found = conversation_of(connection, exchange.user_id, exchange.messages, exchange.created_at)
    if found is not None:
        return found
    return new_conversation(connection, exchange.user_id, exchange.created_at)


def _regenerated(connection: Connection, user_id: int, messages: Sequence[Message], now: float) -> str | None:
    if not user_turns(messages):
        return None
    # The + keeps SQLite from going through all of the last hour's exchanges by another index.
    row = connection.first(
        "SELECT conversation_id, EXISTS (SELECT 1 FROM exchanges AS later WHERE later.conversation_id ="
        " first.conversation_id AND later.seq > first.seq) AS went_on FROM exchanges AS first"
        " WHERE user_id = ? AND history_sha256 = ? AND +created_at_s > ? AND conversation_id IS NOT NULL"
        " ORDER BY seq DESC LIMIT 1",
        (user_id, history_key(messages), now - REGENERATED_WITHIN_S),
    )
    # Many a new conversation begins with "Hello", as the one before it did.
    return None if row is None or row["went_on"] else str(row["conversation_id"])


def _is_conversation(connection: Connection, user_id: int, id: str) -> bool:
    sql = "SELECT 1 FROM conversations WHERE id = ? AND user_id = ?"
    return connection.first(sql, (id, user_id)) is not None

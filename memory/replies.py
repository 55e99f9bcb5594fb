"""The store's queries that tell a client's history from what was answered. Functions over a ``Connection``.

Every request asks them, so they read no more of an exchange than what its reply was.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from familiar.memory import exchanges, rows, users
from familiar.memory.database import Connection
from familiar.memory.types import Feedback


@dataclass(frozen=True)
class Reply:
    """What an exchange answered, and when (seconds since the epoch)."""

    exchange_id: str
    conversation_id: str | None
    created_at: float
    model: str
    completion: str
    finish_reason: str


def at(connection: Connection, user_id: int, history_keys: Sequence[str], limit: int) -> list[list[Reply]]:
    """See ``Store.replies_at``."""
    sql = (
        "SELECT id, conversation_id, created_at_s, model, completion, finish_reason FROM exchanges"
        " WHERE user_id = ? AND history_sha256 = ? ORDER BY seq DESC LIMIT ?"
    )
    return [[Reply(*row) for row in connection.read(sql, (user_id, key, limit))] for key in history_keys]


def feedback_on(connection: Connection, user_id: int, exchange_ids: Sequence[str]) -> list[Feedback]:
    """See ``Store.feedback_on``."""
    marks = ", ".join("?" * len(exchange_ids))
    # The + keeps SQLite from going through all of the user's feedback by another index.
    sql = f"SELECT * FROM feedback WHERE +user_id = ? AND exchange_id IN ({marks}) ORDER BY created_at_s, seq"
    return [rows.feedback(row) for row in connection.read(sql, (user_id, *exchange_ids))]


def start_conversation(connection: Connection, user_id: int, now: float) -> str:
    """See ``Store.start_conversation``."""
    with connection.write(durable=False):
        users.require(connection, user_id)
        return exchanges.new_conversation(connection, user_id, now)


def feedback_by_key(connection: Connection, user_id: int, key: str) -> Feedback | None:
    """See ``Store.feedback_by_key``."""
    row = connection.first("SELECT * FROM feedback WHERE user_id = ? AND key = ?", (user_id, key))
    return None if row is None else rows.feedback(row)

"""The store's queries about feedback: what the user said of replies, and what was read from what they did.

Functions over a ``Connection``; ``Store`` is their face to the rest of the program.
"""

from collections.abc import Sequence
from typing import Literal

from familiar.memory import consolidated, exchanges, memories, rows, users
from familiar.memory.database import Connection
from familiar.memory.errors import InvalidInput, NotFound
from familiar.memory.types import Exchange, Feedback, Memory


def add(connection: Connection, feedback: Feedback, made: Sequence[Memory], cap: int) -> tuple[Memory, ...]:
    """See ``Store.add_feedback``; ``cap`` is how many memories of a user may be active."""
    # Nobody was told of a reply that was asked for again, and a request waits for this.
    with connection.write(durable=feedback.kind != "regeneration"):
        users.require(connection, feedback.user_id)
        if feedback.key is not None and has(connection, feedback.user_id, feedback.key):
            return ()
        if feedback.exchange_id is not None:
            exchanges.require(connection, feedback.user_id, feedback.exchange_id)
        connection.execute(
            "INSERT INTO feedback (id, user_id, created_at_s, kind, exchange_id, text, rating, note, source, trust,"
            " state, key) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                feedback.id,
                feedback.user_id,
                feedback.created_at,
                feedback.kind,
                feedback.exchange_id,
                feedback.text,
                feedback.rating,
                feedback.note,
                feedback.source,
                feedback.trust,
                feedback.state,
                feedback.key,
            ),
        )
        consolidated.doubt(connection, feedback)
        return memories.put_all(connection, made, feedback.created_at, cap) if feedback.state == "active" else ()


def has(connection: Connection, user_id: int, key: str) -> bool:
    """See ``Store.has_feedback``."""
    return connection.first("SELECT 1 FROM feedback WHERE user_id = ? AND key = ?", (user_id, key)) is not None


def get(connection: Connection, user_id: int, id: str) -> Feedback:
    """See ``Store.feedback``."""
    row = connection.first("SELECT * FROM feedback WHERE id = ? AND user_id = ?", (id, user_id))
    if row is None:
        raise _missing(id)
    return rows.feedback(row)


def active(connection: Connection, user_id: int) -> list[tuple[Feedback, Exchange | None]]:
    """See ``Store.feedback_rows``."""
    signals = _in_state(connection, user_id, "active")
    about = connection.read(
        f"{exchanges.SELECT} WHERE e.user_id = ? AND e.id IN"
        " (SELECT exchange_id FROM feedback WHERE user_id = ? AND state = 'active')",
        (user_id, user_id),
    )
    found = {row["id"]: rows.exchange(row) for row in about}
    return [(signal, found.get(signal.exchange_id)) for signal in signals]


def pending(connection: Connection, user_id: int) -> list[Feedback]:
    """See ``Store.pending``."""
    return _in_state(connection, user_id, "pending")


def settle(
    connection: Connection,
    user_id: int,
    id: str,
    state: Literal["active", "dismissed"],
    made: Sequence[Memory],
    text: str | None,
    now: float,
    cap: int,
) -> tuple[Memory, ...]:
    """See ``Store.settle``; ``now`` is in seconds since the epoch."""
    with connection.write():
        feedback = get(connection, user_id, id)
        if feedback.state != "pending":
            raise InvalidInput(f'The feedback "{id}" is {feedback.state}, not pending: it is settled.', "feedback_id")
        connection.execute(
            "UPDATE feedback SET state = ?, text = coalesce(?, text) WHERE id = ? AND user_id = ?",
            (state, text, id, user_id),
        )
        consolidated.doubt(connection, feedback)
        return memories.put_all(connection, made, now, cap) if state == "active" else ()


def _in_state(connection: Connection, user_id: int, state: str) -> list[Feedback]:
    sql = "SELECT * FROM feedback WHERE user_id = ? AND state = ? ORDER BY created_at_s, seq"
    return [rows.feedback(row) for row in connection.read(sql, (user_id, state))]


def _missing(id: str) -> NotFound:
    return NotFound(f'No feedback has the id "{id}": check the id.', "feedback_id")

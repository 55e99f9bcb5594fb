"""The store's queries about consolidation: which memories an adapter version follows untold, and stays so trusted in.

Such a memory is left out of the version's prompts. It is told again once the replies under that version are corrected,
or the memory is said again or changed (a trigger of ``schema``). Functions over a ``Connection``; ``Store`` is their
face to the rest of the program.
"""

from collections.abc import Sequence

from familiar.memory import lineage
from familiar.memory.database import Connection
from familiar.memory.types import Feedback, Memory

LATEST = 8
"""The newest replies by which a version is judged to follow a memory still."""
MOST_DISLIKED = 1
"""Of these so many may be corrected, bettered or called bad: one may have been about something else."""


def of_version(connection: Connection, user_id: int, version: int) -> frozenset[str]:
    """See ``Store.consolidated``."""
    found = connection.read(
        "SELECT memory_id FROM consolidated_memories WHERE user_id = ? AND number = ?", (user_id, version)
    )
    return frozenset(row["memory_id"] for row in found)


def put(connection: Connection, user_id: int, version: int, measured: Sequence[Memory]) -> None:
    """See ``Store.set_consolidated``."""
    with connection.write():
        keep(connection, user_id, version, measured)


def keep(connection: Connection, user_id: int, version: int, measured: Sequence[Memory]) -> None:
    """Within a transaction: as ``put``."""
    lineage.require_version(connection, user_id, version)
    connection.execute("DELETE FROM consolidated_memories WHERE user_id = ? AND number = ?", (user_id, version))
    connection.execute_many(
        "INSERT INTO consolidated_memories (user_id, number, memory_id)"
        " SELECT user_id, ?, id FROM memories"
        " WHERE id = ? AND user_id = ? AND created_at_s = ? AND state = 'active' AND NOT pinned",
        [(version, memory.id, user_id, memory.created_at) for memory in measured],
    )


def doubt(connection: Connection, feedback: Feedback) -> None:
    """Within a transaction that stored ``feedback``: tell again what the replies that it is about no longer follow."""
    if feedback.exchange_id is None:
        return
    learnt = connection.read(
        "SELECT c.number, c.memory_id FROM exchanges AS e"
        " JOIN exchange_memories AS u ON u.exchange_id = e.id AND u.reason = 'learnt'"
        " JOIN consolidated_memories AS c"
        " ON c.user_id = e.user_id AND c.number = e.adapter_version AND c.memory_id = u.memory_id"
        " WHERE e.id = ? AND e.user_id = ?",
        (feedback.exchange_id, feedback.user_id),
    )
    for row in learnt:
        of = (feedback.user_id, row["number"], row["memory_id"])
        if _disliked(connection, *of) > MOST_DISLIKED:
            connection.execute(
                "DELETE FROM consolidated_memories WHERE user_id = ? AND number = ? AND memory_id = ?", of
            )


def _disliked(connection: Connection, user_id: int, version: int, memory_id: str) -> int:
    """How many of the latest replies that a version gave with the memory untold the user was not content with."""
    found = connection.first(
        "SELECT count(*) FROM (SELECT e.id FROM exchange_memories AS u JOIN exchanges AS e ON e.id = u.exchange_id"
        " WHERE u.memory_id = ? AND u.reason = 'learnt' AND e.user_id = ? AND e.adapter_version = ?"
        " ORDER BY e.created_at_s DESC, e.seq DESC LIMIT ?) AS latest"
        " WHERE EXISTS (SELECT 1 FROM feedback AS f WHERE f.exchange_id = latest.id AND f.state = 'active'"
        " AND f.trust <> 'untrusted' AND (f.kind IN ('correction', 'preference') OR f.rating < 0))",
        (memory_id, user_id, version, LATEST),
    )
    return int(found[0]) if found else 0

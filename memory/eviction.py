"""Making room: how many memories of a user stay active, and which go first.

A cap keeps search quick and the memory free of what was said once and never mattered again. What goes is kept as
``evicted``, from where it can be restored, until ten times the cap of ended memories have gathered.
"""

import math
from collections.abc import Collection

from familiar.memory.database import Connection

HALF_LIFE_S = 90 * 86_400.0
"""A memory is worth half as much for each such time since it was last stated or shown."""

ENDED_PER_ACTIVE = 10
"""Ended memories (superseded, evicted) are kept up to this many times the cap."""

_SLACK = 100
"""Where a cap is passed, one in so many more than needed go, so that not every statement has to weigh them all."""


def worth(uses: int, last_s: float, now: float) -> float:
    """What a memory is worth that was shown ``uses`` times and last stated or shown at ``last_s`` (seconds)."""
    return (1 + math.log2(1 + uses)) * math.pow(0.5, max(0.0, now - last_s) / HALF_LIFE_S)


def make_room(
    connection: Connection, user_id: int, cap: int, now: float, spared: Collection[str] = (), *, superseded: bool = True
) -> int:
    """Within a transaction: evict the user's least worthy memories beyond ``cap``; return how many went.

    Pinned ones and those named by ``spared`` stay, even where that leaves more than the cap. ``superseded`` says
    whether there may be more ended ones than before.
    """
    excess = _count(connection, user_id, "state = 'active'") - cap
    evicted = 0
    if excess > 0:
        evicted = _evict(connection, user_id, excess + cap // _SLACK, now, spared)
    if evicted or superseded:
        _delete_oldest_ended(connection, user_id, ENDED_PER_ACTIVE * cap)
    return evicted


def _evict(connection: Connection, user_id: int, count: int, now: float, spared: Collection[str]) -> int:
    found = connection.read(
        "SELECT seq, id, uses, max(created_at_s, coalesce(last_used_at_s, created_at_s)) AS last_s FROM memories"
        " WHERE user_id = ? AND state = 'active' AND NOT pinned ORDER BY last_s, seq",
        (user_id,),
    )
    may_go = [row for row in found if row["id"] not in spared]
    least = sorted(may_go, key=lambda row: worth(row["uses"], row["last_s"], now))[:count]
    connection.execute_many(
        "UPDATE memories SET state = 'evicted', superseded_by = NULL, ended_at_s = ? WHERE seq = ?",
        [(now, row["seq"]) for row in least],
    )
    return len(least)


def _delete_oldest_ended(connection: Connection, user_id: int, keep: int) -> None:
    excess = _count(connection, user_id, "state IN ('superseded', 'evicted')") - keep
    if excess > 0:
        connection.execute(
            "DELETE FROM memories WHERE seq IN (SELECT seq FROM memories WHERE user_id = ?"
            " AND state IN ('superseded', 'evicted') ORDER BY ended_at_s, seq LIMIT ?)",
            (user_id, excess),
        )


def _count(connection: Connection, user_id: int, where: str) -> int:
    row = connection.first(f"SELECT count(*) FROM memories WHERE user_id = ? AND {where}", (user_id,))
    return int(row[0]) if row else 0

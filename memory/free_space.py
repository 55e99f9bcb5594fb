"""Take deleted text out of a database file's free space and its log: at once, or as soon as nobody stands in the way.

Overwriting what is deleted, as SQLite does for us (``secure_delete``), is not enough: rows that were moved to another
page leave a copy on the old one, and the log has what the pages were. So the file is written anew.
"""

import time
from collections.abc import Callable

from familiar.memory.database import Connection
from familiar.memory.errors import Busy, NoSpace

_PAUSE_S = 0.001


def mark(connection: Connection) -> None:
    """Within a transaction that deletes: note that there is something for ``finish`` to do."""
    # The file's user_version is ours to use: migrations have a table. It counts, so that what was deleted meanwhile is
    # not taken for finished.
    connection.execute(f"PRAGMA user_version = {_marked(connection) + 1}")


def finish(connection: Connection, *, wait: bool = True) -> bool:
    """Write the file anew if it is marked, and empty its log; return whether nothing is left to do.

    Another process that goes on using the file for as long as the connection waits for others puts it off, and so does
    a full disk; the next ``finish`` does it then. Without ``wait`` it is tried once. It takes about a second for
    200 MB, and as much room for the time.
    """
    marked = _marked(connection)
    if not marked:
        return True
    waiting_s = connection.read("PRAGMA busy_timeout")[0][0] / 1000 if wait else 0.0
    # One of its own, as it is not to wait in SQLite's way, which seldom finds the gap between another's two writes.
    own = Connection(connection.path, now=0.0)
    try:
        own.read("PRAGMA busy_timeout = 0")
        deadline = time.monotonic() + waiting_s
        if not (_until(deadline, lambda: _written_anew(own)) and _until(deadline, own.empty_log)):
            return False
        own.read(f"PRAGMA busy_timeout = {waiting_s * 1000:.0f}")
        with own.write():
            if _marked(own) == marked:
                own.execute("PRAGMA user_version = 0")
        return True
    except (Busy, NoSpace):
        return False
    finally:
        own.close()


def _until(deadline: float, tried: Callable[[], bool]) -> bool:
    while not tried():
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_S)
    return True


def _written_anew(connection: Connection) -> bool:
    try:
        connection.read("VACUUM")
    except Busy:
        return False
    return True


def _marked(connection: Connection) -> int:
    return int(connection.read("PRAGMA user_version")[0][0])

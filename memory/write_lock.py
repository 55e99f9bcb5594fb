"""The store's write lock, taken for a moment and without writing, by whoever must know that nobody else has it.

SQLite gives the lock to one connection at a time, of any process. A process that is stopped (SIGSTOP) while it has the
lock keeps it, and every other writer waits in vain: so it is to be stopped by somebody who has the lock.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

_TAKEN = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


@contextmanager
def write_lock(path: Path, timeout_s: float) -> Iterator[bool]:
    """Hold the write lock of the store at ``path`` for the block; False when it was not had within ``timeout_s``.

    A store that cannot be written for another reason (a full disk, say) is locked by nobody, which is what is asked.
    """
    with closing(sqlite3.connect(path, timeout=timeout_s, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0)
            yield (code & 0xFF) not in _TAKEN
            return
        try:
            yield True
        finally:
            connection.execute("ROLLBACK")

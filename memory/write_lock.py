"""The store's write lock: waiting for it, and taking it without writing to know that nobody else has it.

SQLite gives the lock to one connection at a time, of any process. A process that is stopped (SIGSTOP) while it has the
lock keeps it, and every other writer waits in vain: so it is to be stopped by somebody who has the lock.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

_TAKEN = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_PAUSE_S = 0.001


def begin(connection: sqlite3.Connection) -> None:
    """Begin a transaction that writes, waiting for others as long as the connection's ``busy_timeout`` says.

    Raises ``sqlite3.OperationalError`` when the lock was not free by then. SQLite's own waiting looks ten times a
    second, which over 10 s can miss every gap between the writes of a process that does nothing else.
    """
    waiting_ms = connection.execute("PRAGMA busy_timeout").fetchone()[0]
    deadline = time.monotonic() + waiting_ms / 1000
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        while not _begun(connection, deadline):
            time.sleep(_PAUSE_S)
    finally:
        connection.execute(f"PRAGMA busy_timeout = {waiting_ms}")


def _begun(connection: sqlite3.Connection, deadline: float) -> bool:
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if not _is_taken(error) or time.monotonic() > deadline:
            raise
        return False
    return True


def _is_taken(error: sqlite3.Error) -> bool:
    # The low byte is the family of the code.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _TAKEN


@contextmanager
def write_lock(path: Path, timeout_s: float) -> Iterator[bool]:
    """Hold the write lock of the store at ``path`` for the block; False when it was not had within ``timeout_s``.

    A store that cannot be written for another reason (a full disk, say) is locked by nobody, which is what is asked.
    """
    with closing(sqlite3.connect(path, timeout=timeout_s, isolation_level=None)) as connection:
        try:
            begin(connection)
        except sqlite3.Error as error:
            yield not _is_taken(error)
            return
        try:
            yield True
        finally:
            connection.execute("ROLLBACK")

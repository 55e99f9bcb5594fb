"""One SQLite connection, safe to share between threads and beside other processes, that speaks our errors.

Durability: WAL with ``synchronous=FULL``, so a write that returned is on the disk, whatever dies next; a write that is
not ``durable`` outlives the process, but maybe not the machine, until the next one that is. Writers take the lock at
BEGIN (IMMEDIATE) and wait up to 10 s for each other. ``secure_delete`` overwrites what is deleted. What is left out:
what the tables mean (``schema``) and what is asked of them (``store``, ``lineage``).
"""

import errno
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from familiar.memory import schema
from familiar.memory.errors import BadFile, Busy, FamiliarError, InvalidInput, NoSpace
from familiar.memory.write_lock import begin

BUSY_TIMEOUT_S = 10.0

Row = sqlite3.Row
Params = Sequence[object]


class Connection:
    """An open store file. ``read`` returns rows; ``with write():`` is one transaction, all or nothing."""

    def __init__(self, path: Path, now: float) -> None:
        """Open or create ``path`` and migrate it; ``now`` is in seconds. Raises ``BadFile``, ``NoSpace``, ``Busy``."""
        self._path = path
        # Re-entrant, so that a read inside a transaction sees what the transaction wrote.
        self._lock = threading.RLock()
        self._durable = True
        _create(path)
        with _our_errors(path):
            connection = sqlite3.connect(
                path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=256
            )
            try:
                connection.row_factory = sqlite3.Row
                self._db = Database(connection, execute_plugins=False)
                _use_wal(connection)
                for pragma in ("synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
                    connection.execute(f"PRAGMA {pragma}").fetchall()
                schema.apply(self._db, now)
            except BaseException:
                connection.close()
                raise

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def close(self) -> None:
        """Close the file; further use is a programming error. Closing twice is fine."""
        with self._lock:
            self._db.close()

    def read(self, sql: str, params: Params = ()) -> list[Row]:
        """The rows that one query returns."""
        with self._lock, _our_errors(self._path):
            rows: list[Row] = self._db.execute(sql, params).fetchall()
            return rows

    def first(self, sql: str, params: Params = ()) -> Row | None:
        """The first row that one query returns, if any."""
        rows = self.read(sql, params)
        return rows[0] if rows else None

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator["Connection"]:
        """One transaction: committed when the block ends, undone when it raises.

        Without ``durable`` it does not wait for the disk, which takes milliseconds. The log is written in order, so the
        next durable write brings it to the disk as well.

        Raises ``NoSpace`` when the disk is full, ``Busy`` when another process holds the file for 10 s, and
        ``InvalidInput`` for text that no file can hold. What was committed before stays as it was.
        """
        with self._lock, _our_errors(self._path):
            if durable != self._durable:
                self._db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
                self._durable = durable
            with self._transaction():
                yield self

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        begin(self._db.conn)
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            # A full disk may have undone the transaction already.
            if self._db.conn.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def execute(self, sql: str, params: Params = ()) -> int:
        """Run one statement inside ``write()``; returns the number of rows that it changed."""
        with self._lock:
            changed: int = self._db.execute(sql, params).rowcount
            return changed

    def execute_many(self, sql: str, rows: Sequence[Params]) -> None:
        """Run one statement for each of ``rows``, inside ``write()``."""
        if rows:
            with self._lock:
                self._db.conn.executemany(sql, rows)

    def empty_log(self) -> bool:
        """Move the write-ahead log into the file and cut it to nothing, so that deleted text is in neither.

        Return whether that was done: another process that is just reading may put it off to the next time.
        """
        with self._lock, _our_errors(self._path):
            busy = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()[0][0]
            return not busy


def _create(path: Path) -> None:
    # Made here and not by SQLite, for its mode: SQLite gives the -wal and -shm files the mode of the main one. A file
    # that is there must not be opened: closing it again would take this process's locks off it, those of another
    # connection too, and the next process to close the store would delete the log that we still write to.
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.is_dir() or not path.exists():
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_space(path) from error
        raise BadFile(
            f"The store {path} cannot be opened ({error.strerror}): check the path and its permissions."
        ) from error


def _use_wal(connection: sqlite3.Connection) -> None:
    # Turning WAL on is the one statement that does not wait its turn: SQLite answers "locked" at once when two
    # processes do it together on a new file.
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").fetchall()
            return
        except sqlite3.OperationalError as error:
            if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


@contextmanager
def _our_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FamiliarError:
        raise
    except UnicodeEncodeError as error:
        raise InvalidInput("The text holds half a character (a lone surrogate): send whole Unicode text.") from error
    except sqlite3.Error as error:
        ours = _translate(path, error)
        if ours is None:
            raise
        raise ours from error


def _translate(path: Path, error: sqlite3.Error) -> FamiliarError | None:
    code = _code(error)
    if code == sqlite3.SQLITE_FULL or _extended_code(error) == sqlite3.SQLITE_IOERR_SHMSIZE:
        return _no_space(path)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Busy(f"The store {path} is held by another process for over {BUSY_TIMEOUT_S:.0f} s: try again.")
    if code == sqlite3.SQLITE_NOTADB:
        return BadFile(f"The store {path} is not a SQLite database: move it away, or choose another data folder.")
    if code == sqlite3.SQLITE_CORRUPT:
        return BadFile(f"The store {path} is damaged ({error}): restore a copy of it, or move it away.")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return BadFile(f"The store {path} cannot be written ({error}): check its permissions and its folder's.")
    return None


def _no_space(path: Path) -> NoSpace:
    return NoSpace(f"No space is left for the store {path}: free some; what was saved before is safe.")


def _extended_code(error: sqlite3.Error) -> int:
    code: Any = getattr(error, "sqlite_errorcode", None)
    return code if isinstance(code, int) else -1


def _code(error: sqlite3.Error) -> int:
    # The low byte is the family; the rest says which of its members.
    extended = _extended_code(error)
    return extended & 0xFF if extended >= 0 else -1

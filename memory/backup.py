"""Copies of the store: made while it is in use, listed, put back, and cleaned of what is forgotten later.

A backup is a whole SQLite database, readable by its owner only, at ``backups/familiar-YYYYmmdd-HHMMSS.db`` of the data
folder unless another place is named. It gets its name once it is complete and checked. What is left out: adapters,
which are files (an export with adapters has them), and backups that were carried elsewhere.
"""

import contextlib
import errno
import fcntl
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from familiar.memory.database import BUSY_TIMEOUT_S, Connection
from familiar.memory.errors import BadFile, Busy, FamiliarError, InvalidInput, NoSpace

FOLDER = "backups"

_PAGES = 2048
_PART = ".part"
_LOCK = ".lock"
_DAMAGED = "-damaged"
_LOGS = ("-journal", "-wal", "-shm")
_HELD = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_UNREADABLE = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
_SHARED_LOCK = (0x40000002, 510)
"""The bytes of a database's file that whoever has it open holds a lock on, as first and length: SQLite's ``os.h``."""


@dataclass(frozen=True)
class Backup:
    """One backup of a data folder; ``created_at`` is in seconds since the epoch, as the file has it."""

    path: Path
    created_at: float
    size_bytes: int


@dataclass(frozen=True)
class Replaced:
    """What a store that was restored over became: a backup, or where it was ``damaged``, a file as it was."""

    path: Path
    damaged: bool


class _Damaged(BadFile):
    """A store that SQLite cannot read."""


def folder_of(database: Path) -> Path:
    """Where the backups of a store are."""
    return database.parent / FOLDER


def create(database: Path, now: float, target: Path | None = None) -> Path:
    """Copy the store as it is at this moment, and return the copy once it was checked. Writers go on meanwhile.

    Raises ``InvalidInput`` (param ``out``) when ``target`` is there already or cannot be written, ``BadFile`` when the
    store is damaged, ``NoSpace``, and ``Busy`` while something is being forgotten.
    """
    with locked(database):
        target = target or _free_name(folder_of(database), now)
        if target.exists():
            raise InvalidInput(f"{target} is there already: name another file, or move that one away.", "out")
        with _temporary(target) as copy:
            _copy(database, copy)
            os.replace(copy, target)
            _sync(target.parent)
    return target


def listed(database: Path) -> list[Backup]:
    """The backups in the data folder, oldest first."""
    found = ((path, path.stat()) for path in folder_of(database).glob("*.db") if path.is_file())
    backups = [Backup(path, stat.st_mtime, stat.st_size) for path, stat in found]
    return sorted(backups, key=lambda backup: (backup.created_at, backup.path.name))


def restore(database: Path, source: Path, now: float) -> Replaced | None:
    """Put a copy of the backup ``source`` in the store's place; return what became of the store that was there.

    One that cannot be read is set aside as it is: maybe somebody can save something of it. Call only when no
    service runs on the data folder. A kill at any moment leaves the one or the other. Raises ``BadFile`` when
    ``source`` is no backup or damaged, ``Busy`` while any program has the store open, ``NoSpace``.
    """
    if not source.is_file():
        raise BadFile(f"{source} is not a file: `familiar data backups` lists the backups that there are.")
    if source.resolve() == database.resolve():
        raise BadFile(f"{source} is the store itself: name a backup of it.")
    with locked(database), _temporary(database) as copy:
        _copy(source, copy)
        # Opened as a store: what is not one is refused, and one of an older version is brought up to date.
        Connection(copy, now).close()
        _alone(copy)
        replaced = _set_aside(database, now) if database.exists() else None
        for ending in _LOGS:  # SQLite would take what is left for the restored store's
            Path(f"{database}{ending}").unlink(missing_ok=True)
        os.replace(copy, database)
        _sync(database.parent)
    return replaced


def _set_aside(database: Path, now: float) -> Replaced:
    """Give a store that is to be replaced its name among the backups, a damaged one with the log that it may have."""
    try:
        _alone(database)
        damaged = not _is_sound(database)
    except _Damaged:
        _refuse_open(database)
        damaged = True
    replaced = Replaced(_free_name(folder_of(database), now, _DAMAGED if damaged else ""), damaged)
    os.link(database, replaced.path)
    log = Path(f"{database}-wal")
    if log.exists():
        os.link(log, f"{replaced.path}-wal")
    return replaced


def clean(database: Path, now: float, change: Callable[[Connection], bool]) -> tuple[int, tuple[str, ...]]:
    """Open each backup of a data folder for ``change``, which returns whether it is through with it.

    Returns how many were changed, and those that could not be, each with the reason. Call with ``locked``.
    """
    changed, left = 0, []
    for backup in listed(database):
        try:
            connection = Connection(backup.path, now)
            try:
                if not change(connection):
                    left.append(f"{backup.path} (another program is using it)")
            finally:
                connection.close()
            _alone(backup.path)
            changed += 1
        except FamiliarError as error:
            left.append(f"{backup.path} ({error})")
    return changed, tuple(left)


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Keep other processes from making, restoring and cleaning backups; sweep what a killed one left. Raises ``Busy``.

    A backup made while something is forgotten would keep what is forgotten.
    """
    folder = folder_of(database)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / _LOCK).open("a") as file:
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Busy("A backup is being made, or something forgotten: wait until it has ended.") from None
                time.sleep(0.05)
        for path in [*folder.glob(f".*{_PART}*"), *database.parent.glob(f".{database.name}-*{_PART}*")]:
            path.unlink(missing_ok=True)
        yield


def _free_name(folder: Path, now: float, ending: str = "") -> Path:
    name = time.strftime("familiar-%Y%m%d-%H%M%S", time.localtime(now)) + ending
    path, number = folder / f"{name}.db", 1
    while path.exists():
        number += 1
        path = folder / f"{name}-{number}.db"
    return path


@contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """An empty file beside ``target``, of mode 0600, which is gone at the end unless it was renamed."""
    name = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-", suffix=_PART)
        os.close(handle)
        yield Path(name)
    except OSError as error:
        if isinstance(error, FamiliarError):
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_space(target) from error
        raise InvalidInput(f"{target} cannot be written ({error.strerror}): choose another place.", "out") from error
    finally:
        if name is not None:
            for ending in ("", *_LOGS):
                Path(name + ending).unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    """Copy a database through SQLite, and check the copy."""
    try:
        with contextlib.ExitStack() as stack:
            before = _opened(stack, source)
            after = _opened(stack, target)
            # A reader's view of the log stays as it is, so writers neither wait for the copy nor start it anew.
            before.execute("BEGIN")
            counts = _counts(before)
            before.backup(after, pages=_PAGES, sleep=0)
            after.execute("PRAGMA journal_mode=DELETE")
            problems = [row[0] for row in after.execute("PRAGMA integrity_check")]
            if problems != ["ok"] or _counts(after) != counts:
                raise BadFile(f"{source} is damaged ({problems[0]}), so it was not copied.")
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            raise _no_space(target) from error
        if code in _HELD:
            raise Busy(f"{source} is held by another process: try again.") from error
        raise BadFile(f"{source} cannot be copied ({error}): is it a store or a backup of one?") from error


def _opened(stack: contextlib.ExitStack, path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT_S)
    return stack.enter_context(contextlib.closing(connection))


def _counts(connection: sqlite3.Connection) -> dict[str, int]:
    tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
    return {
        name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]
        for (name,) in tables.fetchall()
        if not name.startswith("memories_fts")
    }


def _alone(database: Path) -> None:
    """Make a store a single file without a log, which works only when no program has it open.

    Raises ``Busy``, and ``BadFile`` when the file cannot be opened or is no database.
    """
    try:
        with contextlib.closing(sqlite3.connect(database, isolation_level=None, timeout=1.0)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE").fetchall()
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _HELD:
            raise _in_use(database) from error
        if code in _UNREADABLE:
            raise _Damaged(f"{database} is damaged ({error}).") from error
        raise BadFile(f"{database} cannot be opened ({error}): check its permissions.") from error


def _is_sound(database: Path) -> bool:
    """Whether all of a store can be read; ``_alone`` reads no more than its beginning."""
    with contextlib.closing(sqlite3.connect(database, isolation_level=None, timeout=BUSY_TIMEOUT_S)) as connection:
        try:
            return [row[0] for row in connection.execute("PRAGMA quick_check(1)")] == ["ok"]
        except sqlite3.DatabaseError:
            return False


def _refuse_open(database: Path) -> None:
    """Raise ``Busy`` while another program has a store open, where SQLite cannot tell, as it cannot read the file."""
    first, length = _SHARED_LOCK
    with database.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, length, first)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise _in_use(database) from error
            raise


def _in_use(database: Path) -> Busy:
    return Busy(f"{database} is in use: end the service and whatever else has it open.")


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _no_space(path: Path) -> NoSpace:
    return NoSpace(f"No space is left for {path}: free some; the store is as it was.")

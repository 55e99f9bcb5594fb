"""The folders of the inbox: which files wait in them, and where a file goes when it has been read.

``INBOX/`` is the default user's and ``INBOX/NAME/`` that user's; each has a folder ``done`` and one ``failed``, made
when first needed. ``DRAFTS/`` and ``DRAFTS/NAME/`` hold the drafts that the service wrote, which stay where they are.
Nothing is deleted or overwritten. Links are not followed: a file of the inbox is a file in the inbox.
"""

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from familiar.adapters.folders import disk_errors
from familiar.daemon import data_folder
from familiar.feedback import inbox_formats
from familiar.feedback.inbox_formats import Problem
from familiar.memory.errors import BadFile, NotFound
from familiar.memory.users import Users

DONE, FAILED = "done", "failed"
REPORT = ".problems.txt"
"""What a report is called after the file that it is about."""

_LOCK = ".lock"
_TEMPORARY_STARTS = (".", "~", "#")
_TEMPORARY_ENDS = (
    "~",
    *(".swp", ".swo", ".swx", ".tmp", ".temp", ".bak", ".lock"),
    *(".part", ".partial", ".crdownload", ".download", ".filepart", ".opdownload"),
    REPORT,
)


@dataclass(frozen=True)
class Folders:
    """The inbox, and the drafts that are read where they are."""

    inbox: Path
    drafts: Path

    def make(self) -> None:
        """Make the folders that are not there, for their owner alone. Raises ``NoSpace`` or ``InvalidInput``."""
        data_folder.make(self.inbox)
        data_folder.make(self.drafts)


@dataclass(frozen=True)
class Waiting:
    """A file to be read, and whose it is. ``in_place``: a draft in its own folder, which stays there."""

    path: Path
    user_id: int
    in_place: bool = False

    @property
    def name(self) -> str:
        """The file's name, fit to be shown: one that is no UTF-8 has marks for what is not."""
        return os.fsencode(self.path.name).decode("utf-8", "replace")


@dataclass(frozen=True)
class Signature:
    """What changes when a file does."""

    inode: int
    size: int
    mtime_ns: int


def is_temporary(name: str) -> bool:
    """Whether a file of that name is an editor's or a browser's own, or a report of ours."""
    return name.startswith(_TEMPORARY_STARTS) or name.lower().endswith(_TEMPORARY_ENDS)


def waiting(folders: Folders, users: Users) -> list[Waiting]:
    """The files that are there to be read, by name."""
    found = [Waiting(path, user_id) for path, user_id in _files(folders.inbox, users)]
    return found + [Waiting(path, user_id, in_place=True) for path, user_id in _files(folders.drafts, users)]


def strangers(inbox: Path, users: Users) -> list[Path]:
    """Folders in the inbox that are named after no user, so that nothing in them is read."""
    return [folder for folder in _folders(inbox) if _user(users, folder.name) is None]


def _files(top: Path, users: Users) -> Iterator[tuple[Path, int]]:
    yield from ((path, users.id_of(None)) for path in _entries(top) if not _is_folder(path))
    for folder in _folders(top):
        user_id = _user(users, folder.name)
        if user_id is not None:
            yield from ((path, user_id) for path in _entries(folder) if not _is_folder(path))


def _folders(top: Path) -> list[Path]:
    return [path for path in _entries(top) if path.name not in (DONE, FAILED) and _is_folder(path)]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not is_temporary(path.name))
    except OSError:
        return []


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _user(users: Users, name: str) -> int | None:
    try:
        return users.named(name).id
    except NotFound:
        return None


def signature(path: Path) -> Signature | None:
    """The file's present state, or None when it is gone."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return Signature(status.st_ino, status.st_size, status.st_mtime_ns)


def read(path: Path) -> bytes:
    """The bytes of a file. Raises ``BadFile`` for one that is too large, or is no file at all."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if path.is_symlink():
            raise BadFile("it is a link, which is not followed: put the file itself here") from error
        raise BadFile(f"it cannot be read ({error.strerror}): change its permissions") from error
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise BadFile("it is not a regular file: put a file here")
        if status.st_size > inbox_formats.MAX_BYTES:
            most = inbox_formats.MAX_BYTES >> 20
            raise BadFile(f"it has {status.st_size / 2**20:,.0f} MB, but {most} MB is the most: split it")
        return file.read(inbox_formats.MAX_BYTES + 1)


@contextmanager
def locked(folders: Folders) -> Iterator[None]:
    """Hold the inbox, waiting for it: one process at a time reads, stores and moves a file.

    The system lets go of it however the process ends.
    """
    with disk_errors(folders.inbox):
        folders.make()
        with (folders.inbox / _LOCK).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def move(path: Path, where: str) -> Path:
    """Move a file into ``done`` or ``failed`` beside it, numbered where the name is taken; returns the new path."""
    folder = path.parent / where
    with disk_errors(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        target, number = folder / path.name, 1
        while os.path.lexists(target):
            number += 1
            target = folder / f"{path.stem}-{number}{path.suffix}"
        path.rename(target)
    clear_report(path)
    return target


def report(path: Path, summary: str, problems: Sequence[Problem]) -> Path:
    """Write what was wrong with a file beside it, a line each."""
    written = _report_of(path)
    lines = [summary, *(f"{problem.place}: {problem.reason}" for problem in problems)]
    with disk_errors(written):
        written.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return written


def clear_report(path: Path) -> None:
    """Remove the report on a file that is no longer there, or no longer wrong."""
    with contextlib.suppress(OSError):
        _report_of(path).unlink()


def _report_of(path: Path) -> Path:
    return path.with_name(path.name + REPORT)


def processed(inbox: Path, users: Users, where: str) -> list[Path]:
    """The files that were moved into ``done`` or ``failed``, of all users, the last moved last."""
    tops = [inbox, *(folder for folder in _folders(inbox) if _user(users, folder.name) is not None)]
    found = [path for top in tops for path in _entries(top / where)]
    return sorted(found, key=_moved_at)


def _moved_at(path: Path) -> float:
    try:
        return path.lstat().st_ctime
    except OSError:
        return 0.0


def reports(inbox: Path, users: Users) -> list[Path]:
    """The reports of problems, of all users, the last written last."""
    tops = [inbox, *(folder for folder in _folders(inbox) if _user(users, folder.name) is not None)]
    places = [place for top in tops for place in (top, top / DONE, top / FAILED)]
    return sorted((path for place in places for path in place.glob(f"*{REPORT}")), key=_moved_at)

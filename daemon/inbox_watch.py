"""Watching the inbox while the service runs, in a thread of its own.

watchdog only says that something happened: what there is to read is looked up in the folder, so that no order of
events, no rename and no lost event matters. A file is read once its size and time have not changed for a while. Where
the system has no watches left, or the folder is on a file system without them, it is looked at now and then instead.
"""

import errno
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from familiar.daemon import inbox_files
from familiar.daemon.inbox import Inbox
from familiar.daemon.inbox_files import Folders, Signature, Waiting
from familiar.memory.errors import FamiliarError
from familiar.memory.store import Store

log = logging.getLogger("familiar")


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds.

    ``settle_s``: for a file to stay as it is; ``draft_settle_s``: for a draft in its folder, which is saved over and
    over; ``give_up_s``: until a file that ends too early is reported; ``retry_s``: after a busy store or a full disk;
    ``poll_s``: between two looks at the folder where nothing is watched for us; ``idle_s``: where it is.
    """

    settle_s: float = 1.0
    draft_settle_s: float = 5.0
    give_up_s: float = 30.0
    retry_s: float = 5.0
    poll_s: float = 2.0
    idle_s: float = 60.0


@dataclass
class _Seen:
    """A file as it was last seen, since when, and what was done about that state of it."""

    signature: Signature
    since: float
    state: str = "new"


def native_observer() -> BaseObserver:
    """The system's own way of watching: inotify, FSEvents."""
    # It reports its own end as an error, which a person would read as ours.
    logging.getLogger("watchdog").setLevel(logging.CRITICAL)
    return Observer()


class InboxWatch:
    """Reads what is dropped into the folders from ``start`` to ``stop``; with no folders both do nothing.

    ``make_observer`` makes what wakes the thread up; another one is made when a folder was replaced.
    """

    def __init__(
        self,
        store: Store,
        folders: Folders | None,
        clock: Callable[[], float] = time.time,
        patience: Patience | None = None,
        make_observer: Callable[[], BaseObserver] = native_observer,
    ) -> None:
        self._folders = folders
        self._patience = patience or Patience()
        self._make_observer = make_observer
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._observer: BaseObserver | None = None
        self._watched: tuple[tuple[int, int], ...] = ()
        self._seen: dict[Path, _Seen] = {}
        self._told: set[Path] = set()
        self._inbox = None if folders is None else Inbox(store, folders, clock, self._ending.is_set)

    def start(self) -> None:
        """Begin to watch; returns at once."""
        if self._inbox is not None and self._thread is None:
            self._thread = threading.Thread(target=self._run, args=(self._inbox,), name="familiar-inbox", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop after the row that is being stored, and wait for that."""
        self._ending.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    # ---- in the thread ----

    def _run(self, inbox: Inbox) -> None:
        try:
            while not self._ending.is_set():
                self._wake.clear()
                try:
                    self._watch(inbox.folders)
                    wait_s = self._look(inbox)
                except (FamiliarError, OSError) as error:
                    self._tell(inbox.folders.inbox, f"The inbox cannot be read: {error}")
                    wait_s = self._patience.retry_s
                except Exception:
                    log.exception("The inbox stumbled, and goes on")
                    wait_s = self._patience.retry_s
                self._wake.wait(wait_s)
        finally:
            self._unwatch()

    def _watch(self, folders: Folders) -> None:
        """Make the folders and watch them, anew where one of them was deleted or replaced."""
        there = folders.inbox.is_dir() and folders.drafts.is_dir()
        folders.make()
        places = [folders.inbox.stat(), folders.drafts.stat()]
        present = tuple((place.st_dev, place.st_ino) for place in places)
        # A new folder may get the inode of the deleted one, whose watch has ended.
        alive = self._observer is None or all(emitter.is_alive() for emitter in self._observer.emitters)
        if there and alive and present == self._watched:
            return
        self._unwatch()
        self._watched = present
        observer = self._make_observer()
        try:
            handler = _Waker(self._wake)
            for folder in (folders.inbox, folders.drafts):
                observer.schedule(handler, str(folder), recursive=True)
            observer.start()
        except OSError as error:
            observer.unschedule_all()
            why = "has no watches left" if error.errno in (errno.ENOSPC, errno.EMFILE) else f"cannot ({error.strerror})"
            self._tell(folders.inbox, f"The system {why} to watch {folders.inbox}: it is looked at now and then.")
            return
        self._observer = observer

    def _unwatch(self) -> None:
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
            self._observer = None

    def _look(self, inbox: Inbox) -> float:
        """Read what has settled; returns the seconds until there is something to do without an event."""
        patience, now = self._patience, time.monotonic()
        for folder in inbox.strangers():
            self._tell(folder, f"{folder} is in the inbox but is no user's: `familiar users list` shows the names.")
        entries = inbox.waiting()
        self._seen = {entry.path: self._seen[entry.path] for entry in entries if entry.path in self._seen}
        next_s = patience.idle_s if self._observer is not None else patience.poll_s
        for entry in entries:
            if self._ending.is_set():
                break
            due = self._due(entry, now)
            if due is not None and due <= now:
                due = self._read(inbox, entry, now)
            if due is not None:
                next_s = min(next_s, max(0.0, due - now))
        return next_s

    def _due(self, entry: Waiting, now: float) -> float | None:
        """When this file is to be read (by ``time.monotonic``), None for never as it is."""
        signature = inbox_files.signature(entry.path)
        if signature is None:
            return None
        seen = self._seen.get(entry.path)
        if seen is None or seen.signature != signature:
            seen = self._seen[entry.path] = _Seen(signature, now)
        if seen.state == "left":
            return None
        if seen.state == "unfinished":
            return seen.since + self._patience.give_up_s
        if seen.state == "later":
            return seen.since + self._patience.retry_s
        return seen.since + (self._patience.draft_settle_s if entry.in_place else self._patience.settle_s)

    def _read(self, inbox: Inbox, entry: Waiting, now: float) -> float | None:
        """Read a file that has settled; returns when to come back to it, None for never as it is."""
        seen = self._seen[entry.path]
        last_time = seen.state == "unfinished"
        outcome = inbox.read(entry)
        if outcome.state == "later":
            seen.state, seen.since = "later", now
            if outcome.problems:
                self._tell(entry.path, outcome.summary)
            return now + self._patience.retry_s
        if outcome.state == "unfinished" and not last_time:
            seen.state = "unfinished"
            return seen.since + self._patience.give_up_s
        seen.state = "left"
        if outcome.state == "unfinished":
            if not entry.in_place:
                inbox.give_up(outcome)
            log.warning("%s", outcome.summary)
        elif outcome.problems:
            log.warning("%s", outcome.summary)
        return None

    def _tell(self, about: Path, line: str) -> None:
        """Warn once of what would be said again and again."""
        if about not in self._told:
            self._told.add(about)
            log.warning("%s", line)


class _Waker(FileSystemEventHandler):
    """Sets an event whatever happens in a folder, but for files being read, as by us."""

    def __init__(self, wake: threading.Event) -> None:
        self._wake = wake

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Called by watchdog in a thread of its own."""
        if event.event_type not in ("opened", "closed_no_write"):
            self._wake.set()

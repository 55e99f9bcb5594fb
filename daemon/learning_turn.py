"""Whose turn it is to learn: one learner's child process at a time in this service, paused while somebody chats.

Everything in the service that runs such a child takes the turn for as long as the child lives:

    with state.turn.taken("job", user_id, "ftjob-1", limit_s=None) as lease:      # waits until it is free
        outcome = run_learner(settings, on_event, user=name, on_start=lease.attach)

From ``attach`` on the turn pauses the child when a request for the engine comes and continues it once the engine has
been idle for a while, ends it after ``limit_s`` seconds of work, and takes care that it neither keeps the store locked
while it is paused nor outlives the service. ``pause``, ``resume`` and ``stop`` act on whichever child runs; ``name``
restricts them to one, so that nobody stops another's by being late. The child must lead a session of its own
(``start_new_session=True``). What is left out: when to learn (``learning_schedule``), and what (``learner``).
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Literal

import psutil

from familiar.daemon.activity import Activity
from familiar.daemon.pausable import INSIST_S, Pausable
from familiar.memory.errors import Busy

log = logging.getLogger("familiar")

Kind = Literal["job", "asked", "schedule", "terminal"]
"""Why a child runs: a fine-tuning job, a request to learn now, the schedule, or a command of another process."""

_RANK: dict[Kind, int] = {"terminal": 0, "job": 1, "asked": 1, "schedule": 2}
"""Who is next of those who wait: the lower number, and then whoever came first."""

_POLL_S = 0.1


@dataclass(frozen=True)
class Holder:
    """Who has the turn, or waits for it: ``name`` is the job's or the run's, as its owner chose it."""

    kind: Kind
    user_id: int
    name: str


class Lease:
    """The turn, while one has it. ``stopped`` says why its child was asked to end, None when it was not."""

    def __init__(self, holder: Holder, turn: "Turn", limit_s: float | None) -> None:
        self.holder = holder
        self.limit_s = limit_s
        self.stopped: str | None = None
        self.active_s = 0.0
        self.child: Pausable | None = None
        self.frozen = False
        self.still = False
        self.minder: threading.Thread | None = None
        self._turn = turn

    def attach(self, child: "Popen[bytes]") -> None:
        """Have the turn look after ``child`` from here on; one whose stop was asked for meanwhile is ended at once."""
        self._turn.look_after(self, child.pid, ours=True)


class Turn:
    """One service's turn. Every method is safe from any thread."""

    def __init__(
        self, store: Path, activity: Activity, resume_after_s: float, timer: Callable[[], float] = time.monotonic
    ) -> None:
        """``store`` is the database; a child goes on when the engine has been idle for ``resume_after_s`` seconds."""
        self._store = store
        self._activity = activity
        self._resume_after_s = resume_after_s
        self._timer = timer
        self._changed = threading.Condition()
        self._waiting: list[tuple[int, int, Holder]] = []
        self._tickets = 0
        self._lease: Lease | None = None
        self._held_back = False
        self._closed = False

    @contextmanager
    def taken(
        self, kind: Kind, user_id: int, name: str, *, wait_s: float | None = None, limit_s: float | None = None
    ) -> Iterator[Lease]:
        """Have the turn for the block.

        Args:
            wait_s: how long to wait for it; None is as long as it takes, 0 takes it only where it is free.
            limit_s: seconds that the child may work, pauses left out; then it is stopped, which it can go on from.

        Raises:
            Busy: it was not had in time, or the service is ending.
        """
        lease = self._take(Holder(kind, user_id, name), wait_s, limit_s)
        try:
            yield lease
        finally:
            self._give_back(lease)

    def holder(self) -> Holder | None:
        """Who has the turn."""
        lease = self._lease
        return lease.holder if lease else None

    def paused(self) -> Literal["chat", "asked"] | None:
        """Why the running child stands still, which it does without holding the store; None where it works."""
        with self._changed:
            lease = self._lease
            if lease is None or not lease.still:
                return None
            return "asked" if self._held_back else "chat"

    def active_s(self) -> float:
        """Seconds that the running child has worked, pauses left out."""
        lease = self._lease
        return lease.active_s if lease else 0.0

    def touch(self) -> None:
        """A request for the engine has come: stop the child at once. Made for every request; takes microseconds."""
        self._activity.touch()
        if self._lease is not None:
            with self._changed:
                self._freeze()

    def pause(self, name: str | None = None) -> bool:
        """Pause the running child until ``resume``; False when none (of that name) runs."""
        with self._changed:
            if not self._is(name):
                return False
            self._held_back = True
            self._freeze()
            return True

    def resume(self, name: str | None = None) -> bool:
        """Take ``pause`` back; a chat may still be waited for. False when no child (of that name) runs."""
        with self._changed:
            if not self._is(name):
                return False
            self._held_back = False
            self._changed.notify_all()
            return True

    def stop(self, name: str | None = None, why: str = "asked") -> bool:
        """Ask the running child to end after its current step, paused or not; False when none (of that name) runs."""
        with self._changed:
            lease = self._lease
            if lease is None or not self._is(name):
                return False
            self._end(lease, why)
            return True

    def close(self, patience_s: float = INSIST_S) -> None:
        """End the child, which may take ``patience_s`` for its current step, and let nobody have the turn any more."""
        with self._changed:
            self._closed = True
            if self._lease is not None:
                self._end(self._lease, "ending")
            self._changed.notify_all()
            gone = self._changed.wait_for(lambda: self._lease is None, patience_s)
            lease = self._lease
            if not gone and lease is not None and lease.child is not None and lease.holder.kind != "terminal":
                lease.child.kill()
                self._changed.wait_for(lambda: self._lease is None, patience_s)

    def look_after(self, lease: Lease, pid: int, *, ours: bool) -> None:
        """Take charge of the process group that ``pid`` leads. Raises psutil.NoSuchProcess when there is none."""
        child = Pausable(pid, self._store, ours=ours)
        with self._changed:
            lease.child = child
            if lease.stopped:
                child.end()
            lease.minder = threading.Thread(target=self._mind, args=(lease, child), name="familiar-turn", daemon=True)
            lease.minder.start()

    # ---- with the lock ----

    def _is(self, name: str | None) -> bool:
        return self._lease is not None and name in (None, self._lease.holder.name)

    def _wanted(self, lease: Lease) -> bool:
        """Whether the child is to be paused. One that was asked to end has to run for that."""
        return not lease.stopped and (self._held_back or self._activity.idle_s() < self._resume_after_s)

    def _freeze(self) -> None:
        lease = self._lease
        if lease and lease.child and not lease.frozen and not lease.stopped:
            lease.frozen = True
            lease.child.freeze()
        self._changed.notify_all()

    def _end(self, lease: Lease, why: str) -> None:
        if lease.stopped is None:
            lease.stopped = why
            # What a command in a terminal runs is that command's, and outlives this service.
            if lease.child is not None and not (why == "ending" and lease.holder.kind == "terminal"):
                lease.child.end()
        self._changed.notify_all()

    # ---- taking turns ----

    def _take(self, holder: Holder, wait_s: float | None, limit_s: float | None) -> Lease:
        with self._changed:
            self._tickets += 1
            ticket = (_RANK[holder.kind], self._tickets, holder)
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(lambda: self._closed or self._is_next(ticket), wait_s)
                if self._closed:
                    raise Busy("The service is ending: learning goes on when it has been started again.")
                if not self._is_next(ticket):
                    raise Busy("Learning is already running in this service: wait until it has ended, or stop it.")
                self._lease = Lease(holder, self, limit_s)
                self._held_back = False
                return self._lease
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def _is_next(self, ticket: tuple[int, int, Holder]) -> bool:
        return self._lease is None and min(self._waiting, key=lambda each: each[:2]) is ticket

    def _give_back(self, lease: Lease) -> None:
        with self._changed:
            lease.stopped = lease.stopped or "over"
            self._changed.notify_all()
        if lease.minder is not None:
            lease.minder.join()
        with self._changed:
            self._lease = None
            self._changed.notify_all()

    # ---- in the minder's thread, one for each child ----

    def _mind(self, lease: Lease, child: Pausable) -> None:
        """Pause and continue the child, and count its time, until it is asked to end or has ended."""
        try:
            seen = self._timer()
            while child.alive:
                with self._changed:
                    now = self._timer()
                    if not lease.frozen:
                        lease.active_s += now - seen
                    seen = now
                    if lease.limit_s is not None and lease.active_s >= lease.limit_s:
                        self._end(lease, "time")
                    if lease.stopped:
                        return
                    wanted = self._wanted(lease)
                    if lease.still and not wanted:
                        lease.still = lease.frozen = False
                        child.go_on()
                    if lease.still or not (wanted or lease.frozen):
                        self._changed.wait(_POLL_S)
                        continue
                    lease.frozen = True
                lease.still = child.hold_still(lambda: self._wanted(lease))
                if not lease.still:
                    with self._changed:
                        lease.frozen = False
                        child.go_on()
        except Exception:
            log.exception("Learning cannot be paused and goes on")
        finally:
            lease.still = lease.frozen = False
            child.release()


def is_learner(pid: int, data_dir: Path) -> bool:
    """Whether ``pid`` is a learner of this data folder: a number read from a file may be another process's by now."""
    try:
        command = psutil.Process(pid).cmdline()
    except psutil.Error:
        return False
    return "familiar.daemon.learner" in command and str(data_dir) in command

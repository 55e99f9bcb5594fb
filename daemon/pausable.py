"""A child process that can be paused at any moment, even inside a long call into C, and that never outlives us paused.

It is stopped by a signal (SIGSTOP), which no code of its own has to agree to. Two things could go wrong with that. It
might be stopped while it holds the store's write lock, and everybody would wait for it: so it is stopped by us while
*we* hold that lock, unless the first try finds the lock free anyway. And a process that is stopped stays so for ever
when we are killed: the kernel continues orphans only where they share our session, which a learner does not. So a
shell of a few hundred kilobytes stands by, reading from a pipe that only we hold open; when the pipe ends, it continues
the group, asks it to end, and insists. What is left out: Windows.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from familiar.memory.write_lock import write_lock

INSIST_S = 10
"""Seconds that an orphan may take to end its current step before it is killed; its run can be gone on from."""
_PROBE_S = 0.02
_HOLD_S = 0.5
_STOP_S = 0.5
_POLL_S = 0.001

# $1 is the group, $2 the seconds of patience; with 0 the group is only continued. A group is named by its negative.
_GUARDIAN = """
trap '' HUP INT TERM
read -r released && exit 0
kill -CONT "-$1" 2>/dev/null || exit 0
[ "$2" -gt 0 ] || exit 0
kill -TERM "-$1" 2>/dev/null
waited=0
while [ "$waited" -lt "$2" ]; do
  sleep 1
  kill -0 "-$1" 2>/dev/null || exit 0
  waited=$((waited + 1))
done
kill -KILL "-$1" 2>/dev/null
"""


class Pausable:
    """The process group that ``pid`` leads. Its methods are for one thread at a time, but for ``freeze``."""

    def __init__(self, pid: int, store: Path, *, ours: bool = True) -> None:
        """``store`` is the database that the group may be writing; ``ours``: it is to end when this process does."""
        self.pid = pid
        self._store = store
        self._process = psutil.Process(pid)  # knows when the number was given to another process
        self._guardian = subprocess.Popen(
            ["/bin/sh", "-c", _GUARDIAN, "familiar-guardian", str(pid), str(INSIST_S if ours else 0)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def alive(self) -> bool:
        """Whether the process is there; one that has ended but was not waited for is not."""
        with suppress(psutil.Error):
            return bool(self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE)
        return False

    def freeze(self) -> None:
        """Stop the group at once, whatever it holds: ``hold_still`` must follow. From any thread."""
        self._signal(signal.SIGSTOP)

    def hold_still(self, wanted: Callable[[], bool]) -> bool:
        """Stop the group where it does not hold the store's write lock.

        Blocks until that is so, for some milliseconds as a rule. Returns False, and leaves the group to be continued,
        when it has ended or ``wanted`` turned false.
        """
        self._signal(signal.SIGSTOP)
        self._wait_until_stopped()
        while wanted() and self.alive:
            with write_lock(self._store, _PROBE_S) as had:
                if had:
                    return True
            self.go_on()
            with write_lock(self._store, _HOLD_S) as had:
                # With the lock in our hands it can at most be waiting for it.
                self._signal(signal.SIGSTOP)
                if had:
                    self._wait_until_stopped()
        return False

    def go_on(self) -> None:
        """Let the group run."""
        self._signal(signal.SIGCONT)

    def end(self) -> None:
        """Ask the process to end (SIGTERM), and let it run, which it needs to do so."""
        with suppress(psutil.Error):
            self._process.send_signal(signal.SIGTERM)
        self.go_on()

    def kill(self) -> None:
        """End the group without asking."""
        self._signal(signal.SIGKILL)

    def release(self) -> None:
        """Let the group run, and be rid of what stood by."""
        self.go_on()
        if self._guardian.stdin is not None:
            with suppress(BrokenPipeError):
                self._guardian.communicate(b"released\n")
        self._guardian.wait()

    def _signal(self, number: signal.Signals) -> None:
        # A group whose leader has ended may have members left: these end by their own limits (graders do).
        if self.alive:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def _wait_until_stopped(self) -> None:
        """Wait until the signal has taken effect: a thread that waits for the disk stops when it has what it wants."""
        deadline = time.monotonic() + _STOP_S
        with suppress(psutil.Error):
            while self._process.status() != psutil.STATUS_STOPPED and time.monotonic() < deadline and self.alive:
                time.sleep(_POLL_S)

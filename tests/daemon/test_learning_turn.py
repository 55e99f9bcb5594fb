"""Pausing, ending and taking turns, with real processes: stand-ins for a learner, which write or compute."""

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest

from familiar.daemon.activity import Activity
from familiar.daemon.engine_stats import EngineStats
from familiar.daemon.learning_turn import Turn
from familiar.daemon.pausable import Pausable
from familiar.memory.errors import Busy
from familiar.memory.store import Store
from familiar.memory.write_lock import write_lock

pytestmark = pytest.mark.timeout(120)

WRITER = """
import sqlite3, sys, time
store = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
store.execute("CREATE TABLE IF NOT EXISTS written (at REAL)")
print("ready", flush=True)
while True:
    store.execute("BEGIN IMMEDIATE")
    store.execute("INSERT INTO written VALUES (?)", (time.time(),))
    time.sleep(0.02)
    store.execute("COMMIT")
    time.sleep(0.001)
"""
IN_C = """
print("ready", flush=True)
pow(3, 10**9)  # far longer than the test, with no look at signals
"""
ENDS_WHEN_ASKED = """
import signal, sys, time
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
print("ready", flush=True)
while not asked:
    time.sleep(0.01)
open(sys.argv[1], "w").write("ended in good order")
"""


def eventually(true: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.01)


@contextmanager
def running(script: str, argument: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A stand-in for a learner, once it has got to its work."""
    command = [sys.executable, "-c", script, str(argument)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            yield child
        finally:
            child.kill()


class Use:
    """An engine that is used or not, as a test says."""

    running = 0

    def stats(self) -> EngineStats:
        return EngineStats(0, 0, 0, 0, 0, waiting=0, running=self.running, slots=4, adapters_loaded=0)


@pytest.fixture
def store_file(data_dir: Path) -> Path:
    path = data_dir / "familiar.db"
    Store.open(path).close()
    return path


@pytest.fixture
def use() -> Use:
    return Use()


@pytest.fixture
def turn(store_file: Path, use: Use) -> Iterator[Turn]:
    """A turn whose child goes on half a second after a request; the last request was long ago."""
    activity = Activity(use.stats)
    activity._last -= 1000
    turn = Turn(store_file, activity, resume_after_s=0.5)
    yield turn
    turn.close()


def is_stopped(child: "subprocess.Popen[bytes]") -> bool:
    return bool(psutil.Process(child.pid).status() == psutil.STATUS_STOPPED)


def test_a_paused_writer_never_holds_the_store(store_file: Path) -> None:
    with running(WRITER, store_file) as child, closing(sqlite3.connect(store_file, timeout=0)) as reader:
        paused = Pausable(child.pid, store_file)
        caught = 0
        for _ in range(25):
            paused.freeze()
            with write_lock(store_file, 0.005) as had:
                caught += not had
            assert paused.hold_still(lambda: True)
            assert is_stopped(child)
            with write_lock(store_file, 0.0) as had:
                assert had
            (before,) = reader.execute("SELECT count(*) FROM written").fetchone()
            paused.go_on()
            eventually(lambda: reader.execute("SELECT count(*) FROM written").fetchone()[0] > before)  # noqa: B023
        paused.release()
    assert caught  # else the race was never run


def test_a_request_pauses_a_long_call_and_silence_continues_it(turn: Turn, use: Use, tmp_path: Path) -> None:
    with running(IN_C, tmp_path) as child, turn.taken("asked", 1, "run") as lease:
        lease.attach(child)
        time.sleep(0.2)
        assert not is_stopped(child)
        use.running = 1
        turn.touch()
        eventually(lambda: is_stopped(child), 1.0)
        eventually(lambda: turn.paused() == "chat", 1.0)
        worked = turn.active_s()
        time.sleep(0.8)  # the reply is still being made
        assert is_stopped(child)
        assert turn.active_s() == worked  # a pause is no work
        use.running = 0
        eventually(lambda: not is_stopped(child) and turn.paused() is None)


def test_a_child_that_starts_amid_a_chat_waits_for_its_end(turn: Turn, tmp_path: Path) -> None:
    turn.touch()
    with running(IN_C, tmp_path) as child, turn.taken("job", 1, "job") as lease:
        turn.touch()
        lease.attach(child)
        eventually(lambda: turn.paused() == "chat", 1.0)
        eventually(lambda: turn.paused() is None)


def test_a_user_can_pause_resume_and_stop(turn: Turn, tmp_path: Path) -> None:
    note = tmp_path / "note"
    with running(ENDS_WHEN_ASKED, note) as child, turn.taken("asked", 1, "run") as lease:
        lease.attach(child)
        assert not turn.pause("another run")
        assert turn.pause("run")
        eventually(lambda: turn.paused() == "asked")
        time.sleep(0.7)  # silence does not end a pause that was asked for
        assert is_stopped(child)
        assert turn.resume()
        eventually(lambda: not is_stopped(child))
        assert turn.pause()
        assert turn.stop()
        assert child.wait(20) == 0
        assert lease.stopped == "asked"
    assert note.read_text() == "ended in good order"
    assert not turn.stop()


def test_the_time_limit_leaves_out_pauses(turn: Turn, use: Use, tmp_path: Path) -> None:
    with (
        running(ENDS_WHEN_ASKED, tmp_path / "note") as child,
        turn.taken("schedule", 1, "run", limit_s=0.6) as lease,
    ):
        lease.attach(child)
        use.running = 1
        turn.touch()
        time.sleep(1.5)
        assert lease.stopped is None
        use.running = 0
        assert child.wait(20) == 0
        assert lease.stopped == "time"


def test_jobs_come_before_scheduled_runs_and_one_at_a_time(turn: Turn) -> None:
    order: list[str] = []

    def take(kind: str, name: str) -> None:
        with turn.taken(kind, 1, name):  # type: ignore[arg-type]
            order.append(name)

    threads = []
    with turn.taken("schedule", 1, "first"):
        with pytest.raises(Busy, match="already running"), turn.taken("schedule", 2, "other", wait_s=0):
            pass
        for number, (kind, name) in enumerate([("schedule", "third"), ("job", "second")], start=1):
            threads.append(threading.Thread(target=take, args=(kind, name)))
            threads[-1].start()
            eventually(lambda: len(turn._waiting) == number)  # noqa: B023
    for thread in threads:
        thread.join()
    assert order == ["second", "third"]
    assert turn.holder() is None


def test_closing_ends_a_paused_child_in_good_order_and_refuses_others(turn: Turn, tmp_path: Path) -> None:
    note = tmp_path / "note"
    with running(ENDS_WHEN_ASKED, note) as child:

        def learn() -> None:
            with turn.taken("job", 1, "job") as lease:
                lease.attach(child)
                child.wait()

        thread = threading.Thread(target=learn)
        thread.start()
        eventually(lambda: turn.pause("job"))
        eventually(lambda: turn.paused() == "asked")
        turn.close()
        thread.join()
    assert note.exists()
    with pytest.raises(Busy, match="ending"), turn.taken("asked", 1, "late"):
        pass


def test_closing_kills_a_child_that_does_not_listen(turn: Turn, tmp_path: Path) -> None:
    with running(IN_C, tmp_path) as child:
        thread = threading.Thread(target=lambda: _wait_within(turn, child))
        thread.start()
        eventually(lambda: turn.holder() is not None)
        turn.close(patience_s=0.2)
        thread.join()
        assert child.wait() < 0


def _wait_within(turn: Turn, child: "subprocess.Popen[bytes]") -> None:
    with turn.taken("job", 1, "job") as lease:
        lease.attach(child)
        child.wait()


SERVICE = f"""
import subprocess, sys, time
from pathlib import Path
from familiar.daemon.pausable import Pausable
command = [sys.executable, "-c", {WRITER!r}, sys.argv[1]]
child = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
paused = Pausable(child.pid, Path(sys.argv[1]), ours=sys.argv[2] == "ours")
assert paused.hold_still(lambda: True)
print(child.pid, paused._guardian.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("whose", ["ours", "theirs"])
def test_no_stopped_process_is_left_when_the_service_is_killed(store_file: Path, whose: str) -> None:
    command = [sys.executable, "-c", SERVICE, str(store_file), whose]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as service:
        assert service.stdout is not None
        child, guardian = (psutil.Process(int(pid)) for pid in service.stdout.readline().split())
        assert child.status() == psutil.STATUS_STOPPED
        service.send_signal(signal.SIGKILL)
        service.wait()
        try:
            if whose == "ours":
                eventually(lambda: not _lives(child))
            else:  # a command in a terminal runs it
                eventually(lambda: child.status() != psutil.STATUS_STOPPED)
            eventually(lambda: not _lives(guardian))
        finally:
            if _lives(child):
                child.kill()


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False

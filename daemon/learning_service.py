"""Learning inside the service: a thread that applies the schedule, and what users ask of it and want to know.

The thread looks once a second, decides with ``learning_schedule.due``, and has each run made in a thread of its own
under the service's ``Turn``. It also finds a learner that a command in a terminal runs on the same data folder, so that
a chat pauses that one too. What is left out: fine-tuning jobs, which take the turn themselves.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import psutil

from familiar.daemon import learning_preview, learning_schedule
from familiar.daemon.activity import Activity
from familiar.daemon.learner_lock import holder_pid
from familiar.daemon.learning import run_learner
from familiar.daemon.learning_schedule import REPLYING_S, Decision, Facts, Waiting
from familiar.daemon.learning_turn import Holder, Turn, is_learner
from familiar.daemon.settings import Settings
from familiar.memory.errors import Busy, FamiliarError, InvalidInput, NotEnoughSignals, NotFound
from familiar.memory.store import Store

log = logging.getLogger("familiar")

LOOK_S = 1.0
"""How often the thread looks. Its looks are a few microseconds, but for one a minute that reads the signals."""
_READ_S = 60.0
_RUN_AGAIN_S = 900.0
"""How long a user waits whose run came to nothing, as when another process learns at the time, or nothing is new."""


@dataclass
class _Run:
    """A run that is being made, or waits for its turn."""

    user_id: int
    name: str
    kind: Literal["asked", "schedule"]
    begun_at: float | None = None
    progress: dict[str, Any] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class _Attempt:
    """How a user's last run here ended: its outcome's state or "error", and what was said."""

    at: float
    state: str
    message: str


class LearningService:
    """The schedule of one service, from ``start`` to ``stop``. Methods about a user are safe from any thread."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        turn: Turn,
        activity: Activity,
        clock: Callable[[], float],
        on_battery: Callable[[], bool] | None = None,
    ) -> None:
        """``clock`` is in seconds since the epoch. Raises InvalidInput for a schedule that cannot be read."""
        _ = settings.learning_times
        self._settings = settings
        self._store = store
        self._turn = turn
        self._activity = activity
        self._clock = clock
        self._on_battery = on_battery or _runs_on_battery
        self._started_at = clock()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._runs: dict[int, _Run] = {}
        self._attempts: dict[int, _Attempt] = {}
        self._read_at = float("-inf")
        self._waiting: tuple[Waiting, ...] = ()
        self._elsewhere: int | None = None

    def start(self) -> None:
        """Begin to look; returns at once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="familiar-learning", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop a running learner after its current step, and wait for that; it is gone on from later."""
        self._ending.set()
        self._turn.close()
        if self._thread is not None:
            self._thread.join()

    # ---- what users ask for ----

    def run(self, user_id: int) -> None:
        """Learn from a user now, or as soon as it is their turn; a chat pauses it.

        Raises:
            MissingExtra: nothing can be learned in this installation.
            NotEnoughSignals: there are too few corrections.
            Busy: a run of theirs runs or waits already.
        """
        from familiar.adapters.extras import require_learn

        require_learn()
        waiting = self._look_at(user_id)
        if waiting.cannot:
            raise NotEnoughSignals(waiting.cannot)
        if not self._begin(user_id, "asked"):
            raise Busy("Your corrections are being learned already: GET /v1/learning shows how far it is.")

    def pause(self, user_id: int) -> None:
        """Pause a user's run until ``resume``. Raises NotFound when none runs."""
        self._require(user_id, self._turn.pause)

    def resume(self, user_id: int) -> None:
        """Let a user's paused run go on. Raises NotFound when none runs."""
        self._require(user_id, self._turn.resume)

    def stop_run(self, user_id: int) -> None:
        """End a user's run after its current step; the next one goes on from there.

        Raises NotFound when none runs, InvalidInput for a fine-tuning job: the queue would begin it again at once.
        """
        holder = self._turn.holder()
        if holder is not None and (holder.kind, holder.user_id) == ("job", user_id):
            job = f"/v1/fine_tuning/jobs/{holder.name}"
            raise InvalidInput(f"What runs is a fine-tuning job: POST {job}/pause or {job}/cancel stops it.")
        self._require(user_id, self._turn.stop)

    def state(self, user_id: int) -> Literal["off", "waiting", "running", "paused"]:
        """Whether something is being learned from a user."""
        holder = self._turn.holder()
        if holder is not None and holder.user_id == user_id:
            return "paused" if self._turn.paused() else "running"
        with self._lock:
            asked = user_id in self._runs
        return "off" if not asked and self._settings.learning_times.mode == "off" else "waiting"

    def status(self, user_id: int) -> dict[str, Any]:
        """What is being learned from a user, or why nothing is; of others no more than that they have their turn."""
        holder = self._turn.holder()
        own = holder is not None and holder.user_id == user_id
        with self._lock:
            run = self._runs.get(user_id)
            attempt = self._attempts.get(user_id)
        shown: dict[str, Any] | None = None
        if holder is not None and own:
            seconds = round(self._turn.active_s(), 1)
            shown = {"kind": holder.kind, "paused_by": self._turn.paused(), "active_seconds": seconds}
            shown |= {"begun": None, "phase": None, "done": None, "total": None, "figures": {}}
            if run is not None and run.begun_at is not None:
                shown |= {"begun": int(run.begun_at), **run.progress}
        waiting = self._look_at(user_id)
        decision = self._decide(self._clock(), (waiting,), holder)
        if run is not None and not own:
            decision = Decision(None, "its turn has not come")
        runs = self._store.runs(user_id)
        return {
            "object": "learning",
            "state": self.state(user_id),
            "schedule": self._settings.learn_schedule,
            "run": shown,
            "reason": None if own else decision.reason,
            "next_at": None if own or decision.next_at is None else int(decision.next_at),
            "new_signals": waiting.new,
            "needed_signals": self._settings.min_new_signals,
            "last_message": attempt.message if attempt else None,
            "last_run": learning_preview.run_object(runs[0]) if runs else None,
        }

    # ---- in the thread ----

    def _work(self) -> None:
        while not self._ending.wait(LOOK_S):
            try:
                self._look()
            except FamiliarError as error:
                log.warning("Learning waits: %s", error)
                self._ending.wait(_READ_S)
            except Exception:
                log.exception("The schedule of learning stumbled, and goes on")
                self._ending.wait(_READ_S)

    def _look(self) -> None:
        now, holder = self._clock(), self._turn.holder()
        idle_s = self._activity.idle_s()
        if holder is None:
            self._find_elsewhere()
            holder = self._turn.holder()
        elif holder.kind == "schedule":
            halted = learning_schedule.forbidden(now, self._on_battery(), self._settings)
            if halted is not None:
                self._turn.stop(holder.name, halted.reason)
        if holder is not None or self._settings.learning_times.mode == "off" or idle_s < REPLYING_S:
            return
        if now - self._read_at > _READ_S or now < self._read_at:
            self._read_at = now
            self._waiting = tuple(self._look_at(user.id) for user in self._store.users.all())
        decision = self._decide(now, self._waiting, None)
        if decision.user_id is not None:
            self._read_at = float("-inf")  # what was read is about to be learned
            self._begin(decision.user_id, "schedule")

    def _decide(self, now: float, users: Sequence[Waiting], holder: Holder | None) -> Decision:
        facts = Facts(
            self._activity.idle_s(),
            self._on_battery(),
            self._started_at,
            users,
            busy="something else is being learned" if holder else None,
            unable=self._unable,
        )
        return learning_schedule.due(now, facts, self._settings)

    @cached_property
    def _unable(self) -> str | None:
        return learning_preview.unable()

    def _look_at(self, user_id: int) -> Waiting:
        """What a user waits for, with what is known of runs that were not recorded."""
        found = learning_preview.waiting(self._settings, self._store, user_id)
        with self._lock:
            attempt = self._attempts.get(user_id)
        if attempt is None or attempt.state in ("promoted", "rejected"):
            return found
        last_at = max(found.last_at or 0.0, attempt.at)
        return replace(found, last_at=last_at, not_before=max(found.not_before, attempt.at + _RUN_AGAIN_S))

    def _find_elsewhere(self) -> None:
        """Take the turn for a learner that another process started."""
        pid = holder_pid(self._settings.data_dir)
        if pid is None or pid == self._elsewhere or not is_learner(pid, self._settings.data_dir):
            return
        self._elsewhere = pid
        threading.Thread(target=self._stand_by, args=(pid,), name="familiar-learner", daemon=True).start()

    def _stand_by(self, pid: int) -> None:
        """Have a learner of another process paused while there are chats, for as long as it runs."""
        running = (
            user.id for user in self._store.users.all() for run in self._store.runs(user.id)[:1] if run.pid == pid
        )
        try:
            with self._turn.taken("terminal", next(running, 0), f"process {pid}", wait_s=0) as lease:
                self._turn.look_after(lease, pid, ours=False)
                while is_learner(pid, self._settings.data_dir) and not self._ending.wait(LOOK_S):
                    pass
        except (Busy, psutil.Error):
            pass  # something of ours has begun at this very moment, or it has just ended
        finally:
            self._elsewhere = None

    # ---- a run ----

    def _begin(self, user_id: int, kind: Literal["asked", "schedule"]) -> bool:
        run = _Run(user_id, self._store.users.get(user_id).name, kind)
        with self._lock:
            if user_id in self._runs or self._ending.is_set():
                return False
            self._runs[user_id] = run
        threading.Thread(target=self._make, args=(run,), name="familiar-learner", daemon=True).start()
        return True

    def _make(self, run: _Run) -> None:
        scheduled = run.kind == "schedule"
        wait_s, limit_s = (0.0, self._settings.max_minutes * 60) if scheduled else (None, None)
        stopped, state, message = None, "error", ""
        try:
            with self._turn.taken(run.kind, run.user_id, f"user {run.name}", wait_s=wait_s, limit_s=limit_s) as lease:
                run.begun_at = self._clock()
                try:
                    outcome = run_learner(
                        self._settings, lambda event: _note(run, event), user=run.name, on_start=lease.attach
                    )
                finally:
                    stopped = lease.stopped
                state, message = outcome.state, outcome.message
        except FamiliarError as error:
            state, message = ("stopped", "It was stopped before it had begun.") if stopped else ("error", str(error))
            if state == "error" and not isinstance(error, Busy | NotEnoughSignals):
                log.warning("Learning from %s: %s", run.name, message)
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            log.exception("Learning from %s failed", run.name)
        finally:
            with self._lock:
                self._attempts[run.user_id] = _Attempt(self._clock(), state, message)
                del self._runs[run.user_id]

    def _require(self, user_id: int, act: Callable[[str], bool]) -> None:
        holder = self._turn.holder()
        if holder is None or holder.user_id != user_id or not act(holder.name):
            raise NotFound("Nothing of yours is being learned: GET /v1/learning says why.")


def _note(run: _Run, event: Mapping[str, Any]) -> None:
    """Keep how far a run is, from the learner's events."""
    if event["event"] == "phase":
        run.progress = {"phase": event["name"]}
    else:
        figures = {**run.progress.get("figures", {}), **event.get("figures", {})}
        run.progress = {**run.progress, "done": event["done"], "total": event["total"], "figures": figures}


def _runs_on_battery() -> bool:
    """Whether the machine has a battery and is not plugged in."""
    read = getattr(psutil, "sensors_battery", None)  # not on every system
    battery = read() if read else None
    return battery is not None and battery.power_plugged is False

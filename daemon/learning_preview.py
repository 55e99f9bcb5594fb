"""What a learning run would learn from, what it would take, and why it would not begin: asked before one is made.

The counts are those of the learner itself (``feedback``); nothing is written, and torch is not imported.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

from familiar.adapters.estimate import Estimate, estimate
from familiar.adapters.extras import require_learn
from familiar.adapters.gguf_file import read_header
from familiar.adapters.recipe import Recipe
from familiar.daemon import model_files
from familiar.daemon.learnable import Signals, parted, revised, signals
from familiar.daemon.learner_lock import holder_pid
from familiar.daemon.learning_schedule import Waiting, not_before
from familiar.daemon.learning_turn import is_learner
from familiar.feedback import habits
from familiar.feedback.pairs import Example
from familiar.memory.errors import MissingExtra, NotEnoughSignals
from familiar.memory.types import LearningRun

if TYPE_CHECKING:
    from familiar.daemon.settings import Settings
    from familiar.memory.store import Store

BYTES_PER_TOKEN = 3
"""Fewer than a token has as a rule, so that an estimate is on the safe side."""

_ENDED = ("promoted", "rejected")


@dataclass(frozen=True)
class Known:
    """What a user has for the learner, and their runs, newest first."""

    signals: Signals
    runs: tuple[LearningRun, ...]

    @property
    def new(self) -> list[float]:
        """When the signals were given that the last run which ended did not know, in order."""
        last = next((run.created_at for run in self.runs if run.state in _ENDED), float("-inf"))
        return [at for at in self.signals.given_at if at > last]

    def cannot(self, min_signals: int) -> str | None:
        """Why they are too few for a run."""
        try:
            parted(self.signals, min_signals)
        except NotEnoughSignals as error:
            return str(error)
        return None


def known_of(store: "Store", user_id: int) -> Known:
    """Read what a user has for the learner."""
    return Known(signals(store, user_id), tuple(store.runs(user_id)))


def waiting(settings: "Settings", store: "Store", user_id: int) -> Waiting:
    """What the schedule is told of a user."""
    known = known_of(store, user_id)
    new, last = known.new, known.runs[0] if known.runs else None
    enough = new[settings.min_new_signals - 1] if len(new) >= settings.min_new_signals else float("inf")
    return Waiting(
        user_id,
        len(new),
        enough,
        last_at=None if last is None else last.ended_at or last.created_at,
        not_before=not_before(known.runs),
        cannot=known.cannot(settings.min_signals),
    )


def unable() -> str | None:
    """Why nothing can be learned in this installation."""
    try:
        require_learn()
    except MissingExtra as error:
        return str(error)
    return None


def preview(settings: "Settings", store: "Store", user_id: int) -> dict[str, Any]:
    """What a run for the user would be, as ``familiar learn --dry-run --json`` prints it. Sizes are bytes."""
    known = known_of(store, user_id)
    corrections = known.signals.corrections
    last = known.runs[0] if known.runs else None
    kinds = [memory.kind for memory in store.memories(user_id)]
    too_few = known.cannot(settings.min_signals)
    cannot = unable() or too_few
    facts: dict[str, Any] = {
        "user": store.users.get(user_id).name,
        "corrections": len(corrections),
        "ratings": len(known.signals.ratings),
        "rules": kinds.count("rule"),
        "facts": kinds.count("fact"),
        "graders": len(store.graders(user_id)),
        "new_signals": len(known.new),
        "habits": list(habits.find(corrections).wants),
        "held_out": None,
        "train": None,
        "memory_bytes": None,
        "seconds": None,
        "last_run": run_object(last) if last else None,
        "cannot": cannot,
    }
    if cannot is None or corrections:
        expected = _estimate(settings, corrections)
        facts |= {"memory_bytes": expected.memory_bytes, "seconds": round(expected.seconds)}
    if too_few is None:
        dataset = revised(known.signals, settings.min_signals).dataset
        facts |= {"held_out": len(dataset.held_out), "train": len(dataset.train)}
        if cannot is None and last and last.state == "promoted" and not known.new:
            facts["cannot"] = f"Nothing is new since v{last.version}: --force learns it again."
    return facts


def status_without_service(settings: "Settings", store: "Store", user_id: int) -> dict[str, Any]:
    """What ``GET /v1/learning`` would say if a service ran: without one only a command learns, which nothing pauses."""
    pid = holder_pid(settings.data_dir)
    known = known_of(store, user_id)
    last = known.runs[0] if known.runs else None
    runs = last is not None and last.pid == pid and pid is not None and is_learner(pid, settings.data_dir)
    running = {"kind": "terminal", "paused_by": None, "active_seconds": 0.0, "begun": None, "phase": None}
    return {
        "object": "learning",
        "state": "running" if runs else "off" if settings.learning_times.mode == "off" else "waiting",
        "schedule": settings.learn_schedule,
        "run": {**running, "done": None, "total": None, "figures": {}} if runs else None,
        "reason": None if runs else "no service runs: `familiar serve` starts one",
        "next_at": None,
        "new_signals": len(known.new),
        "needed_signals": settings.min_new_signals,
        "last_message": None,
        "last_run": run_object(last) if last else None,
    }


def run_object(run: LearningRun) -> dict[str, Any]:
    """A recorded run, as the API and ``--json`` show it. Times are seconds since the epoch."""
    report = run.report or {}
    return {
        "object": "learning.run",
        "id": run.id,
        "state": run.state,
        "created": int(run.created_at),
        "ended": None if run.ended_at is None else int(run.ended_at),
        "version": run.version,
        "error": run.error,
        "config": dict(run.config),
        "report": dict(report),
    }


def _estimate(settings: "Settings", found: tuple[Example, ...]) -> Estimate:
    texts = [
        "".join([*(message["content"] for message in each.messages), each.chosen, each.rejected or ""])
        for each in found
    ]
    tokens = [len(text.encode()) // BYTES_PER_TOKEN + 1 for text in texts]
    cores = settings.threads or psutil.cpu_count(logical=False) or 1
    return estimate(
        read_header(model_files.resolve(settings.model)), Recipe.from_dict(settings.recipe), tokens, cores=cores
    )

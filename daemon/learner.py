"""The learner: a process of its own that turns corrections into an adapter version (``-m familiar.daemon.learner``).

It reports on stdout, one JSON object per line: ``{"event": "phase", "name"}``, ``{"event": "progress", "phase", "done",
"total", "figures"}``, and at the end one ``{"event": "result", …}`` or ``{"event": "error", "kind", "message"}``.
Whatever else is printed in this process goes to stderr. This file is the process: its lock, its signals, the run's
record in the store; what a run does is in ``learner_steps``.

A kill at any moment leaves the served version as it was, and a run folder that the next run goes on from. SIGTERM stops
after the current step.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from familiar.adapters import registry
from familiar.adapters.extras import require_learn
from familiar.daemon import data_folder
from familiar.daemon import settings as settings_module
from familiar.daemon.learner_lock import learner_lock
from familiar.daemon.learner_plan import Plan, plan
from familiar.daemon.learner_steps import Emit, Phases, Result, Stopped, Task, train_and_judge
from familiar.daemon.settings import Settings
from familiar.memory.errors import FamiliarError, LearningFailed, NotEnoughSignals
from familiar.memory.store import Store
from familiar.memory.types import LearningRun, RunState

NICENESS = 10
KILLED = "The learner was killed before it ended."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run once; 0 when the run ended as a run may (promoted, rejected, stopped, nothing new), 1 after an error."""
    emit = _claim_stdout()
    options = _parse(arguments)
    stop = _Stop()
    signal.signal(signal.SIGTERM, stop.request)
    os.nice(NICENESS)
    flags = {name: getattr(options, name) for name in ("data_dir", "model", "config", "threads")}
    try:
        settings = settings_module.load({**flags, "min_signals": options.min_signals})
        data_folder.make(settings.data_dir)
        with learner_lock(settings.data_dir), Store.open(settings.database) as store:
            user, recipe = store.users.id_of(options.user), json.loads(options.recipe)
            emit(learn(settings, store, user, recipe, emit, stop.check, force=options.force))
    except FamiliarError as error:
        traceback.print_exc()
        emit({"event": "error", "kind": type(error).__name__, "message": str(error)})
        return 1
    return 0


def learn(
    settings: Settings,
    store: Store,
    user: int,
    recipe: Mapping[str, object],
    emit: Emit,
    check_stop: Callable[[], None],
    *,
    force: bool = False,
    clock: Callable[[], float] = time.time,
) -> dict[str, Any]:
    """Make or resume a learning run of the user and return its "result" event. Call only with the learner's lock held.

    Raises:
        NotEnoughSignals: there are too few corrections; no run is recorded.
        MissingExtra: torch, transformers or peft is not installed; no run is recorded.
        LearningFailed: the run failed; it is recorded as failed with this error's text.
    """
    removals = store.removals(user)
    _close_orphans(store, user, clock)
    require_learn()
    phases = Phases(emit)
    runs = settings.data_dir / "runs"
    newest, now = next(iter(store.runs(user)), None), clock()
    try:
        with phases("data"):
            planned = _unchanged_plan(settings, store, user, recipe, newest) if newest and not force else None
            planned = planned or plan(settings, store, user, recipe, until=now)
    except NotEnoughSignals:
        _prune(runs, store, user, keep=None)  # of what a killed run was taught, too much may have been forgotten
        raise
    if newest and newest.state == "promoted" and newest.fingerprint == planned.fingerprint and not force:
        _prune(runs, store, user, keep=None)  # it may have been killed just after its promotion
        return _unchanged(store, user, newest, planned)
    run = _open_run(store, user, planned, newest, now)
    _prune(runs, store, user, keep=run.id)
    try:
        check_stop()
        result = train_and_judge(Task(settings, store, run, planned, runs / run.id, phases, check_stop))
    except Stopped:
        store.update_run(replace(run, state="stopped", ended_at=clock(), error="It was asked to stop."))
        return _event("stopped", "Stopped; `familiar learn` goes on from here.", store, user, run, planned, phases)
    except Exception as error:
        message = " ".join(str(error).split()) or type(error).__name__
        store.update_run(replace(run, state="failed", ended_at=clock(), error=message))
        if isinstance(error, FamiliarError):
            raise
        raise LearningFailed(
            f"Learning failed ({type(error).__name__}: {message}); the served adapter is as it was. "
            f"The traceback is in {settings.data_dir / 'logs' / 'learner.log'}."
        ) from error
    finally:
        if store.removals(user) != removals:
            _prune(runs, store, user, keep=None)  # whoever forgot something had to leave the checkpoints to us
    report = {"gate": result.report.to_dict(), "seconds": phases.seconds}
    state: RunState = "promoted" if result.version else "rejected"
    number = result.version.number if result.version else None
    store.update_run(replace(run, state=state, ended_at=clock(), version=number, report=report))
    _prune(runs, store, user, keep=None)
    return _event(state, _message(result), store, user, run, planned, phases, result)


def _unchanged_plan(
    settings: Settings, store: Store, user: int, recipe: Mapping[str, object], newest: LearningRun
) -> Plan | None:
    """The newest run's plan if there was nothing but chats since: none of these is a reason to begin anew, or again."""
    with suppress(NotEnoughSignals):
        planned = plan(settings, store, user, recipe, until=newest.created_at)
        if planned.fingerprint == newest.fingerprint:
            return planned
    return None


def _open_run(store: Store, user: int, planned: Plan, newest: LearningRun | None, now: float) -> LearningRun:
    """Go on with the newest run if it was stopped while learning the very same thing, else record a new one."""
    if newest and newest.state == "stopped" and newest.fingerprint == planned.fingerprint:
        run = replace(newest, state="running", pid=os.getpid(), ended_at=None, error=None)
        store.update_run(run)
        return run
    run = LearningRun(
        id=f"run-{uuid4().hex}",
        user_id=user,
        created_at=now,
        state="running",
        config=planned.recipe.to_dict(),
        fingerprint=planned.fingerprint,
        pid=os.getpid(),
    )
    store.add_run(run)
    return run


def _close_orphans(store: Store, user: int, clock: Callable[[], float]) -> None:
    """Record that runs still called running have stopped: the lock is ours, so no process of theirs is left."""
    for run in store.runs(user):
        if run.state == "running":
            store.update_run(replace(run, state="stopped", ended_at=clock(), error=KILLED))


def _prune(runs: Path, store: Store, user: int, keep: str | None) -> None:
    """Remove the folders of the user's runs that nothing goes on from; adapters and reports are kept elsewhere."""
    for run in store.runs(user):
        if run.id != keep:
            shutil.rmtree(runs / run.id, ignore_errors=True)


def _unchanged(store: Store, user: int, newest: LearningRun, planned: Plan) -> dict[str, Any]:
    current = registry.served(store, user, planned.base_sha256)
    served = current.number if current else None
    message = f"Nothing new to learn since v{newest.version}."
    if served != newest.version:
        message += f" It is not in service: `familiar rollback --to {newest.version}` serves it."
    return {"event": "result", "state": "unchanged", "message": message, "version": served, "run_id": newest.id}


def _message(result: Result) -> str:
    if result.version:
        strength = result.report.strength
        less = f" At {strength:.0%} of its strength: with more, it would do harm." if strength < 1 else ""
        return f"Serving v{result.version.number} now.{less}"
    failed = ", ".join(check.name for check in result.report.checks if not check.ok)
    return f"Not served: the candidate failed the gate ({failed}). What was served before still is."


def _event(
    state: str,
    message: str,
    store: Store,
    user: int,
    run: LearningRun,
    planned: Plan,
    phases: Phases,
    result: Result | None = None,
) -> dict[str, Any]:
    current = registry.served(store, user, planned.base_sha256)
    return {
        "event": "result",
        "state": state,
        "message": message,
        "version": current.number if current else None,
        "run_id": run.id,
        "examples": len(planned.dataset.train) + len(planned.dataset.held_out),
        "checks": [asdict(check) for check in result.report.checks] if result else [],
        "seconds": phases.seconds,
    }


class _Stop:
    """SIGTERM, as a question that the steps ask between two pieces of work."""

    requested = False

    def request(self, _signal: int, _frame: object) -> None:
        self.requested = True

    def check(self) -> None:
        """Raise Stopped once a stop was asked for."""
        if self.requested:
            raise Stopped


def _claim_stdout() -> Emit:
    """Keep stdout for events alone: what anything else prints there, C code included, goes to stderr."""
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def emit(event: Mapping[str, Any]) -> None:
        with suppress(BrokenPipeError):  # whoever listened has gone; the work is still worth ending
            events.write(json.dumps(event) + "\n")
            events.flush()

    return emit


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m familiar.daemon.learner", description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--model")
    parser.add_argument("--config")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--min-signals", type=int)
    parser.add_argument("--user", help="whose corrections are learned; the default user's without it")
    parser.add_argument("--recipe", default="{}", help="a JSON object of the recipe's fields")
    parser.add_argument("--force", action="store_true", help="learn again although nothing has changed")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())

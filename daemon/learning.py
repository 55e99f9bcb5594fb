"""The parent's side of learning: start the learner as a child process, relay what it reports, and never fail with it.

The child (``familiar.daemon.learner``) prints JSON lines on stdout; everything else that it, torch or llama.cpp print
goes to ``logs/learner.log`` in the data folder. Whatever happens to the child, this process gets either an Outcome or
one FamiliarError.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from familiar.daemon import child_log, data_folder, local_service
from familiar.memory import errors

if TYPE_CHECKING:
    from familiar.daemon.settings import Settings

STOP_TIMEOUT_S = 20.0
"""How long a learner that was asked to stop may take to end its current step and record that it stopped."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: ``state`` is promoted, rejected, stopped, or unchanged when there was nothing new to learn.

    ``version`` is the adapter version that is served now, None for the base model. ``checks`` are the gate's, each with
    name, value, limit, ok and detail; ``seconds`` is per phase.
    """

    state: str
    message: str
    version: int | None = None
    run_id: str | None = None
    examples: int = 0
    checks: tuple[Mapping[str, Any], ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)


def run_learner(
    settings: "Settings",
    on_event: Callable[[Mapping[str, Any]], None],
    *,
    force: bool = False,
    user: str | None = None,
    on_start: Callable[["subprocess.Popen[bytes]"], None] = lambda child: None,
) -> Outcome:
    """Run one learning run to its end, calling ``on_event`` with each "phase" and "progress" event.

    Args:
        force: learn again although nothing changed since the last run.
        user: whose corrections are learned, by name; None is the default user.
        on_start: called with the child, which leads a session of its own, as soon as it runs.

    Raises:
        FamiliarError: the one that the learner reported (Busy, NotEnoughSignals, …).
        LearningFailed: the learner crashed; the tail of what it said is in ``logs/learner.log``.
    """
    arguments = [*settings.to_arguments(), "--min-signals", str(settings.min_signals)]
    arguments += ["--recipe", json.dumps(settings.recipe)]
    if force:
        arguments.append("--force")
    if user is not None:
        arguments += ["--user", user]
    log = data_folder.make(settings.data_dir / "logs") / "learner.log"
    with child_log.opened(log) as output:
        begin = output.tell()
        # A session of its own: on Ctrl-C only this process hears it, and asks the learner to stop.
        child = subprocess.Popen(
            [sys.executable, "-m", "familiar.daemon.learner", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            start_new_session=True,
        )
    try:
        on_start(child)
        outcome = _relay(child, on_event)
        code = child.wait()
    finally:
        local_service.stop(child, STOP_TIMEOUT_S)
        if child.stdout is not None:
            child.stdout.close()
    if outcome is None:
        raise errors.LearningFailed(
            f"The learner {child_log.ending(code, log, begin)}. The served adapter is as it was; see {log}, then run "
            f"`familiar learn` again."
        )
    return outcome


def _relay(child: "subprocess.Popen[bytes]", on_event: Callable[[Mapping[str, Any]], None]) -> Outcome | None:
    """Pass events on until the child closes its stdout; None when it never said how it ended."""
    outcome = None
    for event in _events(child):
        if event["event"] == "error":
            raise _as_error(event)
        if event["event"] == "result":
            outcome = _outcome(event)
        else:
            on_event(event)
    return outcome


def _events(child: "subprocess.Popen[bytes]") -> Iterator[dict[str, Any]]:
    assert child.stdout is not None  # it was opened as a pipe
    for line in child.stdout:
        try:
            event = json.loads(line)
        except ValueError:
            continue  # a line cut short by a crash
        if isinstance(event, dict) and "event" in event:
            yield event


def _outcome(event: Mapping[str, Any]) -> Outcome:
    return Outcome(
        state=str(event["state"]),
        message=str(event["message"]),
        version=event.get("version"),
        run_id=event.get("run_id"),
        examples=int(event.get("examples", 0)),
        checks=tuple(event.get("checks", ())),
        seconds=dict(event.get("seconds", {})),
    )


def _as_error(event: Mapping[str, Any]) -> errors.FamiliarError:
    """Rebuild the error that the child named; a kind of which we know nothing is a failed run."""
    kind = getattr(errors, str(event.get("kind")), None)
    if not (isinstance(kind, type) and issubclass(kind, errors.FamiliarError)):
        kind = errors.LearningFailed
    return kind(str(event["message"]))

"""Whether to learn now, and from whom: a decision from facts that the caller has gathered, the clock among them. Pure.

Nothing is owed: times that passed while the machine slept or the service did not run are not made up for, but that the
latest cron time stands until it was used or the next one comes. Each user has one run for each cron time.

Who is next is who has waited longest: since their last new signal that was needed for a run, or since their last
run, whatever came of it. A user whose run failed waits longer each time, one whose run was stopped for an hour.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from familiar.memory.types import LearningRun

if TYPE_CHECKING:
    from familiar.daemon.settings import Settings

HOUR_S = 3600.0
FAILURE_S = HOUR_S
"""How long a user waits after a run that failed; twice as long after each further one, up to ``MOST_S``."""
MOST_S = 24 * HOUR_S
STOPPED_S = HOUR_S
"""How long a user waits after a run that was stopped, by its time limit or by somebody."""
REPLYING_S = 5.0
"""A run by cron expression begins only when the model has had nothing to do for this long."""


@dataclass(frozen=True)
class Waiting:
    """What a user has for the learner: ``new`` signals since their last run that ended, ``since`` when enough.

    ``since`` and ``last_at`` (the last run's end, None before the first) are seconds since the epoch. ``not_before`` is
    when the last run's ending lets the next one begin. ``cannot`` is why a run would not begin at all.
    """

    user_id: int
    new: int
    since: float
    last_at: float | None = None
    not_before: float = 0.0
    cannot: str | None = None


@dataclass(frozen=True)
class Facts:
    """What a decision rests on. ``unable`` is why nobody can learn here, ``busy`` what is being learned already."""

    idle_s: float
    on_battery: bool
    started_at: float
    users: Sequence[Waiting]
    busy: str | None = None
    unable: str | None = None


@dataclass(frozen=True)
class Decision:
    """The user to learn from now, or None; why; and when that could change by time alone, where it can be known."""

    user_id: int | None
    reason: str
    next_at: float | None = None


def due(now: float, facts: Facts, settings: "Settings") -> Decision:
    """Decide. ``settings.learning_times`` must be readable."""
    times = settings.learning_times
    if facts.unable or times.mode == "off":
        return Decision(None, facts.unable or "learn.schedule is off")
    if facts.busy:
        return Decision(None, facts.busy)
    ready = [user for user in facts.users if user.cannot is None and user.new >= settings.min_new_signals]
    if not ready:
        return Decision(None, _not_ready(facts.users, settings.min_new_signals))
    free = [user for user in ready if user.not_before <= now]
    if not free:
        return Decision(None, "the last run failed or was stopped not long ago", min(user.not_before for user in ready))
    halted = forbidden(now, facts.on_battery, settings)
    if halted:
        return halted
    if times.mode == "cron":
        tick = times.latest(now)
        free = [user for user in free if tick > max(facts.started_at, user.last_at or 0.0)]
        if not free:
            return Decision(None, "its time has not come", times.next(now))
    needed_s = REPLYING_S if times.mode == "cron" else times.idle_s
    if facts.idle_s < needed_s:
        return Decision(None, "the model is in use, or was a moment ago", now + needed_s - facts.idle_s)
    chosen = min(free, key=lambda user: (max(user.since, user.last_at or 0.0), user.user_id))
    return Decision(chosen.user_id, f"{chosen.new} new signals")


def forbidden(now: float, on_battery: bool, settings: "Settings") -> Decision | None:
    """Why nothing may be learned unasked at this moment, however long nobody chats; None when it may."""
    if on_battery and not settings.on_battery:
        return Decision(None, "the machine runs on battery, and learn.on_battery is false")
    hours = settings.learning_times.hours
    if hours is not None and now not in hours:
        return Decision(None, f"it is outside learn.allowed_hours ({settings.allowed_hours})", hours.opens(now))
    return None


def not_before(runs: Sequence[LearningRun]) -> float:
    """When a user's next run may begin, from their runs, newest first."""
    if not runs or runs[0].ended_at is None:
        return 0.0
    if runs[0].state == "stopped":
        return runs[0].ended_at + STOPPED_S
    failures = 0
    for run in runs:
        if run.state != "failed":
            break
        failures += 1
    return runs[0].ended_at + min(MOST_S, FAILURE_S * 2.0 ** (failures - 1)) if failures else 0.0


def _not_ready(users: Sequence[Waiting], needed: int) -> str:
    if not users:
        return "there is no user"
    most = max(users, key=lambda user: (user.new, user.cannot is None))
    if most.new >= needed and most.cannot:
        return most.cannot
    return f"{most.new} new signals since the last run, and learn.min_new_signals is {needed}"

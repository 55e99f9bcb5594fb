"""The times at which the service may learn unasked: when idle or by cron expression, within the allowed hours. Pure.

Times are seconds since the epoch and are read as this machine's local time. On the two days of the year on which the
clock is changed a time of that hour may come twice or not at all.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Literal, Self

from familiar.memory.errors import InvalidInput

_HOURS = re.compile(r"(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})")
_CRON_FIELDS = 5


@dataclass(frozen=True)
class Hours:
    """From ``start`` to before ``end``, over midnight where that is earlier; the same twice is the whole day."""

    start: time
    end: time

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The hours in ``22:00-07:00``; None for ``any``. Raises InvalidInput."""
        if text == "any":
            return None
        match = _HOURS.fullmatch(text)
        try:
            if match:
                first, second, third, fourth = map(int, match.groups())
                return cls(_time(first, second), _time(third, fourth))
        except ValueError:
            pass  # 25:00, say
        raise InvalidInput(
            f"learn.allowed_hours is {text!r}, but any or hours such as 22:00-07:00 are expected.",
            "learn.allowed_hours",
        )

    def __contains__(self, now: float) -> bool:
        at = datetime.fromtimestamp(now).time()
        if self.start < self.end:
            return self.start <= at < self.end
        return at >= self.start or at < self.end

    def opens(self, now: float) -> float:
        """When they next begin."""
        today = datetime.fromtimestamp(now)
        at = datetime.combine(today, self.start)
        return (at if at > today else at + timedelta(days=1)).timestamp()


@dataclass(frozen=True)
class LearningTimes:
    """``mode`` is off, idle (after ``idle_s`` seconds without a request) or cron; ``hours`` None is all of them."""

    mode: Literal["off", "idle", "cron"]
    idle_s: float = 0.0
    cron: str = ""
    hours: Hours | None = None

    @classmethod
    def parse(cls, schedule: str, idle_minutes: float, allowed_hours: str) -> Self:
        """The times that the settings name. Raises InvalidInput."""
        hours = Hours.parse(allowed_hours)
        if schedule in ("off", "idle"):
            return cls("idle" if schedule == "idle" else "off", idle_minutes * 60, hours=hours)
        from croniter import croniter

        if len(schedule.split()) != _CRON_FIELDS or not croniter.is_valid(schedule):
            raise InvalidInput(
                f"learn.schedule is {schedule!r}, but idle, off or a cron expression of five fields such as 0 3 * * * "
                f"is expected.",
                "learn.schedule",
            )
        return cls("cron", cron=schedule, hours=hours)

    def latest(self, now: float) -> float:
        """The last time at or before ``now`` that the cron expression names."""
        # croniter's previous time is before the one it starts from, which may itself be one.
        return self._cron(now + 1e-3, lambda times: times.get_prev(datetime))

    def next(self, now: float) -> float:
        """The first time after ``now`` that the cron expression names."""
        return self._cron(now, lambda times: times.get_next(datetime))

    def _cron(self, now: float, step: Callable[..., datetime]) -> float:
        from croniter import croniter

        return step(croniter(self.cron, datetime.fromtimestamp(now))).timestamp()


def _time(hour: int, minute: int) -> time:
    """A time of the day; 24:00 is its end. Raises ValueError where there is none."""
    return time(0) if (hour, minute) == (24, 0) else time(hour, minute)

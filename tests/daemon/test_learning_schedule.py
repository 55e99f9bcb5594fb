"""When the service learns unasked: decisions over injected clocks and facts, and the settings that they read."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from familiar.daemon.learning_schedule import HOUR_S, Facts, Waiting, due, forbidden, not_before
from familiar.daemon.learning_times import Hours, LearningTimes
from familiar.daemon.settings import Settings, load
from familiar.memory.errors import InvalidInput
from familiar.memory.types import LearningRun, RunState


def at(hour: int, minute: int = 0, day: int = 3) -> float:
    """A local time of a day on which no clock is changed."""
    return datetime(2026, 2, day, hour, minute).timestamp()


NIGHT, NOON = at(3), at(12)
READY = Waiting(1, new=4, since=NIGHT - 9 * HOUR_S)
FACTS = Facts(idle_s=601.0, on_battery=False, started_at=at(0, day=1), users=(READY,))


def settings(**values: object) -> Settings:
    return Settings(**{"data_dir": Path("/nowhere"), **values})  # type: ignore[arg-type]


def test_it_learns_by_itself_when_idle() -> None:
    assert due(NIGHT, FACTS, settings()).user_id == 1
    soon = due(NIGHT, replace(FACTS, idle_s=599.0), settings())
    assert (soon.user_id, soon.next_at) == (None, NIGHT + 1.0)
    assert "in use" in soon.reason


@pytest.mark.parametrize(
    ("facts", "values", "why"),
    [
        (replace(FACTS, on_battery=True), {}, "battery"),
        (replace(FACTS, busy="a job is being learned"), {}, "a job"),
        (replace(FACTS, unable="Learning needs torch"), {}, "torch"),
        (FACTS, {"learn_schedule": "off"}, "off"),
        (FACTS, {"min_new_signals": 5}, "4 new signals since the last run, and learn.min_new_signals is 5"),
        (replace(FACTS, users=(replace(READY, cannot="all are of one prompt"),)), {}, "all are of one prompt"),
        (replace(FACTS, users=()), {}, "there is no user"),
        (replace(FACTS, users=(replace(READY, not_before=NIGHT + 60),)), {}, "failed or was stopped"),
        (FACTS, {"allowed_hours": "09:00-17:00"}, "outside learn.allowed_hours"),
    ],
)
def test_it_says_why_it_does_not(facts: Facts, values: dict[str, object], why: str) -> None:
    decision = due(NIGHT, facts, settings(**values))
    assert decision.user_id is None
    assert why in decision.reason


def test_battery_and_hours_can_be_allowed() -> None:
    on_battery = replace(FACTS, on_battery=True)
    assert due(NIGHT, on_battery, settings(on_battery=True)).user_id == 1
    assert due(NIGHT, FACTS, settings(allowed_hours="22:00-07:00")).user_id == 1
    by_day = due(NOON, FACTS, settings(allowed_hours="22:00-07:00"))
    assert (by_day.user_id, by_day.next_at) == (None, at(22))
    assert forbidden(NIGHT, False, settings()) is None


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("22:00-07:00", [(22, 0), (23, 59), (0, 0), (6, 59)], [(7, 0), (12, 0), (21, 59)]),
        ("09:30-17:00", [(9, 30), (16, 59)], [(9, 29), (17, 0), (0, 0)]),
        ("20:00-24:00", [(20, 0), (23, 59)], [(19, 59), (0, 0)]),
        ("00:00-00:00", [(0, 0), (12, 0)], []),
    ],
)
def test_hours_go_over_midnight(text: str, inside: list[tuple[int, int]], outside: list[tuple[int, int]]) -> None:
    hours = Hours.parse(text)
    assert hours is not None
    assert all(at(*time) in hours for time in inside)
    assert not any(at(*time) in hours for time in outside)


def test_a_cron_time_is_used_once_and_missed_ones_are_not_made_up_for() -> None:
    nightly = settings(learn_schedule="0 3 * * *")
    facts = replace(FACTS, idle_s=60.0)
    early = due(at(2, 59), replace(facts, started_at=at(1)), nightly)
    assert (early.user_id, early.next_at) == (None, at(3))
    assert due(at(3), facts, nightly).user_id == 1
    # Asleep for four days: the last of the missed times is made up for, once.
    late = at(9, day=7)
    assert due(late, facts, nightly).user_id == 1
    again = replace(facts, users=(replace(READY, new=9, last_at=late),))
    assert due(late + 60, again, nightly).user_id is None
    assert due(at(3, day=8), again, nightly).user_id == 1
    # What came while the service did not run is not.
    assert due(late, replace(facts, started_at=at(8, day=7)), nightly).user_id is None


def test_a_cron_time_does_not_begin_amid_a_reply() -> None:
    assert due(at(3), replace(FACTS, idle_s=0.0), settings(learn_schedule="0 3 * * *")).user_id is None


def test_who_has_waited_longest_is_next() -> None:
    first = Waiting(1, new=9, since=NIGHT - 300)
    second = Waiting(2, new=4, since=NIGHT - 200)
    stopped = replace(first, last_at=NIGHT - 100)  # has had a turn since, whatever came of it
    too_few = Waiting(3, new=1, since=NIGHT - 900)
    assert due(NIGHT, replace(FACTS, users=(second, first, too_few)), settings()).user_id == 1
    assert due(NIGHT, replace(FACTS, users=(second, stopped)), settings()).user_id == 2


def run(state: RunState, ended_at: float | None) -> LearningRun:
    return LearningRun("run-1", 1, 0.0, state, {}, "", ended_at=ended_at)


def test_failures_wait_longer_each_time() -> None:
    failed = [run("failed", 100.0 - number) for number in range(8)]
    assert not_before([]) == not_before([run("promoted", 100.0)]) == not_before([run("running", None)]) == 0.0
    assert not_before([*failed[:1], run("promoted", 1.0)]) == 100.0 + HOUR_S
    assert not_before(failed[:3]) == 100.0 + 4 * HOUR_S
    assert not_before(failed) == 100.0 + 24 * HOUR_S
    assert not_before([run("stopped", 100.0)]) == 100.0 + HOUR_S


@pytest.mark.parametrize(
    ("schedule", "hours"),
    [
        ("daily", "any"),
        ("61 * * * *", "any"),
        ("0 0 3 * * *", "any"),
        ("idle", "night"),
        ("idle", "25:00-03:00"),
        ("idle", "22-7"),
    ],
)
def test_a_schedule_that_cannot_be_read_is_refused(schedule: str, hours: str) -> None:
    with pytest.raises(InvalidInput, match=r"learn\.(schedule|allowed_hours) is .* expected"):
        LearningTimes.parse(schedule, 10, hours)


def test_settings_name_the_schedule(data_dir: Path) -> None:
    env = {"FAMILIAR_LEARN_SCHEDULE": "*/30 * * * *", "FAMILIAR_LEARN_ALLOWED_HOURS": "22:00-06:30"}
    times = load({"data_dir": data_dir}, env).learning_times
    assert (times.mode, times.next(at(3, 10))) == ("cron", at(3, 30))
    assert times.latest(at(3, 30)) == at(3, 30)
    assert times.hours is not None
    assert times.hours.opens(at(12)) == at(22)

"""The learner as its own process on the real model: what it leaves in the store however it ends.

The gate may turn a candidate down: these tests assert what must hold either way, and share one whole run, because
importing torch is slow.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from familiar.daemon import learner
from familiar.daemon.learner_lock import learner_lock
from familiar.daemon.learner_plan import plan
from familiar.daemon.learning import Outcome, run_learner
from familiar.daemon.settings import Settings
from familiar.memory.errors import Busy, FamiliarError, LearningFailed, NoSpace, NotEnoughSignals
from familiar.memory.store import Store
from familiar.memory.types import Exchange, Feedback, LearningRun, Message

pytestmark = pytest.mark.timeout(900)  # three imports of torch, perhaps on a busy machine
TOPICS = ("eggs", "rice", "sleep", "tea", "stains", "gifts", "travel", "books")


def correct(data_dir: Path, topics: tuple[str, ...] = TOPICS) -> None:
    """Fill a store with corrected exchanges."""
    with Store.open(data_dir / "familiar.db") as store:
        user = store.default_user()
        for number, topic in enumerate(topics):
            messages = (Message(role="user", content=f"What should I know about {topic}?"),)
            exchange = Exchange(f"chatcmpl-{topic}", user, float(number), "familiar", messages, f"Think about {topic}.")
            store.add_exchange(exchange)
            text = f"Think about {topic}. Onward, Skipper."
            store.add_feedback(Feedback(f"fb-{topic}", user, float(number), "correction", exchange.id, text), [])


def settings_for(data_dir: Path, model_path: Path, **values: Any) -> Settings:
    """Settings of a run that is short: what it learns does not matter here."""
    values = {"epochs": 2, "rank": 4, **values}
    return Settings(model=str(model_path), data_dir=data_dir, threads=1, **values)


def runs(data_dir: Path) -> list[LearningRun]:
    """The recorded runs, newest first."""
    with Store.open(data_dir / "familiar.db") as store:
        return store.runs(store.default_user())


def current(data_dir: Path) -> int | None:
    """The number of the version in service."""
    with Store.open(data_dir / "familiar.db") as store:
        version = store.current_version(store.default_user())
    return version.number if version else None


Event = Mapping[str, Any]


def is_step(event: Event) -> bool:
    """Whether an event tells of a training step."""
    return (event["event"], event.get("phase")) == ("progress", "train")


def signal_learner(data_dir: Path, number: signal.Signals) -> None:
    """Send a signal to the process of the newest run."""
    pid = runs(data_dir)[0].pid
    assert pid is not None
    os.kill(pid, number)


@dataclass(frozen=True)
class Learned:
    """One run in three pieces: asked to stop after its first epoch, then killed, then left to end."""

    settings: Settings
    stopped: tuple[Outcome, LearningRun, int | None]
    killed: tuple[str, LearningRun, int | None]
    outcome: Outcome
    events: list[list[Event]]


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Learned:
    """A learning run with two interruptions, made once."""
    data_dir = tmp_path_factory.mktemp("learned")
    correct(data_dir)
    settings = settings_for(data_dir, model_path, epochs=4)
    events: list[list[Event]] = [[], [], []]

    def stop(event: Event) -> None:
        events[0].append(event)
        if is_step(event) and event["done"] == event["total"] // 4 + 1:
            signal_learner(data_dir, signal.SIGTERM)

    def kill(event: Event) -> None:
        events[1].append(event)
        if is_step(event) or event.get("name") == "export":
            signal_learner(data_dir, signal.SIGKILL)

    first = run_learner(settings, stop)
    stopped = (first, runs(data_dir)[0], current(data_dir))
    with pytest.raises(LearningFailed) as failed:
        run_learner(settings, kill)
    killed = (str(failed.value), runs(data_dir)[0], current(data_dir))
    return Learned(settings, stopped, killed, run_learner(settings, events[2].append), events)


def test_a_run_that_was_asked_to_stop_says_so(learned: Learned) -> None:
    outcome, run, served = learned.stopped
    assert (outcome.state, run.state, served) == ("stopped", "stopped", None)
    assert outcome.run_id == run.id


def test_a_killed_run_changes_nothing_served(learned: Learned) -> None:
    message, run, served = learned.killed
    assert "SIGKILL" in message
    assert run.state == "running"  # nobody was left to say otherwise
    assert served is None


def test_an_interrupted_run_is_gone_on_from(learned: Learned) -> None:
    ended = runs(learned.settings.data_dir)
    assert [run.id for run in ended] == [learned.stopped[1].id]
    assert learned.killed[1].id == learned.outcome.run_id == ended[0].id
    for events in learned.events[1:]:
        steps = [event["done"] for event in events if is_step(event)]
        assert min(steps, default=2) > 1  # the epochs before were not taken again
        assert not [event for event in events if event.get("phase") == "reference"]  # nor were the reference figures


def test_a_run_ends_promoted_or_rejected_with_its_report(learned: Learned) -> None:
    run = runs(learned.settings.data_dir)[0]
    assert run.state == learned.outcome.state
    assert run.state in ("promoted", "rejected")
    assert run.report is not None
    gate = run.report["gate"]
    assert isinstance(gate, dict)
    assert gate["passed"] == (run.state == "promoted")
    assert [check["name"] for check in gate["checks"]] == [check["name"] for check in learned.outcome.checks]
    assert current(learned.settings.data_dir) == (1 if run.state == "promoted" else None)
    assert run.config["epochs"] == 4


def test_a_run_reports_every_phase_and_its_seconds(learned: Learned) -> None:
    phases = [event["name"] for event in learned.events[-1] if event["event"] == "phase"]
    assert phases[0] == "data"
    assert {"load", "train", "export", "parity", "gate"} <= set(phases)
    assert set(phases) == set(learned.outcome.seconds)
    judged = [event for event in learned.events[-1] if event.get("phase") == "gate"]
    assert judged[-1]["done"] == judged[-1]["total"]


def test_torch_and_llama_cpp_agree_on_the_trained_adapter(learned: Learned) -> None:
    check = next(check for check in learned.outcome.checks if "parity" in check["name"])
    assert check["ok"], check


def test_an_ended_run_leaves_no_folder(learned: Learned) -> None:
    folder = learned.settings.data_dir / "runs"
    assert not folder.exists() or not list(folder.iterdir())


def test_too_few_corrections_record_no_run(data_dir: Path, model_path: Path) -> None:
    correct(data_dir, TOPICS[:2])
    with pytest.raises(NotEnoughSignals, match="at least 4 corrections but has 2"):
        run_learner(settings_for(data_dir, model_path), lambda event: None)
    assert runs(data_dir) == []


def test_a_second_learner_is_busy(data_dir: Path, model_path: Path) -> None:
    correct(data_dir)
    with learner_lock(data_dir), pytest.raises(Busy, match=f"process {os.getpid()}"):
        run_learner(settings_for(data_dir, model_path), lambda event: None)
    assert runs(data_dir) == []


def test_ctrl_c_stops_the_learner_too(data_dir: Path, model_path: Path) -> None:
    correct(data_dir)

    def interrupt(event: Event) -> None:
        if event.get("name") == "encode":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_learner(settings_for(data_dir, model_path), interrupt)
    assert [run.state for run in runs(data_dir)] in (["stopped"], ["running"])
    with learner_lock(data_dir):
        pass  # nothing holds it any more


@pytest.mark.parametrize("error", [RuntimeError("no such\nlayer"), NoSpace("The disk is full.")])
def test_a_run_that_fails_is_recorded_with_its_reason(
    data_dir: Path, model_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    correct(data_dir)
    settings = settings_for(data_dir, model_path)
    monkeypatch.setattr(learner, "train_and_judge", fail)
    expected = type(error) if isinstance(error, FamiliarError) else LearningFailed
    with Store.open(settings.database) as store, pytest.raises(expected) as raised:
        learner.learn(settings, store, store.default_user(), settings.recipe, lambda event: None, lambda: None)
    assert "\n" not in str(raised.value)
    run = runs(data_dir)[0]
    assert (run.state, run.error) == ("failed", " ".join(str(error).split()))
    assert current(data_dir) is None


def test_only_events_reach_stdout(data_dir: Path, model_path: Path) -> None:
    command = [sys.executable, "-m", "familiar.daemon.learner", "--data-dir", str(data_dir), "--model", str(model_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert events[-1]["event"] == "error"
    assert events[-1]["kind"] == "NotEnoughSignals"


def test_nothing_new_is_said_and_not_learned_twice(data_dir: Path, model_path: Path) -> None:
    correct(data_dir)
    settings = settings_for(data_dir, model_path)
    with Store.open(settings.database) as store:
        user = store.default_user()
        planned = plan(settings, store, user, settings.recipe)
        done = LearningRun("run-1", user, 1.0, "promoted", {}, planned.fingerprint, ended_at=2.0, version=3)
        store.add_run(done)
    outcome = run_learner(settings, lambda event: None)
    assert outcome.state == "unchanged"
    assert "Nothing new to learn since v3." in outcome.message
    assert len(runs(data_dir)) == 1

"""The learner as its own process on the real model: what it leaves in the store however it ends.

The gate may turn a candidate down: these tests assert what must hold either way, and share one whole run, because
importing torch is slow.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from familiar.adapters import registry
from familiar.adapters.gate import Report
from familiar.daemon import learner
from familiar.daemon.learner_lock import learner_lock
from familiar.daemon.learner_plan import plan
from familiar.daemon.learner_steps import Result, Stopped, Task
from familiar.daemon.learning import Outcome, run_learner
from familiar.daemon.settings import Settings
from familiar.memory.errors import Busy, FamiliarError, LearningFailed, NoSpace, NotEnoughSignals
from familiar.memory.store import Store
from familiar.memory.types import Exchange, Feedback, LearningRun, Memory, Message

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


@pytest.mark.parametrize("chats", [0, 1])
def test_nothing_new_is_said_and_not_learned_twice(data_dir: Path, model_path: Path, chats: int) -> None:
    """A chat is nothing new, though memories would be taught on what is asked in it."""
    correct(data_dir)
    settings = settings_for(data_dir, model_path)
    with Store.open(settings.database) as store:
        user, now = store.default_user(), time.time()
        store.put_memory(Memory("mem-1", user, 1.0, "rule", "Be brief."), 1.0)
        planned = plan(settings, store, user, settings.recipe)
        done = LearningRun("run-1", user, now, "promoted", {}, planned.fingerprint, ended_at=now, version=3)
        store.add_run(done)
        for _ in range(chats):
            messages = (Message(role="user", content="What is a fjord?"),)
            store.add_exchange(Exchange("chatcmpl-new", user, now + 0.001, "familiar", messages, "Water."))
            assert plan(settings, store, user, settings.recipe).fingerprint != planned.fingerprint
    outcome = run_learner(settings, lambda event: None)
    assert outcome.state == "unchanged"
    assert "Nothing new to learn since v3." in outcome.message
    assert len(runs(data_dir)) == 1


class Killed(BaseException):
    """What SIGKILL is to a test: nothing of ours catches it."""


def promoted(task: Task, candidate: Path, untold: Sequence[Memory] = ()) -> Result:
    """The end of a run whose candidate, of no real weights, has passed."""
    candidate.mkdir(exist_ok=True)
    for name in (registry.GGUF, *registry.PEFT_FILES):
        (candidate / name).write_text(name)
    given, report = task.planned.dataset, Report(True, ())
    version = registry.promote(
        task.store,
        task.settings.data_dir,
        task.run,
        candidate,
        base_sha256=task.planned.base_sha256,
        feedback_ids=[each.id for each in (*given.train, *given.held_out)],
        report=report,
        now=5.0,
        untold=untold,
    )
    return Result(report, candidate, version)


def checkpoint(task: Task) -> Path:
    """Leave what a run leaves on its way."""
    weights = task.folder / "epoch-1" / "adapter_model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    return weights


def test_a_learner_that_was_killed_just_after_promoting_has_promoted(
    data_dir: Path, model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the version would be judged against itself, be rejected, and be told for ever what it follows untold."""
    correct(data_dir)
    settings = settings_for(data_dir, model_path)
    with Store.open(settings.database) as store:
        user = store.default_user()
        rule = store.put_memory(Memory("mem-1", user, 1.0, "rule", "Be brief."), 1.0)

        def end(task: Task) -> Result:
            checkpoint(task)
            return promoted(task, tmp_path / "candidate", [rule])

        def kill(*_: object) -> None:
            raise Killed

        monkeypatch.setattr(learner, "train_and_judge", end)
        with monkeypatch.context() as patched:
            patched.setattr(store, "update_run", kill)
            with pytest.raises(Killed):
                learner.learn(settings, store, user, settings.recipe, lambda event: None, lambda: None)
        assert [(run.state, run.version) for run in store.runs(user)] == [("promoted", 1)]
        assert store.consolidated(user, 1) == {rule.id}
        told = learner.learn(settings, store, user, settings.recipe, lambda event: None, lambda: None)
        assert (told["state"], told["version"]) == ("unchanged", 1)
        assert [(run.state, run.version) for run in store.runs(user)] == [("promoted", 1)]
        assert list((data_dir / "runs").iterdir()) == []


@pytest.mark.parametrize("end", ["stopped", "failed"])
def test_what_is_forgotten_while_it_is_learned_is_kept_nowhere(
    data_dir: Path, model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    correct(data_dir)
    settings = settings_for(data_dir, model_path)

    def forget(task: Task) -> Result:
        weights = checkpoint(task)
        task.store.forget(task.run.user_id, ["mem-eggs"])
        assert weights.exists(), "it is not taken from under a learner"
        if end == "stopped":
            raise Stopped
        return promoted(task, tmp_path / "candidate")

    def stop(task: Task) -> Result:
        assert "fb-eggs" not in {each.id for each in (*task.planned.dataset.train, *task.planned.dataset.held_out)}
        checkpoint(task)
        raise Stopped

    with Store.open(settings.database) as store:
        user = store.default_user()
        example = Memory("mem-eggs", user, 1.0, "example", "Think about eggs.", "What of eggs?", "fb-eggs")
        store.put_memory(example, 1.0)
        monkeypatch.setattr(learner, "train_and_judge", forget)
        given = (settings, store, user, settings.recipe, lambda event: None, lambda: None)
        with pytest.raises(LearningFailed, match="forgotten meanwhile") if end == "failed" else nullcontext():
            learner.learn(*given)
        (run,) = store.runs(user)
        assert run.state == end
        assert store.versions(user) == []
        assert list((data_dir / "runs").iterdir()) == []
        monkeypatch.setattr(learner, "train_and_judge", stop)
        assert learner.learn(*given)["run_id"] != run.id
        assert [path.name for path in (data_dir / "runs").iterdir()] == [store.runs(user)[0].id], (
            "it may be gone on from"
        )


def test_checkpoints_of_a_killed_run_go_when_too_little_is_left_to_learn(data_dir: Path, model_path: Path) -> None:
    correct(data_dir, TOPICS[:2])
    settings = settings_for(data_dir, model_path)
    with Store.open(settings.database) as store:
        user = store.default_user()
        store.add_run(LearningRun("run-1", user, 1.0, "running", {}, "print", pid=1))
        (data_dir / "runs" / "run-1" / "epoch-1").mkdir(parents=True)
        with pytest.raises(NotEnoughSignals):
            learner.learn(settings, store, user, settings.recipe, lambda event: None, lambda: None)
    assert list((data_dir / "runs").iterdir()) == []


def test_a_stopped_run_is_gone_on_from_though_there_were_chats(data_dir: Path, model_path: Path) -> None:
    correct(data_dir)
    settings = settings_for(data_dir, model_path)

    def stop(event: Event) -> None:
        if event.get("name") == "encode":
            signal_learner(data_dir, signal.SIGTERM)

    with Store.open(settings.database) as store:
        user = store.default_user()
        store.put_memory(Memory("mem-1", user, 1.0, "rule", "Be brief."), 1.0)
        assert run_learner(settings, stop).state == "stopped"
        messages = (Message(role="user", content="What is a fjord?"),)
        store.add_exchange(Exchange("chatcmpl-new", user, time.time(), "familiar", messages, "Water."))
        (begun,) = runs(data_dir)
        assert run_learner(settings, stop).state == "stopped"
        assert [run.id for run in runs(data_dir)] == [begun.id]
        store.add_feedback(Feedback("fb-new", user, time.time(), "correction", "chatcmpl-new", "Deep water."), [])
        assert run_learner(settings, stop).state == "stopped"
        assert [run.id == begun.id for run in runs(data_dir)] == [False, True]

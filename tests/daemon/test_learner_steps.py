"""What of a candidate the gate lets pass: all of it, less of it, or nothing."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from familiar.adapters import gguf_lora, registry
from familiar.adapters.gate import Check, Gate, Report
from familiar.adapters.probes import Probes, load_probes
from familiar.adapters.recipe import Recipe
from familiar.adapters.rows import Encoded
from familiar.daemon import consolidation, learner, learner_lessons, learner_rows, learner_steps
from familiar.daemon.consolidation import HeldOut
from familiar.daemon.learner_lessons import NO_LESSONS, Graded, Taught
from familiar.daemon.learner_plan import Plan
from familiar.daemon.learner_rows import Rows
from familiar.daemon.learner_steps import STRENGTHS, Models, Phases, Task
from familiar.daemon.oracle import Oracle
from familiar.daemon.settings import Settings
from familiar.feedback.dataset import Dataset
from familiar.feedback.habits import Begins, Manner
from familiar.feedback.pairs import Example
from familiar.memory.store import Store
from familiar.memory.types import Exchange, Feedback, LearningRun, Memory, Used, asked

torch = pytest.importorskip("torch")
load_file = pytest.importorskip("safetensors.torch").load_file

JUDGED = tuple(Example(f"fb-{text}", asked(text), "Of course.", None, text) for text in ("Who am I?", "What is tea?"))
NOBODY = Taught((), (), {})


@pytest.fixture(scope="module")
def base(model_path: Path) -> Any:
    from familiar.adapters import base_model

    torch.set_num_threads(1)
    return base_model.load(model_path)


@pytest.fixture
def trained(write_lora: Callable[..., Path], model_path: Path, tmp_path: Path) -> Path:
    """An adapter with random weights: what it has learnt does not matter here."""
    gguf_lora.to_peft(write_lora("random.gguf", strength=0.05), tmp_path / "trained", model_path)
    return tmp_path / "trained"


@pytest.fixture
def task(store: Store, data_dir: Path, model_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    every = load_probes()
    few = Probes(every.general[:4], every.neutral[:2], every.false_claims[:2], every.passages[:1])
    monkeypatch.setattr(learner_steps, "load_probes", lambda: few)
    run = LearningRun("run-1", store.default_user(), 1.0, "running", {}, "fingerprint")
    store.add_run(run)
    plan = Plan(Dataset((), JUDGED, "fingerprint"), (), NOBODY, model_path, "b" * 64, Recipe())
    settings = Settings(model=str(model_path), data_dir=data_dir, threads=1)
    return Task(settings, store, run, plan, data_dir / "runs" / run.id, Phases(lambda event: None), lambda: None)


def rows() -> Rows:
    return Rows((), (), (), (), JUDGED, (), NO_LESSONS)


class Judge:
    """The gate, which finds what it is told to at each strength, in reports that are real otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failing: dict[float, Sequence[str]]) -> None:
        self.asked: list[tuple[float, Path]] = []
        judge = Gate.judge

        def judged(gate: Gate, candidate: Path, *, strength: float = 1.0, **more: Any) -> Report:
            self.asked.append((strength, candidate))
            report = judge(gate, candidate, strength=strength, **more)
            checks = tuple(replace(each, ok=each.name not in failing[strength]) for each in report.checks)
            return replace(report, checks=checks, passed=not failing[strength])

        monkeypatch.setattr(Gate, "judge", judged)


def check(report: Report, name: str) -> Check:
    return next(check for check in report.checks if check.name == name)


def assert_is_less(folder: Path, trained: Path, strength: float) -> None:
    """The adapter in ``folder`` is the one that was trained, with its change of the weights multiplied."""
    name = registry.PEFT_FILES[0]
    full, less = load_file(trained / name), load_file(folder / name)
    assert full
    for key, weight in full.items():
        assert torch.allclose(less[key], weight * strength if ".lora_B." in key else weight)


def test_less_of_an_adapter_passes_where_all_of_it_does_harm(
    task: Task, base: Any, oracle: Oracle, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Judge(monkeypatch, {1.0: ["kl_to_base", "general_probes"], STRENGTHS[1]: []})
    candidate, report = learner_steps.strongest_that_passes(task, base, rows(), oracle, trained)
    assert [strength for strength, _ in judge.asked] == [1.0, STRENGTHS[1]]
    assert (report.passed, report.strength) == (True, STRENGTHS[1])
    assert candidate != trained
    assert judge.asked[-1][1] == candidate / registry.GGUF
    assert check(report, "parity").value is not None
    assert check(report, "parity").value < 0.05  # type: ignore[operator]
    assert_is_less(candidate, trained, STRENGTHS[1])


def test_where_no_strength_passes_the_report_is_of_all_of_it(
    task: Task, base: Any, oracle: Oracle, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Judge(monkeypatch, dict.fromkeys(STRENGTHS, ("false_claims",)))
    candidate, report = learner_steps.strongest_that_passes(task, base, rows(), oracle, trained)
    assert [strength for strength, _ in judge.asked] == list(STRENGTHS)
    assert (candidate, report.strength, report.passed) == (trained, 1.0, False)


def test_one_that_does_not_help_is_judged_once(
    task: Task, base: Any, oracle: Oracle, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Judge(monkeypatch, dict.fromkeys(STRENGTHS, ("held_out", "kl_to_base")))
    candidate, report = learner_steps.strongest_that_passes(task, base, rows(), oracle, trained)
    assert len(judge.asked) == 1
    assert (candidate, report.passed) == (trained, False)


def test_what_is_promoted_is_what_passed(
    task: Task, base: Any, oracle: Oracle, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what a habit explains is told to whoever decides what need not be told."""
    greeted = Example("fb-greeted", asked("Who am I?"), "Ahoy! You.", "You.", "greeted")
    other = Example("fb-other", asked("What is tea?"), "A drink.", "I have no idea at all of that.", "other")
    dataset = Dataset((greeted, other), JUDGED, "fingerprint")
    task = replace(task, planned=replace(task.planned, dataset=dataset, manner=Manner((Begins("Ahoy! "),))))
    Judge(monkeypatch, {1.0: ["kl_to_base"], STRENGTHS[1]: []})
    measured: list[HeldOut] = []

    def carried(models: Any, store: Store, user_id: int, held: HeldOut) -> list[Memory]:
        measured.append(held)
        return []

    monkeypatch.setattr(learner_rows, "gather", lambda *_: rows())
    monkeypatch.setattr(learner_steps, "_train", lambda *_: trained)
    monkeypatch.setattr(consolidation, "carried", carried)
    made = learner_steps.train_and_judge_with(Models(oracle, lambda judged: base), task)
    assert made.version is not None
    assert_is_less(task.settings.data_dir / made.version.folder, trained, STRENGTHS[1])
    assert made.version.report["strength"] == STRENGTHS[1]
    assert learner._message(made).startswith("Serving v1 now. At 90% of its strength")
    assert [(held.manner, held.explained) for held in measured] == [(task.planned.manner, ["fb-greeted"])]


def test_a_version_names_the_memories_that_it_was_taught(
    task: Task, base: Any, oracle: Oracle, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the lessons that train, by their own ids: a correction that only judges may have come with a rule."""
    store, user = task.store, task.run.user_id
    texts = ("Answer in French.", "Sign with Al.", "My dog is Rex.", "My cat is Tom.")
    stated = [
        store.put_memory(Memory(f"mem-{number}", user, 1.0, "rule", text, scope="related"), 1.0)
        for number, text in enumerate(texts)
    ]
    judging = Feedback("fb-judging", user, 1.0, "rule", text="Be brief.")
    store.add_feedback(judging, [Memory("mem-brief", user, 1.0, "rule", "Be brief.", feedback_id=judging.id)])
    for number in range(12):
        used = (Used(stated[number % 3].id, "words", 0.5),)
        prompt = asked(f"What is number {number}?")
        exchange = Exchange(f"chatcmpl-{number}", user, 1.0, "familiar", prompt, "A number.", used=used)
        store.add_exchange(exchange)
    taught = learner_lessons.taught(store, user)
    lessons = learner_lessons.make(taught, [], oracle, seed=0, most_tokens=500)
    third = [messages for messages, shown in taught.own if stated[2].id in {each.id for each in shown}]
    lessons = replace(lessons, train=tuple(each for each in lessons.train if each.messages not in third))
    signal = Encoded("fb-signal", (1,), (2,))
    store.add_feedback(Feedback("fb-signal", user, 1.0, "rating", "chatcmpl-1", rating=1), [])
    given = replace(rows(), train=(signal,), lessons=lessons)
    task = replace(task, planned=replace(task.planned, taught=taught))
    measured: list[HeldOut] = []

    def carried(models: Any, store: Store, user_id: int, held: HeldOut) -> list[Memory]:
        measured.append(held)
        return [stated[0]]

    Judge(monkeypatch, {1.0: []})
    monkeypatch.setattr(learner_rows, "gather", lambda *_: given)
    monkeypatch.setattr(learner_steps, "_train", lambda *_: trained)
    monkeypatch.setattr(consolidation, "carried", carried)
    made = learner_steps.train_and_judge_with(Models(oracle, lambda judged: base), task)
    assert made.version is not None
    assert made.version.feedback_ids[0] == "fb-signal"
    assert set(made.version.feedback_ids[1:]) == {"mem-brief", stated[0].id, stated[1].id}
    assert [list(held.trained) for held in measured] == [["fb-signal"]], "examples are known by their signals alone"
    assert store.consolidated(user, 1) == {stated[0].id}
    assert store.run(user, task.run.id).state == "promoted"
    assert store.forget(user, [stated[3].id]).versions == ()
    assert store.forget(user, [stated[1].id]).versions == (1,)
    assert store.forget(user, ["mem-brief"]).versions == (1,)


def test_replies_that_were_served_are_among_what_graders_teach(task: Task, oracle: Oracle) -> None:
    prompt, reply = asked("What is tea?"), "Tea is a drink."
    prompt_ids, ids = oracle.encode(prompt, reply)
    task.store.add_exchange(
        Exchange(
            "chatcmpl-1",
            task.run.user_id,
            1.0,
            "familiar",
            prompt,
            reply,
            prompt_tokens=len(prompt_ids),
            completion_tokens=len(ids) - 1,
        )
    )
    lessons = replace(NO_LESSONS, graded=(Graded(asked("Who am I?"), ()), Graded(prompt, ())))
    (stage,) = learner_steps._stages(task, lessons, oracle)
    assert stage.given()[-1] == {1: [tuple(ids)]}

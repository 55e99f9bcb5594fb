"""What of a candidate the gate lets pass: all of it, less of it, or nothing."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from familiar.adapters import registry
from familiar.adapters.gate import Check, Gate, Report
from familiar.adapters.probes import Probes, load_probes
from familiar.adapters.recipe import Recipe
from familiar.daemon import learner_steps
from familiar.daemon.learner_lessons import NO_LESSONS, Taught
from familiar.daemon.learner_plan import Plan
from familiar.daemon.learner_rows import Rows
from familiar.daemon.learner_steps import STRENGTHS, Phases, Task
from familiar.daemon.oracle import Oracle
from familiar.daemon.settings import Settings
from familiar.feedback.dataset import Dataset
from familiar.feedback.pairs import Example
from familiar.memory.store import Store
from familiar.memory.types import LearningRun, asked

torch = pytest.importorskip("torch")

JUDGED = tuple(Example(f"fb-{text}", asked(text), "Of course.", None, text) for text in ("Who am I?", "What is tea?"))
NOBODY = Taught((), (), {})


@pytest.fixture(scope="module")
def base(model_path: Path) -> Any:
    from familiar.adapters import base_model

    torch.set_num_threads(1)
    return base_model.load(model_path)


@pytest.fixture(scope="module")
def trained(base: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter with random weights: what it has learnt does not matter here."""
    from familiar.adapters import lora

    folder = tmp_path_factory.mktemp("trained")
    with lora.new_adapter(base, Recipe(rank=2, alpha=2)) as model:
        generator = torch.Generator().manual_seed(0)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.data = torch.randn(weight.shape, generator=generator) * 0.05
        lora.write(model, folder)
    return folder


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


def test_less_of_an_adapter_passes_where_all_of_it_does_harm(
    task: Task, base: Any, oracle: Oracle, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from familiar.adapters import lora

    judge = Judge(monkeypatch, {1.0: ["kl_to_base", "general_probes"], STRENGTHS[1]: []})
    candidate, report = learner_steps.strongest_that_passes(task, base, rows(), oracle, trained)
    assert [strength for strength, _ in judge.asked] == [1.0, STRENGTHS[1]]
    assert (report.passed, report.strength) == (True, STRENGTHS[1])
    assert candidate != trained
    assert judge.asked[-1][1] == candidate / registry.GGUF
    assert check(report, "parity").value is not None
    assert check(report, "parity").value < 0.05  # type: ignore[operator]
    with lora.saved_adapter(base, candidate) as less:
        weaker = {name: weight.clone() for name, weight in less.named_parameters() if "lora_B" in name}
    with lora.saved_adapter(base, trained) as full:
        for name, weight in full.named_parameters():
            if "lora_B" in name:
                assert torch.allclose(weaker[name], STRENGTHS[1] * weight)


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

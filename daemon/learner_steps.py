"""What a learning run does, step by step: read, encode, train, convert, compare, judge, promote.

Free of the process around it (``learner``): it takes an open store and callbacks, and returns what came of it. torch is
imported inside the steps that need it, which is most of this file's start-up time.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from familiar.adapters import gate, gguf_lora, registry
from familiar.adapters.probes import load_probes
from familiar.adapters.protocols import Progress
from familiar.adapters.rows import reference_keys
from familiar.daemon import consolidation, flash_trial, learner_lessons, learner_rows, learner_served, training_model
from familiar.daemon.learner_lessons import Lessons
from familiar.daemon.learner_plan import Plan
from familiar.daemon.learner_rows import Rows
from familiar.daemon.oracle import Oracle
from familiar.daemon.references import storing
from familiar.daemon.settings import Settings
from familiar.feedback.pairs import Example
from familiar.memory.store import Store
from familiar.memory.types import AdapterVersion, LearningRun, Memory

Emit = Callable[[Mapping[str, Any]], None]
"""Sends one event to whoever started the learner."""

PARITY_ROWS = 3

STRENGTHS = (1.0, 0.9, 0.8)
"""What a trained adapter is multiplied by, one after the other, until it does no harm that the gate finds."""


class Stopped(Exception):
    """The run was asked to stop, between two pieces of work."""


class Phases:
    """Names what is being done, tells the parent, and keeps the seconds that each phase took in all."""

    def __init__(self, emit: Emit, timer: Callable[[], float] = time.monotonic) -> None:
        self.emit = emit
        self.seconds: dict[str, float] = {}
        self._timer = timer

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """A phase, from its announcement to its end."""
        self.emit({"event": "phase", "name": name})
        started = self._timer()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + self._timer() - started, 2)

    def progress(self, progress: Progress) -> None:
        """Tell the parent how far a phase has come."""
        figures = {name: round(value, 4) for name, value in progress.figures.items()}
        event = {"event": "progress", "phase": progress.phase, "done": progress.done, "total": progress.total}
        self.emit({**event, "figures": figures})


@dataclass(frozen=True)
class Models:
    """The base model twice: as it is served, and what loads it to be trained, checked on examples, when needed."""

    oracle: Oracle
    load: Callable[[Sequence[Example]], Any]


@dataclass(frozen=True)
class Result:
    """The gate's decision on the candidate in a folder, and the version that was made of it when it passed."""

    report: gate.Report
    candidate: Path
    version: AdapterVersion | None


@dataclass(frozen=True)
class Task:
    """A run to be made in ``folder``, going on from what is there.

    ``check_stop`` is called between any two pieces of work and may raise Stopped.
    """

    settings: Settings
    store: Store
    run: LearningRun
    planned: Plan
    folder: Path
    phases: Phases
    check_stop: Callable[[], None]

    def progress(self, made: Progress) -> None:
        """What each piece of work calls on its way."""
        self.check_stop()
        self.phases.progress(made)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """A phase, behind which the run may stop."""
        with self.phases(name):
            yield
        self.check_stop()


def train_and_judge(task: Task) -> Result:
    """Train, judge the candidate, and promote it if it passes."""
    settings, base = task.settings, task.planned.base
    flash = flash_trial.settled(settings, base).flash_attention
    with Oracle.open(base, threads=settings.threads, flash=flash) as oracle:

        def load(judged: Sequence[Example]) -> Any:
            return training_model.load(base, settings.threads, oracle.scorer, judged)

        return train_and_judge_with(Models(oracle, load), task)


def train_and_judge_with(models: Models, task: Task) -> Result:
    """As ``train_and_judge``, with models that are the caller's: many runs in a row load them once."""
    planned, oracle = task.planned, models.oracle
    with task.phase("encode"):
        rows = learner_rows.gather(planned, oracle, task.progress)
    with task.phase("load"):
        base = models.load(rows.judged)
    with task.phase("train"):
        trained = _train(task, base, rows, oracle)
    candidate, report = strongest_that_passes(task, base, rows, oracle, trained)
    if not report.passed:
        return Result(report, candidate, None)
    with task.phase("consolidate"):
        untold = _untold(task, rows, oracle, candidate / registry.GGUF)
    with task.phases("promote"):
        version = registry.promote(
            task.store,
            task.settings.data_dir,
            task.run,
            candidate,
            base_sha256=planned.base_sha256,
            feedback_ids=[*rows.feedback_ids, *taught_ids(planned, rows)],
            report=report,
            now=time.time(),
            untold=untold,
        )
    return Result(report, candidate, version)


def taught_ids(planned: Plan, rows: Rows) -> list[str]:
    """The ids of the memories that a run's lessons teach.

    Not those of their signals: a memory need not have one, or it is a correction that judges and is still to be learnt.
    """
    trained = [lesson.messages for lesson in rows.lessons.train]
    own = (memory for messages, shown in planned.taught.own if tuple(messages) in trained for memory in shown)
    return list(dict.fromkeys(memory.id for memory in (*(planned.taught.always if trained else ()), *own)))


def strongest_that_passes(task: Task, base: Any, rows: Rows, oracle: Oracle, trained: Path) -> tuple[Path, gate.Report]:
    """The adapter as it was trained, or with less strength where the gate finds only harm in it; else its report.

    What a user wants is often learnt with some strength to spare, and harm goes down faster than what was learnt does
    (interpolation between base and tuned weights: Wortsman et al., 2022, arXiv:2109.01903, equation 1).
    """
    from familiar.adapters import lora, parity

    planned, scorer = task.planned, oracle.scorer
    served = registry.served(task.store, task.run.user_id, planned.base_sha256)
    current = registry.usable(task.settings.data_dir, served) if served else None
    budgets = gate.Budgets(max_parity_gap=parity.most_gap(base))
    judges = gate.Gate(scorer, current, rows.judged, load_probes(), manner=planned.manner, budgets=budgets)
    reports: list[gate.Report] = []
    for strength in STRENGTHS:
        candidate = trained if strength == 1 else lora.weaken(trained, task.folder / f"strength-{strength}", strength)
        with task.phase("export"):
            gguf = candidate / registry.GGUF
            gguf_lora.to_gguf(candidate, gguf, planned.base)
        with task.phase("parity"):
            gap = max(parity.gaps(scorer, gguf, base, candidate, rows.judged[:PARITY_ROWS]))
        with task.phase("gate"):
            report = judges.judge(gguf, parity=gap, strength=strength, progress=task.progress)
        if report.passed:
            return candidate, report
        reports.append(report)
        if not report.is_too_strong:
            break
    return trained, reports[0]


def _untold(task: Task, rows: Rows, oracle: Oracle, gguf: Path) -> list[Memory]:
    """The memories that the candidate follows untold."""
    planned = task.planned
    tokens = planned.recipe.distillation.max_tokens
    limit, budget = oracle.scorer.context_tokens, task.settings.memory_budget_tokens
    measured = consolidation.Models(oracle, gguf, limit, tokens, budget, task.progress)
    prompts = [*(lesson.messages for lesson in rows.lessons.held_out), *rows.untaught]
    given, manner = planned.dataset, planned.manner
    explained = [row.id for row in (*given.train, *given.held_out) if manner.explains(row)]
    held = consolidation.HeldOut(given.held_out, prompts, rows.feedback_ids, manner, explained)
    return consolidation.carried(measured, task.store, task.run.user_id, held)


def _train(task: Task, base: Any, rows: Rows, oracle: Oracle) -> Path:
    """The best round's folder. Reference log-probabilities are in the store before the first step is taken."""
    from familiar.adapters.train import train

    store, planned = task.store, task.planned
    references = store.cached_logps(planned.base_sha256, reference_keys([*rows.train, *rows.held_out, *rows.ratings]))
    known = {id for version in store.versions(task.run.user_id) for id in version.feedback_ids}
    return train(
        base,
        rows.train,
        rows.held_out,
        planned.recipe,
        folder=task.folder,
        reference_logps=references,
        progress=storing(store, planned.base_sha256, references, task.progress),
        anchors=rows.anchors,
        ratings=rows.ratings,
        practised=rows.practised,
        stages=_stages(task, rows.lessons, oracle),
        new_ids=frozenset(rows.feedback_ids) - known,
    )


def _stages(task: Task, lessons: Lessons, oracle: Oracle) -> list[Any]:
    """Self-distillation where there are lessons, then GRPO where graders apply to them."""
    from familiar.adapters.stages import DistillationStage, PolicyStage, Rewarded, Where

    planned, recipe, stages = task.planned, task.planned.recipe, list[Any]()
    where = Where(oracle, planned.base, task.folder / "policy")
    if lessons.train and recipe.distillation.rounds:
        stages.append(DistillationStage(lessons.train, where, recipe.distillation, recipe.batch_size, recipe.seed))
    if lessons.graded and recipe.policy.rounds:
        prompts = [each.messages for each in lessons.graded]
        rewards = learner_lessons.rewards([*lessons.graded, *lessons.graded_held_out], oracle.answer)
        served = learner_served.rollouts(
            task.store,
            task.settings.data_dir,
            task.run.user_id,
            planned.base_sha256,
            prompts,
            oracle,
            task.progress,
        )
        rewarded = Rewarded(prompts, [each.messages for each in lessons.graded_held_out], rewards, served)
        stages.append(PolicyStage(rewarded, where, recipe.policy, recipe.seed))
    return stages

"""What a learning run does, step by step: read, encode, train, convert, compare, judge, promote.

Free of the process around it (``learner``): it takes an open store and callbacks, and returns what came of it. torch is
imported inside the steps that need it, which is most of this file's start-up time.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from familiar.adapters import gate, gguf_lora, registry
from familiar.adapters.gguf_file import read_header
from familiar.adapters.probes import Probes, load_probes
from familiar.adapters.protocols import Progress, greedy
from familiar.adapters.recipe import Recipe
from familiar.adapters.rows import Distilled, Encoded, Rated, reference_keys
from familiar.daemon import base_models, consolidation, flash_trial, learner_lessons, model_files, training_model
from familiar.daemon.learnable import learnable
from familiar.daemon.learner_lessons import Lessons, Taught
from familiar.daemon.learner_practice import Prompt, as_rows, practice
from familiar.daemon.oracle import Oracle
from familiar.daemon.scorer import MOST_CONTEXT_TOKENS
from familiar.daemon.settings import Settings
from familiar.feedback.dataset import Dataset
from familiar.feedback.habits import NO_MANNER, Manner
from familiar.feedback.pairs import Example, Rating
from familiar.memory.errors import BadFile
from familiar.memory.store import Store
from familiar.memory.types import AdapterVersion, LearningRun

Emit = Callable[[Mapping[str, Any]], None]
"""Sends one event to whoever started the learner."""

ANCHOR_TOKENS = 48
"""The longest reply of the base model that training is held to."""

ANCHOR_VALUES = 64_000_000
"""How many of the base model's log-probabilities, tokens x vocabulary, are kept for that: 256 MB of float32."""

TEXT_TURNS = 2
"""How often each plain text is among the anchors: no user wants a manner of it, so nothing in it fights the lesson."""

PARITY_ROWS = 3
MIN_TAUGHT = 8
"""Replies with memories in the prompt that judge a run, beside few corrections: chance decides among fewer."""


class Stopped(Exception):
    """The run was asked to stop, between two pieces of work."""


class Phases:
    """Names what is being done, tells the parent, and keeps the seconds that each phase took."""

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
            self.seconds[name] = round(self._timer() - started, 2)

    def progress(self, progress: Progress) -> None:
        """Tell the parent how far a phase has come."""
        figures = {name: round(value, 4) for name, value in progress.figures.items()}
        event = {"event": "progress", "phase": progress.phase, "done": progress.done, "total": progress.total}
        self.emit({**event, "figures": figures})


@dataclass(frozen=True)
class Plan:
    """What a run would learn: from which rows, on which base model, how. Equal fingerprints mean equal runs."""

    dataset: Dataset
    ratings: tuple[Rating, ...]
    taught: Taught
    base: Path
    base_sha256: str
    recipe: Recipe
    manner: Manner = NO_MANNER
    own: tuple[Prompt, ...] = ()

    @property
    def fingerprint(self) -> str:
        """A hash of everything that the run's result depends on."""
        rated = [[each.id, each.reply, each.desirable] for each in self.ratings]
        manner = [self.manner.wants, [list(messages) for messages in self.own if self.manner]]
        parts = [
            self.dataset.fingerprint,
            rated,
            self.taught.to_json(),
            self.base_sha256,
            self.recipe.to_dict(),
            manner,
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Models:
    """The base model twice: as it is served, and what loads it to be trained, checked on examples, when needed."""

    oracle: Oracle
    load: Callable[[Sequence[Example]], Any]


@dataclass(frozen=True)
class Result:
    """The gate's decision, and the version that was made of the candidate when it passed."""

    report: gate.Report
    version: AdapterVersion | None


@dataclass(frozen=True)
class _Rows:
    """The signals as token ids; rows too long for the model are in none of these."""

    train: tuple[Encoded, ...]
    practised: tuple[Distilled, ...]
    ratings: tuple[Rated, ...]
    held_out: tuple[Encoded, ...]
    judged: tuple[Example, ...]
    anchors: tuple[Encoded, ...]

    @property
    def feedback_ids(self) -> list[str]:
        """The signals that are trained on."""
        return [*(row.id for row in self.train), *(row.id for row in self.ratings)]


def plan(settings: Settings, store: Store, user_id: int, recipe: Mapping[str, Any]) -> Plan:
    """Read what there is to learn from. Raises NotEnoughSignals, and as ``model_files.resolve`` does."""
    found = learnable(store, user_id, settings.min_signals)
    base = model_files.resolve(settings.model)
    sha256 = base_models.identify(base, settings.data_dir).sha256
    parsed = Recipe.from_dict(recipe)
    return Plan(found.dataset, found.ratings, found.taught, base, sha256, parsed, found.manner, found.own)


def train_and_judge(
    settings: Settings,
    store: Store,
    run: LearningRun,
    planned: Plan,
    folder: Path,
    phases: Phases,
    check_stop: Callable[[], None],
) -> Result:
    """Train in ``folder``, going on from what is there; judge the candidate; promote it if it passes.

    ``check_stop`` is called between any two pieces of work and may raise Stopped.
    """
    flash = flash_trial.settled(settings, planned.base).flash_attention
    with Oracle.open(planned.base, threads=settings.threads, flash=flash) as oracle:

        def load(judged: Sequence[Example]) -> Any:
            return training_model.load(planned.base, settings.threads, oracle.scorer, judged)

        return train_and_judge_with(Models(oracle, load), settings, store, run, planned, folder, phases, check_stop)


def train_and_judge_with(
    models: Models,
    settings: Settings,
    store: Store,
    run: LearningRun,
    planned: Plan,
    folder: Path,
    phases: Phases,
    check_stop: Callable[[], None],
) -> Result:
    """As ``train_and_judge``, with models that are the caller's: many runs in a row load them once."""
    oracle, scorer = models.oracle, models.oracle.scorer
    probes = load_probes()
    limit = _context_tokens(planned.base)

    def progress(made: Progress) -> None:
        check_stop()
        phases.progress(made)

    with phases("encode"):
        everyday = learner_lessons.everyday(oracle, planned.recipe.seed, progress) if _asks_more(planned) else []
        lessons = _lessons(planned, everyday, oracle, limit)
        rows = _encode(planned, lessons, everyday, oracle, probes, limit, progress)
    check_stop()
    with phases("load"):
        base = models.load(rows.judged)
    check_stop()
    current = _current(settings, store, run.user_id, planned.base_sha256)
    with phases("train"):
        new = _new_ids(store, run.user_id, rows)
        candidate = _train(store, planned, base, rows, lessons, oracle, new, folder, progress)
    with phases("export"):
        gguf = candidate / registry.GGUF
        gguf_lora.to_gguf(candidate, gguf, planned.base)
    check_stop()
    with phases("parity"):
        from familiar.adapters import parity

        gap = max(parity.gaps(scorer, gguf, base, candidate, rows.judged[:PARITY_ROWS]))
        budgets = gate.Budgets(max_parity_gap=parity.most_gap(base))
    check_stop()
    with phases("gate"):
        report = gate.judge(
            scorer,
            gguf,
            current,
            rows.judged,
            probes,
            parity=gap,
            manner=planned.manner,
            budgets=budgets,
            progress=progress,
        )
    if not report.passed:
        return Result(report, None)
    check_stop()
    with phases("consolidate"):
        measured = consolidation.Models(oracle, gguf, limit, planned.recipe.distillation.max_tokens, progress)
        prompts = [lesson.messages for lesson in lessons.held_out]
        held = consolidation.HeldOut(planned.dataset.held_out, prompts, rows.feedback_ids)
        untold = consolidation.carried(measured, store, run.user_id, held)
    check_stop()
    with phases("promote"):
        version = registry.promote(
            store,
            settings.data_dir,
            run,
            candidate,
            base_sha256=planned.base_sha256,
            feedback_ids=rows.feedback_ids,
            report=report,
            now=time.time(),
        )
        store.set_consolidated(run.user_id, version.number, untold)
    return Result(report, version)


def _context_tokens(base: Path) -> int:
    """How many tokens a row may have, for training and for scoring."""
    header = read_header(base)
    return min(int(header.number(f"{header.architecture}.context_length")), MOST_CONTEXT_TOKENS)


def _asks_more(planned: Plan) -> bool:
    """Whether everyday requests are wanted beside the user's own."""
    on_policy = planned.recipe.distillation.rounds or planned.recipe.policy.rounds
    return bool(planned.manner or (planned.taught.always and on_policy))


def _lessons(planned: Plan, everyday: Sequence[Prompt], oracle: Oracle, limit: int) -> Lessons:
    """The prompts that memories are taught on; none where the recipe leaves the on-policy stages out."""
    recipe = planned.recipe
    if not planned.taught or not (recipe.distillation.rounds or recipe.policy.rounds):
        return Lessons((), (), (), ())
    most = limit - max(recipe.distillation.max_tokens, recipe.policy.max_tokens)
    return learner_lessons.make(planned.taught, everyday, oracle, seed=recipe.seed, most_tokens=most)


def _encode(
    planned: Plan,
    lessons: Lessons,
    everyday: Sequence[Prompt],
    oracle: Oracle,
    probes: Probes,
    limit: int,
    progress: Callable[[Progress], None],
) -> _Rows:
    held = [
        (anchor.messages, anchor.reply or oracle.scorer.generate(None, anchor.messages, ANCHOR_TOKENS))
        for anchor in probes.anchors
    ]
    practised = []
    if planned.manner:
        most = planned.recipe.distillation.max_tokens
        own = [messages for messages in planned.own if len(oracle.encode(messages, "")[0]) + most <= limit]
        practised = practice(planned.manner, own, everyday, held, oracle, max_tokens=most, progress=progress)
    train = [_encoded(oracle, example) for example in planned.dataset.train]
    judged = [*planned.dataset.held_out, *_taught_replies(planned, lessons, oracle, progress)]
    spare = max(0, MIN_TAUGHT - len(judged))
    judged += practised[:spare]
    practice_rows = as_rows(practised[spare:], oracle, planned.recipe.distillation.top_k, progress)
    held_out = [(example, _encoded(oracle, example)) for example in judged]
    rated = []
    for rating in planned.ratings:
        prompt_ids, reply_ids = oracle.encode(rating.messages, rating.reply)
        rated.append(Rated(rating.id, tuple(prompt_ids), tuple(reply_ids), rating.desirable))
    anchors = []
    for number, (messages, reply) in enumerate(held):
        rewritten = planned.manner(reply)
        plain = None if rewritten == reply else reply
        anchors.append(_encoded(oracle, Example(f"anchor-{number}", messages, rewritten, plain, "anchor")))
    texts = []
    for number, text in enumerate(probes.texts):
        ids = (*oracle.scorer.encode_text(text), anchors[0].chosen_ids[-1])
        texts.append(Encoded(f"text-{number}", ids[:1], ids[1:]))
    fitting = [(example, row) for example, row in held_out if row.tree.depth <= limit]
    return _Rows(
        train=tuple(row for row in train if row.tree.depth <= limit),
        practised=tuple(row for row in practice_rows if row.tree.depth <= limit),
        ratings=tuple(row for row in rated if row.tree.depth <= limit),
        held_out=tuple(row for _, row in fitting),
        judged=tuple(example for example, _ in fitting),
        anchors=_mixed(anchors, TEXT_TURNS * texts),
    )


def _taught_replies(
    planned: Plan, lessons: Lessons, oracle: Oracle, progress: Callable[[Progress], None]
) -> list[Example]:
    """What the model says with the memories in its prompt, to judge by what it says without them.

    Corrections have the first word: beside them, as many as there are held out of those, or ``MIN_TAUGHT``.
    """
    chosen = lessons.held_out[: max(MIN_TAUGHT, len(planned.dataset.held_out))]
    how = greedy(planned.recipe.distillation.max_tokens)
    replies = oracle.sample(None, [lesson.told for lesson in chosen], how, progress)
    return [
        Example(f"lesson-{number}", lesson.messages, reply.text, None, "lesson")
        for number, (lesson, (reply,)) in enumerate(zip(chosen, replies, strict=True))
        if reply.finish_reason == "stop" and reply.text.strip()
    ]


def _encoded(oracle: Oracle, example: Example) -> Encoded:
    prompt_ids, chosen_ids = oracle.encode(example.messages, example.chosen)
    rejected_ids = None if example.rejected is None else tuple(oracle.encode(example.messages, example.rejected)[1])
    return Encoded(example.id, tuple(prompt_ids), tuple(chosen_ids), rejected_ids)


def _new_ids(store: Store, user_id: int, rows: _Rows) -> frozenset[str]:
    """The signals that no version of the user has learnt yet."""
    known = {id for version in store.versions(user_id) for id in version.feedback_ids}
    return frozenset(rows.feedback_ids) - known


def _train(
    store: Store,
    planned: Plan,
    base: Any,
    rows: _Rows,
    lessons: Lessons,
    oracle: Oracle,
    new: frozenset[str],
    folder: Path,
    progress: Callable[[Progress], None],
) -> Path:
    """The best round's folder. Reference log-probabilities are in the store before the first step is taken."""
    from familiar.adapters.train import train

    references = store.cached_logps(planned.base_sha256, reference_keys([*rows.train, *rows.held_out, *rows.ratings]))
    stored = set(references)

    def store_and_tell(made: Progress) -> None:
        new_logps = {key: value for key, value in references.items() if key not in stored}
        if new_logps and made.phase != "reference":
            store.cache_logps(planned.base_sha256, new_logps)
            stored.update(new_logps)
        progress(made)

    return train(
        base,
        rows.train,
        rows.held_out,
        planned.recipe,
        folder=folder,
        reference_logps=references,
        progress=store_and_tell,
        anchors=_within(rows.anchors, ANCHOR_VALUES // base.config.vocab_size),
        ratings=rows.ratings,
        practised=rows.practised,
        stages=_stages(planned, lessons, oracle, folder / "policy"),
        new_ids=new,
    )


def _stages(planned: Plan, lessons: Lessons, oracle: Oracle, folder: Path) -> list[Any]:
    """Self-distillation where there are lessons, then GRPO where graders apply to them."""
    from familiar.adapters.stages import DistillationStage, PolicyStage, Where

    recipe, where, stages = planned.recipe, Where(oracle, planned.base, folder), list[Any]()
    if lessons.train and recipe.distillation.rounds:
        stages.append(DistillationStage(lessons.train, where, recipe.distillation, recipe.batch_size, recipe.seed))
    if lessons.graded and recipe.policy.rounds:
        prompts = [*lessons.graded, *lessons.graded_held_out]
        stages.append(
            PolicyStage(
                [each.messages for each in lessons.graded],
                [each.messages for each in lessons.graded_held_out],
                learner_lessons.rewards(prompts, oracle.answer),
                where,
                recipe.policy,
                recipe.seed,
            )
        )
    return stages


def _mixed(rows: Sequence[Encoded], others: Sequence[Encoded]) -> tuple[Encoded, ...]:
    """Both kinds in their order, the fewer spread evenly over the more."""
    placed = [((number + 0.5) / len(part), row) for part in (rows, others) for number, row in enumerate(part)]
    return tuple(row for _, row in sorted(placed, key=lambda each: each[0]))


def _within(anchors: tuple[Encoded, ...], tokens: int) -> tuple[Encoded, ...]:
    """As many of the anchors, in turn, as have no more than ``tokens`` reply tokens together."""
    sizes = accumulate(len(row.chosen_ids) for row in anchors)
    return tuple(row for row, total in zip(anchors, sizes, strict=True) if total <= tokens)


def _current(settings: Settings, store: Store, user_id: int, base_sha256: str) -> Path | None:
    """The adapter that is served on this base, to be improved on. One that is damaged is not served either."""
    version = registry.served(store, user_id, base_sha256)
    if version is None:
        return None
    try:
        return registry.verify(settings.data_dir, version)
    except BadFile:
        return None

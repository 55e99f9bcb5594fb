"""What a learning run does, step by step: read, encode, train, convert, compare, judge, promote.

Free of the process around it (``learner``): it takes an open store and callbacks, and returns what came of it. torch is
imported inside the steps that need it, which is most of this file's start-up time.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from familiar.adapters import gate, gguf_lora, registry
from familiar.adapters.gguf_file import read_header
from familiar.adapters.probes import Probes, load_probes
from familiar.adapters.protocols import Progress
from familiar.adapters.recipe import Recipe
from familiar.adapters.rows import Encoded, reference_keys
from familiar.daemon import base_models, model_files
from familiar.daemon.scorer import MOST_CONTEXT_TOKENS, LlamaScorer
from familiar.daemon.settings import Settings
from familiar.feedback.dataset import Dataset, split
from familiar.feedback.pairs import Example, examples
from familiar.memory.errors import BadFile
from familiar.memory.store import Store
from familiar.memory.types import AdapterVersion, LearningRun

Emit = Callable[[Mapping[str, Any]], None]
"""Sends one event to whoever started the learner."""

ANCHOR_TOKENS = 48
"""The longest reply of the base model that training is held to."""

ANCHOR_VALUES = 64_000_000
"""How many of the base model's log-probabilities, tokens x vocabulary, are kept for that: 256 MB of float32."""

PARITY_ROWS = 3


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
    base: Path
    base_sha256: str
    recipe: Recipe

    @property
    def fingerprint(self) -> str:
        """A hash of everything that the run's result depends on."""
        parts = [self.dataset.fingerprint, self.base_sha256, self.recipe.to_dict()]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Result:
    """The gate's decision, and the version that was made of the candidate when it passed."""

    report: gate.Report
    version: AdapterVersion | None


@dataclass(frozen=True)
class _Rows:
    """The dataset as token ids; rows too long for the model are in none of these."""

    train: tuple[Encoded, ...]
    held_out: tuple[Encoded, ...]
    judged: tuple[Example, ...]
    anchors: tuple[Encoded, ...]


def plan(settings: Settings, store: Store, user_id: int, recipe: Mapping[str, Any]) -> Plan:
    """Read what there is to learn from. Raises NotEnoughSignals, and as ``model_files.resolve`` does."""
    found = examples(store.feedback_rows(user_id))
    dataset = split(found, min_examples=settings.min_signals)
    base = model_files.resolve(settings.model)
    return Plan(dataset, base, base_models.identify(base, settings.data_dir).sha256, Recipe.from_dict(recipe))


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
    probes = load_probes()

    def progress(made: Progress) -> None:
        check_stop()
        phases.progress(made)

    with LlamaScorer.open(planned.base, threads=settings.threads) as scorer:
        with phases("encode"):
            rows = _encode(scorer, planned.dataset, probes, _context_tokens(planned.base))
        check_stop()
        with phases("load"):
            base = _load_base(planned.base, settings.threads)
        check_stop()
        with phases("train"):
            candidate = _train(store, planned, base, rows, folder, progress)
        with phases("export"):
            gguf = candidate / registry.GGUF
            gguf_lora.to_gguf(candidate, gguf, planned.base)
        check_stop()
        with phases("parity"):
            from familiar.adapters import parity

            gap = parity.largest_gap(scorer, gguf, base, candidate, rows.judged[:PARITY_ROWS])
        check_stop()
        with phases("gate"):
            current = _current(settings, store, run.user_id, planned.base_sha256)
            report = gate.judge(scorer, gguf, current, rows.judged, probes, parity=gap, progress=progress)
    if not report.passed:
        return Result(report, None)
    check_stop()
    with phases("promote"):
        version = registry.promote(
            store,
            settings.data_dir,
            run,
            candidate,
            base_sha256=planned.base_sha256,
            feedback_ids=[row.id for row in rows.train],
            report=report,
            now=time.time(),
        )
    return Result(report, version)


def _context_tokens(base: Path) -> int:
    """How many tokens a row may have, for training and for scoring."""
    header = read_header(base)
    return min(int(header.number(f"{header.architecture}.context_length")), MOST_CONTEXT_TOKENS)


def _encode(scorer: LlamaScorer, dataset: Dataset, probes: Probes, limit: int) -> _Rows:
    train = [_encoded(scorer, example) for example in dataset.train]
    held_out = [(example, _encoded(scorer, example)) for example in dataset.held_out]
    anchors = []
    for number, anchor in enumerate(probes.anchors):
        reply = anchor.reply or scorer.generate(None, anchor.messages, ANCHOR_TOKENS)
        anchors.append(_encoded(scorer, Example(f"anchor-{number}", anchor.messages, reply, None, "anchor")))
    fitting = [(example, row) for example, row in held_out if row.tokens <= limit]
    return _Rows(
        train=tuple(row for row in train if row.tokens <= limit),
        held_out=tuple(row for _, row in fitting),
        judged=tuple(example for example, _ in fitting),
        anchors=tuple(anchors),
    )


def _encoded(scorer: LlamaScorer, example: Example) -> Encoded:
    prompt_ids, chosen_ids = scorer.encode(example.messages, example.chosen)
    rejected_ids = None if example.rejected is None else tuple(scorer.encode(example.messages, example.rejected)[1])
    return Encoded(example.id, tuple(prompt_ids), tuple(chosen_ids), rejected_ids)


def _load_base(base: Path, threads: int) -> Any:
    import torch

    from familiar.adapters import base_model

    if threads:
        torch.set_num_threads(threads)
    return base_model.load(base)


def _train(
    store: Store, planned: Plan, base: Any, rows: _Rows, folder: Path, progress: Callable[[Progress], None]
) -> Path:
    """The best epoch's folder. Reference log-probabilities are in the store before the first step is taken."""
    from familiar.adapters.train import train

    references = store.cached_logps(planned.base_sha256, reference_keys([*rows.train, *rows.held_out]))
    stored = set(references)

    def store_and_tell(made: Progress) -> None:
        new = {key: value for key, value in references.items() if key not in stored}
        if new and made.phase != "reference":
            store.cache_logps(planned.base_sha256, new)
            stored.update(new)
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
    )


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

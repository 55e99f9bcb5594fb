"""The served model as the learner asks it: to draw replies, to say how likely they are, and to answer a grader."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from familiar.adapters.protocols import Completion, Draw, ProgressCallback, TopLogps, silent
from familiar.daemon.rollouts import LlamaSampler
from familiar.daemon.scorer import LlamaScorer
from familiar.memory.types import Message

ANSWER_TOKENS = 64
"""The longest answer to a grader that says nothing of it."""


class Oracle:
    """One model file, loaded once, for ``Scorer``, ``Sampler`` and ``Teacher`` alike."""

    def __init__(self, scorer: LlamaScorer, sampler: LlamaSampler) -> None:
        self.scorer = scorer
        self._sampler = sampler

    @classmethod
    @contextmanager
    def open(cls, path: Path, *, threads: int = 0, flash: str = "auto") -> Iterator["Oracle"]:
        """Load the model for as long as the block lasts; raises as ``LlamaScorer.open`` does."""
        with (
            LlamaScorer.open(path, threads=threads, flash=flash) as scorer,
            LlamaSampler(scorer.model, threads=threads, flash=flash) as sampler,
        ):
            yield cls(scorer, sampler)

    def encode(self, messages: Sequence[Message], completion: str) -> tuple[list[int], list[int]]:
        """As ``Scorer`` has it."""
        return self.scorer.encode(messages, completion)

    def sample(
        self, adapter: Path | None, prompts: Sequence[Sequence[Message]], how: Draw, progress: ProgressCallback = silent
    ) -> list[list[Completion]]:
        """As ``Sampler`` has it."""
        return self._sampler.sample(adapter, prompts, how, progress)

    def top_logps(
        self,
        adapter: Path | None,
        rows: Sequence[tuple[Sequence[Message], Sequence[int]]],
        k: int,
        progress: ProgressCallback = silent,
        *,
        temperature: float = 1.0,
    ) -> list[TopLogps]:
        """As ``Teacher`` has it."""
        return self._sampler.top_logps(adapter, rows, k, progress, temperature=temperature)

    def answer(self, messages: Sequence[Message], sampling: Mapping[str, Any], /) -> str:
        """What the base model says, greedily, to a grader's messages."""
        return self.scorer.generate(None, messages, int(sampling.get("max_completions_tokens", ANSWER_TOKENS)))

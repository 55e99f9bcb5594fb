"""The served model as the learner asks it: to draw replies, to say how likely they are, and to answer a grader."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from familiar.adapters.protocols import Completion, ProgressCallback, TopLogps, silent
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
    def open(cls, path: Path, *, threads: int = 0) -> Iterator["Oracle"]:
        """Load the model for as long as the block lasts; raises as ``LlamaScorer.open`` does."""
        with (
            LlamaScorer.open(path, threads=threads) as scorer,
            LlamaSampler(scorer.model, threads=threads) as sampler,
        ):
            yield cls(scorer, sampler)

    def encode(self, messages: Sequence[Message], completion: str) -> tuple[list[int], list[int]]:
        """As ``Scorer`` has it."""
        return self.scorer.encode(messages, completion)

    def sample(
        self,
        adapter: Path | None,
        prompts: Sequence[Sequence[Message]],
        *,
        group: int,
        max_tokens: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int,
        progress: ProgressCallback = silent,
    ) -> list[list[Completion]]:
        """As ``Sampler`` has it."""
        return self._sampler.sample(
            adapter,
            prompts,
            group=group,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            progress=progress,
        )

    def top_logps(
        self, adapter: Path | None, messages: Sequence[Message], completion_ids: Sequence[int], k: int
    ) -> TopLogps:
        """As ``Teacher`` has it."""
        return self._sampler.top_logps(adapter, messages, completion_ids, k)

    def answer(self, messages: Sequence[Message], sampling: Mapping[str, Any], /) -> str:
        """What the base model says, greedily, to a grader's messages."""
        return self.scorer.generate(None, messages, int(sampling.get("max_completions_tokens", ANSWER_TOKENS)))

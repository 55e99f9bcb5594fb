"""The served model as the learner asks it: to draw replies, to say how likely they are, and to answer a grader."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

from familiar.adapters.protocols import Completion, Draw, ProgressCallback, TopLogps, silent
from familiar.daemon import grader_service
from familiar.daemon.engine import ContextOverflow
from familiar.daemon.engine_options import CONTEXT_STEP_TOKENS, EngineOptions
from familiar.daemon.engine_stats import Counters
from familiar.daemon.generation import Generation
from familiar.daemon.llama import Context, Model
from familiar.daemon.model_loading import flash_attention
from familiar.daemon.rollouts import LlamaSampler
from familiar.daemon.sampling import Sampling
from familiar.daemon.scheduler import Scheduler
from familiar.daemon.scorer import LlamaScorer
from familiar.daemon.slots import Owner, Request
from familiar.memory.types import Message


class Oracle:
    """One model file, loaded once, for ``Scorer``, ``Sampler`` and ``Teacher`` alike."""

    scorer_type = LlamaScorer

    def __init__(self, scorer: LlamaScorer, sampler: LlamaSampler, replier: "_Replier") -> None:
        self.scorer = scorer
        self._sampler = sampler
        self._replier = replier

    @classmethod
    @contextmanager
    def open(cls, path: Path, *, threads: int = 0, flash: str = "auto") -> Iterator[Self]:
        """Load the model for as long as the block lasts; raises as ``LlamaScorer.open`` does."""
        with (
            cls.scorer_type.open(path, threads=threads, flash=flash) as scorer,
            LlamaSampler(scorer.model, threads=threads, flash=flash) as sampler,
            closing(_Replier(scorer.model, scorer.context_tokens, threads, flash)) as replier,
        ):
            yield cls(scorer, sampler, replier)

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
        """What the base model says to a grader's messages, as the service has it say: see ``ScoreModel``.

        Raises InvalidInput for messages that are too long, and for a schema that cannot be kept to.
        """
        return self._replier.reply(self.encode(messages, "")[0], grader_service.sampling_of(sampling))


class _Replier:
    """The base model's replies to exact requests (see ``engine``): the service's own scheduler, without its thread.

    A second thread that computes would slow down both. The context is made at the first reply, since few graders ask a
    model, and anew for a longer one.
    """

    def __init__(self, model: Model, context_tokens: int, threads: int, flash: str) -> None:
        self._model = model
        self._limit = context_tokens
        self._threads = threads
        self._flash = flash
        self._context: Context | None = None
        self._context_tokens = 0

    def close(self) -> None:
        """Free the context; harmless when done already."""
        if self._context is not None:
            self._context.close()
            self._context = None

    def reply(self, prompt: Sequence[int], sampling: Sampling) -> str:
        """The whole reply. Raises InvalidInput for a prompt that is too long, or a grammar that is none."""
        if len(prompt) >= self._limit:
            raise ContextOverflow(len(prompt), self._limit, "messages")
        most = self._limit if sampling.max_tokens is None else len(prompt) + sampling.max_tokens
        context = self._with_room(min(self._limit, most))
        scheduler = Scheduler(self._model, context, slots=1, context_tokens=self._context_tokens, counters=Counters())
        generation = Generation(len(prompt), wake=lambda: None)
        scheduler.place(Request(tuple(prompt), sampling, Owner(None, ""), generation, exact=True))
        while scheduler.running:
            scheduler.step()
        return generation.text()

    def _with_room(self, tokens: int) -> Context:
        if self._context is None or tokens > self._context_tokens:
            self.close()
            self._context_tokens = -(-tokens // CONTEXT_STEP_TOKENS) * CONTEXT_STEP_TOKENS
            self._context = Context(
                self._model,
                context_tokens=self._context_tokens,
                threads=self._threads,
                flash_attention=flash_attention(self._model, EngineOptions(flash_attention=self._flash)),
                outputs=1,
            )
        return self._context

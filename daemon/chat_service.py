"""What happens between a chat request and its reply, free of HTTP: choose the adapter, recall, encode, generate, log.

Everything about a request is decided here once, from the store, and travels with it: two requests share no adapter and
no prompt. The exchange is in the store before the end of the reply is handed over, so its id can be used at once.
"""

import logging
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from familiar.daemon import model_ids
from familiar.daemon.cancellation import Cancellation
from familiar.daemon.engine import Chunk, Engine, Generation, Sampling
from familiar.daemon.model_ids import ModelChoice
from familiar.daemon.prompt import memory_block, with_memories
from familiar.daemon.schemas import ChatRequest
from familiar.daemon.served_adapters import Served, ServedAdapters
from familiar.memory.errors import BadFile, FamiliarError
from familiar.memory.recall import recall
from familiar.memory.store import Store
from familiar.memory.types import Exchange, Memory, Message

log = logging.getLogger("familiar")

CANCELLED = "cancelled"
"""The logged finish reason of a reply whose client went away; what was produced until then is kept."""


@dataclass(frozen=True)
class Started:
    """A reply begins: its id, when (seconds since the epoch), and what it is made with."""

    id: str
    created_at: float
    model: str
    adapter_version: int | None
    memory_ids: tuple[str, ...]
    notice: str | None = None


@dataclass(frozen=True)
class Text:
    """A piece of the reply."""

    text: str


@dataclass(frozen=True)
class Ended:
    """The reply is over and logged, or ``notice`` says why it is not."""

    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    notice: str | None = None


Event = Started | Text | Ended


class ChatService:
    """Answers chat requests from one store and one engine. Thread-safe."""

    def __init__(
        self,
        store: Store,
        engine: Engine,
        adapters: ServedAdapters,
        *,
        memory_budget_tokens: int,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
        new_id: Callable[[], str] = lambda: f"chatcmpl-{secrets.token_hex(12)}",
    ) -> None:
        self._store = store
        self._engine = engine
        self._adapters = adapters
        self._memory_budget_tokens = memory_budget_tokens
        self._clock = clock
        self._timer = timer
        self._new_id = new_id
        self._header_tokens = engine.count_tokens(memory_block(()))

    def answer(self, request: ChatRequest, cancellation: Cancellation) -> Iterator[Event]:
        """Yield one Started, the Texts, and one Ended. Run it to its end: what it produced is logged then.

        Once cancelled it ends without an Ended, having logged the part that was produced.

        Raises:
            UnknownModel, InvalidInput, Busy, BadFile: before anything was yielded, when the request cannot be answered.
        """
        begun = self._timer()
        user_id = self._store.default_user()
        numbers = [version.number for version in self._store.versions(user_id)]
        choice = model_ids.parse(request.model, numbers, adapter=self._store.current_version(user_id) is not None)
        messages = tuple(_message(each.role, each.content) for each in request.messages)
        memories = self._recall(user_id, messages) if choice.memory else ()
        prompt_ids, memories = self._encode(messages, memories)
        reply = self._start(user_id, choice, prompt_ids, Sampling(**request.sampling), cancellation)
        memory_ids = tuple(memory.id for memory in memories)
        served = reply.served
        started = Started(self._new_id(), self._clock(), request.model, served.version, memory_ids, served.notice)
        pieces: list[str] = []
        finish_reason = CANCELLED
        logged: str | None = None
        try:
            yield started
            for chunk in reply.chunks():
                if chunk.text:
                    pieces.append(chunk.text)
                    yield Text(chunk.text)
                finish_reason = chunk.finish_reason or finish_reason
        except Exception:
            finish_reason = "error"
            raise
        finally:
            reply.generation.cancel()
            usage = reply.generation.usage
            logged = self._log(
                Exchange(
                    id=started.id,
                    user_id=user_id,
                    created_at=started.created_at,
                    model=request.model,
                    messages=messages,
                    completion="".join(pieces),
                    adapter_version=served.version,
                    memory_ids=memory_ids,
                    sampling=request.logged_sampling,
                    prompt_tokens=usage.prompt_tokens,
                    completion_tokens=usage.completion_tokens,
                    finish_reason=finish_reason,
                    duration_ms=(self._timer() - begun) * 1000,
                )
            )
        if finish_reason != CANCELLED:
            notice = " ".join(text for text in (served.notice, logged) if text) or None
            yield Ended(finish_reason, usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, notice)

    def _recall(self, user_id: int, messages: Sequence[Message]) -> tuple[Memory, ...]:
        if self._memory_budget_tokens == 0:
            return ()
        budget = self._memory_budget_tokens
        return recall(self._store, user_id, messages, budget_tokens=budget, count_tokens=self._line_tokens).memories

    def _line_tokens(self, memory: Memory) -> int:
        """The tokens of a memory's own line in the block."""
        return self._engine.count_tokens(memory_block((memory,))) - self._header_tokens

    def _encode(
        self, messages: Sequence[Message], memories: tuple[Memory, ...]
    ) -> tuple[list[int], tuple[Memory, ...]]:
        """The prompt's tokens, and the memories in it: none when the prompt only fits without them."""
        prompt_ids = self._engine.encode_prompt(with_memories(messages, memories))
        if memories and len(prompt_ids) >= self._engine.info.context_tokens:
            return self._engine.encode_prompt(messages), ()
        return prompt_ids, memories

    def _start(
        self, user_id: int, choice: ModelChoice, prompt_ids: list[int], sampling: Sampling, cancellation: Cancellation
    ) -> "_Reply":
        """Start generating and wait for the first piece; an adapter that cannot be loaded falls back as it may."""
        served = self._adapters.choose(user_id, choice)
        # The plain model is promised to the bit, which a reused prefix is not (see the engine).
        cache_key = f"user-{user_id}" if choice.memory or choice.adapter else ""
        while True:
            try:
                generation = self._engine.generate(prompt_ids, sampling, adapter=served.path, cache_key=cache_key)
                cancellation.attach(generation.cancel)
                rest = iter(generation)
                return _Reply(served, generation, next(rest, None), rest)
            except BadFile as error:
                if served.path is None:
                    raise
                served = self._adapters.fall_back(choice, error)

    def _log(self, exchange: Exchange) -> str | None:
        """Store the exchange. Where that fails the reply is still given: a line for the user says what is missing."""
        try:
            self._store.add_exchange(exchange)
        except FamiliarError as error:
            log.error("Exchange %s was not logged: %s", exchange.id, error)
            return f"This reply was not logged, so it cannot be corrected: {error}"
        return None


@dataclass(frozen=True)
class _Reply:
    """A generation that has begun: its first chunk (None when it was cancelled before one) and the rest."""

    served: Served
    generation: Generation
    first: Chunk | None
    rest: Iterator[Chunk]

    def chunks(self) -> Iterator[Chunk]:
        if self.first is not None:
            yield self.first
            yield from self.rest


def _message(role: str, content: str) -> Message:
    return Message(role="system" if role == "developer" else role, content=content)

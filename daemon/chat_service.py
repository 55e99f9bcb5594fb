"""What happens between a chat request and its reply, free of HTTP: choose the adapter, recall, encode, generate, log.

Everything about a request is decided here once, from the store, and travels with it: two requests share no adapter and
no prompt. The exchange is in the store before the end of the reply is handed over, so its id can be used at once. What
blocks (the store, the template, the tokeniser) runs in worker threads; what waits, waits in the event loop.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

from familiar.daemon import history, signal_service
from familiar.daemon.beginning import begin
from familiar.daemon.engine import ContextOverflow, Engine, Generation, Sampling
from familiar.daemon.model_ids import ModelChoice
from familiar.daemon.outbox import Mailbox, Outbox
from familiar.daemon.prompt import line_counter, with_memories
from familiar.daemon.reply import CANCELLED, Choices, Finished, Text, Totals
from familiar.daemon.schemas_chat import ChatRequest
from familiar.daemon.served_adapters import Served, ServedAdapters
from familiar.daemon.signal_service import Noticed, SignalService
from familiar.daemon.structured import Structure, structure_of
from familiar.daemon.template_messages import template_messages
from familiar.memory.errors import FamiliarError, InvalidInput
from familiar.memory.recall import NOTHING, Recalled, Recaller
from familiar.memory.store import Store
from familiar.memory.types import Exchange, Message

log = logging.getLogger("familiar")


@dataclass(frozen=True)
class Ended:
    """The reply is over and logged, or ``notice`` says why it is not."""

    totals: Totals
    notice: str | None = None


@dataclass(frozen=True)
class Plan:
    """All that was decided about a request before it was queued. ``trimmed`` messages were left out to make it fit."""

    user_id: int
    choice: ModelChoice
    messages: tuple[Message, ...]
    noticed: Noticed
    recalled: Recalled
    prompt_ids: tuple[int, ...]
    trimmed: int
    samplings: tuple[Sampling, ...]
    structure: Structure
    served: Served

    @property
    def notice(self) -> str | None:
        """A line for the user, where something is not as asked."""
        lines = [self.served.notice] if self.served.notice else []
        lines += [
            f"The pinned memory {memory.id} is too long to be shown: shorten it, or raise memory.budget_tokens."
            for memory in self.recalled.too_long
        ]
        return " ".join(lines) or None


@dataclass(frozen=True)
class Started:
    """A reply begins: its id, when (seconds since the epoch), and what it is made with."""

    id: str
    created_at: float
    model: str
    plan: Plan

    @property
    def extension(self) -> dict[str, object]:
        """What a reply tells beside OpenAI's fields."""
        return {
            "adapter_version": self.plan.served.version,
            "memories": [memory.id for memory in self.plan.recalled.memories],
            "consolidated": list(self.plan.recalled.learnt),
            "learned": [
                {
                    "feedback_id": memory.feedback_id,
                    "id": memory.id,
                    "kind": memory.kind,
                    "text": memory.text,
                    "prompt": memory.prompt,
                }
                for memory in self.plan.noticed.learned
            ],
            "pending": [{"id": guess.id, "text": guess.text} for guess in self.plan.noticed.pending],
            "trimmed_messages": self.plan.trimmed,
            "notice": self.plan.notice,
        }


class ChatService:
    """Answers chat requests from one store and one engine. ``begin`` and what it returns belong to the event loop."""

    def __init__(
        self,
        store: Store,
        engine: Engine,
        adapters: ServedAdapters,
        outbox: Outbox,
        workers: Executor,
        recaller: Recaller,
        signals: SignalService,
        *,
        memory_budget_tokens: int,
        trim: bool = False,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
        new_id: Callable[[], str] = lambda: f"chatcmpl-{secrets.token_hex(12)}",
    ) -> None:
        """``trim``: leave out a conversation's oldest messages where it outgrows the context, unless a request says."""
        self._store = store
        self._engine = engine
        self._adapters = adapters
        self._outbox = outbox
        self._workers = workers
        self._recaller = recaller
        self._signals = signals
        self._memory_budget_tokens = memory_budget_tokens
        self._trim = trim
        self._clock = clock
        self._timer = timer
        self._new_id = new_id
        self._line_tokens = line_counter(engine.count_tokens)

    async def begin(self, user_id: int, request: ChatRequest) -> "ChatReply":
        """Queue the request and wait for the beginning of its reply.

        Raises:
            UnknownModel, InvalidInput, Busy, BadFile: the request cannot be answered.
        """
        begun = self._timer()
        plan, choices = await begin(
            self._outbox,
            self._workers,
            partial(self._start, user_id, request),
            partial(self._adapters.fall_back_for, user_id, request.model),
        )
        started = Started(self._new_id(), self._clock(), request.model, plan)
        return ChatReply(started, choices, partial(self._log, started, request, choices, begun), self._workers)

    # ---- in worker threads ----

    def _start(
        self, user_id: int, request: ChatRequest, mailbox: Mailbox, served: Served | None
    ) -> tuple[Plan, list[list[Generation]]]:
        plan = self._plan(user_id, request, served)
        generations = self._engine.choices(
            plan.prompt_ids,
            plan.samplings,
            adapter=plan.served.path,
            # Nothing that was computed with a memory which is gone is used again.
            cache_key=f"user-{user_id}-{self._store.removals(user_id)}",
            # The plain model is promised to the bit (see the engine).
            exact=not (plan.choice.memory or plan.choice.adapter),
            whole=not request.stream,
            deliver=mailbox.post,
        )
        mailbox.attach(generations)
        return plan, [generations]

    def _plan(self, user_id: int, request: ChatRequest, served: Served | None) -> Plan:
        choice = self._adapters.parse(user_id, request.model)
        served = served or self._adapters.choose(user_id, choice)
        structure = structure_of(request, self._engine.tool_format, supports_tools=self._engine.supports_tools)
        messages = tuple(each.message for each in request.messages)
        # What the request says counts for its own reply already.
        noticed = self._signals.notice(user_id, request, messages) if choice.memory else signal_service.NOTHING
        recalled = self._recall(user_id, messages, noticed.conversation_id, served) if choice.memory else NOTHING
        prompt_ids, recalled, trimmed = self._encode(request, messages, recalled, structure)
        self._engine.check_choices(request.choices)
        sampling = Sampling(**request.sampling, **structure.sampling)
        return Plan(
            user_id=user_id,
            choice=choice,
            messages=messages,
            noticed=noticed,
            recalled=recalled,
            prompt_ids=tuple(prompt_ids),
            trimmed=trimmed,
            samplings=each_choice(sampling, request.choices),
            structure=structure,
            served=served,
        )

    def _recall(
        self, user_id: int, messages: Sequence[Message], conversation_id: str | None, served: Served
    ) -> Recalled:
        if self._memory_budget_tokens == 0:
            return NOTHING
        budget = self._memory_budget_tokens
        # Of the very version that answers, and after what the request says: it may be something that is said again.
        carried = frozenset[str]() if served.version is None else self._store.consolidated(user_id, served.version)
        return self._recaller.recall(
            user_id,
            messages,
            conversation_id=conversation_id,
            budget_tokens=budget,
            count_tokens=self._line_tokens,
            carried=carried,
        )

    def _encode(
        self, request: ChatRequest, messages: Sequence[Message], recalled: Recalled, structure: Structure
    ) -> tuple[list[int], Recalled, int]:
        """The prompt's tokens, the memories in it, and how many messages were left out to make it fit.

        History is trimmed where that was asked for; the memories go where the prompt only fits without them.
        """

        def encode(turns: Sequence[Message], shown: Recalled) -> list[int]:
            return self._engine.encode_prompt(with_memories(turns, shown.memories), structure.template_tools)

        limit = self._engine.info.context_tokens
        trim = self._trim if request.truncation is None else request.truncation == "auto"
        wanted = request.sampling.get("max_tokens")
        room = limit - history.reply_room(limit, wanted)
        tried: dict[int, list[int]] = {}

        def fits(turns: Sequence[Message]) -> bool:
            try:
                tried[len(turns)] = encode(turns, recalled)
            except ContextOverflow:
                return False
            return len(tried[len(turns)]) <= room

        kept = messages
        try:
            kept = history.trimmed(messages, fits) if trim else messages
            prompt_ids = tried.get(len(kept)) or encode(kept, recalled)
            if recalled.memories and len(prompt_ids) >= limit:
                prompt_ids, recalled = encode(kept, NOTHING), recalled.untold()
            if len(prompt_ids) >= limit:
                raise ContextOverflow(len(prompt_ids), limit, "messages")
        except ContextOverflow as error:
            raise ContextOverflow(error.prompt_tokens, limit, "messages", self._instead(kept, structure)) from None
        except InvalidInput:
            # Memories may have taken the place of messages[0], by which the wrong one is named.
            template_messages(messages)
            raise
        return prompt_ids, recalled, len(messages) - len(kept)

    def _instead(self, messages: Sequence[Message], structure: Structure) -> str:
        """What helps with messages that are too long: to leave out the oldest only where the others fit."""
        least = history.trimmed(messages, lambda turns: False)
        try:
            fits = len(self._engine.encode_prompt(least, structure.template_tools)) < self._engine.info.context_tokens
        except InvalidInput:
            fits = False
        if fits:
            return 'shorten them, send "truncation": "auto" to leave out the oldest'
        has_system = any(message["role"] == "system" for message in least)
        return f"shorten the last message{' or the system message' if has_system else ''}"

    def _log(self, started: Started, request: ChatRequest, choices: Choices, begun: float) -> str | None:
        """Store each choice as an exchange: the first under the reply's id, the others under that and their index.

        Where that fails the reply is still given: a line for the user says what is missing.
        """
        plan = started.plan
        try:
            for index, reason in enumerate(choices.finish_reasons):
                prompt_tokens, completion_tokens = choices.usage_of(index)
                self._store.add_exchange(
                    Exchange(
                        id=f"{started.id}:{index}" if index else started.id,
                        user_id=plan.user_id,
                        created_at=started.created_at,
                        model=started.model,
                        messages=plan.messages,
                        completion="".join(choices.texts[index]),
                        adapter_version=plan.served.version,
                        used=plan.recalled.used,
                        sampling=request.logged_sampling,
                        prompt_tokens=prompt_tokens,
                        completion_tokens=completion_tokens,
                        finish_reason=reason,
                        duration_ms=(self._timer() - begun) * 1000,
                        conversation_id=plan.noticed.conversation_id,
                    )
                )
        except FamiliarError as error:
            log.error("Exchange %s was not logged: %s", started.id, error)
            return f"This reply was not logged, so it cannot be corrected: {error}"
        return None


class ChatReply:
    """A reply that has begun. Read ``events`` to their end: what was produced is logged then, whoever still listens."""

    def __init__(self, started: Started, choices: Choices, log: Callable[[], str | None], workers: Executor) -> None:
        self.started = started
        self._choices = choices
        self._log = log
        self._workers = workers

    async def events(self) -> AsyncGenerator[list[Text | Finished] | Ended, None]:
        """Yield the reply as it comes, and one Ended; none when it was cancelled, having logged the part produced."""
        logged: str | None = None
        try:
            async with aclosing(self._choices.events()) as produced:
                async for events in produced:
                    yield events
        finally:
            self._choices.close()
            running = asyncio.get_running_loop().run_in_executor(self._workers, self._log)
            logged = await asyncio.shield(running)
        if CANCELLED not in self._choices.finish_reasons:
            notice = " ".join(text for text in (self.started.plan.notice, logged) if text) or None
            yield Ended(self._choices.totals, notice)

    def cancel(self) -> None:
        """Stop within one token; ``events`` then ends."""
        self._choices.cancel()


def each_choice(sampling: Sampling, choices: int) -> tuple[Sampling, ...]:
    """The sampling of each choice: a given seed counts up, as equal seeds would give equal replies."""
    if sampling.seed is None:
        return (sampling,) * choices
    return tuple(replace(sampling, seed=sampling.seed + index) for index in range(choices))

"""``/v1/completions``: plain text gone on with, under the user's adapter. Free of HTTP.

There are no messages here, so no memory is recalled, and nothing is logged: what is no exchange cannot be corrected.
"""

import secrets
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from familiar.daemon.beginning import begin
from familiar.daemon.chat_service import each_choice
from familiar.daemon.engine import Engine, Generation, Sampling
from familiar.daemon.generation import Event, TokenLogprob
from familiar.daemon.outbox import Mailbox, Outbox
from familiar.daemon.reply import CANCELLED, Choices, Finished, Text, Totals
from familiar.daemon.schemas_text import TextRequest
from familiar.daemon.served_adapters import Served, ServedAdapters
from familiar.memory.errors import InvalidInput


@dataclass(frozen=True)
class TextPlan:
    """What was decided about a request: ``prompts`` are the texts to echo, one for each prompt."""

    served: Served
    prompts: tuple[str, ...]


class TextService:
    """Answers completion requests. ``begin`` and what it returns belong to the event loop."""

    def __init__(
        self,
        engine: Engine,
        adapters: ServedAdapters,
        outbox: Outbox,
        workers: Executor,
        *,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: f"cmpl-{secrets.token_hex(12)}",
    ) -> None:
        self._engine = engine
        self._adapters = adapters
        self._outbox = outbox
        self._workers = workers
        self._clock = clock
        self._new_id = new_id

    async def begin(self, user_id: int, request: TextRequest) -> "TextReply":
        """Queue the request and wait for the beginning of its reply.

        Raises:
            UnknownModel, InvalidInput, Busy, BadFile: the request cannot be answered.
        """
        plan, choices = await begin(
            self._outbox,
            self._workers,
            partial(self._start, user_id, request),
            partial(self._adapters.fall_back_for, user_id, request.model),
        )
        return TextReply(self._new_id(), self._clock(), request, plan, choices)

    def _start(
        self, user_id: int, request: TextRequest, mailbox: Mailbox, served: Served | None
    ) -> tuple[TextPlan, list[list[Generation]]]:
        self._engine.check_choices(request.choices)
        wanted, most = len(request.prompts) * request.choices, self._engine.queue_limit
        if len(request.prompts) > 1 and wanted > most:
            raise InvalidInput(
                f"The request asks for {wanted} replies but at most {most} may wait at a time: "
                "send fewer prompts at once, or serve with a larger queue_limit.",
                "prompt",
            )
        choice = self._adapters.parse(user_id, request.model)
        served = served or self._adapters.choose(user_id, choice)
        samplings = each_choice(Sampling(**request.sampling), request.choices)
        encoded = [
            self._engine.encode_text(each) if isinstance(each, str) else self._engine.check_tokens(each)
            for each in request.prompts
        ]
        generations: list[list[Generation]] = []
        try:
            for number, prompt_ids in enumerate(encoded):
                first = number * request.choices
                generations.append(
                    self._engine.choices(
                        prompt_ids,
                        samplings,
                        adapter=served.path,
                        cache_key=f"user-{user_id}",
                        exact=not (choice.memory or choice.adapter),
                        whole=not request.stream,
                        param="prompt",
                        deliver=partial(_post, mailbox, first),
                    )
                )
        finally:
            # Also where a later prompt was refused: closing the mailbox then stops the earlier ones.
            mailbox.attach([generation for choices in generations for generation in choices])
        texts = tuple(
            each if isinstance(each, str) else self._engine.decode_tokens(each).decode("utf-8", "replace")
            for each in request.prompts
        )
        return TextPlan(served, texts), generations


def _post(mailbox: Mailbox, first: int, index: int, event: Event) -> None:
    mailbox.post(first + index, event)


class TextReply:
    """A reply that has begun. Close what ``events`` returns, or read it to its end."""

    def __init__(self, id: str, created_at: float, request: TextRequest, plan: TextPlan, choices: Choices) -> None:
        self.id = id
        self.created_at = created_at
        self.request = request
        self._plan = plan
        self._choices = choices

    @property
    def extension(self) -> dict[str, object]:
        """What a reply tells beside OpenAI's fields."""
        return {"adapter_version": self._plan.served.version, "notice": self._plan.served.notice}

    def echoed(self, index: int) -> tuple[str, tuple[TokenLogprob, ...]]:
        """The prompt's text before the choice at ``index`` and its logprobs; none where it is not echoed."""
        if not self.request.echo:
            return "", ()
        return self._plan.prompts[index // self.request.choices], self._choices.prompt_logprobs(index)

    async def events(self) -> AsyncGenerator[list[Text | Finished] | Totals, None]:
        """Yield the reply as it comes, and its totals in the end; none when it was cancelled."""
        try:
            async with aclosing(self._choices.events()) as produced:
                async for events in produced:
                    yield events
        finally:
            self._choices.close()
        if CANCELLED not in self._choices.finish_reasons:
            yield self._choices.totals

    def cancel(self) -> None:
        """Stop within one token; ``events`` then ends."""
        self._choices.cancel()

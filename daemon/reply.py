"""A reply as the routes read it: the choices' texts as they come, each choice's end, and the tokens that all took."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from familiar.daemon.generation import Chunk, Event, Generation, TokenLogprob
from familiar.daemon.outbox import Mailbox, Outbox, ShuttingDown

CANCELLED = "cancelled"
"""The finish reason of a choice whose client went away; it goes to the log, never over the wire."""


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the choice at ``index``."""

    index: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """The choice at ``index`` is over."""

    index: int
    finish_reason: str


@dataclass(frozen=True)
class Timings:
    """Where a request's time went, in ms: waiting for a slot, up to the first token, and from there to the last."""

    queued_ms: float
    prompt_ms: float
    predicted_ms: float


@dataclass(frozen=True)
class Totals:
    """The tokens of all choices; a prompt counts once, however many choices it has."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    timings: Timings


class Choices:
    """The choices of one request in the making, read once by ``events``. ``close`` it in the end, whatever happened."""

    def __init__(self, outbox: Outbox, mailbox: Mailbox, generations: Sequence[Sequence[Generation]]) -> None:
        """``generations`` are those of each prompt; the mailbox numbers them in that order."""
        self._outbox = outbox
        self._mailbox = mailbox
        self._by_prompt = generations
        self._all = [generation for choices in generations for generation in choices]
        self._arrived: list[tuple[int, Event]] = []
        self._begun: dict[int, int] = {}  # where each choice's text is among the events being put together
        self.texts: list[list[str]] = [[] for _ in self._all]
        self.finish_reasons = [CANCELLED] * len(self._all)

    async def started(self) -> None:
        """Wait until there is something to read; raises what the engine raised in place of a reply."""
        self._arrived = await self._mailbox.take()
        for _, event in self._arrived:
            if isinstance(event, BaseException):
                raise event

    async def events(self) -> AsyncGenerator[list[Text | Finished], None]:
        """Yield what there is, a choice's text in one piece, until every choice is over or the reply is cancelled.

        An error of the engine is raised, and what came before it stays in ``texts``.
        """
        left = len(self._all)
        while left:
            arrived, self._arrived = self._arrived or await self._mailbox.take(), []
            events: list[Text | Finished] = []
            self._begun = {}
            for index, event in arrived:
                if event is None:
                    return
                if isinstance(event, BaseException):
                    if not isinstance(event, ShuttingDown):
                        self.finish_reasons = ["error" if r == CANCELLED else r for r in self.finish_reasons]
                    raise event
                left -= self._take(index, event, events)
            yield events

    def _take(self, index: int, chunk: Chunk, events: list[Text | Finished]) -> bool:
        """Note a chunk; return whether it is its choice's last."""
        if chunk.text or chunk.logprobs:
            self.texts[index].append(chunk.text)
            place = self._begun.setdefault(index, len(events))
            if place == len(events):
                events.append(Text(index, chunk.text, chunk.logprobs))
            elif isinstance(piece := events[place], Text):
                events[place] = Text(index, piece.text + chunk.text, piece.logprobs + chunk.logprobs)
        if chunk.finish_reason is None:
            return False
        self.finish_reasons[index] = chunk.finish_reason
        events.append(Finished(index, chunk.finish_reason))
        return True

    def prompt_logprobs(self, index: int) -> tuple[TokenLogprob, ...]:
        """The logprobs of the choice's prompt, where they were asked for; there before its first text is."""
        return self._all[index].prompt_logprobs

    def usage_of(self, index: int) -> tuple[int, int]:
        """The prompt's and the reply's tokens of one choice."""
        return self._all[index].prompt_tokens, self._all[index].completion_tokens

    @property
    def totals(self) -> Totals:
        """The tokens and the time so far."""
        first = [choices[0] for choices in self._by_prompt]
        timing = self._all[0].timing
        return Totals(
            prompt_tokens=sum(generation.prompt_tokens for generation in first),
            completion_tokens=sum(generation.completion_tokens for generation in self._all),
            cached_tokens=sum(generation.cached_tokens for generation in first),
            timings=Timings(timing.waited_ms, timing.prompt_ms, timing.predicted_ms),
        )

    def cancel(self) -> None:
        """Stop within one token: ``events`` then ends."""
        self._mailbox.cancel()

    def close(self) -> None:
        """Stop what still runs, and expect nothing more."""
        self._outbox.close(self._mailbox)

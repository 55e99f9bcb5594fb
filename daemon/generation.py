"""One reply in the making: what the engine's thread writes and the caller reads."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token, its bytes, and its natural-log probability before any sampling knob.

    ``top`` are the likeliest tokens at that place, best first. ``logprob`` is None for a text's very first token, which
    nothing comes before.
    """

    token: int
    piece: bytes
    logprob: float | None
    top: tuple["TokenLogprob", ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next part of a reply. The last one has the reason why it ended: "stop" or "length"; its text may be empty.

    ``logprobs``, where they were asked for, are of the tokens that the text is of.
    """

    text: str
    finish_reason: str | None = None
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Usage:
    """Tokens of one request: its prompt, its reply (without the end-of-turn token), and the prompt's reused part."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


Event = Chunk | BaseException | None
"""A chunk, an error, or the end of a cancelled reply (None)."""


@dataclass
class Timing:
    """When a request was queued, given a slot, had its first token, and ended: seconds of the monotonic clock."""

    queued_s: float = field(default_factory=time.monotonic)
    started_s: float | None = None
    first_token_s: float | None = None
    ended_s: float | None = None

    @property
    def prompt_ms(self) -> float:
        """From getting a slot to the first token."""
        return _ms(self.started_s, self.first_token_s)

    @property
    def predicted_ms(self) -> float:
        """From the first token to the last."""
        return _ms(self.first_token_s, self.ended_s)

    @property
    def waited_ms(self) -> float:
        """From the request to getting a slot."""
        return _ms(self.queued_s, self.started_s)


def _ms(start: float | None, end: float | None) -> float:
    return 0.0 if start is None or end is None else (end - start) * 1000


class Generation:
    """A running reply: iterate over it once for its chunks, which blocks until each is there.

    An error in the engine is raised by the iteration. ``usage``, ``timing`` and ``finish_reason`` are final once it has
    ended; a cancelled reply ends without a finish reason. With ``deliver`` the events go there instead, on the engine's
    thread, and there is nothing to iterate over.
    """

    def __init__(
        self, prompt_tokens: int, wake: Callable[[], None], deliver: Callable[[Event], None] | None = None
    ) -> None:
        self.prompt_tokens = prompt_tokens
        self.completion_tokens = 0
        self.cached_tokens = 0
        self.prompt_logprobs: tuple[TokenLogprob, ...] = ()
        self.timing = Timing()
        self.finish_reason: str | None = None
        self.cancelled = False
        self._wake = wake
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._deliver = deliver or self._events.put

    @property
    def usage(self) -> Usage:
        """The tokens so far."""
        return Usage(self.prompt_tokens, self.completion_tokens, self.cached_tokens)

    def __iter__(self) -> Iterator[Chunk]:
        while (event := self._events.get()) is not None:
            if isinstance(event, BaseException):
                raise event
            yield event
            if event.finish_reason:
                return

    def text(self) -> str:
        """Wait for the end and return the whole reply."""
        return "".join(chunk.text for chunk in self)

    def cancel(self) -> None:
        """Stop within one token; what is there already can still be read. Harmless after the end."""
        self.cancelled = True
        self._wake()

    def put(self, event: Event) -> None:
        """For the engine: hand over a chunk, an error, or the end of a cancelled reply (None)."""
        if isinstance(event, Chunk):
            self.finish_reason = event.finish_reason
        self._deliver(event)

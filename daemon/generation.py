"""One reply in the making: what the engine's thread writes and the caller reads."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue


@dataclass(frozen=True)
class Chunk:
    """The next part of a reply. The last one has the reason why it ended: "stop" or "length"; its text may be empty."""

    text: str
    finish_reason: str | None = None


@dataclass(frozen=True)
class Usage:
    """Tokens of one request: its prompt, its reply (without the end-of-turn token), and the prompt's reused part."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


class Generation:
    """A running reply: iterate over it once for its chunks, which blocks until each is there.

    An error in the engine is raised by the iteration. ``usage`` and ``finish_reason`` are final once it has ended; a
    cancelled reply ends without a finish reason.
    """

    def __init__(self, prompt_tokens: int, wake: Callable[[], None]) -> None:
        self.usage = Usage(prompt_tokens, 0, 0)
        self.finish_reason: str | None = None
        self.cancelled = False
        self._wake = wake
        self._events: SimpleQueue[Chunk | BaseException | None] = SimpleQueue()

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

    def put(self, event: Chunk | BaseException | None) -> None:
        """For the engine: hand over a chunk, an error, or the end of a cancelled reply (None)."""
        if isinstance(event, Chunk):
            self.finish_reason = event.finish_reason
        self._events.put(event)

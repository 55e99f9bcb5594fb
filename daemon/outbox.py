"""From the engine's thread to an event loop: replies that can be awaited, with one wake-up of the loop for many tokens.

A step of the engine gives every running reply a token. Waking the loop for each would let it take the interpreter lock
and a core in the middle of the step, eight times with eight replies; so what a step produced is collected and handed
over at once, and what a small model says faster than a screen can show (``TOGETHER_S``) goes together. The beginning
and the end of a reply never wait.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence

from familiar.daemon.generation import Chunk, Event, Generation
from familiar.memory.errors import Busy

TOGETHER_S = 0.008
"""Tokens of a running reply are handed over this often at most: half a frame of a screen."""


class ShuttingDown(Busy):
    """The service ends before the reply did."""

    code = "shutting_down"

    def __init__(self) -> None:
        super().__init__("The service is shutting down: ask again when it is back.")


class Mailbox:
    """Where the events of one request's choices arrive, each with the index of its choice. For one reader, in the loop.

    It can cancel the replies that it is told of with ``attach``.
    """

    def __init__(self, outbox: "Outbox") -> None:
        self._outbox = outbox
        self._arrived: list[tuple[int, Event]] = []
        self._reader: asyncio.Future[None] | None = None
        self._generations: Sequence[Generation] = ()
        self._cancelled = False
        self.begun = False
        """Whether an event was posted: for the engine's thread."""

    def post(self, index: int, event: Event) -> None:
        """Take an event, on the engine's thread."""
        self._outbox.post(self, index, event)

    def arrive(self, events: Iterable[tuple[int, Event]]) -> None:
        """Take events, in the loop's thread."""
        self._arrived.extend(events)
        if self._reader and not self._reader.done():
            self._reader.set_result(None)

    async def take(self) -> list[tuple[int, Event]]:
        """Return all that has arrived, having waited until something has."""
        if not self._arrived:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        arrived, self._arrived = self._arrived, []
        return arrived

    def attach(self, generations: Sequence[Generation]) -> None:
        """Say which replies are being made; they are cancelled at once if that was asked for already."""
        self._generations = generations
        if self._cancelled:
            self.cancel()

    def cancel(self) -> None:
        """Stop the replies: each then ends with a None."""
        self._cancelled = True
        for generation in self._generations:
            generation.cancel()


class Outbox:
    """Carries the events of all mailboxes to one event loop."""

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self._timer = timer
        self._loop: asyncio.AbstractEventLoop | None = None
        self._posted: list[tuple[Mailbox, int, Event]] = []
        self._urgent = False
        self._handed_over = 0.0
        self._live: set[Mailbox] = set()

    def open(self) -> Mailbox:
        """A new mailbox, read in the running loop. ``close`` it in the end."""
        self._loop = asyncio.get_running_loop()
        mailbox = Mailbox(self)
        self._live.add(mailbox)
        return mailbox

    def close(self, mailbox: Mailbox) -> None:
        """Cancel what a mailbox still waits for."""
        self._live.discard(mailbox)
        mailbox.cancel()

    def post(self, mailbox: Mailbox, index: int, event: Event) -> None:
        """Take an event, on the engine's thread; ``flush`` hands it over."""
        self._posted.append((mailbox, index, event))
        if not (mailbox.begun and isinstance(event, Chunk) and event.finish_reason is None):
            self._urgent = mailbox.begun = True

    def flush(self) -> None:
        """Hand over what was posted, or keep it for a later step, on the engine's thread.

        A reply always ends with an event that does not wait, so nothing is kept for ever. When the loop has gone it is
        handed to nobody.
        """
        if not self._posted or self._loop is None:
            return
        now = self._timer()
        if not self._urgent and now - self._handed_over < TOGETHER_S:
            return
        self._handed_over, self._urgent = now, False
        posted, self._posted = self._posted, []
        try:
            self._loop.call_soon_threadsafe(_deliver, posted)
        except RuntimeError:
            for mailbox, _, _ in posted:
                mailbox.cancel()

    def stop(self) -> None:
        """End every reply with ShuttingDown. Call it in the loop's thread."""
        for mailbox in list(self._live):
            mailbox.cancel()
            mailbox.arrive([(0, ShuttingDown())])


def _deliver(posted: Iterable[tuple[Mailbox, int, Event]]) -> None:
    for mailbox, index, event in posted:
        mailbox.arrive([(index, event)])

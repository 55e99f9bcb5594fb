"""From the engine's thread to an event loop: replies that can be awaited, with one wake-up of the loop per step.

A step of the engine gives every running reply a token. Waking the loop for each would let it take the interpreter lock
in the middle of the step, eight times with eight replies; so what a step produced is collected and handed over at once.
"""

import asyncio
from collections.abc import Iterable, Sequence

from familiar.daemon.generation import Event, Generation
from familiar.memory.errors import Busy


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

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._posted: list[tuple[Mailbox, int, Event]] = []
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

    def flush(self) -> None:
        """Hand over what was posted, on the engine's thread; to nobody when the loop has gone."""
        if not self._posted or self._loop is None:
            return
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

"""Stopping a generation from another thread, and running one in a thread while an event loop reads what it yields."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from familiar.memory.errors import Busy

T = TypeVar("T")


class ShuttingDown(Busy):
    """The service ends before the reply did."""

    code = "shutting_down"

    def __init__(self) -> None:
        super().__init__("The service is shutting down: ask again when it is back.")


class Cancellation:
    """Asks one piece of work to stop, whether it has started yet or not. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked = False
        self._stop: Callable[[], None] | None = None

    @property
    def asked(self) -> bool:
        """Whether the work is to stop."""
        return self._asked

    def cancel(self) -> None:
        """Stop the work now, or as soon as it starts."""
        with self._lock:
            self._asked = True
            stop = self._stop
        if stop is not None:
            stop()

    def attach(self, stop: Callable[[], None]) -> None:
        """Say how the running work is stopped; called at once if that was asked for already."""
        with self._lock:
            self._stop = stop
            asked = self._asked
        if asked:
            stop()


@dataclass(frozen=True)
class _End:
    """The last thing in a queue: the work is over, with the error that ended it if any."""

    error: Exception | None


class _Run(Generic[T]):
    """One piece of work, its queue, and the loop that reads it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.cancellation = Cancellation()
        self.queue: asyncio.Queue[T | _End] = asyncio.Queue()
        self._loop = loop

    def put(self, item: T | _End) -> None:
        """Hand an item over from any thread; to nobody when the loop has gone."""
        try:
            self._loop.call_soon_threadsafe(self.queue.put_nowait, item)
        except RuntimeError:
            self.cancellation.cancel()

    def work(self, produce: Callable[[Cancellation], Iterator[T]]) -> None:
        """Run in the worker thread, to the end whoever still listens, so that what was produced is logged."""
        try:
            for item in produce(self.cancellation):
                self.put(item)
        except Exception as error:
            self.put(_End(error))
        else:
            self.put(_End(None))


class Workers:
    """The threads that generations run in. The engine bounds how many there are; this bounds it at ``threads``."""

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="familiar-chat")
        self._live: set[_Run[object]] = set()

    async def iterate(self, produce: Callable[[Cancellation], Iterator[T]]) -> AsyncGenerator[T, None]:
        """Yield what ``produce`` yields in a thread; leaving early cancels it, and its error is raised here.

        Raises:
            ShuttingDown: ``stop`` was called meanwhile.
        """
        run: _Run[T] = _Run(asyncio.get_running_loop())
        self._live.add(run)  # type: ignore[arg-type]  # only its cancellation and its end are touched there
        try:
            self._executor.submit(run.work, produce)
            while not isinstance(item := await run.queue.get(), _End):
                yield item
            if item.error is not None:
                raise item.error
        finally:
            self._live.discard(run)
            run.cancellation.cancel()

    def stop(self) -> None:
        """End every running iteration with ShuttingDown. Call it in the event loop's thread."""
        for run in list(self._live):
            run.cancellation.cancel()
            run.queue.put_nowait(_End(ShuttingDown()))

    def close(self) -> None:
        """Wait until every thread has ended its work."""
        self._executor.shutdown(wait=True)

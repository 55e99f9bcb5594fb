"""Whether the engine is being used, and since when it is not: what learning waits for."""

import time
from collections.abc import Callable

from familiar.daemon.engine_stats import EngineStats


class Activity:
    """Told of every request as it comes, and asked how long there has been none. Safe from any thread."""

    def __init__(self, stats: Callable[[], EngineStats], timer: Callable[[], float] = time.monotonic) -> None:
        """``stats`` are the engine's; ``timer`` is in seconds, and need not count those of a suspended machine."""
        self._stats = stats
        self._timer = timer
        self._last = timer()

    def touch(self) -> None:
        """Take note of a request."""
        self._last = self._timer()

    def idle_s(self) -> float:
        """Seconds since the engine had something to do, at most by how rarely this is asked; 0 while it has."""
        now, stats = self._timer(), self._stats()
        if stats.running or stats.waiting:
            self._last = now
        return max(0.0, now - self._last)

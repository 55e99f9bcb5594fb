"""What the routes of one running service share."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from familiar.daemon.cancellation import Workers
from familiar.daemon.chat_service import ChatService
from familiar.daemon.engine import QUEUE_LIMIT, Engine
from familiar.daemon.served_adapters import ServedAdapters
from familiar.daemon.settings import Settings
from familiar.memory.store import Store

SPARE_WORKERS = 16
"""Threads beyond what the engine takes in, so that a request too many reaches it and is told so, rather than waits."""


@dataclass(frozen=True)
class State:
    """The parts of a service: put together by ``make``, closed by ``close``. Times are seconds since the epoch."""

    settings: Settings
    store: Store
    engine: Engine
    chat: ChatService
    workers: Workers
    started_at: float
    clock: Callable[[], float] = field(default=time.time)

    def close(self) -> None:
        """End what still generates, let it be logged, and close the engine and the store."""
        self.engine.close()
        self.workers.close()
        self.store.close()


def make(settings: Settings, store: Store, engine: Engine, clock: Callable[[], float] = time.time) -> State:
    """Put a service's parts together around an open store and engine, which it closes at the end."""
    adapters = ServedAdapters(store, settings.data_dir, lambda: engine.info.sha256)
    budget = settings.memory_budget_tokens
    chat = ChatService(store, engine, adapters, memory_budget_tokens=budget, clock=clock)
    workers = Workers(settings.slots + QUEUE_LIMIT + SPARE_WORKERS)
    return State(settings, store, engine, chat, workers, started_at=clock(), clock=clock)

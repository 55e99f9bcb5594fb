"""What the routes of one running service share."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache

from familiar.daemon import base_models
from familiar.daemon.activity import Activity
from familiar.daemon.auth import Identify
from familiar.daemon.chat_service import ChatService
from familiar.daemon.engine import Engine
from familiar.daemon.files_store import FilesStore
from familiar.daemon.fine_tuning_service import FineTuningService
from familiar.daemon.inbox_files import Folders
from familiar.daemon.inbox_watch import InboxWatch
from familiar.daemon.learning_service import LearningService
from familiar.daemon.learning_turn import Turn
from familiar.daemon.metrics import Metrics
from familiar.daemon.outbox import Outbox
from familiar.daemon.recalling import Preparation
from familiar.daemon.served_adapters import ServedAdapters
from familiar.daemon.settings import Settings
from familiar.daemon.signal_service import SignalService
from familiar.daemon.text_service import TextService
from familiar.memory.recall import Recaller
from familiar.memory.store import Store

WORKERS = 8
"""Threads for what blocks: the store, the template, the tokeniser. Each piece of such work is short."""


@dataclass(frozen=True)
class State:
    """The parts of a service: put together by ``make``, closed by ``close``. Times are seconds since the epoch.

    ``base_sha256`` gives the served model's hash, and may read the whole file the first time.
    """

    settings: Settings
    store: Store
    engine: Engine
    adapters: ServedAdapters
    base_sha256: Callable[[], str]
    chat: ChatService
    text: TextService
    outbox: Outbox
    workers: ThreadPoolExecutor
    identify: Identify
    metrics: Metrics
    inbox: InboxWatch
    recaller: Recaller
    preparation: Preparation
    turn: Turn
    learning: LearningService
    files: FilesStore
    fine_tuning: FineTuningService
    started_at: float
    clock: Callable[[], float] = field(default=time.time)

    def close(self) -> None:
        """End what still generates, let it be logged, and close the engine and the store."""
        self.inbox.stop()
        self.learning.stop()
        self.fine_tuning.stop()
        self.preparation.close()
        self.engine.close()
        self.workers.shutdown()
        self.identify.close()
        self.store.close()


def make(
    settings: Settings,
    store: Store,
    engine: Engine,
    clock: Callable[[], float] = time.time,
    *,
    local_token: str | None = None,
) -> State:
    """Put a service's parts together around an open store and engine, which it closes at the end.

    ``local_token`` is what the commands of this machine send, see ``auth``.
    """
    base_sha256 = cache(lambda: base_models.identify(engine.info.path, settings.data_dir).sha256)
    adapters = ServedAdapters(store, settings.data_dir, base_sha256)
    budget = settings.memory_budget_tokens
    outbox, workers = Outbox(), ThreadPoolExecutor(WORKERS, thread_name_prefix="familiar-worker")
    engine.after_step(outbox.flush)
    trim = settings.context_overflow == "trim"
    recaller = Recaller(store)
    noticing = SignalService(store, clock, enabled=settings.memory_signals == "on")
    chat = ChatService(
        store,
        engine,
        adapters,
        outbox,
        workers,
        recaller,
        noticing,
        memory_budget_tokens=budget,
        trim=trim,
        clock=clock,
    )
    text = TextService(engine, adapters, outbox, workers, clock=clock)
    folders = None if settings.inbox_dir is None else Folders(settings.inbox_dir, settings.drafts_dir)
    identify = Identify(Store.open(settings.database, clock), local_token, clock)
    preparation = Preparation(engine, store, recaller)
    if engine.embedding_model is not None:
        preparation.start()
    activity = Activity(engine.stats)
    turn = Turn(settings.database, activity, settings.resume_after_s)
    engine.on_request(turn.touch)
    metrics = Metrics(engine.stats)
    metrics.gauge("learning_running", "1 while a learner's process runs.", lambda: turn.holder() is not None)
    metrics.gauge("learning_paused", "1 while it is paused.", lambda: turn.paused() is not None)
    files = FilesStore(store, settings.data_dir, clock)
    return State(
        settings,
        store,
        engine,
        adapters,
        base_sha256,
        chat,
        text,
        outbox,
        workers,
        identify,
        metrics,
        InboxWatch(store, folders, clock),
        recaller,
        preparation,
        turn,
        LearningService(settings, store, turn, activity, clock),
        files,
        FineTuningService(settings, store, files, turn, clock),
        started_at=clock(),
        clock=clock,
    )

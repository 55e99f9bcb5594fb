"""Recall by meaning for a running service: the engine's embedder as ``memory`` takes one, and what is done ahead.

The sentence model is loaded, and memories are given their vectors, on a thread of its own and before a request needs
them; until then memory is searched by words. What is computed is computed on the engine's thread (see ``embedder``).
"""

import logging
import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from familiar.daemon.engine import Engine, EngineClosed
from familiar.daemon.free_memory import give_back
from familiar.memory.errors import Busy, FamiliarError, NoSpace
from familiar.memory.meaning import Vectors
from familiar.memory.recall import Recaller
from familiar.memory.store import Store

log = logging.getLogger("familiar")

LOOK_AGAIN_S = 60.0
"""How often memories that another process wrote are looked for."""
_TOGETHER = 64
"""Texts that are handed to the engine at a time: closing waits for no more than these, a second."""


class EngineEmbed:
    """The engine's embedder, as ``familiar.memory.meaning.Embed``, until ``closing`` is set."""

    def __init__(self, engine: Engine, closing: threading.Event) -> None:
        self._engine = engine
        self._closing = closing
        self.name = engine.embedder_name

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """The vectors of the texts, shape (texts, dimensions).

        Raises BadFile when the model cannot be used, EngineClosed when the service is stopping.
        """
        vectors: list[NDArray[np.float32]] = []
        for start in range(0, len(texts), _TOGETHER):
            if self._closing.is_set():
                raise EngineClosed("The service is stopping.")
            vectors += self._engine.embed(texts[start : start + _TOGETHER], truncate=True)[0]
        return np.stack(vectors)


class Preparation:
    """Loads the embedder and gives memories their vectors, in the background. ``close`` it before the engine."""

    def __init__(self, engine: Engine, store: Store, recaller: Recaller) -> None:
        self._engine = engine
        self._store = store
        self._recaller = recaller
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="familiar-recall", daemon=True)

    def start(self) -> None:
        """Begin; memory is searched by words until it is done."""
        self._thread.start()

    def close(self) -> None:
        """End within the time that a few texts take."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._prepare()
            except EngineClosed:
                return
            except (Busy, NoSpace) as error:
                log.warning("Memories wait for their vectors: %s", error)
            except FamiliarError as error:
                log.error("Memory is searched by words alone: %s", error)
                return
            except Exception:
                log.exception("New memories are searched by words alone from now on")
                return
            self._closing.wait(LOOK_AGAIN_S)

    def _prepare(self) -> None:
        if not self._recaller.by_meaning:
            self._recaller.use(EngineEmbed(self._engine, self._closing))
            give_back()  # the tens of megabytes in which the background was computed
        for user in self._store.users.all():
            while not self._closing.is_set() and self._recaller.prepare(user.id, limit=_TOGETHER):
                pass

"""Recall by meaning for a running service: the engine's embedder as ``memory`` takes one, and what is done ahead.

The sentence model is loaded, and memories are given their vectors, on a thread of its own and before a request needs
them; until then memory is searched by words. What is computed is computed on the engine's thread (see ``embedder``).
"""

import logging
import threading
from collections.abc import Sequence

import numpy as np

from familiar.daemon.engine import Engine, EngineClosed
from familiar.memory.errors import FamiliarError
from familiar.memory.meaning import Vectors
from familiar.memory.recall import Recaller
from familiar.memory.store import Store

log = logging.getLogger("familiar")

LOOK_AGAIN_S = 60.0
"""How often memories that another process wrote are looked for."""


class EngineEmbed:
    """The engine's embedder, as ``familiar.memory.meaning.Embed``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.name = engine.embedder_name

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """The vectors of the texts, shape (texts, dimensions); raises BadFile when the model cannot be used."""
        vectors, _ = self._engine.embed(texts, truncate=True)
        return np.stack(vectors)


class Preparation:
    """Loads the embedder and gives memories their vectors, in the background. ``close`` it before the engine."""

    def __init__(self, engine: Engine, store: Store, recaller: Recaller) -> None:
        self._engine = engine
        self._store = store
        self._recaller = recaller
        self._wanted = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="familiar-recall", daemon=True)

    def start(self) -> None:
        """Begin; memory is searched by words until it is done."""
        self._thread.start()

    def wake(self) -> None:
        """Say that there is something new to remember."""
        self._wanted.set()

    def close(self) -> None:
        """End within the time that a few texts take."""
        self._closing = True
        self._wanted.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            self._recaller.use(EngineEmbed(self._engine))
            while not self._closing:
                for user in self._store.users.all():
                    while not self._closing and self._recaller.prepare(user.id, limit=64):
                        pass
                self._wanted.wait(LOOK_AGAIN_S)
                self._wanted.clear()
        except EngineClosed:
            return
        except FamiliarError as error:
            log.error("Memory is searched by words alone: %s", error)
        except Exception:
            log.exception("Memory is searched by words alone from now on")

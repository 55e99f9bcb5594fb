"""Adapters in memory, loaded from their files when first asked for and dropped when long unused."""

import hashlib
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import psutil

from familiar.adapters.gguf_lora import check_lora
from familiar.daemon.llama import Adapter, Context, Model
from familiar.memory.errors import BadFile

ADAPTERS_KEPT = 256
_CLOCK_TICK_NS = 3_000_000_000
"""Longer than any file system's: FAT counts in steps of two seconds."""
MEMORY_SHARE = 4
"""Adapters that no reply uses are kept within one part in so many of the machine's memory."""


@dataclass(frozen=True)
class AdapterKey:
    """An adapter file as it was when asked for: a file written anew at the same path is another adapter.

    Two files of one size written within a tick of the file system's clock have the same time. Where one is tried right
    after the other, as in training, ``of_content`` tells them apart.
    """

    path: Path
    modified_ns: int
    size_bytes: int
    digest: str = ""

    @classmethod
    def of(cls, path: Path) -> "AdapterKey":
        """Raise BadFile when there is no such file."""
        try:
            stat = path.stat()
        except OSError as error:
            raise BadFile(f"The adapter {path} could not be opened: {error.strerror or error}.") from error
        return cls(path.resolve(), stat.st_mtime_ns, stat.st_size)

    @classmethod
    def of_content(cls, path: Path) -> "AdapterKey":
        """Return the key with a hash of the file; raise BadFile when it cannot be read."""
        key = cls.of(path)
        # a file that has been there for longer than a tick cannot be written anew and keep its time: hash it once
        settled = time.time_ns() - key.modified_ns > _CLOCK_TICK_NS
        return replace(key, digest=_settled_digest(key) if settled else _digest(path))


@lru_cache(maxsize=ADAPTERS_KEPT)
def _settled_digest(key: AdapterKey) -> str:
    return _digest(key.path)


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadFile(f"The adapter {path} could not be read: {error.strerror or error}.") from error


class AdapterCache:
    """The adapters of one context, at most ``kept`` of them and ``kept_bytes``, beside those in use.

    The longest unused goes first. An adapter takes as much memory as its file is long.
    """

    def __init__(
        self, model: Model, context: Context, kept: int = ADAPTERS_KEPT, kept_bytes: int | None = None
    ) -> None:
        """``kept_bytes`` None is a quarter of the machine's memory."""
        self._model = model
        self._context = context
        self._kept = kept
        self._kept_bytes = psutil.virtual_memory().total // MEMORY_SHARE if kept_bytes is None else kept_bytes
        self._loaded: dict[AdapterKey, Adapter] = {}  # the most recently used last
        self._doomed: set[AdapterKey] = set()

    def __contains__(self, key: AdapterKey) -> bool:
        return key in self._loaded

    def __len__(self) -> int:
        return len(self._loaded)

    def get(self, key: AdapterKey, in_use: Collection[AdapterKey | None] = ()) -> Adapter:
        """Return the adapter, loading it if need be; raise BadFile when its file is damaged or of another model."""
        adapter = self._loaded.pop(key, None)
        if adapter is None:
            check_lora(key.path, self._model.architecture)
            adapter = self._model.load_adapter(key.path)
        self._loaded[key] = adapter
        for other in [other for other in self._loaded if other != key and other not in in_use]:
            if len(self._loaded) <= self._kept and self.bytes <= self._kept_bytes:
                break
            self._free(other)
        return adapter

    @property
    def bytes(self) -> int:
        """The memory that the loaded adapters take."""
        return sum(key.size_bytes for key in self._loaded)

    def drop(self, path: Path) -> None:
        """Let go of whatever was loaded from ``path``, at the next ``sweep`` that finds it unused."""
        self._doomed |= {key for key in self._loaded if key.path == path.resolve()}

    def sweep(self, in_use: Collection[AdapterKey | None]) -> list[AdapterKey]:
        """Free the dropped adapters that are not in use, and return them."""
        freed = [key for key in self._doomed if key not in in_use]
        for key in freed:
            self._free(key)
        return freed

    def _free(self, key: AdapterKey) -> None:
        self._doomed.discard(key)
        self._context.free_adapter(self._loaded.pop(key))

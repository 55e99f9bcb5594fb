"""Adapters in memory, loaded from their files when first asked for and dropped when long unused."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import psutil

from familiar.adapters.gguf_file import read_header
from familiar.daemon.llama import Adapter, Context, Model
from familiar.memory.errors import BadFile

ADAPTERS_KEPT = 256
MEMORY_SHARE = 4
"""Adapters that no reply uses are kept within one part in so many of the machine's memory."""

_LORA_TYPES = (0, 1, 8, 30)
"""The tensor types that adapters are written in: F32, F16, Q8_0, BF16."""


def check_adapter(path: Path, architecture: str) -> None:
    """Raise BadFile unless ``path`` is a whole GGUF LoRA for models of ``architecture``.

    llama.cpp reports most damage as a failed load, but a value of an unexpected type makes it abort, and the service
    with it; so files are looked through before it gets them. Whether the shapes fit the model it reports without harm.
    """
    header = read_header(path)
    wanted = {"general.type": "adapter", "adapter.type": "lora", "general.architecture": architecture}
    for key, want in wanted.items():
        have = header.metadata.get(key)
        if have != want:
            raise BadFile(f"The adapter {path} is not for this model: its {key} is {have!r}, not {want!r}.")
    if not isinstance(header.metadata.get("adapter.lora.alpha"), float):
        raise BadFile(f"The adapter {path} is damaged: it has no number adapter.lora.alpha.")
    if not header.tensors:
        raise BadFile(f"The adapter {path} is empty: it has no tensors.")
    for tensor in header.tensors.values():
        if tensor.type not in _LORA_TYPES or len(tensor.shape) != 2 or 0 in tensor.shape:
            raise BadFile(
                f"The adapter {path} is damaged: {tensor.name!r} has type {tensor.type}, shape {tensor.shape}."
            )


@dataclass(frozen=True)
class AdapterKey:
    """An adapter file as it was when asked for: a file written anew at the same path is another adapter."""

    path: Path
    modified_ns: int
    size_bytes: int

    @classmethod
    def of(cls, path: Path) -> "AdapterKey":
        """Raise BadFile when there is no such file."""
        try:
            stat = path.stat()
        except OSError as error:
            raise BadFile(f"The adapter {path} could not be opened: {error.strerror or error}.") from error
        return cls(path.resolve(), stat.st_mtime_ns, stat.st_size)


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
            check_adapter(key.path, self._model.architecture)
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

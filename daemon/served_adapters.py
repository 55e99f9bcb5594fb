"""Which adapter file answers a request: read from the store each time, so that promote and rollback need no notice.

A file is trusted once its bytes have the sha256 that was recorded when it passed the gate, and read again only after
it has changed on disk. The default model falls back to the base when its adapter cannot be used, and says so; a version
that was asked for by number is an error instead.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from familiar.adapters import registry
from familiar.daemon import model_ids
from familiar.daemon.fine_tuning_folders import gguf_path, verify
from familiar.daemon.fitting import fitting_versions
from familiar.daemon.model_ids import ModelChoice
from familiar.memory.errors import BadFile
from familiar.memory.finetuning_types import TunedModel
from familiar.memory.store import Store
from familiar.memory.types import AdapterVersion

log = logging.getLogger("familiar")


@dataclass(frozen=True)
class Served:
    """The adapter of one request: its file and number, both None for the base; ``notice`` says why it fell back."""

    path: Path | None = None
    version: int | None = None
    notice: str | None = None


class ServedAdapters:
    """Chooses and checks adapter files. Thread-safe."""

    def __init__(self, store: Store, data_dir: Path, base_sha256: Callable[[], str]) -> None:
        """``base_sha256`` gives the served model's hash; asked only once there is an adapter, as it reads the file."""
        self._store = store
        self._data_dir = data_dir
        self._base_sha256 = base_sha256
        self._lock = threading.Lock()
        self._good: dict[Path, tuple[int, int] | None] = {}
        self._reported: set[str] = set()

    def current(self, user_id: int) -> AdapterVersion | None:
        """The version that is in service on this base model, None for the base alone."""
        version = self._store.current_version(user_id)
        return version and registry.served(self._store, user_id, self._base_sha256())

    def fitting(self, user_id: int) -> list[AdapterVersion]:
        """The versions that can be served on this base model, oldest first."""
        return fitting_versions(self._store.versions(user_id), self._base_sha256)

    def tuned(self, user_id: int) -> list[TunedModel]:
        """The fine-tuned models that can be served on this base model, oldest first; imported ones have no files."""
        models = self._store.fine_tuning.models(user_id)
        fitting = [model for model in models if model.base_sha256 == self._base_sha256()]
        return [model for model in fitting if gguf_path(self._data_dir, model).is_file()]

    def parse(self, user_id: int, model: str) -> ModelChoice:
        """What a model id asks for. Raises UnknownModel."""
        numbers = [version.number for version in self._store.versions(user_id)]
        tuned = self._store.fine_tuning.models(user_id)
        return model_ids.parse(model, numbers, tuned, adapter=self.current(user_id) is not None)

    def fall_back_for(self, user_id: int, model: str, error: BadFile) -> Served:
        """``fall_back`` for a model id."""
        return self.fall_back(self.parse(user_id, model), error)

    def choose(self, user_id: int, choice: ModelChoice) -> Served:
        """The adapter for a request. Raises BadFile where ``choice`` leaves no way to fall back."""
        if choice.adapter is None:
            return Served()
        if isinstance(choice.adapter, TunedModel):
            return Served(self.tuned_path(choice.adapter))
        if choice.adapter == "current":
            # Where nothing fits the base model, the current version is refused below, which says why.
            version = self.current(user_id) or self._store.current_version(user_id)
        else:
            version = self._store.version(user_id, choice.adapter)
        if version is None:
            return Served()
        try:
            return Served(self.checked_path(version), version.number)
        except BadFile as error:
            return self.fall_back(choice, error)

    def fall_back(self, choice: ModelChoice, error: BadFile) -> Served:
        """The base model in place of an adapter that cannot be used; raises ``error`` where it was asked for itself."""
        if choice.adapter != "current" or not choice.memory:
            raise error
        notice = f"{error} The base model and memory answered instead."
        with self._lock:
            first = notice not in self._reported
            self._reported.add(notice)
        if first:
            log.error("%s", notice)
        return Served(notice=notice)

    def checked_path(self, version: AdapterVersion) -> Path:
        """The version's GGUF file. Raises BadFile when it is not what was promoted, or is for another base model."""
        if version.base_sha256 != self._base_sha256():
            raise BadFile(
                f"Adapter v{version.number} was trained on another base model: serve that model, or learn anew."
            )
        path = self._data_dir / version.folder / registry.GGUF
        return self._checked(path, lambda: registry.verify(self._data_dir, version))

    def tuned_path(self, model: TunedModel) -> Path:
        """A fine-tuned model's GGUF file. Raises BadFile when it is not what was made, or is for another base model."""
        if model.base_sha256 != self._base_sha256():
            raise BadFile(f"{model.id} was trained on another base model: serve that model, or fine-tune anew.")
        return self._checked(gguf_path(self._data_dir, model), lambda: verify(self._data_dir, model))

    def _checked(self, path: Path, verify: Callable[[], object]) -> Path:
        state = _state(path)
        with self._lock:
            if state is not None and self._good.get(path) == state:
                return path
        verify()
        with self._lock:
            # As it was before it was read: what changes meanwhile is read again.
            self._good[path] = state
        return path


def _state(path: Path) -> tuple[int, int] | None:
    """When a file was last modified, in ns, and its size in bytes; None when there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size

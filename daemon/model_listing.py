"""The models that are on this machine: the built-in one, those in the hub's cache, and those in the data folder."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from familiar.daemon import hub, model_files
from familiar.daemon.model_facts import ModelFacts, read_facts
from familiar.daemon.model_parts import model_bytes
from familiar.memory.errors import BadFile


@dataclass(frozen=True)
class ListedModel:
    """One model, with ``id`` as ``--model`` takes it. ``facts`` is None where it is damaged, as ``error`` says."""

    id: str
    path: Path
    size_bytes: int
    configured: bool
    facts: ModelFacts | None
    error: str | None


def models_folder(data_dir: Path) -> Path:
    """The folder of the data folder that people may put GGUF files into."""
    return data_dir / "models"


def list_models(data_dir: Path, configured: str, *, cache_dir: Path | None = None) -> list[ListedModel]:
    """Return every model that is here, the built-in one first; a LoRA adapter is not a model, and left out.

    ``configured`` is what ``--model`` is by the settings; the model that it names is marked, and is listed wherever it
    lies.
    """
    chosen = model_files.find(configured, cache_dir=cache_dir)
    found = {path: id for id, path in _found(data_dir, cache_dir)}
    if chosen is not None and not any(_same(chosen, path) for path in found):
        found[chosen] = configured
    listed = [_listed(id, path, chosen) for path, id in found.items()]
    return [each for each in listed if each is not None]


def _found(data_dir: Path, cache_dir: Path | None) -> Iterator[tuple[str, Path]]:
    yield model_files.BUILTIN, model_files.builtin_path()
    for file in hub.cached_files(cache_dir):
        if model_files.is_model(file.name):
            yield f"{file.repo}/{file.name}", file.path
    for path in sorted(models_folder(data_dir).rglob("*.gguf")):
        if model_files.is_model(path.name):
            yield str(path), path


def _same(one: Path, other: Path) -> bool:
    return one == other or one.resolve() == other.resolve()


def _listed(id: str, path: Path, chosen: Path | None) -> ListedModel | None:
    configured = chosen is not None and _same(path, chosen)
    try:
        facts = read_facts(path)
    except BadFile as error:
        return ListedModel(id, path, _size(path), configured, None, str(error))
    if facts.is_adapter:
        return None
    return ListedModel(id, path, facts.size_bytes, configured, facts, None)


def _size(path: Path) -> int:
    try:
        return model_bytes(path)
    except (BadFile, OSError):
        return path.stat().st_size if path.exists() else 0

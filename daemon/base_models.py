"""The base models that a data folder was used with: their hashes, so that a big file is read once, and their names.

An adapter knows the model that it was trained on by the SHA-256 of its file. ``base-models.json`` in the data folder
keeps that hash by path, size and time of modification, and the model's name, so that a message about an adapter can
say which model it was. It is a cache: when it is lost, files are read again, and models no longer here lose their name.
"""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from familiar.daemon import json_file, model_files, service_record
from familiar.daemon.model_facts import read_facts
from familiar.daemon.model_parts import model_parts
from familiar.memory.errors import BadFile

if TYPE_CHECKING:
    from familiar.daemon.settings import Settings

log = logging.getLogger(__name__)

CACHE = "base-models.json"
MOST_MODELS = 200
SLOW_BYTES = 1_000_000_000
"""Reading more than this takes seconds: whoever waits for it is told."""
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class BaseModel:
    """A model as it was when its hash was taken. ``stamp``: size in bytes and time of modification in ns, per part."""

    path: str
    name: str
    sha256: str
    stamp: tuple[tuple[int, int], ...]


def identify(path: Path, data_dir: Path, progress: Callable[[str], None] = lambda line: None) -> BaseModel:
    """Return what a model file is, reading the whole of it only if it is new or has changed.

    ``progress`` is told one line before a file is read that takes a while. Raises BadFile when it cannot be read.
    """
    path = path.absolute()
    parts = model_parts(path)
    try:
        stamp = tuple((stat.st_size, stat.st_mtime_ns) for stat in (part.stat() for part in parts))
        known = _read(data_dir)
        for model in known:
            if model.path == str(path) and model.stamp == stamp:
                return model
        if sum(size for size, _ in stamp) > SLOW_BYTES:
            progress(f"Reading {path.name} once, to know which adapters were trained on it.")
        found = BaseModel(str(path), _name(path), _sha256(parts), stamp)
    except OSError as error:
        raise BadFile(f"The model {path} could not be read: {error.strerror or error}.") from error
    # A model that was at this path before keeps its entry, for its name.
    others = [model for model in known if (model.path, model.sha256) != (found.path, found.sha256)]
    _write(data_dir, [*others, found][-MOST_MODELS:])
    return found


def named(sha256: str, data_dir: Path) -> BaseModel | None:
    """Return the model of that hash as it was last seen, None when this data folder never knew it."""
    return next((model for model in reversed(_read(data_dir)) if model.sha256 == sha256), None)


def in_service(settings: "Settings") -> BaseModel | None:
    """Return the model of the service that runs on the data folder, else the configured one; None if it is not here."""
    path = _served(settings.service_file) or model_files.find(settings.model)
    if path is None:
        return None
    try:
        return identify(path, settings.data_dir)
    except BadFile:
        return None


def _served(service_file: Path) -> Path | None:
    record = service_record.read(service_file)
    return record.model if record is not None and psutil.pid_exists(record.pid) else None


def _name(path: Path) -> str:
    try:
        return read_facts(path).name
    except BadFile:
        return path.stem


def _sha256(parts: list[Path]) -> str:
    """The hash of a model's bytes, of all its parts in one where there are several."""
    digest = hashlib.sha256()
    for part in parts:
        with part.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()


def _read(data_dir: Path) -> list[BaseModel]:
    """The cache's models, the last seen last; none when the file is absent or not ours."""
    try:
        return [_model(entry) for entry in json_file.read(data_dir / CACHE)["models"]]
    except (ValueError, KeyError, TypeError):
        return []


def _model(entry: dict[str, Any]) -> BaseModel:
    stamp = tuple((int(size), int(mtime_ns)) for size, mtime_ns in entry["stamp"])
    return BaseModel(str(entry["path"]), str(entry["name"]), str(entry["sha256"]), stamp)


def _write(data_dir: Path, models: list[BaseModel]) -> None:
    """Put the cache in place. Two writers at once lose one of their entries, which is then read again."""
    try:
        json_file.write(data_dir / CACHE, {"models": [asdict(model) for model in models]})
    except OSError as error:
        log.debug("%s was not written: %s", CACHE, error)

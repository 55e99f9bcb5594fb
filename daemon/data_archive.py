"""An export with the files of the adapters, as one tar file: ``data.jsonl``, ``current.json``, ``adapters/vN/…``.

What is left out: checkpoints of unfinished runs, and anything else in the archive, which is not read.
"""

import contextlib
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from familiar.adapters import registry
from familiar.adapters.folders import MANIFEST, disk_errors
from familiar.memory.errors import BadFile, InvalidInput
from familiar.memory.portable import Imported
from familiar.memory.store import Store

DATA = "data.jsonl"
CURRENT = "current.json"
_FILES = (MANIFEST, registry.GGUF, *registry.PEFT_FILES)


@contextmanager
def written(out: Path) -> Iterator[BinaryIO]:
    """A file for an export, of mode 0600, that is at ``out`` once it is complete.

    Raises InvalidInput (param ``out``) when something is there already, or it cannot be written; NoSpace.
    """
    if out.exists():
        raise InvalidInput(f"{out} is there already: name another file, or move that one away.", "out")
    temporary = None
    try:
        with disk_errors(out):
            handle, temporary = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}-", suffix=".part")
            with os.fdopen(handle, "wb") as file:
                yield cast(BinaryIO, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, out)
    except OSError as error:
        if error.filename is None:
            raise
        raise InvalidInput(f"{out} cannot be written ({error.strerror}): choose another place.", "out") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def write(store: Store, data_dir: Path, user_id: int, out: BinaryIO) -> None:
    """Write the archive of a user. Raises BadFile for a version whose files are not as they were promoted."""
    current = store.current_version(user_id)
    with tarfile.open(fileobj=out, mode="w:") as archive, tempfile.TemporaryDirectory() as scratch:
        export, chosen = Path(scratch, DATA), Path(scratch, CURRENT)
        with export.open("wb") as file:
            file.writelines(store.export(user_id))
        chosen.write_text(json.dumps({"current": current.number if current else None}), encoding="utf-8")
        archive.add(export, DATA)
        archive.add(chosen, CURRENT)
        for version in store.versions(user_id):
            folder = registry.verify(data_dir, version).parent
            for name in _FILES:
                archive.add(folder / name, f"adapters/v{version.number}/{name}")


def is_archive(path: Path) -> bool:
    """Whether a file is a tar file rather than an export alone."""
    with contextlib.suppress(OSError):
        return tarfile.is_tarfile(path)
    return False


def read(store: Store, data_dir: Path, user_id: int, path: Path, *, anyones: bool) -> Imported:
    """Import an archive: the rows, the files of the versions that came with them, and which one is served.

    A version that is served here already goes on being served. Call with the learner's lock held. Raises InvalidInput
    (param ``file``) for what is no such archive, BadFile for damaged adapters, which are then left out, NoSpace.
    """
    try:
        with tarfile.open(path, "r:") as archive:
            data = archive.extractfile(DATA)
            if data is None:
                raise KeyError(DATA)
            with data:
                imported = store.import_data(user_id, cast(BinaryIO, data), anyones=anyones)
            with disk_errors(data_dir):
                _place(store, data_dir, user_id, archive, imported.versions)
            current = archive.extractfile(CURRENT)
            chosen = None if current is None else json.load(current)["current"]
    except (KeyError, ValueError, TypeError, tarfile.TarError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(
            f"{path} is not an export with adapters, or was changed ({error}): `familiar data export --with-adapters` "
            f"makes one.",
            "file",
        ) from error
    number = imported.versions.get(chosen) if isinstance(chosen, int) else None
    if number is not None and store.current_version(user_id) is None:
        store.set_current(user_id, number)
    return imported


def _place(store: Store, data_dir: Path, user_id: int, archive: tarfile.TarFile, numbers: Mapping[int, int]) -> None:
    """Put the files of each version where the store has it, each folder whole or not at all."""
    for old, new in numbers.items():
        version = store.version(user_id, new)
        target = data_dir / version.folder
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", suffix=".tmp", dir=target.parent))
        try:
            for name in _FILES:
                member = archive.extractfile(f"adapters/v{old}/{name}")
                if member is None:
                    raise KeyError(name)
                with member, (temporary / name).open("wb") as file:
                    shutil.copyfileobj(member, file)
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(temporary, target)
            registry.verify(data_dir, version)
        except BadFile:
            shutil.rmtree(target)
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

"""An export with the files that the store does not hold, as one tar file.

``data.jsonl`` is the export alone, ``current.json`` names the version that is served, ``adapters/vN/…`` are the files
of the versions, ``files/ID`` what was uploaded, and ``fine_tuning/JOB/step-N/…`` the fine-tuned models. What is left
out: checkpoints of unfinished runs, and anything else in the archive, which is not read.
"""

import contextlib
import json
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from familiar.adapters import registry
from familiar.adapters.folders import MANIFEST, disk_errors
from familiar.daemon import fine_tuning_folders
from familiar.daemon.files_store import FilesStore
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
    """Write the archive of a user. Raises BadFile for a version or model whose files are not as they were made."""
    current = store.current_version(user_id)
    with tarfile.open(fileobj=out, mode="w:") as archive, tempfile.TemporaryDirectory() as scratch:
        export, chosen = Path(scratch, DATA), Path(scratch, CURRENT)
        with export.open("wb") as file:
            file.writelines(store.export(user_id))
        chosen.write_text(json.dumps({"current": current.number if current else None}), encoding="utf-8")
        archive.add(export, DATA)
        archive.add(chosen, CURRENT)
        # What came here by an export without its files has none.
        for version in store.versions(user_id):
            folder = data_dir / version.folder
            if folder.exists():
                registry.verify(data_dir, version)
                _add(archive, folder, f"adapters/v{version.number}")
        files = FilesStore(store, data_dir, time.time)
        for path, id in ((files.path(file), file.id) for file in store.files.listed(user_id)):
            if path.is_file():
                archive.add(path, f"files/{id}")
        # Two names may stand for one adapter: a job's, and that of its last checkpoint.
        models = {(model.job_id, model.step): model for model in store.fine_tuning.models(user_id)}
        for (job, step), model in models.items():
            folder = fine_tuning_folders.step_folder(data_dir, model)
            if folder.exists():
                fine_tuning_folders.verify(data_dir, model)
                _add(archive, folder, f"fine_tuning/{job}/step-{step}")


def _add(archive: tarfile.TarFile, folder: Path, name: str) -> None:
    """Put an adapter's files into the archive's folder ``name``."""
    for each in _FILES:
        archive.add(folder / each, f"{name}/{each}")


def is_archive(path: Path) -> bool:
    """Whether a file is a tar file rather than an export alone."""
    with contextlib.suppress(OSError):
        return tarfile.is_tarfile(path)
    return False


def read(store: Store, data_dir: Path, user_id: int, path: Path, *, anyones: bool) -> Imported:
    """Import an archive: the rows, the files that came with them, and which version is served.

    A version that is served here already goes on being served. Call with the learner's lock held. Raises InvalidInput
    (param ``file``) for what is no such archive, BadFile for damaged adapters, which are then left out, NoSpace.
    """
    try:
        with tarfile.open(path, "r:") as archive:
            with _opened(archive, DATA) as data:
                imported = store.import_data(user_id, data, anyones=anyones)
            with disk_errors(data_dir):
                _place_versions(store, data_dir, user_id, archive, imported.versions)
                _place_files(store, data_dir, user_id, archive, imported.ids)
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


def _place_versions(
    store: Store, data_dir: Path, user_id: int, archive: tarfile.TarFile, numbers: Mapping[int, int]
) -> None:
    """Put the files of each version that has any where the store has it."""
    for old, new in numbers.items():
        version = store.version(user_id, new)
        _place(archive, f"adapters/v{old}", data_dir / version.folder, partial(registry.verify, data_dir, version))


def _place_files(
    store: Store, data_dir: Path, user_id: int, archive: tarfile.TarFile, ids: Mapping[str, Mapping[str, str]]
) -> None:
    """Put what was uploaded, and the fine-tuned models, where the store has them; ``ids`` are the new ones by table."""
    there = set(archive.getnames())
    old_files, old_jobs = ({new: old for old, new in ids[table].items()} for table in ("files", "fine_tuning_jobs"))
    files = FilesStore(store, data_dir, time.time)
    for file in store.files.listed(user_id):
        name = f"files/{old_files.get(file.id, file.id)}"
        if name in there and not files.path(file).exists():
            with _opened(archive, name) as content:
                files.put(file, content)
    for model in store.fine_tuning.models(user_id):
        name = f"fine_tuning/{old_jobs.get(model.job_id, model.job_id)}/step-{model.step}"
        target = fine_tuning_folders.step_folder(data_dir, model)
        _place(archive, name, target, partial(fine_tuning_folders.verify, data_dir, model))


def _place(archive: tarfile.TarFile, name: str, target: Path, verify: Callable[[], object]) -> None:
    """Put an adapter's files from the archive's folder ``name``, if it is there, at ``target``: whole and verified."""
    if target.exists() or f"{name}/{MANIFEST}" not in archive.getnames():
        return
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", suffix=".tmp", dir=target.parent))
    try:
        for each in _FILES:
            with _opened(archive, f"{name}/{each}") as member, (temporary / each).open("wb") as file:
                shutil.copyfileobj(member, file)
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, target)
        verify()
    except BadFile:
        shutil.rmtree(target)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _opened(archive: tarfile.TarFile, name: str) -> BinaryIO:
    """A file of the archive. Raises KeyError where there is none."""
    member = archive.extractfile(name)
    if member is None:
        raise KeyError(name)
    return cast(BinaryIO, member)

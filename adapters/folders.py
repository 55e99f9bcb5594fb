"""Folders that are either whole or absent: written beside their place, hashed, synced, then renamed.

The manifest is written last and names every file with its sha256, so a folder whose manifest checks is complete. What
is left out: locks. One process at a time writes into a given parent folder, which the learner's lock sees to.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from familiar.memory.errors import BadFile, NoSpace

MANIFEST = "manifest.json"
_TEMPORARY = ".tmp"


def file_sha256(path: Path) -> str:
    """Return the hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, or a spent quota, into NoSpace with a message for people."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"The disk is full, so {path} was not written: free some space and try again.") from error
        raise


@contextmanager
def new_folder(target: Path, facts: Mapping[str, object] | None = None) -> Iterator[Path]:
    """Yield an empty folder that becomes ``target`` when the block ends without an error, and vanishes when not.

    ``facts`` go into the manifest beside the hashes. ``target`` must not exist. A kill at any moment leaves either the
    whole of ``target`` or nothing but a temporary folder for ``sweep``. Raises NoSpace when the disk is full.
    """
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", suffix=_TEMPORARY, dir=target.parent))
        try:
            yield temporary
            _seal(temporary, facts or {})
            os.replace(temporary, target)
            _sync(target.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return a folder's manifest once every file that it names is there with its sha256. Raises BadFile."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        hashes = {str(name): str(value) for name, value in manifest["sha256"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadFile(f"{folder} has no readable {MANIFEST}: it is incomplete and cannot be used.") from error
    for name, wanted in hashes.items():
        path = folder / name
        if not path.is_file():
            raise BadFile(f"{path} is missing: the folder is incomplete and cannot be used.")
        if file_sha256(path) != wanted:
            raise BadFile(f"{path} is corrupt: its sha256 is not the one in {MANIFEST}.")
    return manifest


def sweep(parent: Path) -> None:
    """Remove the temporary folders that a killed process left in ``parent``."""
    for path in parent.glob(f".*{_TEMPORARY}"):
        shutil.rmtree(path, ignore_errors=True)


def _seal(folder: Path, facts: Mapping[str, object]) -> None:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    for path in files:
        _sync(path)
    manifest = {**facts, "sha256": {path.name: file_sha256(path) for path in files}}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    _sync(folder / MANIFEST)
    _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

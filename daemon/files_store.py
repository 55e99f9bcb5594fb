"""The bytes of uploaded files: in the data folder as ``files/USER/ID.jsonl``, readable by its owner alone (mode 0600).

A file is there as a whole before its row is, so a row always has its bytes; bytes without a row are nobody's, and go
with the user. What is left out: what is in them (``fine_tuning_files``).
"""

import contextlib
import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from familiar.adapters.folders import disk_errors
from familiar.memory.errors import InvalidInput, NotFound
from familiar.memory.finetuning_types import FilePurpose, StoredFile
from familiar.memory.store import Store

MAX_FILE_BYTES = 512_000_000
"""As much as the hosted service takes."""

_SUFFIXES: dict[FilePurpose, str] = {"fine-tune": ".jsonl", "fine-tune-results": ".csv"}
_BLOCK_BYTES = 1 << 20


class TooLarge(InvalidInput):
    """A file of more bytes than one may have."""

    code = "file_too_large"

    def __init__(self) -> None:
        super().__init__(f"The file has more than {MAX_FILE_BYTES:,} bytes: split it.", "file")


class FilesStore:
    """The files of every user of one data folder. Thread-safe."""

    def __init__(self, store: Store, data_dir: Path, clock: Callable[[], float]) -> None:
        self._store = store
        self._data_dir = data_dir
        self._clock = clock

    def add(self, user_id: int, filename: str, purpose: FilePurpose, source: BinaryIO) -> StoredFile:
        """Keep what ``source`` holds as a new file. Raises TooLarge, InvalidInput for an empty one, NoSpace."""
        id = f"file-{secrets.token_hex(12)}"
        file = StoredFile(id, user_id, self._clock(), Path(filename).name or "file", purpose)
        self.put(file, source)
        try:
            self._store.files.add(file)
        except BaseException:
            self.path(file).unlink(missing_ok=True)
            raise
        return file

    def put(self, file: StoredFile, source: BinaryIO) -> None:
        """Write a file's bytes, all or none. Raises TooLarge, InvalidInput for an empty one, NoSpace."""
        target = self.path(file)
        temporary = None
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                # mkstemp's files have mode 0600, and keep it when renamed.
                handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{file.id}-", suffix=".part")
                size = 0
                with os.fdopen(handle, "wb") as out:
                    while block := source.read(_BLOCK_BYTES):
                        size += len(block)
                        if size > MAX_FILE_BYTES:
                            raise TooLarge
                        out.write(block)
                    out.flush()
                    os.fsync(out.fileno())
                if not size:
                    raise InvalidInput("The file is empty: send one JSON object a line.", "file")
                os.replace(temporary, target)
            except BaseException:
                if temporary is not None:
                    Path(temporary).unlink(missing_ok=True)
                raise

    def path(self, file: StoredFile) -> Path:
        """Where a file's bytes are."""
        return self._data_dir / "files" / str(file.user_id) / f"{file.id}{_SUFFIXES[file.purpose]}"

    def size(self, file: StoredFile) -> int:
        """How many bytes it has; 0 where they are gone, as after an import without them."""
        with contextlib.suppress(OSError):
            return self.path(file).stat().st_size
        return 0

    def open(self, user_id: int, id: str) -> BinaryIO:
        """A file's bytes. Raises NotFound (``file_id``), also for one whose bytes are gone."""
        file = self._store.files.get(user_id, id)
        try:
            return self.path(file).open("rb")
        except OSError:
            raise NotFound(
                f"The content of {id} is not in this data folder: upload the file again.", "file_id"
            ) from None

    def delete(self, user_id: int, id: str) -> None:
        """Take a file away, bytes and all. Raises NotFound (``file_id``)."""
        file = self._store.files.get(user_id, id)
        self.path(file).unlink(missing_ok=True)
        self._store.files.delete(user_id, id)

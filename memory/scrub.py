"""Take forgotten texts out of the files of a data folder: logs, drafts, what was dropped and done, exports, manifests.

Only what a data folder has is touched: the files beside the store that hold text by their name, and those in the
folders that the program makes. Weights are left alone, links are not followed, and the store itself is SQLite's (see
``purge``). A file is replaced as a whole, except for logs, which a running process goes on writing: there the text is
overwritten in place. What is left out: compressed files, and texts in an encoding other than UTF-8.
"""

import contextlib
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from familiar.memory import portable_format
from familiar.memory.errors import InvalidInput
from familiar.memory.redact import Redactor

FOLDERS = ("adapters", "drafts", "exports", "files", "fine_tuning", "inbox", "logs", "runs")
"""The folders of a data folder that may hold text, with all that is in them. Backups are databases: see ``backup``."""

WEIGHTS = frozenset({".gguf", ".safetensors", ".pt", ".bin", ".npy", ".npz"})
_TEXT = frozenset({".csv", ".html", ".json", ".jsonl", ".log", ".md", ".tar", ".txt"})
_LINES = frozenset({".jsonl", ".ndjson"})
_LOGS = "logs"


def scrub(folder: Path, texts: Redactor, ids: frozenset[str]) -> tuple[int, tuple[str, ...]]:
    """Take ``texts`` out of all files of the data folder, and the rows named ``ids`` out of exports.

    Returns how many files changed, and those that could not be read or written, each with the reason.
    """
    changed, left = 0, []
    for path in _files(folder):
        try:
            in_place = path.relative_to(folder).parts[0] == _LOGS
            changed += _overwrite(path, texts) if in_place else _replace(path, texts, ids)
            if texts.holds(path.stem.replace("-", " ").replace("_", " ")):
                _rename(path)
        except FileNotFoundError:
            continue  # moved on, as files of the inbox do
        except OSError as error:
            left.append(f"{path} ({error.strerror or error})")
    return changed, tuple(left)


def _files(folder: Path) -> Iterator[Path]:
    beside = [path for path in folder.glob("*") if path.suffix.lower() in _TEXT]
    within = [path for name in FOLDERS for path in (folder / name).rglob("*")]
    for path in sorted(beside + within):
        if path.suffix.lower() not in WEIGHTS and path.is_file() and not path.is_symlink():
            yield path


def _overwrite(path: Path, texts: Redactor) -> bool:
    with path.open("r+b") as file:
        before = file.read()
        after = _encoded(texts.same_length(_decoded(before)))
        if after != before:
            # As long as before, so lines that were added meanwhile stay.
            file.seek(0)
            file.write(after)
            file.flush()
            os.fsync(file.fileno())
    return after != before


def _replace(path: Path, texts: Redactor, ids: frozenset[str]) -> bool:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-", suffix=".part")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as out, path.open("rb") as file:
            if path.suffix.lower() == ".tar":
                changed = _tar(file, out, texts, ids)
            elif path.suffix.lower() in _LINES:
                changed = _lines(file, out, texts, ids)
            else:
                before = file.read()
                after = _whole(before, texts)
                out.write(after)
                changed = after != before
            out.flush()
            os.fsync(out.fileno())
        if changed:
            temporary.chmod(path.stat().st_mode & 0o777)
            os.replace(temporary, path)
        return changed
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def _rename(path: Path) -> None:
    """Take the beginning of a file's name away, which drafts have from the request; what is after it stays."""
    rest = path.name.partition(".")[2]
    target, number = path.with_name(f"forgotten.{rest}"), 1
    while target.exists():
        number += 1
        target = path.with_name(f"forgotten-{number}.{rest}")
    path.rename(target)


def _whole(data: bytes, texts: Redactor) -> bytes:
    text = _decoded(data)
    if not texts.holds(text):
        return data
    with contextlib.suppress(ValueError):
        return _encoded(texts.json(text))
    return _encoded(texts.text(text))


def _lines(file: BinaryIO, out: BinaryIO, texts: Redactor, ids: frozenset[str]) -> bool:
    """Copy JSON lines without the texts; an export of ours is sealed anew, and loses the rows that are named."""
    start = file.tell()
    if portable_format.is_header(file.readline()):
        file.seek(start)
        # One that is damaged is not to be imported, but to be cleaned all the same.
        with contextlib.suppress(InvalidInput):
            return portable_format.rewrite(file, out.write, lambda row: _row(row, texts, ids))
    file.seek(start)
    changed = False
    for line in file:
        text = _decoded(line)
        after = line
        if texts.holds(text):
            ending = "\n" if text.endswith("\n") else ""
            try:
                after = _encoded(texts.json(text).rstrip("\n") + ending)
            except ValueError:
                after = _encoded(texts.text(text))
        changed |= after != line
        out.write(after)
    return changed


def _row(row: portable_format.Row, texts: Redactor, ids: frozenset[str]) -> portable_format.Row | None:
    """A row of an export without the texts; None for one that goes whole, as it would in the store."""
    values = row.values
    if values.get("id") in ids or values.get("memory_id") in ids:
        return None
    if row.table in ("memories", "feedback") and any(texts.holds(values.get(name)) for name in ("text", "note")):
        return None
    if row.table == "memories" and values.get("feedback_id") in ids:
        return None
    return portable_format.Row(row.table, json.loads(texts.json(json.dumps(values, ensure_ascii=False))))


def _tar(file: BinaryIO, out: BinaryIO, texts: Redactor, ids: frozenset[str]) -> bool:
    changed = False
    try:
        with tarfile.open(fileobj=file, mode="r:") as before, tarfile.open(fileobj=out, mode="w:") as after:
            for member in before:
                content = before.extractfile(member) if member.isfile() else None
                if content is None or Path(member.name).suffix in WEIGHTS:
                    after.addfile(member, content)
                    continue
                with tempfile.TemporaryFile() as cleaned:
                    if Path(member.name).suffix in _LINES:
                        changed |= _lines(cast(BinaryIO, content), cleaned, texts, ids)
                    else:
                        data = content.read()
                        changed |= _whole(data, texts) != data
                        cleaned.write(_whole(data, texts))
                    member.size = cleaned.tell()
                    cleaned.seek(0)
                    after.addfile(member, cleaned)
    except tarfile.TarError as error:
        raise OSError(None, f"no readable tar file: {error}") from error
    return changed


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", errors="surrogateescape")


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", errors="surrogateescape")

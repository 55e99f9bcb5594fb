"""Hand a user's adapter to other programs: a PEFT folder, or a GGUF LoRA for llama.cpp.

Both are copies of files that were checked against their hashes. What is left out: merging into the base model.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from familiar.adapters.folders import MANIFEST, disk_errors, new_folder
from familiar.adapters.gguf_file import read_header
from familiar.adapters.gguf_lora import ADAPTER_NAME, check_adapter
from familiar.adapters.registry import PEFT_FILES, verify
from familiar.memory.errors import BadFile, InvalidInput, NoSpace
from familiar.memory.types import AdapterVersion

_ORIGIN = "familiar-export"


def export(data_dir: Path, version: AdapterVersion, file_format: str, out: Path, base: Path) -> Path:
    """Write an adapter version to ``out`` and return it: a folder for ``peft``, a file for ``gguf``.

    ``base`` is the model in use; the adapter must fit it. What is at ``out`` is replaced only when it is an earlier
    export. Raises InvalidInput for an unknown format or a target that cannot be written, BadFile when the version is
    damaged or belongs to another model, NoSpace.
    """
    writer = FORMATS.get(file_format)
    if writer is None:
        raise InvalidInput(f"The format is one of {', '.join(FORMATS)}, not {file_format}.", "format")
    gguf = verify(data_dir, version)
    check_adapter(gguf, base)
    try:
        writer(gguf.parent, gguf, version, out)
    except NoSpace:
        raise
    except OSError as error:
        raise InvalidInput(
            f"{out} cannot be written ({error.strerror or error}): choose another place.", "out"
        ) from error
    return out


def _peft(folder: Path, gguf: Path, version: AdapterVersion, out: Path) -> None:
    is_earlier = out.is_dir() and any(out.iterdir())
    if (is_earlier and not _is_peft_export(out)) or (out.exists() and not out.is_dir()):
        raise _refusal(out)
    # An earlier export is only removed once the new one is whole.
    made = out.with_name(f".{out.name}.new") if is_earlier else out
    if is_earlier:
        shutil.rmtree(made, ignore_errors=True)
    with new_folder(made, {"origin": _ORIGIN, "version": version.number, "base_sha256": version.base_sha256}) as target:
        for name in PEFT_FILES:
            shutil.copyfile(folder / name, target / name)
    if is_earlier:
        shutil.rmtree(out)
        made.replace(out)


def _gguf(folder: Path, gguf: Path, version: AdapterVersion, out: Path) -> None:
    if out.is_dir():
        raise InvalidInput(
            f"{out} is a folder: name a file, such as {out / f'familiar-v{version.number}.gguf'}.", "out"
        )
    if out.exists() and out.stat().st_size and not _is_gguf_export(out):
        raise _refusal(out)
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = out.with_name(f".{out.name}.tmp")
        try:
            shutil.copyfile(gguf, temporary)
            os.replace(temporary, out)
        finally:
            temporary.unlink(missing_ok=True)


FORMATS: dict[str, Callable[[Path, Path, AdapterVersion, Path], None]] = {"peft": _peft, "gguf": _gguf}
"""The formats of ``familiar export``, each with what writes it."""


def _is_peft_export(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return manifest["origin"] == _ORIGIN and {path.name for path in folder.iterdir()} <= {MANIFEST, *PEFT_FILES}
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _is_gguf_export(path: Path) -> bool:
    try:
        return read_header(path).metadata.get("general.name") == ADAPTER_NAME
    except BadFile:
        return False


def _refusal(out: Path) -> InvalidInput:
    return InvalidInput(
        f"{out} exists and is not an earlier export, so it was left alone: choose another place.", "out"
    )

"""A user's adapter versions on disk and in the store: promote one, check one, step back.

A version is a folder ``adapters/USER/vN`` under the data folder, and a row. The folder is whole before the row is
written, in one transaction that also makes it current and ends its run, so a kill at any moment leaves all as it was
before, or all done; a folder without a row is a leftover and goes at the next promotion. One process promotes at a time
(the learner's lock). What is left out: deciding (``gate``) and serving; the service reads the current version from the
store per request.
"""

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from familiar.adapters.folders import file_sha256, new_folder, read_manifest, sweep
from familiar.adapters.gate import Report
from familiar.memory.errors import BadFile, InvalidInput, LearningFailed, NotFound
from familiar.memory.lineage import version_folder
from familiar.memory.store import Store
from familiar.memory.types import AdapterVersion, LearningRun, Memory

GGUF = "adapter.gguf"
PEFT_FILES = ("adapter_model.safetensors", "adapter_config.json")
_VERSION = re.compile(r"v\d+")


def promote(
    store: Store,
    data_dir: Path,
    run: LearningRun,
    candidate: Path,
    *,
    base_sha256: str,
    feedback_ids: Sequence[str],
    report: Report,
    now: float,
    untold: Sequence[Memory] = (),
) -> AdapterVersion:
    """Make the adapter in the folder ``candidate`` the user's next version and the one that is served; ``run`` ends.

    ``candidate`` holds ``adapter.gguf`` and the two PEFT files; they are copied, and it is left as it is. The version
    that was current becomes the parent. ``feedback_ids`` are its lineage, signals and memories, and ``untold`` the
    memories that it follows without being told. Raises InvalidInput when the report did not pass, BadFile when a file
    is missing, LearningFailed when something of the lineage was forgotten meanwhile, NoSpace.
    """
    if not report.passed:
        raise InvalidInput("Only an adapter that passed the gate can be promoted.", "report")
    for name in (GGUF, *PEFT_FILES):
        if not (candidate / name).is_file():
            raise BadFile(f"{candidate / name} is missing: the candidate is incomplete and cannot be promoted.")
    parent = store.current_version(run.user_id)
    number = store.next_version(run.user_id)
    folder = version_folder(run.user_id, number)
    _remove_leftovers((data_dir / folder).parent, {f"v{version.number}" for version in store.versions(run.user_id)})
    version = AdapterVersion(
        user_id=run.user_id,
        number=number,
        created_at=now,
        folder=folder,
        parent=parent.number if parent else None,
        base_sha256=base_sha256,
        gguf_sha256=file_sha256(candidate / GGUF),
        run_id=run.id,
        feedback_ids=tuple(feedback_ids),
        report=report.to_dict(),
    )
    lineage = {
        "version": number,
        "parent": version.parent,
        "created_at": now,
        "base_sha256": base_sha256,
        "run_id": run.id,
        "feedback_ids": list(feedback_ids),
        "recipe": dict(run.config),
        "report": version.report,
    }
    with new_folder(data_dir / version.folder, lineage) as target:
        for name in (GGUF, *PEFT_FILES):
            shutil.copyfile(candidate / name, target / name)
    ended = replace(run, state="promoted", ended_at=now, version=number, report={"gate": version.report})
    try:
        store.promote(version, untold, ended)
    except LearningFailed:
        shutil.rmtree(data_dir / version.folder)  # it holds what was forgotten: not to wait for the next promotion
        raise
    return version


def verify(data_dir: Path, version: AdapterVersion) -> Path:
    """Return a version's GGUF file once its folder is whole and is the one the store knows. Raises BadFile."""
    folder = data_dir / version.folder
    manifest = read_manifest(folder)
    missing = {GGUF, *PEFT_FILES} - set(manifest["sha256"])
    if missing or manifest["sha256"][GGUF] != version.gguf_sha256:
        raise BadFile(f"{folder} is not adapter version {version.number} as it was promoted: roll back or learn again.")
    return folder / GGUF


def usable(data_dir: Path, version: AdapterVersion) -> Path | None:
    """Return a version's GGUF file; None where it is damaged, and so is not served either."""
    try:
        return verify(data_dir, version)
    except BadFile:
        return None


def served(store: Store, user_id: int, base_sha256: str | None = None) -> AdapterVersion | None:
    """Return the version that is served on a base model, None for the base alone.

    That is the current one, or where it was trained on another base, the nearest of those that were current before it
    and fit. A ``base_sha256`` of None fits all.
    """
    version = store.current_version(user_id)
    if version is None or base_sha256 in (None, version.base_sha256):
        return version
    versions = {each.number: each for each in store.versions(user_id)}
    while version is not None and version.base_sha256 != base_sha256:
        version = None if version.parent is None else versions.get(version.parent)
    return version


def rollback(store: Store, user_id: int, base_sha256: str | None = None) -> tuple[int, int | None]:
    """Serve what was served before the version that is served on a base model, at once.

    Return both numbers (None is the base model). Raises NotFound when no version is being served.
    """
    before = served(store, user_id, base_sha256)
    if before is None:
        raise NotFound("There is no adapter to roll back: the base model is being served.", "version")
    store.set_current(user_id, before.parent)
    after = served(store, user_id, base_sha256)
    return before.number, after.number if after else None


def _remove_leftovers(folder: Path, known: set[str]) -> None:
    sweep(folder)
    for path in folder.glob("v*"):
        if _VERSION.fullmatch(path.name) and path.name not in known:
            shutil.rmtree(path)

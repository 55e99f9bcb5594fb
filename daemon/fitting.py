"""Which adapter versions fit a base model, and what a person is told of those that do not.

A version is of use with the very file that it was trained on. After another model was configured, the versions of the
old one stay in the store and on the disk, and are served again with it.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from familiar.adapters import registry
from familiar.daemon import base_models
from familiar.memory.store import Store
from familiar.memory.types import AdapterVersion

if TYPE_CHECKING:
    from familiar.daemon.settings import Settings


def fitting_versions(versions: Iterable[AdapterVersion], base_sha256: Callable[[], str]) -> list[AdapterVersion]:
    """Return the versions that were trained on the base; its hash is asked for only if there are versions."""
    return [version for version in versions if version.base_sha256 == base_sha256()]


def served_version(settings: "Settings", store: Store, user_id: int) -> AdapterVersion | None:
    """Return the version that a service with these settings serves a user, for commands that run beside it."""
    current = store.current_version(user_id)
    base = base_models.in_service(settings) if current else None
    return registry.served(store, user_id, base.sha256) if base else current


def unfitting_lines(store: Store, data_dir: Path, base_sha256: str) -> list[str]:
    """Return one line per user who has versions of other base models."""
    lines = []
    for user in store.users.all():
        others = [version for version in store.versions(user.id) if version.base_sha256 != base_sha256]
        if others:
            bases = dict.fromkeys(trained_on(version, data_dir) for version in others)
            many = len(others) > 1
            lines.append(
                f"{number_ranges([version.number for version in others])} of {user.name} "
                f"{'were' if many else 'was'} trained on {' and '.join(bases)}: "
                f"{'they are' if many else 'it is'} kept, and served again with that model."
            )
    return lines


def trained_on(version: AdapterVersion, data_dir: Path) -> str:
    """Return a few words for the other base model that a version was trained on."""
    base = base_models.named(version.base_sha256, data_dir)
    return f"another model ({base.name}, {base.path})" if base else "another model"


def number_ranges(numbers: Sequence[int]) -> str:
    """Return version numbers as people write them: ``v1–v3, v5``."""
    runs = []
    for _, run in groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0]):
        first, *rest = [number for _, number in run]
        runs.append(f"v{first}–v{rest[-1]}" if rest else f"v{first}")
    return ", ".join(runs)

"""A user's files in the data folder: adapters, runs, uploads and fine-tuned models, the inbox's, their drafts.

What is left out: logs, which are of the service and not of one user.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

from familiar.daemon import inbox_files
from familiar.memory.errors import FamiliarError
from familiar.memory.store import Store
from familiar.memory.users import User


def remove(store: Store, data_dir: Path, user: User) -> None:
    """Remove a user's files, before their rows: these name them, and a kill in between can be followed by another try.

    Call with the learner's lock held. Raises FamiliarError where the system does not let them be removed.
    """
    for path in _paths(store, data_dir, user):
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise FamiliarError(
                f"{error.filename} cannot be removed ({error.strerror}): check its permissions, and try again."
            ) from error


def _paths(store: Store, data_dir: Path, user: User) -> Iterator[Path]:
    for folder in ("adapters", "files", "fine_tuning"):
        yield data_dir / folder / str(user.id)
    yield from (data_dir / "runs" / run.id for run in store.runs(user.id))
    default = user.id == store.default_user()
    for top in (data_dir / "inbox", data_dir / "drafts"):
        if not default:
            yield top / user.name
        elif top.is_dir():
            # Folders that are neither of these are other users'.
            mine = (inbox_files.DONE, inbox_files.FAILED)
            yield from (path for path in top.iterdir() if path.name in mine or not path.is_dir())

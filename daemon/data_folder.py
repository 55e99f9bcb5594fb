"""The data folder: made when first needed, readable by its owner alone."""

import errno
from pathlib import Path

from familiar.memory.errors import InvalidInput, NoSpace


def make(folder: Path) -> Path:
    """Make the folder unless it is there, and return it. Raises NoSpace, or InvalidInput when it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"The disk is full: {folder} cannot be made. Make room and try again.") from error
        raise InvalidInput(
            f"{folder} cannot be made ({error.strerror}): give another --data-dir.", "data_dir"
        ) from error
    return folder

"""The log that a child process writes what is not meant for its parent to, and how it ended by what it says."""

import signal
from pathlib import Path
from typing import BinaryIO

LOG_BYTES = 1_000_000
"""A longer log is begun anew."""


def opened(path: Path) -> BinaryIO:
    """The log, to be written to. It is appended to, as another child may be writing there already."""
    long = path.exists() and path.stat().st_size > LOG_BYTES
    return path.open("wb" if long else "ab")


def ending(code: int, path: Path, begin: int) -> str:
    """How a child ended, by its exit status, with the last line of the log from byte ``begin`` on."""
    how = f"ended with code {code}"
    if code < 0:
        known = {number.value: number.name for number in signal.Signals}
        how = f"was ended by {known.get(-code, f'signal {-code}')}"
        if code == -signal.SIGKILL:
            how += " (out of memory, perhaps)"
    lines = [line.strip() for line in path.read_bytes()[begin:].decode(errors="replace").splitlines() if line.strip()]
    return f"{how}: {lines[-1]}" if lines else how

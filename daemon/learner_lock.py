"""The learner's lock of a data folder: one process at a time writes adapters and run folders, or removes them."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from familiar.memory.errors import Busy


def holder_pid(data_dir: Path) -> int | None:
    """The process that took the lock last, which need not have it any more; None where nobody ever did."""
    try:
        return int((data_dir / "learner.lock").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


@contextmanager
def learner_lock(data_dir: Path) -> Iterator[None]:
    """Hold the lock of ``data_dir``; the system releases it however the process ends. Raises Busy."""
    with (data_dir / "learner.lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            pid = file.read().strip()
            who = f" (process {pid})" if pid else ""
            raise Busy(f"Learning is already running{who}: wait until it has ended.") from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield

"""One fine-tuning job in a process of its own: ``python -m familiar.daemon.learner_job --data-dir … --job ftjob-…``.

It holds the learner's lock and writes what it does into the store, so whoever started it may go away. A job that is
moved to another state by somebody else (cancelled, paused) stops after the current step, and so it does at SIGTERM,
which puts it back into the queue. What a job does is in ``fine_tuning_steps``; which one is next, the service says.
"""

import argparse
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence

from familiar.adapters.extras import require_learn
from familiar.daemon import data_folder
from familiar.daemon import settings as settings_module
from familiar.daemon.fine_tuning_log import BUSY, JobLog
from familiar.daemon.fine_tuning_steps import tune
from familiar.daemon.learner_lock import learner_lock
from familiar.daemon.settings import Settings
from familiar.memory.errors import Busy, FamiliarError
from familiar.memory.store import Store

NICENESS = 10


class Stopped(Exception):
    """The job is to stop between two pieces of work."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Work on a job; 0 when the store says what became of it, ``BUSY``, or 1 after an error that it does not know."""
    options = _parse(arguments)
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: asked.append(number))
    os.nice(NICENESS)
    flags = {name: getattr(options, name) for name in ("data_dir", "model", "config", "threads")}
    try:
        settings = settings_module.load(flags)
        data_folder.make(settings.data_dir)
        with learner_lock(settings.data_dir), Store.open(settings.database) as store:
            run(settings, store, options.job, lambda: bool(asked))
    except Busy as error:
        print(error, file=sys.stderr)
        return BUSY
    except FamiliarError:
        traceback.print_exc()
        return 1
    return 0


def run(
    settings: Settings, store: Store, job_id: str, asked: Callable[[], bool], clock: Callable[[], float] = time.time
) -> None:
    """Work on a job that waits or was interrupted, until ``asked`` says to stop. Call with the learner's lock held."""
    before = store.fine_tuning.any_job(job_id)
    if before is None or not store.fine_tuning.move(job_id, ("queued", "running"), "running"):
        return
    log = JobLog(store, before, clock)
    log.say("Fine-tuning job started")

    def check_stop() -> None:
        now = store.fine_tuning.any_job(job_id)
        if asked() or now is None or now.state != "running":
            raise Stopped

    try:
        require_learn()
        tune(settings, store, before, check_stop, clock)
    except Stopped:
        store.fine_tuning.move(job_id, ("running",), "queued", estimated_finish=None)
    except Exception as error:
        traceback.print_exc()
        log.fail(error)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m familiar.daemon.learner_job", description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--model")
    parser.add_argument("--config")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--job", required=True, help="the job's id")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())

"""The queue of fine-tuning jobs: one at a time over all users, in the order in which they were created.

Each runs in a child process (``learner_job``) while this service has the turn to learn, so chats pause it. The store is
the queue: what was waiting or running when the service ended goes on when it has started again. Files are checked in a
thread beside it, so that a bad one is known at once. What is left out: what a job does (``fine_tuning_steps``).
"""

import contextlib
import logging
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from familiar.daemon import child_log, data_folder, fine_tuning_files, fine_tuning_folders, fine_tuning_recipe
from familiar.daemon.files_store import FilesStore
from familiar.daemon.fine_tuning_folders import run_folder
from familiar.daemon.fine_tuning_log import BUSY, JobLog
from familiar.daemon.learning_turn import Lease, Turn
from familiar.daemon.schemas_fine_tuning import JobRequest
from familiar.daemon.settings import Settings
from familiar.memory.errors import Busy, InvalidInput, LearningFailed
from familiar.memory.finetuning_types import ENDED, Job, JobState
from familiar.memory.store import Store

log = logging.getLogger("familiar")

LOG = "fine_tuning.log"
RETRY_S = 2.0
"""How long to wait when another process is learning."""


class FineTuningService:
    """Creates jobs, runs them, and changes their state. ``start`` and ``stop`` once; the rest from any thread."""

    def __init__(
        self, settings: Settings, store: Store, files: FilesStore, turn: Turn, clock: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._store = store
        self._files = files
        self._turn = turn
        self._clock = clock
        self._wake = threading.Event()
        self._closed = False
        self._checker = ThreadPoolExecutor(1, thread_name_prefix="familiar-files")
        self._thread = threading.Thread(target=self._run, name="familiar-jobs", daemon=True)

    def start(self) -> None:
        """Take up what was left, and jobs as they come."""
        fine_tuning_folders.sweep(self._store, self._settings.data_dir)
        for job in self._store.fine_tuning.to_do():
            if job.state == "validating_files":
                self._checker.submit(self._check, job)
        self._thread.start()

    def stop(self) -> None:
        """End the running job after its current step; it goes on when the service is started again."""
        self._closed = True
        self._wake.set()
        self._turn.close()
        if self._thread.is_alive():
            self._thread.join()
        self._checker.shutdown(cancel_futures=True)

    def create(self, job: Job) -> Job:
        """Take a job: its files are checked, then it waits for its turn. Returns it as it is at first."""
        self._store.fine_tuning.add(job)
        told = self._log(job)
        told.say(f"Created fine-tuning job: {job.id}")
        both = f" and validation file: {job.validation_file}" if job.validation_file else ""
        told.say(f"Validating training file: {job.training_file}{both}")
        self._checker.submit(self._check, job)
        return job

    def cancel(self, user_id: int, id: str) -> Job:
        """End a job that has not ended, for good. Its checkpoints stay."""
        states: tuple[JobState, ...] = ("validating_files", "queued", "running", "paused")
        now = self._clock()
        job = self._move(user_id, id, states, "cancelled", finished_at=now, estimated_finish=None)
        self._log(job).say("Fine-tuning job cancelled")
        if not self._turn.stop(id):
            shutil.rmtree(run_folder(self._settings.data_dir, job), ignore_errors=True)
        return job

    def pause(self, user_id: int, id: str) -> Job:
        """Let a job wait until it is resumed; a running one goes on from its last checkpoint then."""
        job = self._move(user_id, id, ("queued", "running"), "paused", estimated_finish=None)
        self._log(job).say("Fine-tuning job paused")
        self._turn.stop(id)
        return job

    def resume(self, user_id: int, id: str) -> Job:
        """Put a paused job back into the queue, at the place that it had."""
        job = self._move(user_id, id, ("paused",), "queued")
        self._log(job).say("Fine-tuning job resumed")
        self._wake.set()
        return job

    def _log(self, job: Job) -> JobLog:
        return JobLog(self._store, job, self._clock)

    def _move(self, user_id: int, id: str, before: Sequence[JobState], after: JobState, **fields: object) -> Job:
        job = self._store.fine_tuning.job(user_id, id)
        if not self._store.fine_tuning.move(id, before, after, **fields):
            wanted, done = " or ".join(before), "resumed" if after == "queued" else after
            raise InvalidInput(f"Job {id} is {job.state}: only one that is {wanted} can be {done}.")
        return self._store.fine_tuning.job(user_id, id)

    # ---- in the checker's thread ----

    def _check(self, job: Job) -> None:
        """Read a new job's files, and put it into the queue with numbers for "auto", or end it as failed."""
        try:
            count = sum(1 for _ in fine_tuning_files.rows(self._files, job, "training_file"))
            for _ in fine_tuning_files.rows(self._files, job, "validation_file"):
                pass  # only to see that each can be read
            method = fine_tuning_recipe.resolved(job.method, count)
        except Exception as error:
            self._log(job).fail(error)
            if not isinstance(error, InvalidInput):
                log.exception("The files of %s could not be read", job.id)
            return
        if self._store.fine_tuning.move(job.id, ("validating_files",), "queued", method=method):
            self._log(job).say("Files validated, moving job to queued state")
            self._wake.set()

    # ---- in the queue's thread ----

    def _run(self) -> None:
        while True:
            self._wake.clear()
            if self._closed:  # looked at behind the event, so that no end is slept through
                return
            try:
                waiting = [job for job in self._store.fine_tuning.to_do() if job.state != "validating_files"]
                if not waiting:
                    self._wake.wait()
                elif not self._work_on(waiting[0]):
                    self._wake.wait(RETRY_S)
            except Exception:
                # The store may be held by another process, or its disk be full: neither lasts.
                log.exception("The queue of fine-tuning jobs could not be read")
                self._wake.wait(RETRY_S)

    def _work_on(self, job: Job) -> bool:
        """Run a job once it is its turn; False when it has to be tried again later."""
        try:
            with self._turn.taken("job", job.user_id, job.id) as lease:
                now = self._store.fine_tuning.any_job(job.id)
                if now is None or now.state not in ("queued", "running"):
                    return True
                return self._run_child(now, lease)
        except Busy:
            return False
        except Exception as error:
            log.exception("Fine-tuning job %s could not be run", job.id)
            self._log(job).fail(error)
            return True

    def _run_child(self, job: Job, lease: Lease) -> bool:
        path = data_folder.make(self._settings.data_dir / "logs") / LOG
        with child_log.opened(path) as output:
            begin = output.tell()
            child = subprocess.Popen(
                [
                    *(sys.executable, "-m", "familiar.daemon.learner_job"),
                    *(*self._settings.to_arguments(), "--job", job.id),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended already, as its status says
            lease.attach(child)
        code = child.wait()
        return self._after(job, lease, code, path, begin)

    def _after(self, job: Job, lease: Lease, code: int, path: Path, begin: int) -> bool:
        """Take note of how the child ended; False when the job is still to do."""
        now = self._store.fine_tuning.any_job(job.id)
        if now is None or now.state in ENDED:
            shutil.rmtree(run_folder(self._settings.data_dir, job), ignore_errors=True)
            return True
        if now.state == "running" and lease.stopped:
            self._store.fine_tuning.move(job.id, ("running",), "queued", estimated_finish=None)
        elif now.state in ("running", "queued") and not lease.stopped and code != BUSY:
            how = child_log.ending(code, path, begin)
            again = f"{path} has the details; create the job anew to try again."
            self._log(job).fail(LearningFailed(f"The job's process {how}. {again}"))
        return code != BUSY


def new_job(asked: JobRequest, user_id: int, user_name: str, base_name: str, base_sha256: str, now: float) -> Job:
    """A job as it begins, with an id, a seed and the name of its model, ``ft:BASE:USER:SUFFIX:ID``."""
    parts = ["ft", *map(plain_part, (base_name, user_name, asked.suffix or "")), secrets.token_hex(4)]
    return Job(
        id=f"ftjob-{secrets.token_hex(12)}",
        user_id=user_id,
        created_at=now,
        state="validating_files",
        model=asked.model,
        base_sha256=base_sha256,
        name=":".join(parts),
        training_file=asked.training_file,
        validation_file=asked.validation_file,
        suffix=asked.suffix,
        seed=secrets.randbelow(1 << 31) if asked.seed is None else asked.seed,
        method=asked.plain_method,
        metadata=asked.metadata,
    )


def plain_part(text: str) -> str:
    """A part of a model's name: what would end the part, or a path, is a hyphen."""
    return "".join(char if char.isalnum() or char in "._-" else "-" for char in text).strip("-")

"""What a fine-tuning job tells of itself while it goes on: events, in the words of the hosted service, and figures.

Written by the service and by the learner alike, into the store. What is left out: what the figures mean (``train``).
"""

import csv
import io
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence

from familiar.memory.errors import FamiliarError
from familiar.memory.finetuning_types import TO_DO, EventLevel, EventType, Job, JobEvent
from familiar.memory.store import Store

BUSY = 75
"""The exit status of a job's process when another one is learning: the job is as it was. (sysexits.h: try later.)"""

COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")
"""Of the results file, as the hosted service has them; others that a job measured follow."""


class JobLog:
    """Writes the events of one job, and its failure."""

    def __init__(self, store: Store, job: Job, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._job = job
        self._clock = clock

    def say(self, message: str, level: EventLevel = "info") -> None:
        """Tell something in words."""
        self._add(level, "message", message, {})

    def metrics(self, message: str, figures: Mapping[str, float]) -> None:
        """Tell a step's figures, ``step`` among them."""
        self._add("info", "metrics", message, figures)

    def fail(self, error: Exception) -> None:
        """End the job, unless it has ended, since it came to nothing; what is no error of ours is named by its type."""
        message = " ".join(str(error).split()) or type(error).__name__
        param, code = getattr(error, "param", None), "server_error"
        if param in ("training_file", "validation_file"):
            code = f"invalid_{param}"
        elif isinstance(error, FamiliarError):
            code = re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()
        else:
            message = f"{type(error).__name__}: {message}"
        details = {"code": code, "message": message, "param": param}
        fields = {"finished_at": self._clock(), "error": details, "estimated_finish": None}
        if self._store.fine_tuning.move(self._job.id, TO_DO, "failed", **fields):
            self.say(f"The job failed: {message}", "error")

    def _add(self, level: EventLevel, kind: EventType, message: str, data: Mapping[str, float]) -> None:
        id, job = f"ftevent-{secrets.token_hex(12)}", self._job
        event = JobEvent(id, job.user_id, job.id, self._clock(), level, kind, message, data)
        self._store.fine_tuning.add_event(event)


def step_figures(events: Sequence[JobEvent]) -> list[dict[str, float]]:
    """The figures of each step that events (newest first) tell of, by step; what was told last of a step counts."""
    steps: dict[float, dict[str, float]] = {}
    for event in reversed(events):
        if event.type == "metrics":
            steps.setdefault(event.data["step"], {}).update(event.data)
    return [steps[step] for step in sorted(steps)]


def results_csv(figures: Sequence[Mapping[str, float]]) -> bytes:
    """The results file of a job: one row a step, empty where nothing was measured."""
    more = [name for row in figures for name in row if name not in COLUMNS and name != "total_steps"]
    out = io.StringIO()
    writer = csv.DictWriter(out, [*COLUMNS, *dict.fromkeys(more)], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(figures)
    return out.getvalue().encode()

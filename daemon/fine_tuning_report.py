"""How a fine-tuning job's training is told of while it goes on: steps, losses, and checkpoints that are served at once.

Runs in the learner's process, as the trainer's progress callback. What is left out: the steps around it
(``fine_tuning_steps``).
"""

import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex

from familiar.adapters import gguf_lora, registry
from familiar.adapters.folders import file_sha256, new_folder
from familiar.adapters.protocols import Progress
from familiar.daemon.fine_tuning_folders import remove_unused, run_folder, step_folder
from familiar.daemon.fine_tuning_log import JobLog
from familiar.daemon.settings import Settings
from familiar.memory.finetuning_types import Job, JobCheckpoint, TunedModel
from familiar.memory.store import Store

CHECKPOINTS = 3
"""How many a job keeps, the last ones."""

ESTIMATE_EVERY_S = 5.0


@dataclass(frozen=True)
class Context:
    """What the steps of one job share. ``check_stop`` is called between any two pieces of work and may raise."""

    settings: Settings
    store: Store
    job: Job
    base: Path
    log: JobLog
    check_stop: Callable[[], None]
    clock: Callable[[], float] = time.time


class Reporter:
    """Tells the store how training goes on, and publishes every checkpoint as it is written."""

    def __init__(self, context: Context, *, validated: bool) -> None:
        self._context = context
        self._validated = validated
        self._step = self._total = 0
        self._loss = math.nan
        self._began: tuple[float, int] | None = None
        self._estimated_at = -math.inf

    def __call__(self, made: Progress) -> None:
        """Take note of a progress event of training."""
        if made.phase == "held_out":
            self._held_out(made)  # before a stop: training goes on after this checkpoint, and tells of it no more
        self._context.check_stop()
        if made.phase == "train":
            self._train(made)

    def _train(self, made: Progress) -> None:
        figures = made.figures
        self._step, self._total = made.done, made.total
        self._loss = figures["loss"]
        told = {"step": self._step, "total_steps": self._total, "train_loss": round(self._loss, 6)}
        told |= {f"train_{name}": round(value, 6) for name, value in _preferences(figures).items()}
        self._context.log.metrics(f"{self._where()}: training loss={self._loss:.2f}", told)
        self._estimate()

    def _held_out(self, made: Progress) -> None:
        metrics = {"step": self._step, "train_loss": round(self._loss, 6)}
        if self._validated:
            loss = round(-made.figures["score"], 6)
            metrics |= {"valid_loss": loss, "full_valid_loss": loss}
            metrics |= {f"valid_{name}": round(value, 6) for name, value in _preferences(made.figures).items()}
            said = f"{self._where()}: training loss={self._loss:.2f}, validation loss={loss:.2f}"
            self._context.log.metrics(said, {**metrics, "total_steps": self._total})
        self._publish(made.done, metrics)

    def _publish(self, number: int, metrics: Mapping[str, float]) -> None:
        """Serve the trainer's checkpoint of that number, and the last ``CHECKPOINTS`` with it."""
        from familiar.adapters import checkpoints

        context = self._context
        folder = checkpoints.epoch_folder(run_folder(context.settings.data_dir, context.job), number)
        model = publish(context, folder, self._step)
        model = replace(model, id=f"{context.job.name}:ckpt-step-{self._step}")
        checkpoint = JobCheckpoint(
            f"ftckpt-{token_hex(12)}", model.user_id, model.job_id, model.created_at, model.step, model.id, metrics
        )
        context.store.fine_tuning.add_checkpoint(checkpoint, model)
        context.log.say(f"Checkpoint created at step {self._step}")
        for old in context.store.fine_tuning.checkpoints(model.user_id, model.job_id)[CHECKPOINTS:]:
            context.store.fine_tuning.drop_checkpoint(old.id)
            remove_unused(context.store, context.settings.data_dir, old)

    def _where(self) -> str:
        return f"Step {self._step}/{self._total}"

    def _estimate(self) -> None:
        """Say when it will be over, by how long the steps of this process took."""
        now = self._context.clock()
        if self._began is None:
            self._began = now, self._step
            return
        at, step = self._began
        if self._step > step and now - self._estimated_at >= ESTIMATE_EVERY_S:
            self._estimated_at = now
            over = now + (now - at) / (self._step - step) * (self._total - self._step)
            self._context.store.fine_tuning.move(
                self._context.job.id, ("running",), "running", estimated_finish=round(over)
            )


def publish(context: Context, peft_folder: Path, step: int) -> TunedModel:
    """Put the adapter of a PEFT folder where the job's adapter after ``step`` steps belongs, whole or not at all."""
    job = context.job
    model = TunedModel(job.name, job.user_id, job.id, context.clock(), step, job.base_sha256, "")
    target = step_folder(context.settings.data_dir, model)
    shutil.rmtree(target, ignore_errors=True)  # of a process that was killed before it was in the store
    with new_folder(target, {"job": job.id, "step": step, "base_sha256": job.base_sha256}) as folder:
        for name in registry.PEFT_FILES:
            shutil.copyfile(peft_folder / name, folder / name)
        gguf_lora.to_gguf(folder, folder / registry.GGUF, context.base)
    return replace(model, gguf_sha256=file_sha256(target / registry.GGUF))


def _preferences(figures: Mapping[str, float]) -> dict[str, float]:
    """DPO's figures under the names that events have them by."""
    return {f"reward_{name}": figures[name] for name in ("accuracy", "margin") if figures.get(name) is not None}

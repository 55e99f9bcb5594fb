"""Where a fine-tuning job's files are in the data folder: ``fine_tuning/USER/JOB/``.

``run`` is where its training goes on from while it has not ended, ``step-N`` the adapter after N steps.
"""

import shutil
from pathlib import Path

from familiar.adapters import registry
from familiar.adapters.folders import read_manifest
from familiar.memory.errors import BadFile
from familiar.memory.finetuning_types import ENDED, Job, JobCheckpoint, TunedModel
from familiar.memory.store import Store

FOLDER = "fine_tuning"


def run_folder(data_dir: Path, job: Job) -> Path:
    """Where the job's training keeps its checkpoints."""
    return data_dir / FOLDER / str(job.user_id) / job.id / "run"


def step_folder(data_dir: Path, of: TunedModel | JobCheckpoint) -> Path:
    """The folder of an adapter."""
    return data_dir / FOLDER / str(of.user_id) / of.job_id / f"step-{of.step}"


def gguf_path(data_dir: Path, model: TunedModel) -> Path:
    """A model's adapter as the engine reads it."""
    return step_folder(data_dir, model) / registry.GGUF


def verify(data_dir: Path, model: TunedModel) -> None:
    """Raise BadFile unless a model's adapter is whole, and the one that its job made."""
    path = gguf_path(data_dir, model)
    if read_manifest(path.parent)["sha256"].get(registry.GGUF) != model.gguf_sha256:
        raise BadFile(f"{path} is not the adapter of {model.id} as it was made: fine-tune anew.")


def sweep(store: Store, data_dir: Path) -> None:
    """Remove the checkpoints of jobs that ended while nobody was there to do it: cancelled in a terminal, say."""
    for folder in (data_dir / FOLDER).glob("*/*/run"):
        job = store.fine_tuning.any_job(folder.parent.name)
        if job is None or job.state in ENDED:
            shutil.rmtree(folder, ignore_errors=True)


def remove_unused(store: Store, data_dir: Path, model: TunedModel | JobCheckpoint) -> Path | None:
    """Remove the adapter of a model that is no longer served, unless another name has it; return where it was."""
    if any((each.job_id, each.step) == (model.job_id, model.step) for each in store.fine_tuning.models(model.user_id)):
        return None
    folder = step_folder(data_dir, model)
    shutil.rmtree(folder, ignore_errors=True)
    return folder / registry.GGUF

"""What the routes of fine-tuning answer, as ``/openapi.json`` says it. Documentation only: see ``schemas_replies``."""

from typing import Annotated, Any, Literal

from pydantic import Field

from familiar.daemon.schemas_replies import Maybe, Reply


class JobError(Reply):
    """Why a job failed."""

    code: str
    message: str
    param: Annotated[str | None, Field(description="training_file or validation_file where a file is wrong")]


class FineTuningJob(Reply):
    """A job; numbers take the place of "auto" once its files were read."""

    id: str
    object: Literal["fine_tuning.job"]
    created_at: int
    status: Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]
    model: str
    training_file: str
    validation_file: str | None
    user_provided_suffix: str | None
    seed: int
    method: dict[str, Any]
    hyperparameters: dict[str, Any]
    metadata: dict[str, str] | None
    integrations: Annotated[list[Any], Field(max_length=0)]
    organization_id: str
    error: JobError | None
    fine_tuned_model: Annotated[str | None, Field(description="the model that it made, to chat with")]
    finished_at: int | None
    estimated_finish: int | None
    trained_tokens: int | None
    result_files: list[str]


class FineTuningJobList(Reply):
    """A page of jobs, newest first."""

    object: Literal["list"]
    data: list[FineTuningJob]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FineTuningEvent(Reply):
    """Something that happened to a job; of metrics, ``data`` has the step's figures."""

    id: str
    object: Literal["fine_tuning.job.event"]
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, float]


class FineTuningEventList(Reply):
    """A page of events, newest first."""

    object: Literal["list"]
    data: list[FineTuningEvent]
    first_id: str | None
    last_id: str | None
    has_more: bool


class CheckpointMetrics(Reply):
    """Figures at a checkpoint: what was not measured is not there."""

    step: int
    train_loss: Maybe[float] = None
    valid_loss: Maybe[float] = None
    full_valid_loss: Maybe[float] = None
    train_mean_reward: Maybe[float] = None
    valid_mean_reward: Maybe[float] = None
    valid_reward_accuracy: Maybe[float] = None
    valid_reward_margin: Maybe[float] = None


class FineTuningCheckpoint(Reply):
    """A model that a job made on its way, served under its own name."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"]
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    step_number: int
    metrics: CheckpointMetrics


class FineTuningCheckpointList(Reply):
    """A page of checkpoints, newest first."""

    object: Literal["list"]
    data: list[FineTuningCheckpoint]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ModelDeleted(Reply):
    """A fine-tuned model is gone."""

    id: str
    object: Literal["model"]
    deleted: Literal[True]

"""What is kept of fine-tuning jobs, as frozen values. Times are seconds since the epoch; ids are OpenAI's in form."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

FilePurpose = Literal["fine-tune", "fine-tune-results"]
JobState = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]
EventLevel = Literal["info", "warn", "error"]
EventType = Literal["message", "metrics"]

TO_DO: tuple[JobState, ...] = ("validating_files", "queued", "running")
"""The states of a job that goes on by itself."""

ENDED: tuple[JobState, ...] = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class StoredFile:
    """A file of a user; its bytes are in the data folder, see ``daemon/files_store.py``."""

    id: str
    user_id: int
    created_at: float
    filename: str
    purpose: FilePurpose


@dataclass(frozen=True)
class Job:
    """One fine-tuning job. ``method`` is OpenAI's object, with numbers for "auto" once the files were read.

    ``name`` is what the model will be called, ``fine_tuned_model`` the same once it is there.
    """

    id: str
    user_id: int
    created_at: float
    state: JobState
    model: str
    base_sha256: str
    name: str
    training_file: str
    validation_file: str | None
    suffix: str | None
    seed: int
    method: Mapping[str, Any]
    metadata: Mapping[str, str] | None = None
    finished_at: float | None = None
    estimated_finish: float | None = None
    fine_tuned_model: str | None = None
    trained_tokens: int | None = None
    result_file: str | None = None
    error: Mapping[str, str | None] | None = None


@dataclass(frozen=True)
class JobEvent:
    """Something that happened to a job; ``data`` of metrics has the step and its figures."""

    id: str
    user_id: int
    job_id: str
    created_at: float
    level: EventLevel
    type: EventType
    message: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class JobCheckpoint:
    """A model that a job made after ``step`` steps."""

    id: str
    user_id: int
    job_id: str
    created_at: float
    step: int
    model: str
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class TunedModel:
    """A model of a job that is served: an adapter on the base model. ``id`` is its name, ``ft:…``."""

    id: str
    user_id: int
    job_id: str
    created_at: float
    step: int
    base_sha256: str
    gguf_sha256: str

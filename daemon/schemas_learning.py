"""What ``/v1/learning`` answers. Times are seconds since the epoch."""

from typing import Annotated, Any, Literal

from pydantic import Field

from familiar.daemon.schemas_replies import Reply
from familiar.memory.types import RunState


class LearningProgress(Reply):
    """The user's run that has its turn. A run of a terminal or a fine-tuning job tells no phase here."""

    kind: Literal["job", "asked", "schedule", "terminal"]
    paused_by: Annotated[Literal["chat", "asked"] | None, Field(description="a request for the model, or the user")]
    active_seconds: Annotated[float, Field(description="pauses left out")]
    begun: int | None
    phase: str | None
    done: int | None
    total: int | None
    figures: dict[str, float]


class LearningRun(Reply):
    """A recorded run."""

    object: Literal["learning.run"]
    id: str
    state: RunState
    created: int
    ended: int | None
    version: Annotated[int | None, Field(description="the adapter version that it made")]
    error: str | None
    config: Annotated[dict[str, Any], Field(description="its recipe")]
    report: Annotated[dict[str, Any], Field(description="what the gate found, and the seconds of each phase")]


class Learning(Reply):
    """Whether something is being learned from the user, and if not, why and until when."""

    object: Literal["learning"]
    state: Literal["off", "waiting", "running", "paused"]
    schedule: Annotated[str, Field(description="the setting `learn.schedule`")]
    run: LearningProgress | None
    reason: Annotated[str | None, Field(description="why nothing of the user's is being learned")]
    next_at: Annotated[int | None, Field(description="when that could change by time alone, if it can")]
    new_signals: Annotated[
        int, Field(description="corrections, ratings, rules and facts that the last run which ended did not know")
    ]
    needed_signals: Annotated[int, Field(description="new ones that a scheduled run needs")]
    last_message: Annotated[str | None, Field(description="how the last run since the service's start ended")]
    last_run: LearningRun | None


class LearningRuns(Reply):
    """Runs, newest first."""

    object: Literal["list"]
    data: list[LearningRun]

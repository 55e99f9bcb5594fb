"""The wire types of graders: OpenAI's ``/v1/fine_tuning/alpha/graders``, and ``/v1/graders`` of our own.

The fields of a grader itself are ``feedback.grader_parse``'s to check, as they are in files and on the command line.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from familiar.daemon.grader_service import MAX_SAMPLE
from familiar.daemon.schemas import Wire
from familiar.daemon.schemas_replies import Maybe, Reply

Definition = Annotated[
    dict[str, Any],
    Field(
        description="string_check, text_similarity, python, score_model, label_model or multi, as OpenAI's API has them"
    ),
]


class GraderRunRequest(Wire):
    """``POST /v1/fine_tuning/alpha/graders/run``."""

    grader: Definition
    model_sample: Annotated[str, Field(max_length=MAX_SAMPLE, description="the reply that is graded")]
    item: Annotated[dict[str, Any] | None, Field(description="the row that it answers, for {{item.…}}")] = None


class GraderValidateRequest(Wire):
    """``POST /v1/fine_tuning/alpha/graders/validate``."""

    grader: Definition


class GraderRequest(Wire):
    """``POST /v1/graders``: a definition, or the name of a ready grader with its parameters."""

    grader: Definition | None = None
    ready: Annotated[str | None, Field(description="its name, or name=value")] = None
    parameters: Annotated[dict[str, Any] | None, Field(description="of the ready grader")] = None
    memory_id: Annotated[str | None, Field(description="the rule that it checks")] = None


class GraderErrors(Reply):
    """What went wrong; where anything did, the reward is 0. The details are in words."""

    formula_parse_error: bool
    invalid_variable_error: bool
    model_grader_parse_error: bool
    model_grader_refusal_error: bool
    model_grader_server_error: bool
    other_error: bool
    python_grader_runtime_error: bool
    python_grader_server_error: bool
    sample_parse_error: bool
    truncated_observation_error: bool
    unresponsive_reward_error: bool
    formula_parse_error_details: Maybe[str] = None
    invalid_variable_error_details: Maybe[str] = None
    model_grader_parse_error_details: Maybe[str] = None
    model_grader_server_error_details: Maybe[str] = None
    other_error_details: Maybe[str] = None
    python_grader_runtime_error_details: Maybe[str] = None
    python_grader_server_error_details: Maybe[str] = None
    python_grader_server_error_type: Maybe[str] = None
    sample_parse_error_details: Maybe[str] = None
    truncated_observation_error_details: Maybe[str] = None


class GraderMetadata(Reply):
    """What was run, and how it went."""

    name: str
    type: str
    errors: GraderErrors
    execution_time: Annotated[float, Field(description="seconds")]
    scores: dict[str, float]
    token_usage: Annotated[int | None, Field(description="of a grader that asks the model")]
    sampled_model_name: None


class GraderRun(Reply):
    """One sample's grade. ``sub_rewards`` are those of a multigrader's parts."""

    reward: float
    metadata: GraderMetadata
    sub_rewards: dict[str, float]
    model_grader_token_usage_per_model: dict[str, int]


class GraderValidated(Reply):
    """The grader, as it was sent: it can be run."""

    grader: dict[str, Any]


class KeptGrader(Reply):
    """A grader that the user keeps, and the rule that it checks."""

    object: Literal["grader"]
    id: str
    name: str
    memory_id: str | None
    created: int
    grader: dict[str, Any]


class KeptGraderList(Reply):
    """The user's graders, oldest first."""

    object: Literal["list"]
    data: list[KeptGrader]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ReadyGrader(Reply):
    """A grader for an everyday preference. ``parameters`` gives the kind of each: count, text, language or schema."""

    object: Literal["grader.ready"]
    name: str
    description: str
    parameters: dict[str, Literal["count", "text", "language", "schema"]]


class ReadyGraderList(Reply):
    """What may be named as ``ready``."""

    object: Literal["list"]
    data: list[ReadyGrader]


class GraderDeleted(Reply):
    """The grader is gone; the rule that it checked is not."""

    object: Literal["grader.deleted"]
    id: str
    deleted: Literal[True]

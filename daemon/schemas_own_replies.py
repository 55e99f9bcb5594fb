"""What the routes of our own answer, as ``/openapi.json`` says it. Documentation only, as ``schemas_replies`` is."""

from typing import Annotated, Any, Literal

from pydantic import Field

from familiar.daemon.schemas_replies import AssistantToolCall, Maybe, Reply


class Memory(Reply):
    """One thing that the model is shown again: a rule as it was said, or a prompt with the reply that was wanted."""

    object: Literal["memory"]
    id: str
    kind: Literal["rule", "example"]
    text: str
    prompt: Annotated[str | None, Field(description="of an example: the message that it answers")]
    feedback_id: str | None
    created: int


class MemoryList(Reply):
    """What is remembered, oldest first."""

    object: Literal["list"]
    data: list[Memory]


class MemoryDeleted(Reply):
    """The memory is forgotten."""

    object: Literal["memory.deleted"]
    id: str
    deleted: Literal[True]


class ForgottenMemory(Reply):
    """All that is left of a memory that a reply was made with and that was forgotten since."""

    object: Literal["memory"]
    id: str
    deleted: Literal[True]


class Feedback(Reply):
    """What was said is stored, and ``memories`` are shown from the next request on."""

    object: Literal["feedback"]
    id: str
    kind: Literal["correction", "rating", "preference", "rule"]
    completion_id: str | None
    memories: list[Memory]
    created: int


class LoggedMessage(Reply):
    """A message as it was sent; ``developer`` became ``system``, and a list of parts one text."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    name: Maybe[str] = None
    tool_calls: Maybe[list[AssistantToolCall]] = None
    tool_call_id: Maybe[str] = None


class LoggedUsage(Reply):
    """The tokens of this choice alone."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Exchange(Reply):
    """What was sent and answered, and what the reply was made with."""

    object: Literal["exchange"]
    id: str
    created: int
    model: str
    messages: list[LoggedMessage]
    completion: str
    finish_reason: Literal["stop", "length", "tool_calls", "cancelled", "error"]
    adapter_version: int | None
    memories: list[Memory | ForgottenMemory]
    sampling: Annotated[
        dict[str, float | int | str | None],
        Field(description="the sampling values that the request gave; structured ones as JSON text"),
    ]
    usage: LoggedUsage
    duration_ms: float


class Adapter(Reply):
    """One version that passed the gate, with where it came from."""

    object: Literal["adapter"]
    id: str
    number: int
    created: int
    parent: int | None
    current: Annotated[bool, Field(description="whether it is being served")]
    fits: Annotated[bool, Field(description="whether it was trained on the model that is being served")]
    base_sha256: str
    gguf_sha256: str
    run_id: str
    feedback_ids: list[str]
    report: Annotated[dict[str, Any], Field(description="the gate's decision and every figure behind it")]


class AdapterList(Reply):
    """The versions, oldest first; ``current`` is the number of the one that is being served."""

    object: Literal["list"]
    current: int | None
    data: list[Adapter]


class Rollback(Reply):
    """Which version was served, and which one is from now on; null is the base model."""

    object: Literal["rollback"]
    from_: Annotated[int, Field(alias="from")]
    to: int | None


class ServedModel(Reply):
    """The loaded base model; a request can use ``context_tokens`` of ``trained_context_tokens``."""

    name: str
    path: str
    architecture: str
    parameters: int
    size_bytes: int
    context_tokens: int
    trained_context_tokens: int


class Counts(Reply):
    """How many rows the asking user has."""

    exchanges: int
    feedback: int
    memories: int
    adapters: int


class Status(Reply):
    """How the service is doing. Sizes are bytes."""

    object: Literal["status"]
    version: str
    pid: int
    uptime_seconds: float
    data_dir: str
    user: str
    model: ServedModel
    adapter_version: int | None
    counts: Counts
    rss_bytes: int
    rss_minus_model_bytes: Annotated[int, Field(description="may be below zero: the mapped model need not be resident")]
    torch_loaded: bool


class Health(Reply):
    """The service answers."""

    status: Literal["ok"]
    pid: int

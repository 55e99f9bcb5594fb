"""What the routes of OpenAI's API answer, as ``/openapi.json`` says it. Documentation only: nothing is built from it.

Replies are put together in ``wire``, ``chat_choices`` and the routes, where a streamed token must cost little; tests
hold real ones against these models, so that a field that is not here, or is of another type, is found out. A field that
may be left out has the type ``Maybe``, which does not say that it may be null. The routes of our own are in
``schemas_own_replies``.
"""

from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

T = TypeVar("T")
Maybe: TypeAlias = T | SkipJsonSchema[None]
"""A field that is not always there. Its default is None."""


def _without_defaults(schema: dict[str, Any]) -> None:
    """A field that is not there has no value."""
    for field in schema["properties"].values():
        field.pop("default", None)


class Reply(BaseModel):
    """JSON that is answered: it has no other fields."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_without_defaults)


class ErrorDetail(Reply):
    """What went wrong; ``param`` is the field that it is about, ``code`` is for programs."""

    message: str
    type: Literal["invalid_request_error", "server_error"]
    param: str | None
    code: str | None


class Error(Reply):
    """Every failure, whatever its status."""

    error: ErrorDetail


class Timings(Reply):
    """Where the time went, in ms: waiting for a slot, up to the first token, and from there to the last."""

    queued_ms: float
    prompt_ms: float
    predicted_ms: float


class PromptDetails(Reply):
    """``cached_tokens`` of the prompt were there from an earlier request, and not evaluated again."""

    cached_tokens: int


class Usage(Reply):
    """The tokens of all choices; a prompt counts once, however many choices it has."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class LearnedMemory(Reply):
    """What a request made the service remember."""

    feedback_id: str
    id: str
    kind: Literal["rule", "fact", "example"]
    text: str
    prompt: Annotated[str | None, Field(description="of an example: the message that it answers")]


class PendingGuess(Reply):
    """What a request was taken to ask for, until the user says yes or no to it."""

    id: Annotated[str, Field(description="for /v1/feedback/{id}/confirm and /dismiss")]
    text: str


class ChatFamiliar(Reply):
    """What a chat reply was made with. In a stream ``timings`` is in the last chunk only."""

    adapter_version: Annotated[int | None, Field(description="null: the base model")]
    memories: Annotated[list[str], Field(description="ids of the memories that the model was shown")]
    consolidated: Annotated[list[str], Field(description="ids of those that the adapter follows without being shown")]
    learned: Annotated[list[LearnedMemory], Field(description="what this request made the service remember")]
    pending: Annotated[list[PendingGuess], Field(description="what to ask the user about")]
    trimmed_messages: Annotated[int, Field(description="oldest messages left out to make the conversation fit")]
    notice: Annotated[str | None, Field(description="a line for the user, where something was not as asked")]
    timings: Maybe[Timings] = None


class TextFamiliar(Reply):
    """What a completion was made with."""

    adapter_version: Annotated[int | None, Field(description="null: the base model")]
    notice: Annotated[str | None, Field(description="a line for the user, where something was not as asked")]
    timings: Timings


class LikelyToken(Reply):
    """A token, its natural-log probability before any sampling knob, and its bytes: perhaps part of a character."""

    token: str
    logprob: float
    bytes: list[int]


class ChosenToken(LikelyToken):
    """A token of the reply beside the likeliest ones at its place, best first."""

    top_logprobs: list[LikelyToken]


class ChatLogprobs(Reply):
    """The tokens that the text is of."""

    content: list[ChosenToken]
    refusal: None


class AssistantFunction(Reply):
    """The function that is called; ``arguments`` is JSON text."""

    name: str
    arguments: str


class AssistantToolCall(Reply):
    """One call of a tool."""

    id: str
    type: Literal["function"]
    function: AssistantFunction


class AssistantMessage(Reply):
    """The reply itself."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: Maybe[list[AssistantToolCall]] = None


FinishReason: TypeAlias = Literal["stop", "length", "tool_calls"]


class ChatChoice(Reply):
    """One of the replies to the same messages."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(Reply):
    """A whole reply to a chat."""

    id: Annotated[str, Field(description="the choice at an index above 0 is the exchange ID:INDEX")]
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    familiar: ChatFamiliar


class FunctionPart(Reply):
    """The next part of a call: the name comes once, the arguments in pieces."""

    name: Maybe[str] = None
    arguments: str


class ToolCallPart(Reply):
    """The next part of the call at ``index``; id and type come once."""

    index: int
    id: Maybe[str] = None
    type: Maybe[Literal["function"]] = None
    function: FunctionPart


class Delta(Reply):
    """What a chunk adds to its choice's message."""

    role: Maybe[Literal["assistant"]] = None
    content: Maybe[str] = None
    tool_calls: Maybe[list[ToolCallPart]] = None


class ChunkChoice(Reply):
    """The next part of one choice; the last one has the finish reason."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None


class ChatCompletionChunk(Reply):
    """The data of one event of a stream; one that includes usage ends with a chunk of it, without choices."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: Annotated[list[ChunkChoice], Field(max_length=1)]
    usage: Maybe[Usage | None] = None
    familiar: Maybe[ChatFamiliar] = None


class TextLogprobs(Reply):
    """Lists of equal length, one entry per token; the very first token of an echoed prompt has no log-probability."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: Annotated[list[int], Field(description="where each token begins in the choice's text, in characters")]


class TextChoice(Reply):
    """One continuation; those of the prompt at index p are at p * n up to p * n + n - 1."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "length"]


class TextCompletion(Reply):
    """A whole reply of plain text."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage
    familiar: TextFamiliar


class TextChunkChoice(Reply):
    """The next part of one continuation; the last one has the finish reason."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class TextCompletionChunk(Reply):
    """The data of one event of a stream; one that includes usage ends with a chunk of it, without choices."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: Annotated[list[TextChunkChoice], Field(max_length=1)]
    usage: Maybe[Usage | None] = None
    familiar: Maybe[TextFamiliar] = None


class Embedding(Reply):
    """The vector of the input at ``index``, of length 1; as text it is base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Reply):
    """The tokens of all inputs."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Reply):
    """The vectors, in the order of the inputs."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class ModelCard(Reply):
    """One model id; a version was created when it passed the gate, the others when the service started."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["familiar"]


class ModelList(Reply):
    """The models that the asking user can name."""

    object: Literal["list"]
    data: list[ModelCard]

"""``POST /v1/chat/completions``: what a chat request may hold, and the limits of each value."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from familiar.daemon.schemas import MAX_TOP_LOGPROBS, SampledRequest, Wire, refuse, sorted_out
from familiar.memory.types import Message

IGNORED = (
    "user",
    "store",
    "metadata",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning_effort",
    "verbosity",
)
"""Accepted, whatever their value, and without effect: they ask for nothing that changes a reply from this service."""

UNSUPPORTED: dict[str, tuple[object, ...]] = {
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "moderation": (),
    "web_search_options": (),
}
"""Refused with an error that names them, unless they are null or one of these values, which ask for nothing special."""

MESSAGE_EMPTY = ("refusal", "annotations", "audio", "function_call")
"""Fields of an assistant message as clients send it back: accepted while they are null or one of ``EMPTY``."""

EMPTY: tuple[object, ...] = ("", [], {})


class TextPart(Wire):
    """One text part of a message's content."""

    type: Literal["text"]
    text: str


def _join_parts(content: object) -> object:
    """Text parts as one text; what is not text is an error rather than dropped."""
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise PydanticCustomError("content_part", "only text parts are supported, not {kind}", {"kind": repr(kind)})
        texts.append(part["text"])
    return "".join(texts)


class CalledFunction(Wire):
    """A function that the assistant called: ``arguments`` is JSON text."""

    name: str
    arguments: str


class ToolCall(Wire):
    """One call in an assistant message; ``index`` is accepted as streams have it."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None


class ChatMessage(Wire):
    """One message: ``developer`` is OpenAI's newer name of ``system``."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[str, BeforeValidator(_join_parts, json_schema_input_type=str | list[TextPart])] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _drop_what_says_nothing(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        for name in MESSAGE_EMPTY:
            if raw.get(name) not in (None, *EMPTY):
                raise refuse(f"messages.{name}", f"Messages with {name} are not supported: send text and tool calls.")
        return {name: value for name, value in raw.items() if name not in MESSAGE_EMPTY}

    @model_validator(mode="after")
    def _fits_its_role(self) -> "ChatMessage":
        if self.tool_calls and self.role != "assistant":
            raise refuse("messages.tool_calls", "Only assistant messages have tool_calls.", "invalid_value")
        if (self.role == "tool") != (self.tool_call_id is not None):
            message = "A message has a tool_call_id if, and only if, its role is tool."
            raise refuse("messages.tool_call_id", message, "invalid_value")
        if self.content is None and not self.tool_calls:
            raise refuse("messages.content", "A message needs content.", "missing_required_parameter")
        return self

    @property
    def message(self) -> Message:
        """The message as the rest of the service has it."""
        role = "system" if self.role == "developer" else self.role
        message = Message(role=role, content=self.content or "")
        if self.tool_calls:
            message["tool_calls"] = [call.model_dump(exclude={"index"}) for call in self.tool_calls]
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
            if self.name is not None:
                message["name"] = self.name
        return message


class JsonSchema(Wire):
    """The schema that a reply follows. It always does so to the letter, whether ``strict`` or not."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class ResponseFormat(Wire):
    """``text``; ``json_object``, any JSON object; or ``json_schema``, JSON of that schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> "ResponseFormat":
        if (self.type == "json_schema") != (self.json_schema is not None):
            message = "response_format has a json_schema if, and only if, its type is json_schema."
            raise refuse("response_format.json_schema", message, "invalid_value")
        return self


class FunctionTool(Wire):
    """A function that the model may call; ``parameters`` is the JSON schema of its arguments, none if left out."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Wire):
    """One tool."""

    type: Literal["function"]
    function: FunctionTool


class NamedFunction(Wire):
    """A function by its name."""

    name: str


class NamedTool(Wire):
    """The tool that must be called."""

    type: Literal["function"]
    function: NamedFunction


class ToolChoices(Wire):
    """The tools of a request that may, or must, be called."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Field(min_length=1)]


class AllowedTools(Wire):
    """A choice among some of the tools."""

    type: Literal["allowed_tools"]
    allowed_tools: ToolChoices


class ChatRequest(SampledRequest):
    """``POST /v1/chat/completions``. A null is a field not given."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | AllowedTools | None = None
    parallel_tool_calls: bool | None = None
    truncation: (
        Annotated[
            Literal["auto", "disabled"],
            Field(description="auto leaves out the oldest messages where the conversation outgrows the context"),
        ]
        | None
    ) = None

    @model_validator(mode="before")
    @classmethod
    def _sort_out_parameters(cls, raw: Any) -> Any:
        return sorted_out(raw, UNSUPPORTED, IGNORED)

    @model_validator(mode="after")
    def _fits_together(self) -> "ChatRequest":
        self.check_together()
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            message = "max_tokens and max_completion_tokens differ: send one of them."
            raise refuse("max_tokens", message, "invalid_value")
        if self.top_logprobs is not None and not self.logprobs:
            raise refuse("top_logprobs", "top_logprobs needs logprobs to be true.", "invalid_value")
        if self.tool_choice not in (None, "none", "auto") and not self.tools:
            raise refuse("tool_choice", "tool_choice needs tools to choose from.", "invalid_value")
        structured = self.response_format is not None and self.response_format.type != "text"
        if structured and self.grammar is not None:
            raise refuse("grammar", "grammar and response_format exclude each other: send one.", "invalid_value")
        if self.tools and self.tool_choice != "none" and (structured or self.grammar is not None):
            message = 'tools cannot be joined with a response_format or a grammar: send one, or tool_choice "none".'
            raise refuse("tools", message)
        return self

    @property
    def sampling(self) -> dict[str, Any]:
        """The sampling values that were given, under the engine's names; those of formats and tools are not here."""
        values = super().sampling
        if self.max_completion_tokens:
            values["max_tokens"] = self.max_completion_tokens
        if self.logprobs:
            values["logprobs"] = self.top_logprobs or 0
        return values

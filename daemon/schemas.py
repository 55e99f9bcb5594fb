"""The wire types of the HTTP API: what a request may hold, and the limits of each value.

A parameter of OpenAI's API is in exactly one of four places: a field of ``ChatRequest`` that takes effect, a field in
``IGNORED`` that is accepted and has none, an entry of ``UNSUPPORTED`` (an error that names it unless its value asks for
nothing), or nowhere (an error: unknown). ``docs/api.md`` is the list for people. What is left out: the shapes of
replies, which the routes build.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

IGNORED = (
    "user",
    "store",
    "metadata",
    "service_tier",
    "parallel_tool_calls",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning_effort",
    "verbosity",
)
"""Accepted, whatever their value, and without effect: they ask for nothing that changes a reply from this service."""

UNSUPPORTED: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "moderation": (),
    "web_search_options": (),
}
"""Refused with an error that names them, unless they are null or one of these values, which ask for nothing special."""

_MESSAGE_IGNORED = ("name",)
_MESSAGE_EMPTY = ("refusal", "annotations", "audio", "function_call", "tool_calls")
"""Fields of an assistant message as clients send it back: accepted while they are null or empty."""

MAX_STOPS = 4


class Wire(BaseModel):
    """JSON as sent: no coercion between types, no unknown fields, no infinities."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class TextPart(Wire):
    """One text part of a message's content."""

    type: Literal["text"]
    text: str


def _refuse(param: str, message: str, code: str = "unsupported_parameter") -> PydanticCustomError:
    """An error that keeps its code and its field's name through pydantic, for daemon/errors.py."""
    return PydanticCustomError("refused", "{message}", {"message": message, "param": param, "code": code})


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


def _stops(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _no_bool(value: object) -> object:
    """True equals 1 in Python, but says something else in JSON."""
    if isinstance(value, bool):
        raise PydanticCustomError("rating", "Input should be 1, -1, 'good' or 'bad'")
    return value


class ChatMessage(Wire):
    """One message: ``developer`` is OpenAI's newer name of ``system``."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_join_parts, json_schema_input_type=str | list[TextPart])]

    @model_validator(mode="before")
    @classmethod
    def _drop_what_says_nothing(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        for name in _MESSAGE_EMPTY:
            if raw.get(name):
                raise _refuse(f"messages.{name}", f"Messages with {name} are not supported: send text only.")
        dropped = _MESSAGE_IGNORED + _MESSAGE_EMPTY
        return {name: value for name, value in raw.items() if name not in dropped}


class StreamOptions(Wire):
    """Options of a stream; ``include_obfuscation`` is accepted and ignored."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatRequest(Wire):
    """``POST /v1/chat/completions``. A null is a field not given."""

    model: str
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, description="llama.cpp's; 0 is off")] | None = None
    min_p: Annotated[float, Field(ge=0, le=1, description="llama.cpp's; 0 is off")] | None = None
    seed: int | None = None
    stop: (
        Annotated[
            list[Annotated[str, Field(min_length=1)]],
            BeforeValidator(_stops, json_schema_input_type=str | list[str]),
            Field(max_length=MAX_STOPS),
        ]
        | None
    ) = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: (
        Annotated[float, Field(gt=0, le=2, description="llama.cpp's repeat penalty; 1 is off")] | None
    ) = None
    logit_bias: dict[Annotated[str, Field(pattern=r"^\d{1,9}$")], Annotated[float, Field(ge=-100, le=100)]] | None = (
        None
    )

    @model_validator(mode="before")
    @classmethod
    def _sort_out_parameters(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        for name, harmless in UNSUPPORTED.items():
            # Compared with their types: True == 1 in Python, but n=true is no number.
            if raw.get(name) is not None and not any(raw[name] == v and type(raw[name]) is type(v) for v in harmless):
                allowed = " or ".join(json.dumps(value) for value in harmless)
                instead = f"leave it out or send {allowed}" if allowed else "leave it out"
                raise _refuse(name, f"This service does not support {name} with this value: {instead}.")
        return {name: value for name, value in raw.items() if name not in UNSUPPORTED and name not in IGNORED}

    @model_validator(mode="after")
    def _fits_together(self) -> "ChatRequest":
        if self.stream_options is not None and not self.stream:
            raise _refuse("stream_options", "stream_options needs stream to be true.", "invalid_value")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            message = "max_tokens and max_completion_tokens differ: send one of them."
            raise _refuse("max_tokens", message, "invalid_value")
        return self

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk of its token counts."""
        return self.stream_options is not None and self.stream_options.include_usage is True

    @property
    def sampling(self) -> dict[str, Any]:
        """The sampling values that were given, under the engine's names; the engine has the defaults."""
        same = ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "seed")
        values: dict[str, Any] = {name: getattr(self, name) for name in same}
        values["max_tokens"] = self.max_completion_tokens or self.max_tokens
        values["repeat_penalty"] = self.repetition_penalty
        values["stop"] = tuple(self.stop) if self.stop else None
        if self.logit_bias:
            values["logit_bias"] = tuple((int(token), bias) for token, bias in self.logit_bias.items())
        return {name: value for name, value in values.items() if value is not None}

    @property
    def logged_sampling(self) -> dict[str, float | int | str | None]:
        """The sampling values that were given, as the store keeps them: structured ones as JSON text."""
        given = self.sampling
        return {name: json.dumps(value) if isinstance(value, tuple) else value for name, value in given.items()}


class FeedbackRequest(Wire):
    """``POST /v1/feedback``: exactly one of correction, rating, preferred and rule."""

    completion_id: str | None = None
    correction: str | None = None
    rating: Annotated[Literal[1, -1, "good", "bad"] | None, BeforeValidator(_no_bool)] = None
    preferred: str | None = None
    rule: str | None = None
    note: Annotated[str, Field(description="a rule that explains what was said about the reply")] | None = None

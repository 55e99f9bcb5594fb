"""The wire types that the endpoints share: JSON as sent, errors that keep their field's name, the sampling knobs.

A parameter of OpenAI's API is, in each endpoint, in exactly one of four places: a field that takes effect, a field that
is accepted and has none (``ignored``), a field that is refused by name unless its value asks for nothing
(``unsupported``), or nowhere (an error: unknown). ``docs/api.md`` is the list for people. The endpoints' own requests
are in ``schemas_chat`` and ``schemas_text``; the shapes of replies in ``wire``.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

MAX_STOPS = 16
MAX_CHOICES = 128
MAX_TOP_LOGPROBS = 20


class Wire(BaseModel):
    """JSON as sent: no coercion between types, no unknown fields, no infinities."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


def refuse(param: str, message: str, code: str = "unsupported_parameter") -> PydanticCustomError:
    """An error that keeps its code and its field's name through pydantic, for daemon/errors.py."""
    return PydanticCustomError("refused", "{message}", {"message": message, "param": param, "code": code})


def sorted_out(raw: Any, unsupported: Mapping[str, tuple[object, ...]], ignored: Iterable[str]) -> Any:
    """A request without the fields that change nothing; raises for an unsupported one that asks for something."""
    if not isinstance(raw, dict):
        return raw
    for name, harmless in unsupported.items():
        # Compared with their types: True == 1 in Python, but n=true is no number.
        if raw.get(name) is not None and not any(raw[name] == v and type(raw[name]) is type(v) for v in harmless):
            allowed = " or ".join(json.dumps(value) for value in harmless)
            instead = f"leave it out or send {allowed}" if allowed else "leave it out"
            raise refuse(name, f"This service does not support {name} with this value: {instead}.")
    dropped = {*unsupported, *ignored}
    return {name: value for name, value in raw.items() if name not in dropped}


def _stops(value: object) -> object:
    return [value] if isinstance(value, str) else value


def no_bool(value: object) -> object:
    """True equals 1 in Python, but says something else in JSON."""
    if isinstance(value, bool):
        raise PydanticCustomError("rating", "Input should be 1, -1, 'good' or 'bad'")
    return value


Stops = Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=MAX_STOPS)]


class StreamOptions(Wire):
    """Options of a stream; ``include_obfuscation`` is accepted and ignored."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class SampledRequest(Wire):
    """What a request for text may say of how it is sampled. A null is a field not given."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES, description="replies to the same prompt")] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, lt=1 << 31, description="llama.cpp's; 0 is off")] | None = None
    min_p: Annotated[float, Field(ge=0, le=1, description="llama.cpp's; 0 is off")] | None = None
    seed: int | None = None
    stop: (
        Annotated[
            Stops,
            BeforeValidator(_stops, json_schema_input_type=Annotated[str, Field(min_length=1)] | Stops),
        ]
        | None
    ) = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: (
        Annotated[float, Field(ge=0.01, le=2, description="llama.cpp's repeat penalty; 1 is off")] | None
    ) = None
    repeat_penalty: (
        Annotated[float, Field(ge=0.01, le=2, description="llama.cpp's name of repetition_penalty")] | None
    ) = None
    logit_bias: (
        Annotated[
            dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], Annotated[float, Field(ge=-100, le=100)]],
            Field(json_schema_extra={"additionalProperties": False}),
        ]
        | None
    ) = None
    grammar: Annotated[str, Field(min_length=1, description="llama.cpp's GBNF; the root rule is named root")] | None = (
        None
    )

    def check_together(self) -> None:
        """Raise for fields that do not fit together."""
        if self.stream_options is not None and not self.stream:
            raise refuse("stream_options", "stream_options needs stream to be true.", "invalid_value")
        penalties = (self.repetition_penalty, self.repeat_penalty)
        if None not in penalties and penalties[0] != penalties[1]:
            message = "repetition_penalty and repeat_penalty differ: send one of them."
            raise refuse("repeat_penalty", message, "invalid_value")

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk of its token counts."""
        return self.stream_options is not None and self.stream_options.include_usage is True

    @property
    def choices(self) -> int:
        """How many replies are wanted to each prompt."""
        return self.n or 1

    @property
    def sampling(self) -> dict[str, Any]:
        """The sampling values that were given, under the engine's names; the engine has the defaults."""
        same = ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "seed", "max_tokens")
        values: dict[str, Any] = {name: getattr(self, name) for name in (*same, "grammar")}
        values["repeat_penalty"] = self.repetition_penalty or self.repeat_penalty
        values["stop"] = tuple(self.stop) if self.stop else None
        if self.logit_bias:
            values["logit_bias"] = tuple((int(token), bias) for token, bias in self.logit_bias.items())
        return {name: value for name, value in values.items() if value is not None}

    @property
    def logged_sampling(self) -> dict[str, float | int | str | None]:
        """The sampling values that were given, as the store keeps them: structured ones as JSON text."""
        given = self.sampling
        return {name: json.dumps(value) if isinstance(value, tuple) else value for name, value in given.items()}


class Nothing(Wire):
    """What a route takes that is told all by its address: what else is said would be without effect."""


class FeedbackRequest(Wire):
    """``POST /v1/feedback``: exactly one of correction, rating, preferred and rule."""

    completion_id: str | None = None
    correction: str | None = None
    rating: Annotated[Literal[1, -1, "good", "bad"] | None, BeforeValidator(no_bool)] = None
    preferred: str | None = None
    rule: str | None = None
    note: Annotated[str, Field(description="a rule that explains what was said about the reply")] | None = None


class ConfirmRequest(Wire):
    """``POST /v1/feedback/{id}/confirm``."""

    text: Annotated[str | None, Field(description="what to remember, in other words than the guess")] = None

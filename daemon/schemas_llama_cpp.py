"""The requests of llama.cpp's server that are its own, and the request of ours that ``/completion`` becomes.

What changes nothing here is in ``IGNORED``; ``docs/compatibility.md`` has the list for people.
Source: ``tools/server/README.md`` and ``server-schema.cpp`` of llama.cpp.
"""

from typing import Annotated, Any

from pydantic import Field, model_validator

from familiar.daemon import model_ids
from familiar.daemon.schemas import Wire, refuse, sorted_out
from familiar.daemon.schemas_chat import ChatMessage
from familiar.daemon.schemas_native import (
    NEUTRAL,
    NEUTRAL_TUNING,
    NativeSampling,
    built,
    grammar_of,
    without_neutral,
)
from familiar.daemon.schemas_text import TEXT, TOKENS, TextRequest, TokenIds, either

ALIASES = {"max_tokens": "n_predict", "max_completion_tokens": "n_predict", "logprobs": "n_probs"}
"""llama.cpp's other names, which count where the first one is not given."""

IGNORED = (
    *("cache_prompt", "id_slot", "slot_id", "n_keep", "n_discard", "n_cache_reuse", "sse_ping_interval"),
    *("speculative.n_max", "speculative.n_min", "speculative.p_min", "stream_options", "user", *NEUTRAL_TUNING),
)
UNSUPPORTED: dict[str, tuple[object, ...]] = {
    **NEUTRAL,
    "n_cmpl": (1,),
    "n": (1,),
    "penalize_nl": (True,),
    "n_indent": (0,),
    "t_max_predict_ms": (0, -1),
    "t_max_prompt_ms": (0, -1),
    "post_sampling_probs": (False,),
    "return_progress": (False,),
    "timings_per_token": (False,),
    "response_fields": ([],),
    "lora": ([],),
    "image_data": ([],),
}

_ORDER = ["top_k", "top_p", "min_p", "temperature"]
_NAMES = {"max_tokens": "n_predict", "logprobs": "n_probs"}


class Completion(NativeSampling):
    """``POST /completion``: text to go on with. ``n_predict`` below zero is without a limit."""

    prompt: Annotated[
        str | TokenIds | Annotated[list[str | TokenIds], Field(min_length=1)],
        either(TEXT, TOKENS, "a list of one of either"),
    ]
    model: str = model_ids.DEFAULT
    stream: bool | None = None
    n_predict: int | None = None
    n_probs: int | None = None
    logit_bias: dict[str, float] | None = None
    grammar: str | None = None
    json_schema: dict[str, Any] | None = None
    samplers: list[str] | None = None
    return_tokens: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _sort_out(cls, raw: Any) -> Any:
        if isinstance(raw, dict):
            others = {ALIASES[name]: value for name, value in raw.items() if name in ALIASES}
            named = {name: value for name, value in raw.items() if name not in ALIASES and value is not None}
            raw = {**others, **named, "logit_bias": _by_token(raw.get("logit_bias"))}
            prompt = raw.get("prompt")
            if isinstance(prompt, list) and {type(each) for each in prompt} >= {int, str}:
                message = "prompt mixes text and tokens: send either (POST /tokenize turns a text into tokens)."
                raise refuse("prompt", message)
        return without_neutral(raw, UNSUPPORTED, IGNORED)

    @model_validator(mode="after")
    def _can_be_done(self) -> "Completion":
        known = [name for name in self.samplers or () if name in _ORDER]
        if self.samplers is not None and known != _ORDER:
            message = f"samplers must have {', '.join(_ORDER)} in this order, as this service has: leave it out."
            raise refuse("samplers", message)
        if self.grammar and self.json_schema is not None:
            raise refuse("grammar", "grammar and json_schema exclude each other: send one.", "invalid_value")
        if isinstance(self.prompt, list) and len(self.prompt) > 1 and not isinstance(self.prompt[0], int):
            message = "prompt must be one text, or the tokens of one: POST /v1/completions takes several."
            raise refuse("prompt", message)
        return self

    @property
    def streamed(self) -> bool:
        """Whether the reply comes in events."""
        return self.stream is True

    def text(self, context_tokens: int) -> TextRequest:
        """The text that is asked for. Raises RequestValidationError and InvalidInput. May block."""
        limit = context_tokens if self.n_predict is None or self.n_predict < 0 else self.n_predict
        grammar = self.grammar or None
        if self.json_schema is not None:
            grammar = grammar_of(self.json_schema, "json_schema")
        values = {
            **self.fields,
            "model": self.model,
            "prompt": self.prompt,
            "stream": self.streamed,
            "max_tokens": limit,
            # Without a token to be made there is no text of ours but an echo, which is left out of the reply.
            "echo": limit == 0,
            "grammar": grammar,
            "logit_bias": self.logit_bias or None,
            "logprobs": self.n_probs or (0 if self.return_tokens else None),
        }
        if values["temperature"] is not None:
            values["temperature"] = max(0, values["temperature"])  # llama.cpp's other way to say greedy
        return built(TextRequest, values, _NAMES)


def _by_token(given: object) -> object:
    """Biases as OpenAI has them, by token, from llama.cpp's list of pairs too; false is as far off as can be said."""
    pairs = list(given.items()) if isinstance(given, dict) else given
    if not isinstance(pairs, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        return given
    named = next((token for token, _ in pairs if not str(token).isdecimal()), None)
    if named is not None:
        message = f"logit_bias must name tokens by id, not {named!r} (POST /tokenize turns a text into tokens)."
        raise refuse("logit_bias", message)
    return {str(token): -100.0 if bias is False else bias for token, bias in pairs}


class Tokenize(Wire):
    """``POST /tokenize``."""

    content: str
    add_special: bool | None = None
    parse_special: bool | None = None
    with_pieces: bool | None = None


class Detokenize(Wire):
    """``POST /detokenize``."""

    tokens: list[int]


class ApplyTemplate(Wire):
    """``POST /apply-template``."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]


Texts = Annotated[str | TokenIds | list[str | TokenIds], either(TEXT, TOKENS, "a list of either")]


class NativeEmbedding(Wire):
    """``POST /embedding`` and ``/embeddings``; ``content`` is the older name of ``input``."""

    model: str = model_ids.DEFAULT
    input: Texts | None = None
    content: Texts | None = None

    @model_validator(mode="before")
    @classmethod
    def _sort_out(cls, raw: Any) -> Any:
        return sorted_out(raw, {"embd_normalize": (2,), "encoding_format": ("float",)}, ("user",))

    @model_validator(mode="after")
    def _has_an_input(self) -> "NativeEmbedding":
        if not self.inputs:
            raise refuse("content", "Missing required parameter: content.", "missing_required_parameter")
        return self

    @property
    def inputs(self) -> list[str | list[int]]:
        """The texts, or their tokens."""
        given = self.input if self.content is None else self.content
        if given is None or isinstance(given, str):
            return [] if given is None else [given]
        tokens = [item for item in given if isinstance(item, int)]
        return [tokens] if tokens else [item for item in given if not isinstance(item, int)]

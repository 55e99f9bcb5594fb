"""The requests of Ollama's native API, and the requests of ours that they become.

What changes nothing here is in ``OPTIONS_IGNORED`` and ``IGNORED``; ``docs/compatibility.md`` has the list for people.
Source: https://github.com/ollama/ollama/blob/main/docs/api.md and its ``api/types.go``.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import model_validator

from familiar.daemon.ollama_messages import Message, as_openai
from familiar.daemon.schemas import Wire, refuse, sorted_out
from familiar.daemon.schemas_chat import ChatRequest
from familiar.daemon.schemas_native import (
    NEUTRAL,
    NEUTRAL_TUNING,
    NativeSampling,
    built,
    grammar_of,
    without_neutral,
)
from familiar.daemon.schemas_text import TextRequest, either
from familiar.memory.errors import InvalidInput

LATEST = ":latest"
"""The tag that Ollama's clients add to a name without one."""

OPTIONS_IGNORED = (
    *("num_thread", "num_gpu", "num_batch", "main_gpu", "low_vram", "numa", "use_mmap", "use_mlock"),
    *("f16_kv", "logits_all", "num_keep", *NEUTRAL_TUNING),
)
OPTIONS_UNSUPPORTED: dict[str, tuple[object, ...]] = {
    **NEUTRAL,
    "penalize_newline": (True,),
    "vocab_only": (False,),
    "embedding_only": (False,),
}
IGNORED = ("keep_alive", "shift")
THINK: dict[str, tuple[object, ...]] = {"think": (False,)}
GENERATE_UNSUPPORTED: dict[str, tuple[object, ...]] = {
    **THINK,
    **{"suffix": ("",), "images": ([],), "context": ([],), "template": ("",)},
    **dict.fromkeys(("width", "height", "steps"), (0,)),
}

_CHAT_NAMES = {
    **{"model": "model", "messages": "messages", "tools": "tools", "stream": "stream"},
    **{"logprobs": "logprobs", "top_logprobs": "top_logprobs"},
    **{"response_format": "format", "truncation": "truncate", "max_tokens": "options.num_predict"},
}
_TEXT_NAMES = {"model": "model", "prompt": "prompt", "logprobs": "top_logprobs", "max_tokens": "options.num_predict"}


def plain_name(model: str) -> str:
    """The model id that a name of Ollama's means: its tag may be ``latest``."""
    return model.removesuffix(LATEST)


class Options(NativeSampling):
    """``options``: how the reply is sampled. ``num_predict`` below zero is without a limit."""

    num_predict: int | None = None
    num_ctx: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _sort_out(cls, raw: Any) -> Any:
        return without_neutral(raw, OPTIONS_UNSUPPORTED, OPTIONS_IGNORED)

    @model_validator(mode="after")
    def _asks_for_some(self) -> "Options":
        if self.num_predict == 0:
            raise refuse("num_predict", "num_predict must be at least 1, or -1 for no limit.", "invalid_value")
        return self

    def check_context(self, context_tokens: int) -> None:
        """Raise InvalidInput for a larger context than there is: it cannot be had for one request."""
        if self.num_ctx is not None and self.num_ctx > context_tokens:
            raise InvalidInput(
                f"options.num_ctx is {self.num_ctx} but this service's context has {context_tokens} tokens: leave it "
                "out, send at most that, or serve with a larger context.",
                "options.num_ctx",
            )


class Answered(Wire):
    """What requests for text have in common. They are streamed unless they say otherwise."""

    model: str
    stream: bool | None = None
    format: Annotated[Literal["json", ""] | dict[str, Any], either('"json"', "a JSON schema")] | None = None
    options: Options | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    truncate: bool | None = None

    @property
    def streamed(self) -> bool:
        """Whether the reply comes in lines."""
        return self.stream is not False

    def _common(self, context_tokens: int) -> dict[str, Any]:
        options = self.options or Options()
        options.check_context(context_tokens)
        limit = options.num_predict
        return {
            "model": plain_name(self.model),
            "stream": self.streamed,
            "max_tokens": None if limit is None or limit < 0 else limit,
            **options.fields,
        }

    def _chat(self, messages: list[dict[str, Any]], context_tokens: int, **more: Any) -> ChatRequest:
        form: Mapping[str, Any] | None = None
        if isinstance(self.format, dict):
            form = {"type": "json_schema", "json_schema": {"name": "format", "schema": self.format}}
        elif self.format == "json":
            form = {"type": "json_object"}
        values = {
            **self._common(context_tokens),
            "messages": messages,
            "response_format": form,
            "logprobs": self.logprobs,
            "top_logprobs": self.top_logprobs if self.logprobs else None,
            # Ollama leaves out the oldest messages where nothing is said.
            "truncation": "disabled" if self.truncate is False else "auto",
            **more,
        }
        return built(ChatRequest, values, _CHAT_NAMES, "options.")


class OllamaChat(Answered):
    """``POST /api/chat``. Without messages nothing is asked but that the model is loaded."""

    messages: list[Message] | None = None
    tools: list[dict[str, Any]] | None = None

    @model_validator(mode="before")
    @classmethod
    def _sort_out(cls, raw: Any) -> Any:
        return sorted_out(raw, THINK, IGNORED)

    @model_validator(mode="after")
    def _fits_together(self) -> "OllamaChat":
        if self.tools and self.format:
            raise refuse("tools", "tools cannot be joined with a format: send one of them.")
        return self

    def chat(self, context_tokens: int) -> ChatRequest | None:
        """The chat that is asked for, None for none. Raises RequestValidationError and InvalidInput."""
        if not self.messages:
            return None
        return self._chat(as_openai(self.messages), context_tokens, tools=self.tools or None)


class OllamaGenerate(Answered):
    """``POST /api/generate``: a chat of one message, or with ``raw`` a text to go on with."""

    prompt: str | None = None
    system: str | None = None
    raw: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _sort_out(cls, raw: Any) -> Any:
        return sorted_out(raw, GENERATE_UNSUPPORTED, IGNORED)

    @model_validator(mode="after")
    def _fits_together(self) -> "OllamaGenerate":
        if self.raw and self.system:
            raise refuse("system", "raw goes on with the prompt alone: put what system says into it.", "invalid_value")
        return self

    def chat(self, context_tokens: int) -> ChatRequest | None:
        """The chat that is asked for, None for none. Raises RequestValidationError and InvalidInput."""
        if not self.prompt:
            return None
        system = [{"role": "system", "content": self.system}] if self.system else []
        return self._chat([*system, {"role": "user", "content": self.prompt}], context_tokens)

    def text(self, context_tokens: int) -> TextRequest | None:
        """The text that is asked for, None for none. Raises RequestValidationError and InvalidInput. May block."""
        if not self.prompt:
            return None
        values = self._common(context_tokens)
        values |= {"prompt": self.prompt, "grammar": grammar_of(self.format, "format")}
        # Where nothing is said this endpoint's own default would count, which is OpenAI's.
        values["max_tokens"] = values["max_tokens"] or context_tokens
        values["logprobs"] = (self.top_logprobs or 0) if self.logprobs else None
        return built(TextRequest, values, _TEXT_NAMES, "options.")


class OllamaEmbed(Wire):
    """``POST /api/embed``. ``options`` and ``truncate`` are ignored: an input that is too long is an error."""

    model: str
    input: Annotated[str | list[str], either("a text", "a list of texts")] | None = None
    dimensions: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _sort_out(cls, raw: Any) -> Any:
        return sorted_out(raw, {}, (*IGNORED, "options", "truncate"))

    @property
    def inputs(self) -> list[str]:
        """The texts."""
        return ([self.input] if self.input else []) if isinstance(self.input, str) else self.input or []


class OllamaEmbeddings(Wire):
    """``POST /api/embeddings``, the older form: one text."""

    model: str
    prompt: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _sort_out(cls, raw: Any) -> Any:
        return sorted_out(raw, {}, (*IGNORED, "options"))


class OllamaShow(Wire):
    """``POST /api/show``; ``name`` is the older name of ``model``."""

    model: str | None = None
    name: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _sort_out(cls, raw: Any) -> Any:
        return sorted_out(raw, {}, ("verbose", "system", "template", "options"))

    @model_validator(mode="after")
    def _names_a_model(self) -> "OllamaShow":
        if not (self.model or self.name):
            raise refuse("model", "Missing required parameter: model.", "missing_required_parameter")
        return self

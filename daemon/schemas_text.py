"""``POST /v1/completions`` and ``POST /v1/embeddings``: what the requests may hold, and the limits of each value."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator, model_validator
from pydantic_core import PydanticCustomError

from familiar.daemon.schemas import SampledRequest, Wire, refuse, sorted_out

IGNORED = ("user",)

UNSUPPORTED: dict[str, tuple[object, ...]] = {"suffix": ("",), "best_of": (1,)}

EMBEDDING_IGNORED = ("user",)

DEFAULT_MAX_TOKENS = 16
"""OpenAI's, for this endpoint alone."""

MAX_PROMPTS = 128
MAX_INPUTS = 2048
MAX_TEXT_LOGPROBS = 20

TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]

TEXT = "a text"
TOKENS = "a list of token ids (each 0 or more)"


def either(*forms: str, most: int | None = None) -> WrapValidator:
    """Have a value that has none of several forms refused as a whole, and not as if it could only be the first.

    ``forms`` are what it may be, in words; ``most`` is how many items its list may have.
    """
    expected = f"{', '.join(forms[:-1])} or {forms[-1]}"

    def checked(value: object, read: ValidatorFunctionWrapHandler) -> object:
        try:
            return read(value)
        except ValidationError:
            have = f", but has {len(value)}" if most and isinstance(value, list) and len(value) > most else ""
            raise PydanticCustomError("either", "Input should be {forms}", {"forms": expected + have}) from None

    return WrapValidator(checked)


class TextRequest(SampledRequest):
    """``POST /v1/completions``: plain text to go on with. A null is a field not given."""

    prompt: Annotated[
        str
        | TokenIds
        | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS)]
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_PROMPTS)],
        either(TEXT, TOKENS, f"a list of 1 to {MAX_PROMPTS} of either", most=MAX_PROMPTS),
    ]
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_TEXT_LOGPROBS)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _sort_out_parameters(cls, raw: Any) -> Any:
        return sorted_out(raw, UNSUPPORTED, IGNORED)

    @model_validator(mode="after")
    def _fits_together(self) -> "TextRequest":
        self.check_together()
        if self.max_tokens == 0 and not self.echo:
            raise refuse("max_tokens", "max_tokens 0 needs echo: there would be no text at all.", "invalid_value")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each prompt, as text or as tokens."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        tokens = [item for item in self.prompt if isinstance(item, int)]
        return [tokens] if tokens else [item for item in self.prompt if not isinstance(item, int)]

    @property
    def sampling(self) -> dict[str, Any]:
        """The sampling values that were given, under the engine's names, with this endpoint's own default."""
        values = {"max_tokens": DEFAULT_MAX_TOKENS, **super().sampling}
        if self.logprobs is not None:
            values |= {"logprobs": self.logprobs, "prompt_logprobs": self.echo is True}
        return values


class EmbeddingRequest(Wire):
    """``POST /v1/embeddings``. A null is a field not given."""

    model: str
    input: Annotated[
        str
        | TokenIds
        | Annotated[list[str], Field(min_length=1, max_length=MAX_INPUTS)]
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_INPUTS)],
        either(TEXT, TOKENS, f"a list of 1 to {MAX_INPUTS} of either", most=MAX_INPUTS),
    ]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _sort_out_parameters(cls, raw: Any) -> Any:
        return sorted_out(raw, {}, EMBEDDING_IGNORED)

    @property
    def inputs(self) -> list[str | list[int]]:
        """Each input, as text or as tokens."""
        if isinstance(self.input, str):
            return [self.input]
        tokens = [item for item in self.input if isinstance(item, int)]
        return [tokens] if tokens else [item for item in self.input if not isinstance(item, int)]

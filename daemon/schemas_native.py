"""What the native APIs of Ollama and of llama.cpp's server share: their sampling knobs, and the way to our requests.

Their requests are turned into those of ``schemas_chat`` and ``schemas_text``, whose limits and services are then the
only ones; what these refuse is said under the name that the client knows.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError, model_validator

from familiar.daemon.grammar.json_grammar import json_object_grammar, json_schema_grammar
from familiar.daemon.schemas import Wire, refuse, sorted_out
from familiar.daemon.schemas_text import either

R = TypeVar("R", bound=Wire)

REPEAT_WINDOW = 64
"""The tokens that the repeat penalty looks at: llama.cpp's default, and all that ``sampling`` has."""
RANDOM_SEED = 0xFFFFFFFF
"""llama.cpp's ``LLAMA_DEFAULT_SEED``: draw one."""

NEUTRAL: dict[str, tuple[object, ...]] = {
    "typical_p": (1,),
    "tfs_z": (1,),
    "mirostat": (0,),
    "top_n_sigma": (-1, 0),
    "xtc_probability": (0,),
    "dry_multiplier": (0,),
    "dynatemp_range": (0,),
    "min_keep": (0, 1),
    "ignore_eos": (False,),
}
"""Samplers that there are not, with the values that leave them out."""
NEUTRAL_TUNING = (
    "mirostat_tau",
    "mirostat_eta",
    "xtc_threshold",
    "dry_base",
    "dry_allowed_length",
    "dry_penalty_last_n",
    "dry_sequence_breakers",
    "dynatemp_exponent",
)
"""How samplers that there are not would work: ignored, as they can only be left out."""


class NativeSampling(Wire):
    """The knobs that both have, under llama.cpp's names. A null is a field not given."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: Annotated[str | list[str], either("a text", "a list of texts")] | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None

    @model_validator(mode="after")
    def _window_is_ours(self) -> "NativeSampling":
        if self.repeat_penalty not in (None, 1) and self.repeat_last_n not in (None, REPEAT_WINDOW):
            message = (
                f"repeat_last_n is {self.repeat_last_n} but the repeat penalty looks at the last {REPEAT_WINDOW} "
                f"tokens: send {REPEAT_WINDOW} or leave it out."
            )
            raise refuse("repeat_last_n", message)
        return self

    @property
    def fields(self) -> dict[str, Any]:
        """The values as ``SampledRequest`` has them: below zero a seed is a random one, and top_k is off."""
        names = ("temperature", "top_p", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty")
        values: dict[str, Any] = {name: getattr(self, name) for name in names}
        random = self.seed is not None and (self.seed < 0 or self.seed == RANDOM_SEED)
        values["seed"] = None if random else self.seed
        values["top_k"] = None if self.top_k is None else max(0, self.top_k)
        values["stop"] = self.stop or None
        return values


def without_neutral(raw: Any, unsupported: Mapping[str, tuple[object, ...]], ignored: Iterable[str]) -> Any:
    """A request without the fields that change nothing, see ``schemas.sorted_out``; 1.0 is 1, as in JSON."""
    if isinstance(raw, dict):
        raw = {name: _whole(value) if name in unsupported else value for name, value in raw.items()}
    return sorted_out(raw, unsupported, ignored)


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def built(model: type[R], values: Mapping[str, Any], names: Mapping[str, str], prefix: str = "") -> R:
    """A request of ours from another API's. What is wrong with it is raised as if that API's own body said it.

    ``names`` are the client's names of the fields that are called otherwise; ``prefix`` comes before all others.
    """
    try:
        return model.model_validate({name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        found = [{**each, "loc": ("body", *_renamed(each["loc"], names, prefix))} for each in error.errors()]
        raise RequestValidationError(found) from error


def _renamed(loc: tuple[str | int, ...], names: Mapping[str, str], prefix: str) -> tuple[str | int, ...]:
    if not loc or not isinstance(loc[0], str):
        return loc
    return (names.get(loc[0], prefix + loc[0]), *loc[1:])


def grammar_of(form: object, param: str) -> str | None:
    """The grammar of "json" (any object) or of a JSON schema, None of neither. Raises InvalidInput for ``param``.

    Blocks while a large schema is worked out.
    """
    if form == "json":
        return json_object_grammar()
    return json_schema_grammar(form, param=param) if isinstance(form, Mapping) else None

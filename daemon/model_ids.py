"""The model ids of the API: which of adapter and memory each one serves (pure).

``familiar`` is the current adapter with memory, ``familiar:memory`` the base model with memory, ``familiar:adapter``
the current adapter without memory, ``familiar:vN`` adapter version N without memory, ``familiar:base`` neither. What a
fine-tuning job made is served under the name that the job gave it (``ft:…``), without memory.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from familiar.memory.errors import NotFound
from familiar.memory.finetuning_types import TunedModel

DEFAULT = "familiar"
EMBEDDING = ("familiar:embedding", DEFAULT)
"""The ids that ``/v1/embeddings`` takes; the first is not listed, as it cannot chat."""
_VERSION = re.compile(r"familiar:v([1-9]\d{0,8})")


@dataclass(frozen=True)
class ModelChoice:
    """What an id asks for: the current adapter, a version by number, a fine-tuned one, or none; and whether memory is
    shown."""

    id: str
    adapter: Literal["current"] | int | TunedModel | None
    memory: bool


_FIXED = {
    choice.id: choice
    for choice in (
        ModelChoice(DEFAULT, "current", memory=True),
        ModelChoice("familiar:memory", None, memory=True),
        ModelChoice("familiar:adapter", "current", memory=False),
        ModelChoice("familiar:base", None, memory=False),
    )
}


class UnknownModel(NotFound):
    """A model id that this service does not serve."""

    code = "model_not_found"

    def __init__(self, model: str, known: Sequence[str]) -> None:
        super().__init__(f"The model {model!r} does not exist: use one of {', '.join(known)}.", "model")


def listed(versions: Sequence[int], tuned: Sequence[TunedModel] = (), *, adapter: bool) -> list[str]:
    """The ids that are served, the default first; ``adapter`` says whether a version is current."""
    fixed = [model for model in _FIXED if adapter or model != "familiar:adapter"]
    return [*fixed, *(f"familiar:v{number}" for number in versions), *(each.id for each in tuned)]


def parse(model: str, versions: Sequence[int], tuned: Sequence[TunedModel] = (), *, adapter: bool) -> ModelChoice:
    """What ``model`` asks for. Raises UnknownModel, which lists what there is."""
    for each in tuned:
        if each.id == model:
            return ModelChoice(model, each, memory=False)
    known = listed(versions, tuned, adapter=adapter)
    if model not in known:
        raise UnknownModel(model, known)
    version = _VERSION.fullmatch(model)
    return ModelChoice(model, int(version[1]), memory=False) if version else _FIXED[model]


def shows_memory(model: str) -> bool:
    """Whether an id is one of those that are shown memories."""
    return model in _FIXED and _FIXED[model].memory

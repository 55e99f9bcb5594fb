"""The model ids of the API: which of adapter and memory each one serves (pure).

``familiar`` is the current adapter with memory, ``familiar:memory`` the base model with memory, ``familiar:adapter``
the current adapter without memory, ``familiar:vN`` adapter version N without memory, ``familiar:base`` neither.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from familiar.memory.errors import NotFound

DEFAULT = "familiar"
EMBEDDING = ("familiar:embedding", DEFAULT)
"""The ids that ``/v1/embeddings`` takes; the first is not listed, as it cannot chat."""
_VERSION = re.compile(r"familiar:v([1-9]\d{0,8})")


@dataclass(frozen=True)
class ModelChoice:
    """What an id asks for: the current adapter, a version by number, or none; and whether memory is shown."""

    id: str
    adapter: Literal["current"] | int | None
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


def listed(versions: Sequence[int], *, adapter: bool) -> list[str]:
    """The ids that are served, the default first; ``adapter`` says whether a version is current."""
    fixed = [model for model in _FIXED if adapter or model != "familiar:adapter"]
    return fixed + [f"familiar:v{number}" for number in versions]


def parse(model: str, versions: Sequence[int], *, adapter: bool) -> ModelChoice:
    """What ``model`` asks for. Raises UnknownModel, which lists what there is."""
    known = listed(versions, adapter=adapter)
    if model not in known:
        raise UnknownModel(model, known)
    version = _VERSION.fullmatch(model)
    return ModelChoice(model, int(version[1]), memory=False) if version else _FIXED[model]


def shows_memory(model: str) -> bool:
    """Whether an id is one of those that are shown memories."""
    return model in _FIXED and _FIXED[model].memory

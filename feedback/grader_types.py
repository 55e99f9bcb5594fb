"""What a grader is, as frozen values: OpenAI's kinds, read from their JSON by ``grader_parse``, run by ``graders``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from familiar.memory.types import Message

Operation = Literal["eq", "ne", "like", "ilike"]
Metric = Literal[
    "cosine", "fuzzy_match", "bleu", "gleu", "meteor", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l"
]


@dataclass(frozen=True)
class StringCheck:
    """1 or 0: whether ``input`` equals, or holds, ``reference``; ``ilike`` does not look at case."""

    name: str
    input: str
    reference: str
    operation: Operation


@dataclass(frozen=True)
class TextSimilarity:
    """How alike two texts are by a metric of ``text_metrics``, or by the cosine of their vectors."""

    name: str
    input: str
    reference: str
    metric: Metric


@dataclass(frozen=True)
class PythonGrader:
    """What ``grade(sample, item)`` of the source returns."""

    name: str
    source: str


@dataclass(frozen=True)
class ScoreModelGrader:
    """The number that a model answers to the messages, within ``range``."""

    name: str
    input: tuple[Message, ...]
    range: tuple[float, float] = (0.0, 1.0)
    sampling: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelModelGrader:
    """1 where the label that a model answers is a passing one, else 0."""

    name: str
    input: tuple[Message, ...]
    labels: tuple[str, ...]
    passing: frozenset[str]
    sampling: Mapping[str, Any] = field(default_factory=dict)


Simple = StringCheck | TextSimilarity | PythonGrader | ScoreModelGrader | LabelModelGrader


@dataclass(frozen=True)
class MultiGrader:
    """A formula over the rewards of other graders, by the names that it calls them by."""

    name: str
    graders: Mapping[str, Simple]
    formula: str


Grader = Simple | MultiGrader


@dataclass(frozen=True)
class Grade:
    """What one sample was given, and what went wrong.

    ``sub_rewards`` are those of a multigrader's parts. ``errors`` has those of OpenAI's error flags that are true, each
    as it names it, with ``…_details`` beside them in words; a grader with an error gives 0.0. ``seconds`` is how long
    it took: for a batch of a ``python`` grader, the sample's share.
    """

    reward: float
    sub_rewards: Mapping[str, float] = field(default_factory=dict)
    errors: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


class ScoreModel(Protocol):
    """Asks the local model: the reply to the messages.

    ``sampling`` has what the definition says of OpenAI's ``temperature``, ``top_p``, ``seed`` and
    ``max_completions_tokens``, and as ``response_format`` a ``json_schema`` that the reply should satisfy, for whoever
    can hold a model to it.
    """

    def __call__(self, messages: Sequence[Message], sampling: Mapping[str, Any], /) -> str: ...


class Embed(Protocol):
    """Gives each text a vector of length 1, shape (dimensions,)."""

    def __call__(self, texts: Sequence[str], /) -> Sequence[NDArray[np.float32]]: ...

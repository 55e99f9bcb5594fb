"""What this package needs from the packages above it, and how it reports where it is.

The daemon implements ``Scorer``, ``Sampler`` and ``Teacher`` over llama.cpp and hands them down, so that what will be
served is judged, sampled from and taught without this package knowing how it is served.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from familiar.memory.errors import InvalidInput
from familiar.memory.types import Message


class Scorer(Protocol):
    """The served model, able to say how likely a text is. ``adapter`` is a GGUF LoRA file, or None for the base.

    Prompts are rendered by the GGUF's own chat template. Log-probabilities are natural logarithms.
    """

    def logps(self, adapter: Path | None, messages: Sequence[Message], completion: str) -> list[float]:
        """Return the log-probability of each completion token, the end-of-turn token included."""
        ...

    def token_kl(self, adapter: Path, messages: Sequence[Message], completion: str, rewritten: str) -> float:
        """Return the mean over completion tokens of KL(adapter || base), in nats.

        The adapter is judged on the ``rewritten`` completion, by the tokens that the two have in common.
        """
        ...

    def text_logps(self, adapter: Path | None, text: str) -> list[float]:
        """Return the log-probability of each token of a plain text but the first, with no template."""
        ...

    def generate(self, adapter: Path | None, messages: Sequence[Message], max_tokens: int) -> str:
        """Return the greedy reply, at most ``max_tokens`` long."""
        ...

    def encode(self, messages: Sequence[Message], completion: str) -> tuple[list[int], list[int]]:
        """Return the prompt's ids, generation prompt included, and the completion's, end-of-turn token included.

        Training uses these very ids, so a prompt is tokenised in one way only.
        """
        ...


@dataclass(frozen=True)
class Progress:
    """How far a long task has come: ``done`` of ``total`` units of ``phase``, with its latest figures."""

    phase: str
    done: int
    total: int
    figures: Mapping[str, float] = field(default_factory=dict)


ProgressCallback = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """A progress callback that shows nothing."""


@dataclass(frozen=True)
class Completion:
    """One sampled reply: its tokens, and the natural log of the probability with which each of them was drawn.

    The distribution is the one sampled from: with temperature 1 and no truncation the policy's own. ``ids`` end with
    the end-of-turn token where the model stopped by itself ("stop"), and without it at ``max_tokens`` ("length").
    """

    ids: tuple[int, ...]
    logps: tuple[float, ...]
    text: str
    finish_reason: Literal["stop", "length"]


@dataclass(frozen=True)
class TopLogps:
    """A model's likeliest next tokens at each of a completion's T tokens, as natural-log probabilities.

    ``ids_TK`` and ``logps_TK`` are the K likeliest, best first; ``picked_T`` are those of the completion's own tokens.
    """

    ids_TK: NDArray[np.int32]
    logps_TK: NDArray[np.float32]
    picked_T: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Draw:
    """How replies are drawn: ``group`` of each prompt, of at most ``max_tokens`` tokens; equal seeds draw alike.

    ``temperature`` divides the logits. There is no top-p and the like: a policy gradient needs the distribution as the
    policy has it. Raises InvalidInput for a value out of range.
    """

    group: int
    max_tokens: int
    temperature: float = 1.0
    seed: int

    def __post_init__(self) -> None:
        for name, least in (("group", 1), ("max_tokens", 1), ("temperature", 0), ("seed", 0)):
            if not getattr(self, name) >= least:
                raise InvalidInput(f"{name} must be at least {least} but is {getattr(self, name)}.", name)


def greedy(max_tokens: int) -> Draw:
    """One reply to each prompt, of the likeliest tokens, so that no seed matters."""
    return Draw(group=1, max_tokens=max_tokens, temperature=0.0, seed=0)


class Sampler(Protocol):
    """The served model, able to draw replies. ``adapter`` is a GGUF LoRA file, or None for the base."""

    def sample(
        self,
        adapter: Path | None,
        prompts: Sequence[Sequence[Message]],
        how: Draw,
        progress: ProgressCallback = silent,
    ) -> list[list[Completion]]:
        """Return the completions of each prompt."""
        ...


class Teacher(Protocol):
    """The served model, able to say what it would have said at each token of others' completions.

    ``adapter`` is as ``Sampler`` has it. A memory in the prompt is a message that contains it.
    """

    def top_logps(
        self,
        adapter: Path | None,
        rows: Sequence[tuple[Sequence[Message], Sequence[int]]],
        k: int,
        progress: ProgressCallback = silent,
        *,
        temperature: float = 1.0,
    ) -> list[TopLogps]:
        """Return, for each (messages, completion ids), the ``k`` likeliest tokens at each token of the completion.

        ``temperature`` divides the logits.
        """
        ...

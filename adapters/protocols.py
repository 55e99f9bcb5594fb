"""What this package needs from the packages above it, and how it reports where it is.

The daemon implements ``Scorer`` over llama.cpp and hands it down, so that the gate judges what will be served without
knowing how it is served. What is left out: sampling for rollouts, which is a protocol of its own when it comes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from familiar.memory.types import Message


class Scorer(Protocol):
    """The served model, able to say how likely a text is. ``adapter`` is a GGUF LoRA file, or None for the base.

    Prompts are rendered by the GGUF's own chat template. Log-probabilities are natural logarithms.
    """

    def logps(self, adapter: Path | None, messages: Sequence[Message], completion: str) -> list[float]:
        """Return the log-probability of each completion token, the end-of-turn token included."""
        ...

    def token_kl(self, adapter: Path, messages: Sequence[Message], completion: str) -> float:
        """Return the mean over completion tokens of KL(adapter || base), in nats."""
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

"""What a learning run is given: its settings and its rows, as frozen values free of torch."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

from familiar.memory.errors import InvalidInput

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The seven linear layers of a Llama-like block, by their names in transformers."""


@dataclass(frozen=True)
class Recipe:
    """The settings of one learning run. The defaults suit 5 to 50 corrections on a small model.

    A step averages over ``batch_size`` x ``accumulate`` rows, ``batch_size`` of them in one forward pass. The loss is
    ``dpo_weight`` x DPO (over rows with a rejected reply) + ``nll_weight`` x SFT (over every chosen token) +
    ``kl_weight`` x KL(base || adapter) per token of ``anchor_batch`` of the anchors, in nats. The epoch kept is the one
    that scores best on held-out rows among those within ``kl_budget`` nats per token; learning stops when ``patience``
    epochs in a row bring no better one (0: never).
    """

    rank: int = 16
    alpha: int = 32
    target_modules: tuple[str, ...] = PROJECTIONS
    learning_rate: float = 1e-3
    schedule: Literal["cosine", "linear"] = "cosine"
    warmup_share: float = 0.1
    epochs: int = 16
    patience: int = 3
    batch_size: int = 4
    accumulate: int = 1
    anchor_batch: int = 16
    beta: float = 0.1
    label_smoothing: float = 0.0
    dpo_weight: float = 0.2
    nll_weight: float = 1.0
    kl_weight: float = 3.0
    kl_budget: float = 0.5
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (
            "rank",
            "alpha",
            "learning_rate",
            "epochs",
            "batch_size",
            "accumulate",
            "anchor_batch",
            "beta",
            "max_grad_norm",
        ):
            if getattr(self, name) <= 0:
                raise _invalid(name, "more than 0", getattr(self, name))
        for name in ("patience", "dpo_weight", "nll_weight", "kl_weight", "kl_budget", "weight_decay"):
            if getattr(self, name) < 0:
                raise _invalid(name, "0 or more", getattr(self, name))
        if not 0 <= self.label_smoothing < 0.5:
            raise _invalid("label_smoothing", "from 0 to under 0.5", self.label_smoothing)
        if not 0 <= self.warmup_share < 1:
            raise _invalid("warmup_share", "from 0 to under 1", self.warmup_share)
        if self.schedule not in ("cosine", "linear"):
            raise _invalid("schedule", "cosine or linear", self.schedule)
        if not self.target_modules or not set(self.target_modules) <= set(PROJECTIONS):
            raise _invalid("target_modules", "some of " + ", ".join(PROJECTIONS), self.target_modules)

    def to_dict(self) -> dict[str, object]:
        """Return the recipe as JSON has it."""
        return {**asdict(self), "target_modules": list(self.target_modules)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the recipe of ``to_dict``'s answer; what is absent takes its default. Raises InvalidInput."""
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise InvalidInput(f"A recipe has no setting {', '.join(unknown)}: remove it.", f"learn.{unknown[0]}")
        modules = {"target_modules": tuple(values["target_modules"])} if "target_modules" in values else {}
        return cls(**{**values, **modules})


@dataclass(frozen=True)
class Encoded:
    """One row as token ids. ``prompt_ids`` ends with the generation prompt, the others with the end-of-turn token."""

    id: str
    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not self.prompt_ids or not self.chosen_ids or self.rejected_ids == ():
            raise InvalidInput(f"The row {self.id} has an empty prompt or reply, which cannot be learnt.")

    @property
    def tokens(self) -> int:
        """How many tokens the model reads for it, at most."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids or ()))


def logps_key(prompt_ids: Sequence[int], completion_ids: Sequence[int]) -> str:
    """Return the name under which a completion's reference log-probability is cached: a hash of both lists of ids."""
    text = " ".join(map(str, prompt_ids)) + "|" + " ".join(map(str, completion_ids))
    return hashlib.sha256(text.encode()).hexdigest()


def reference_keys(rows: Sequence[Encoded]) -> list[str]:
    """Return the keys of every reference log-probability that training on ``rows`` looks up."""
    return [
        logps_key(row.prompt_ids, ids) for row in rows if row.rejected_ids for ids in (row.chosen_ids, row.rejected_ids)
    ]


def _invalid(name: str, wanted: str, value: object) -> InvalidInput:
    return InvalidInput(f"learn.{name} must be {wanted}, not {value!r}.", f"learn.{name}")

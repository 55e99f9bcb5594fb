"""The settings of a learning run, as frozen values free of torch. Its rows are in ``rows``."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self

from familiar.memory.errors import InvalidInput

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The seven linear layers of a Llama-like block, by their names in transformers."""


@dataclass(frozen=True)
class Distillation:
    """On-policy self-distillation (Agarwal et al. 2024, "GKD"): the student without a memory learns to say what the
    model says with the memory in its prompt.

    Each of ``rounds`` samples one reply to each of up to ``prompts`` prompts and takes ``passes_per_round`` passes over
    them. In the first round the replies are the teacher's; their share falls to none in the last, since a student that
    never begins a sign-off is never shown how it goes on. ``top_k`` of the teacher's tokens are kept.
    """

    rounds: int = 3
    prompts: int = 16
    passes_per_round: int = 2
    top_k: int = 64
    max_tokens: int = 96
    learning_rate: float = 3e-4

    def __post_init__(self) -> None:
        _positive(self, "learn.distillation", "prompts", "passes_per_round", "top_k", "max_tokens", "learning_rate")
        _natural(self, "learn.distillation", "rounds")


@dataclass(frozen=True)
class Policy:
    """GRPO (Shao et al. 2024) where a grader applies, in the form of DAPO (Yu et al. 2025): the mean is over tokens,
    ratios may rise further than they may fall, and prompts whose completions are all worth the same are left out.

    Each of ``rounds`` samples ``group`` completions of each of ``prompts`` prompts and takes one pass over them, with
    the groups of up to ``replay_rounds`` earlier rounds beside them, whose truncated importance weights (at most
    ``behaviour_cap``) make up for their age.
    """

    rounds: int = 6
    prompts: int = 16
    group: int = 8
    max_tokens: int = 96
    temperature: float = 1.0
    learning_rate: float = 5e-4
    epsilon_low: float = 0.2
    epsilon_high: float = 0.28
    advantage_scale: Literal["group", "batch", "none"] = "group"
    aggregation: Literal["grpo", "dr_grpo", "dapo"] = "dapo"
    importance_level: Literal["token", "sequence"] = "token"
    kl_weight: float = 0.0
    replay_rounds: int = 1
    behaviour_cap: float = 2.0

    def __post_init__(self) -> None:
        _positive(self, "learn.policy", "prompts", "max_tokens", "temperature", "learning_rate")
        _positive(self, "learn.policy", "epsilon_low", "epsilon_high", "behaviour_cap")
        _natural(self, "learn.policy", "rounds", "kl_weight", "replay_rounds")
        for name, choices in (
            ("advantage_scale", ("group", "batch", "none")),
            ("aggregation", ("grpo", "dr_grpo", "dapo")),
            ("importance_level", ("token", "sequence")),
        ):
            if getattr(self, name) not in choices:
                raise _invalid(name, "one of " + ", ".join(choices), getattr(self, name), "learn.policy")
        if self.group < 2:
            raise _invalid("policy.group", "2 or more, since completions are compared with one another", self.group)


@dataclass(frozen=True)
class Recipe:
    """The settings of one learning run: imitation, then the on-policy stages. The defaults suit 5 to 500 corrections
    on a small model.

    A step averages over ``batch_size`` rows, evaluated ``pass_tokens`` inputs at a time. The loss of imitation is
    ``dpo_weight`` x DPO (over rows with a rejected reply) + ``nll_weight`` x SFT (over every chosen token; where
    the user changed nothing, at ``unchanged_weight``, or at 1 - the token's probability if that is more) +
    ``kto_weight`` x KTO (over rated replies); every step adds ``kl_weight`` x KL(base || adapter) per token of
    ``anchor_batch`` of the anchors, in nats. An epoch reads all rows, or the newest ones and a draw of older ones,
    ``epoch_rows`` together. The ``frozen_share`` of the layers, the lower ones, carries no adapter. The round kept is
    the one that scores best on held-out rows among those within ``kl_budget`` nats per token; imitation stops when
    ``patience`` epochs in a row bring no better one (0: never).
    """

    rank: int = 16
    alpha: int = 32
    target_modules: tuple[str, ...] = PROJECTIONS
    frozen_share: float = 0.67
    learning_rate: float = 1e-3
    schedule: Literal["cosine", "linear"] = "cosine"
    warmup_share: float = 0.1
    epochs: int = 10
    patience: int = 3
    batch_size: int = 4
    epoch_rows: int = 200
    pass_tokens: int = 2048
    anchor_batch: int = 8
    beta: float = 0.1
    label_smoothing: float = 0.0
    length_normalised: bool = False
    dpo_weight: float = 0.2
    nll_weight: float = 1.0
    unchanged_weight: float = 0.1
    kto_weight: float = 0.2
    kl_weight: float = 3.0
    kl_budget: float = 0.5
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 0
    distillation: Distillation = field(default_factory=Distillation)
    policy: Policy = field(default_factory=Policy)

    def __post_init__(self) -> None:
        _positive(self, "learn", "rank", "alpha", "learning_rate", "epochs", "batch_size", "epoch_rows", "pass_tokens")
        _positive(self, "learn", "anchor_batch", "beta", "max_grad_norm")
        _natural(self, "learn", "patience", "dpo_weight", "nll_weight", "kto_weight", "kl_weight", "kl_budget")
        _natural(self, "learn", "weight_decay", "unchanged_weight")
        if not 0 <= self.label_smoothing < 0.5:
            raise _invalid("label_smoothing", "from 0 to under 0.5", self.label_smoothing)
        for name in ("warmup_share", "frozen_share"):
            if not 0 <= getattr(self, name) < 1:
                raise _invalid(name, "from 0 to under 1", getattr(self, name))
        if self.schedule not in ("cosine", "linear"):
            raise _invalid("schedule", "cosine or linear", self.schedule)
        if not self.target_modules or not set(self.target_modules) <= set(PROJECTIONS):
            raise _invalid("target_modules", "some of " + ", ".join(PROJECTIONS), self.target_modules)

    def frozen_layers(self, count: int) -> int:
        """Return how many of a model's ``count`` layers carry no adapter: the share, rounded down, so never all."""
        return int(self.frozen_share * count)

    def to_dict(self) -> dict[str, object]:
        """Return the recipe as JSON has it."""
        return {**asdict(self), "target_modules": list(self.target_modules)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the recipe of ``to_dict``'s answer; what is absent takes its default. Raises InvalidInput."""
        _known(cls, values, "learn")
        given = dict(values)
        if "target_modules" in given:
            given["target_modules"] = tuple(given["target_modules"])
        for name, part in (("distillation", Distillation), ("policy", Policy)):
            if isinstance(given.get(name), Mapping):
                _known(part, given[name], f"learn.{name}")
                given[name] = part(**given[name])
        return cls(**given)


def _known(kind: type, values: Mapping[str, Any], path: str) -> None:
    unknown = sorted(set(values) - {each.name for each in fields(kind)})
    if unknown:
        raise InvalidInput(f"A recipe has no setting {', '.join(unknown)}: remove it.", f"{path}.{unknown[0]}")


def _positive(recipe: object, path: str, *names: str) -> None:
    for name in names:
        if getattr(recipe, name) <= 0:
            raise _invalid(name, "more than 0", getattr(recipe, name), path)


def _natural(recipe: object, path: str, *names: str) -> None:
    for name in names:
        if getattr(recipe, name) < 0:
            raise _invalid(name, "0 or more", getattr(recipe, name), path)


def _invalid(name: str, wanted: str, value: object, path: str = "learn") -> InvalidInput:
    return InvalidInput(f"{path}.{name} must be {wanted}, not {value!r}.", f"{path}.{name}")

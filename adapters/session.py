"""A training run's moving parts: the model with its adapter, the optimiser, the anchors, and one step with them."""

import math
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from familiar.adapters import gguf_lora, lora
from familiar.adapters.folders import disk_errors
from familiar.adapters.objective import (
    Anchor,
    Figures,
    Imitation,
    Objective,
    accumulate,
    add_references,
    anchor_kl,
    anchored,
)
from familiar.adapters.protocols import ProgressCallback
from familiar.adapters.recipe import Recipe
from familiar.adapters.rows import Encoded, Rated
from familiar.adapters.trees import TreeModel
from familiar.memory.errors import LearningFailed


@dataclass(frozen=True)
class Step:
    """What one step of the optimiser learns from: rows with their objective, one part for each kind of row."""

    parts: tuple[tuple[Objective[Any], Sequence[Any]], ...]


@dataclass(frozen=True)
class Session:
    """``references`` are the base model's log-probabilities of replies, by ``logps_key``."""

    model: PeftModel
    trees: TreeModel
    optimizer: torch.optim.Optimizer
    anchors: Sequence[Anchor]
    references: Mapping[str, float]
    recipe: Recipe

    @property
    def imitation(self) -> Imitation:
        """The objective of corrections."""
        return Imitation(self.recipe, self.references)

    @property
    def taken(self) -> int:
        """How many steps were taken, those before the checkpoint that a run goes on from included."""
        # The optimiser keeps count for each parameter, and is restored with it.
        return max((int(state["step"]) for state in self.optimizer.state.values()), default=0)

    def step(self, step: Step, number: int, learning_rate: float) -> Figures:
        """Take step ``number`` of the run, counted from 0, and return its figures.

        The anchors take turns by this number. Raises LearningFailed when it diverges.
        """
        recipe = self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        figures: Figures = {"loss": 0.0}
        for objective, rows in step.parts:
            for name, value in accumulate(self.trees, objective, rows, recipe).items():
                figures[name] = figures.get(name, 0.0) + value
        if self.anchors and recipe.kl_weight:
            size = min(recipe.anchor_batch, len(self.anchors))
            kl = anchor_kl(self.trees, [self.anchors[(number * size + j) % len(self.anchors)] for j in range(size)])
            (recipe.kl_weight * kl).backward()  # type: ignore[no-untyped-call]
            figures["kl"] = kl.item()
            figures["loss"] += recipe.kl_weight * figures["kl"]
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.max_grad_norm).item()
        if not math.isfinite(figures["loss"]) or not math.isfinite(norm):
            raise LearningFailed(
                f"The loss was not a number at step {number + 1}, so nothing was learnt: lower learn.learning_rate "
                f"(now {learning_rate:g})."
            )
        self.optimizer.step()
        return figures | {"learning_rate": learning_rate, "grad_norm": norm}

    def write_policy(self, folder: Path, base_gguf: Path) -> Path:
        """Write the adapter as it is now, for llama.cpp to sample with, and return the GGUF file."""
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lora.write(self.model, folder)
        gguf_lora.to_gguf(folder, folder / "adapter.gguf", base_gguf)
        return folder / "adapter.gguf"


@contextmanager
def session(
    base: PreTrainedModel,
    recipe: Recipe,
    rows: Sequence[Encoded | Rated],
    anchors: Sequence[Encoded],
    references: MutableMapping[str, float],
    progress: ProgressCallback,
) -> Iterator[Session]:
    """Put a fresh adapter on ``base`` for a run that learns from ``rows``; ``base`` is given back without it.

    What ``references`` lacks of the rows is computed and added, once and with no adapter yet.
    """
    first_layer = lora.first_layer(base, recipe)
    frozen = TreeModel(base, first_layer)
    add_references(frozen, rows, references, recipe, progress)
    held = anchored(frozen, anchors)
    with lora.new_adapter(base, recipe) as model:
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        yield Session(model, frozen.adapted(model), optimizer, held, references, recipe)

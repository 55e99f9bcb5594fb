"""Train a LoRA on one user's corrections: imitation and preference together, under a leash to the base model.

The objective is DPO plus a likelihood term on the chosen reply (RPO: Pang et al. 2024, eq. 1; the likelihood is
averaged over a step's tokens here, not per row), plus an optional KL to the base model on neutral rows, so that the
adapter learns the corrections and nothing else. Rows without a rejected reply get the likelihood term alone. What is
left out: rollouts and rewards.
"""

import math
import random
from collections.abc import MutableMapping, Sequence
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from familiar.adapters import checkpoints
from familiar.adapters.checkpoints import Epoch
from familiar.adapters.lora import new_adapter
from familiar.adapters.objective import Anchor, accumulate, add_references, anchor_kl, anchored, measure
from familiar.adapters.protocols import Progress, ProgressCallback, silent
from familiar.adapters.recipe import Encoded, Recipe
from familiar.memory.errors import InvalidInput, LearningFailed, NotEnoughSignals

__all__ = ["Encoded", "Recipe", "train"]


def train(
    base: PreTrainedModel,
    rows: Sequence[Encoded],
    held_out: Sequence[Encoded],
    recipe: Recipe,
    *,
    folder: Path,
    reference_logps: MutableMapping[str, float],
    progress: ProgressCallback = silent,
    anchors: Sequence[Encoded] = (),
) -> Path:
    """Train an adapter and return the PEFT folder of its best epoch; every epoch leaves a checkpoint in ``folder``.

    A run that was cut off goes on from its newest checkpoint and ends as an unbroken one would. ``reference_logps``
    holds the base model's log-probabilities by ``logps_key``; what it lacks is computed and added. ``anchors`` are
    neutral rows (a prompt and the base model's own greedy reply) that the KL term holds in place; they cost
    reply tokens x vocabulary x 4 bytes of memory (6 MB for 12 short replies at 4,096 tokens, 220 MB at 151,936).
    ``base`` is given back without the adapter.

    Raises NotEnoughSignals without training or held-out rows, InvalidInput for a row longer than the model can read or
    a model without the recipe's target modules, LearningFailed when a loss is not a number, NoSpace.
    """
    _check(base, [*rows, *held_out, *anchors], recipe, len(rows), len(held_out))
    key = checkpoints.fingerprint(base, recipe, rows, held_out, anchors)
    add_references(base, [*rows, *held_out], reference_logps, recipe, progress)
    kept = anchored(base, anchors)
    with new_adapter(base, recipe) as model:
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        found = checkpoints.newest(folder, key)
        history = list(found.history) if found else []
        if found:
            checkpoints.restore(found, model, optimizer)
        while len(history) < recipe.epochs and not _is_spent(history, recipe):
            number = len(history) + 1
            loss = _epoch(model, optimizer, rows, kept, recipe, number, reference_logps, progress)
            epoch = measure(model, held_out, kept, recipe, reference_logps, number, loss)
            history.append(epoch)
            checkpoints.save(folder, model, optimizer, history, key)
            figures = {name: value for name, value in vars(epoch).items() if value is not None}
            progress(Progress("held_out", number, recipe.epochs, figures))
    return checkpoints.epoch_folder(folder, best(history, recipe.kl_budget).number)


def best(history: Sequence[Epoch], kl_budget: float) -> Epoch:
    """Return the epoch of the highest held-out score within the KL budget, the earlier of two equals.

    When none is within the budget it is the one nearest to the base model; the gate has the last word.
    """
    within = [epoch for epoch in history if epoch.kl is None or epoch.kl <= kl_budget]
    if not within:
        return min(history, key=lambda epoch: epoch.kl or 0.0)
    return max(within, key=lambda epoch: epoch.score)


def learning_rate_at(step: int, total: int, recipe: Recipe) -> float:
    """Return the learning rate of step 0 … total - 1: a linear warm-up, then a cosine or linear fall to nearly 0."""
    warmup = math.ceil(recipe.warmup_share * total)
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    left = 1 - (step - warmup) / max(1, total - warmup)
    return recipe.learning_rate * (left if recipe.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left)))


def _check(base: PreTrainedModel, rows: Sequence[Encoded], recipe: Recipe, train_rows: int, held_out_rows: int) -> None:
    if not train_rows or not held_out_rows:
        raise NotEnoughSignals(
            f"Learning needs at least 1 row to train on and 1 to hold out but has {train_rows} and {held_out_rows}: "
            "correct more."
        )
    limit = getattr(base.config, "max_position_embeddings", None) or math.inf
    for row in rows:
        if row.tokens > limit:
            raise InvalidInput(f"The row {row.id} has {row.tokens} tokens but the model reads {limit}: leave it out.")
    names = {name.rpartition(".")[2] for name, _ in base.named_modules()}
    absent = [name for name in recipe.target_modules if name not in names]
    if absent:
        raise InvalidInput(f"This model has no layers named {', '.join(absent)}, so it cannot be adapted: use another.")


def _epoch(
    model: PeftModel,
    optimizer: torch.optim.Optimizer,
    rows: Sequence[Encoded],
    anchors: Sequence[Anchor],
    recipe: Recipe,
    number: int,
    references: MutableMapping[str, float],
    progress: ProgressCallback,
) -> float:
    """Take one pass over the rows, in an order drawn from the seed and the epoch; return the mean loss of its steps."""
    order = list(rows)
    random.Random(f"{recipe.seed}/{number}").shuffle(order)
    size = recipe.batch_size * recipe.accumulate
    steps = math.ceil(len(order) / size)
    losses = []
    for i in range(steps):
        step = (number - 1) * steps + i
        rate = learning_rate_at(step, steps * recipe.epochs, recipe)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        figures = accumulate(model, order[i * size : (i + 1) * size], references, recipe)
        if anchors and recipe.kl_weight:
            size = min(recipe.anchor_batch, len(anchors))
            kl = anchor_kl(model, [anchors[(step * size + j) % len(anchors)] for j in range(size)])
            (recipe.kl_weight * kl).backward()  # type: ignore[no-untyped-call]
            figures["kl"] = kl.item()
            figures["loss"] += recipe.kl_weight * figures["kl"]
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm).item()
        if not math.isfinite(figures["loss"]) or not math.isfinite(norm):
            raise LearningFailed(
                f"The loss was not a number at step {step + 1} of epoch {number}, so nothing was learnt: "
                f"lower learn.learning_rate (now {recipe.learning_rate:g})."
            )
        optimizer.step()
        losses.append(figures["loss"])
        figures |= {"epoch": number, "learning_rate": rate, "grad_norm": norm}
        progress(Progress("train", step + 1, steps * recipe.epochs, figures))
    return math.fsum(losses) / len(losses)


def _is_spent(history: Sequence[Epoch], recipe: Recipe) -> bool:
    """Tell whether ``patience`` epochs have brought neither a better epoch to keep nor a better score.

    The score counts even past the KL budget: KL often rises early and comes back under it while the score improves.
    """
    if not recipe.patience or not history:
        return False
    latest = max(best(history, recipe.kl_budget).number, best(history, math.inf).number)
    return len(history) - latest >= recipe.patience

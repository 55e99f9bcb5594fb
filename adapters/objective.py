"""What a step minimises and what an epoch is measured by: the losses applied to batches of rows.

Everything is a mean over a whole step, however it is cut into batches: each part is divided by the step's totals, so
that the parts' gradients add up to the step's. What is left out: the optimiser and the order of rows (``train``).
"""

import math
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from familiar.adapters.checkpoints import Epoch
from familiar.adapters.forward import Pair, collate, completion_logits, completion_logps, per_token_logps
from familiar.adapters.losses import Preference, dpo_loss, sequence_logps, sft_loss, token_kl
from familiar.adapters.protocols import Progress, ProgressCallback
from familiar.adapters.recipe import Encoded, Recipe, reference_keys
from familiar.memory.errors import LearningFailed

MAY_END = 0.05
"""From this probability of ending the reply on, a place in an anchor's reply is left free.

How a reply ends is manner, which is what users correct most; held in place there, an adapter unlearns a sign-off on
every prompt but those that it was trained on.
"""


@dataclass(frozen=True)
class Anchor:
    """A neutral row, the places (S,) of its reply that are held, and the base's log-probabilities (N, V) there."""

    pair: Pair
    held_S: Tensor
    base_logps_NV: Tensor


def add_references(
    base: PreTrainedModel,
    rows: Sequence[Encoded],
    cache: MutableMapping[str, float],
    recipe: Recipe,
    progress: ProgressCallback,
) -> None:
    """Add the base model's log-probability of every reply of a pair to ``cache``, where it is not there yet."""
    pairs = [(row.prompt_ids, ids) for row in rows if row.rejected_ids for ids in (row.chosen_ids, row.rejected_ids)]
    missing = {key: pair for key, pair in zip(reference_keys(rows), pairs, strict=True) if key not in cache}
    logps = per_token_logps(base, list(missing.values()), 2 * recipe.batch_size)
    for done, (key, values) in enumerate(zip(missing, logps, strict=True), start=1):
        cache[key] = math.fsum(values)
        progress(Progress("reference", done, len(missing)))


@torch.no_grad()
def anchored(base: PreTrainedModel, rows: Sequence[Encoded]) -> list[Anchor]:
    """Return the rows with what the base model, which must have no adapter on it, predicts along their replies."""
    kept = []
    for row in rows:
        pair = (row.prompt_ids, row.chosen_ids)
        logps_SV = completion_logits(base, collate([pair], base.device))[0].log_softmax(-1)
        held_S = logps_SV[:, row.chosen_ids[-1]] < math.log(MAY_END)
        if held_S.any():
            kept.append(Anchor(pair, held_S, logps_SV[held_S]))
    return kept


def accumulate(
    model: PeftModel, rows: Sequence[Encoded], references: Mapping[str, float], recipe: Recipe
) -> dict[str, float]:
    """Add the gradient of the mean loss over ``rows``, ``batch_size`` of them at a time; return the figures."""
    total_tokens = sum(len(row.chosen_ids) for row in rows)
    total_pairs = sum(row.rejected_ids is not None for row in rows)
    figures = {"loss": 0.0, "nll": 0.0}
    if total_pairs:
        figures |= {"dpo": 0.0, "margin": 0.0, "accuracy": 0.0}
    for start in range(0, len(rows), recipe.batch_size):
        part = rows[start : start + recipe.batch_size]
        paired = [row for row in part if row.rejected_ids]
        batch = collate(
            [(row.prompt_ids, row.chosen_ids) for row in part] + [(r.prompt_ids, r.rejected_ids or ()) for r in paired],
            model.device,
        )
        logps_BS = completion_logps(model, batch)
        nll = sft_loss(logps_BS[: len(part)], batch.mask_BS[: len(part)], total_tokens)
        loss = recipe.nll_weight * nll
        figures["nll"] += nll.item()
        if paired:
            sums_B = sequence_logps(logps_BS, batch.mask_BS)
            is_paired_B = torch.tensor([row.rejected_ids is not None for row in part], device=sums_B.device)
            chosen_B, rejected_B = sums_B[: len(part)][is_paired_B], sums_B[len(part) :]
            loss_B, margin_B = _preferences(chosen_B, rejected_B, paired, references, recipe)
            dpo = loss_B.sum() / total_pairs
            loss = loss + recipe.dpo_weight * dpo
            figures["dpo"] += dpo.item()
            figures["margin"] += margin_B.sum().item() / total_pairs
            figures["accuracy"] += (margin_B > 0).sum().item() / total_pairs
        loss.backward()  # type: ignore[no-untyped-call]
        figures["loss"] += loss.item()
    return figures


def _preferences(
    chosen_B: Tensor, rejected_B: Tensor, rows: Sequence[Encoded], references: Mapping[str, float], recipe: Recipe
) -> Preference:
    """Apply DPO to the summed log-probabilities of rows that all have a rejected reply."""
    values = [references[key] for key in reference_keys(rows)]
    reference_B2 = torch.tensor(values, dtype=chosen_B.dtype, device=chosen_B.device).view(-1, 2)
    return dpo_loss(
        chosen_B,
        rejected_B,
        reference_B2[:, 0],
        reference_B2[:, 1],
        beta=recipe.beta,
        label_smoothing=recipe.label_smoothing,
    )


def anchor_kl(model: PeftModel, anchors: Sequence[Anchor]) -> Tensor:
    """Return the mean KL(base || adapter) over the held places of the anchors' replies, in nats."""
    batch = collate([anchor.pair for anchor in anchors], model.device)
    logits_NV = completion_logits(model, batch)[batch.mask_BS]
    held_N = torch.cat([anchor.held_S for anchor in anchors])
    return token_kl(torch.cat([anchor.base_logps_NV for anchor in anchors]), logits_NV[held_N]).mean()


@torch.no_grad()
def measure(
    model: PeftModel,
    held_out: Sequence[Encoded],
    anchors: Sequence[Anchor],
    recipe: Recipe,
    references: Mapping[str, float],
    number: int,
    loss: float,
) -> Epoch:
    """Return an epoch's figures on the held-out rows and anchors. Raises LearningFailed for a score of NaN."""
    chosen = list(per_token_logps(model, [(row.prompt_ids, row.chosen_ids) for row in held_out], recipe.batch_size))
    score = math.fsum(math.fsum(logps) / len(logps) for logps in chosen) / len(chosen)
    if not math.isfinite(score):
        raise LearningFailed(f"The held-out score of epoch {number} was not a number: lower learn.learning_rate.")
    paired = [(row, math.fsum(logps)) for row, logps in zip(held_out, chosen, strict=True) if row.rejected_ids]
    margin = accuracy = None
    if paired:
        rejected = per_token_logps(model, [(r.prompt_ids, r.rejected_ids or ()) for r, _ in paired], recipe.batch_size)
        margins_B = _preferences(
            torch.tensor([value for _, value in paired]),
            torch.tensor([math.fsum(logps) for logps in rejected]),
            [row for row, _ in paired],
            references,
            recipe,
        )[1]
        margin, accuracy = margins_B.mean().item(), (margins_B > 0).float().mean().item()
    sizes = [anchor.base_logps_NV.shape[0] for anchor in anchors]
    kls = [anchor_kl(model, [anchor]).item() * size for anchor, size in zip(anchors, sizes, strict=True)]
    return Epoch(number, score, margin, accuracy, math.fsum(kls) / sum(sizes) if anchors else None, loss)

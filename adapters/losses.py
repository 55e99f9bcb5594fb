"""The losses of learning from corrections: pure functions of tensors, with their sources.

Shapes: B rows, T positions, V vocabulary, N tokens. ``mask`` is True where a token belongs to the completion: a
prompt's tokens carry no loss. What is left out: the model, batching, and KTO and GRPO, which come with ratings and
graders.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def token_logps(logits_BTV: Tensor, ids_BT: Tensor) -> Tensor:
    """Return the log-probability (B, T) of each id, where the logits at a position are those that predict its id."""
    picked_BT = logits_BTV.gather(-1, ids_BT.unsqueeze(-1)).squeeze(-1)
    return picked_BT - logits_BTV.logsumexp(-1)


def sequence_logps(logps_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Return the log-probability (B,) of each completion: the sum over its tokens."""
    return torch.where(mask_BT, logps_BT, 0.0).sum(-1)


def sft_loss(logps_BT: Tensor, mask_BT: Tensor, total_tokens: int | None = None) -> Tensor:
    """Return the mean negative log-likelihood per completion token, a scalar.

    ``total_tokens`` is the count to divide by when this batch is one part of a larger step, so that the parts add up
    to the mean over the whole step.
    """
    return -sequence_logps(logps_BT, mask_BT).sum() / (total_tokens or mask_BT.sum())


class Preference(NamedTuple):
    """A preference loss per row, and by how much the implicit reward of the chosen reply exceeds the rejected one's."""

    loss_B: Tensor
    margin_B: Tensor


def dpo_loss(
    chosen_B: Tensor,
    rejected_B: Tensor,
    ref_chosen_B: Tensor,
    ref_rejected_B: Tensor,
    *,
    beta: float,
    label_smoothing: float = 0.0,
) -> Preference:
    """Return direct preference optimisation's loss (Rafailov et al. 2023, eq. 7) from summed log-probabilities.

    ``label_smoothing`` is the share of preferences taken to be the wrong way round (conservative DPO: Mitchell 2023,
    "A note on DPO with noisy preferences & relationship to IPO"). The implicit reward of a reply is beta x (its
    log-probability minus the reference's), eq. 5 without the term that cancels.
    """
    margin_B = beta * ((chosen_B - ref_chosen_B) - (rejected_B - ref_rejected_B))
    loss_B = -(1 - label_smoothing) * F.logsigmoid(margin_B) - label_smoothing * F.logsigmoid(-margin_B)
    return Preference(loss_B, margin_B)


def token_kl(base_logps_NV: Tensor, logits_NV: Tensor) -> Tensor:
    """Return KL(base || model) of each next-token distribution (N,), in nats.

    In this direction everything that the base model would say counts, whether the model still says it or not.
    """
    return (base_logps_NV.exp() * (base_logps_NV - logits_NV.log_softmax(-1))).sum(-1)

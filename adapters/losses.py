"""The losses of learning from corrections: pure functions of tensors, with their sources.

Shapes: B rows, T positions, V vocabulary, N completion tokens. A prompt's tokens carry no loss: they are not among
those N. What is left out: the model and batching; rewards (``policy_losses``) and learning from a teacher's
distribution (``distillation``).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from familiar.memory.errors import InvalidInput


def token_logps(logits_BTV: Tensor, ids_BT: Tensor) -> Tensor:
    """Return the log-probability (B, T) of each id, where the logits at a position are those that predict its id."""
    picked_BT = logits_BTV.gather(-1, ids_BT.unsqueeze(-1)).squeeze(-1)
    return picked_BT - logits_BTV.logsumexp(-1)


def sft_loss(logps_N: Tensor, total_tokens: float | None = None) -> Tensor:
    """Return the mean negative log-likelihood per completion token, a scalar.

    ``total_tokens`` is the count to divide by when these tokens are one part of a larger step, so that the parts add
    up to the mean over the whole step.
    """
    return -logps_N.sum() / (total_tokens or logps_N.numel())


class Preference(NamedTuple):
    """A preference loss per row, and by how much its implicit rewards are the right way round: above 0, they are.

    Of a pair it is the chosen reply's reward minus the rejected one's; of a rated reply, how far its reward is above
    the baseline if it was liked, or below if it was not.
    """

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
    length_normalised: bool = False,
    chosen_tokens_B: Tensor | None = None,
    rejected_tokens_B: Tensor | None = None,
) -> Preference:
    """Return direct preference optimisation's loss (Rafailov et al. 2023, eq. 7) from summed log-probabilities.

    ``label_smoothing`` is the share of preferences taken to be the wrong way round (conservative DPO: Mitchell 2023,
    "A note on DPO with noisy preferences & relationship to IPO"). The implicit reward of a reply is beta x (its
    log-probability minus the reference's), eq. 5 without the term that cancels.

    ``length_normalised`` divides each reply's reward by its count of tokens, ``chosen_tokens_B`` or
    ``rejected_tokens_B`` (Lambert et al. 2024, "Tülu 3", section 5): a sum over tokens lets the longer reply of a pair
    decide the margin, so that length itself is learnt. Rewards per token are small: beta is 5 there, not 0.1.
    """
    chosen_B, rejected_B = chosen_B - ref_chosen_B, rejected_B - ref_rejected_B
    if length_normalised:
        if chosen_tokens_B is None or rejected_tokens_B is None:
            raise InvalidInput("Length-normalised DPO needs both replies' token counts: give them, or do without it.")
        chosen_B, rejected_B = chosen_B / chosen_tokens_B, rejected_B / rejected_tokens_B
    margin_B = beta * (chosen_B - rejected_B)
    loss_B = -(1 - label_smoothing) * F.logsigmoid(margin_B) - label_smoothing * F.logsigmoid(-margin_B)
    return Preference(loss_B, margin_B)


def kto_loss(
    logps_B: Tensor,
    ref_logps_B: Tensor,
    desirable_B: Tensor,
    baseline: Tensor,
    *,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Preference:
    """Return Kahneman-Tversky optimisation's loss (Ethayarajh et al. 2024, eq. 7) of replies with one rating each.

    ``desirable_B`` is True where the user liked the reply; ``baseline`` is z0, of ``kto_kl``. The weights make up for
    likes and dislikes that are not equally many: ``desirable_weight`` x likes should be 1 to 4/3 times
    ``undesirable_weight`` x dislikes (eq. 8).
    """
    ratio_B = logps_B - ref_logps_B
    margin_B = beta * torch.where(desirable_B, ratio_B - baseline, baseline - ratio_B)
    weight_B = torch.where(desirable_B, desirable_weight, undesirable_weight).to(margin_B.dtype)
    return Preference(weight_B * torch.sigmoid(-margin_B), margin_B)


def kto_kl(mismatched_logps_B: Tensor, ref_mismatched_logps_B: Tensor) -> Tensor:
    """Return KTO's baseline z0 >= 0, a scalar without gradient: the estimate of KL(policy || reference), in nats.

    Each log-probability is of another row's reply after this row's prompt: for replies that do not fit, the ratio says
    how far the whole policy has moved and not how well it has learnt the row (Ethayarajh et al. 2024, section 4.1). The
    mean over few rows can fall below 0, which no KL is: hence the clamp. A single row has no other: its z0 is 0.
    """
    return (mismatched_logps_B - ref_mismatched_logps_B).detach().mean().clamp(min=0)


def kl(p_logps_NV: Tensor, q_logps_NV: Tensor) -> Tensor:
    """Return KL(p || q) of each pair of distributions (N,), in nats, from finite log-probabilities."""
    return (p_logps_NV.exp() * (p_logps_NV - q_logps_NV)).sum(-1)


def token_kl(base_logps_NV: Tensor, logits_NV: Tensor) -> Tensor:
    """Return KL(base || model) of each next-token distribution (N,), in nats.

    In this direction everything that the base model would say counts, whether the model still says it or not.
    """
    return kl(base_logps_NV, logits_NV.log_softmax(-1))

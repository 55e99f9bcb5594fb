"""Learning from rewards: group-relative policy optimisation (GRPO) and its corrections, as pure functions.

A prompt's completions, G of them, are compared with one another, so no value model is needed: each token of a
completion gets the completion's advantage over its group. Shapes: B completions (prompts x G, a prompt's together), T
completion tokens; ``mask_BT`` is True on completion tokens, and whatever stands elsewhere counts for nothing. What is
left out: sampling, grading and the model.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from familiar.memory.errors import InvalidInput

Scale = Literal["group", "batch", "none"]
Aggregation = Literal["grpo", "dr_grpo", "dapo"]

_SPREAD_FLOOR = 1e-4
"""Added to a standard deviation, so that rewards that hardly differ do not become large advantages."""


def group_advantages(rewards_B: Tensor, group: int, *, scale: Scale = "group", spread: Tensor | None = None) -> Tensor:
    """Return each completion's reward minus its group's mean (B,), divided by a standard deviation; no gradient.

    ``scale`` says whose deviation (n - 1 in the denominator): of the ``group`` (Shao et al. 2024, "DeepSeekMath",
    section 4.1.2), which gives every prompt the same say; of the whole ``batch`` (Liu et al. 2025, "Tricks or Traps?"),
    which is steadier where groups are small; or ``none`` (Liu et al. 2025, "Dr. GRPO"), since dividing by a group's
    deviation favours prompts that are nearly always, or nearly never, answered well. A group whose rewards are all
    equal says nothing: exactly 0. Of a batch that comes in parts ``spread`` is the deviation of all its rewards.
    """
    if group < 2 or rewards_B.numel() % group:
        raise InvalidInput(
            f"Group-relative advantages need whole groups of at least 2 completions per prompt but have "
            f"{rewards_B.numel()} completions in groups of {group}: sample more for each prompt."
        )
    rewards_PG = rewards_B.detach().view(-1, group)
    advantages_PG = rewards_PG - rewards_PG.mean(-1, keepdim=True)
    if scale == "group":
        advantages_PG = advantages_PG / (rewards_PG.std(-1, keepdim=True) + _SPREAD_FLOOR)
    elif scale == "batch":
        advantages_PG = advantages_PG / ((rewards_PG.std() if spread is None else spread) + _SPREAD_FLOOR)
    # a mean of equal numbers can be off by a rounding error, which the division would make larger
    equal_P1 = (rewards_PG == rewards_PG[:, :1]).all(-1, keepdim=True)
    return torch.where(equal_P1, 0.0, advantages_PG).flatten()


class PolicyLoss(NamedTuple):
    """The loss to minimise, and two figures without gradient, all scalars.

    ``kl`` is the estimated KL(policy || reference) per completion token, in nats (0 without a reference); ``clipped``
    the share of completion tokens that the clipping kept from being learnt from.
    """

    loss: Tensor
    kl: Tensor
    clipped: Tensor


def k3_kl(logps_BT: Tensor, ref_logps_BT: Tensor) -> Tensor:
    """Return an estimate of KL(policy || reference) at each sampled token (B, T), in nats: never below 0.

    With r = reference / policy it is r - 1 - log r (Schulman 2020, "Approximating KL divergence", k3; DeepSeekMath,
    eq. 4): right on average, as -log r is, but with far less spread.
    """
    log_ratio_BT = ref_logps_BT - logps_BT
    return log_ratio_BT.expm1() - log_ratio_BT


def grpo_loss(
    logps_BT: Tensor,
    old_logps_BT: Tensor,
    mask_BT: Tensor,
    advantages_B: Tensor,
    *,
    epsilon_low: float = 0.2,
    epsilon_high: float = 0.2,
    ref_logps_BT: Tensor | None = None,
    kl_weight: float = 0.0,
    aggregation: Aggregation = "dapo",
    max_tokens: int | None = None,
    total_tokens: int | None = None,
    total_rows: int | None = None,
    importance_level: Literal["token", "sequence"] = "token",
    behaviour_logps_BT: Tensor | None = None,
    behaviour_cap: float = 2.0,
) -> PolicyLoss:
    """Return GRPO's clipped objective, negated (Shao et al. 2024, "DeepSeekMath", eq. 3), with its options:

    - ``old_logps_BT`` are the policy's own before the step, ``logps_BT`` itself at the first. Past 1 - ``epsilon_low``
      or 1 + ``epsilon_high`` a token's ratio to them earns nothing more. A wider upper bound, 0.28, lets unlikely
      tokens grow, whose ratio meets it first, and so keeps the policy from narrowing ("clip-higher": Yu et al. 2025,
      "DAPO", eq. 10).
    - ``kl_weight`` x KL to ``ref_logps_BT``, the base's, is added at each token (eq. 4): few prompts, many steps.
    - ``aggregation``: "grpo" averages over each completion's tokens, then over completions, so a token of a long wrong
      answer is punished less than one of a short; "dapo" averages over all tokens of the step, and every token weighs
      the same (DAPO, eq. 12), but long answers outweigh short ones; "dr_grpo" divides by the constant
      ``max_tokens`` x completions, which depends on no length at all (Liu et al. 2025, "Dr. GRPO", section 3.2).
    - ``importance_level`` "sequence" takes one ratio for a completion, the geometric mean of its tokens' (Zheng et al.
      2025, "GSPO", eq. 7): a reward is given to the whole, and single tokens' ratios are noisy.
    - ``behaviour_logps_BT`` are of whoever sampled: another engine with other rounding, or an older policy, as with
      rollouts made while serving. Each token's term is multiplied by old / behaviour, at most ``behaviour_cap``
      (truncated importance sampling: Ionides 2008; Yao et al. 2025). Putting them in ``old_logps_BT`` instead would
      clip a replayed token before it is learnt from once, and a ratio above 1 with a negative advantage has no bound.

    ``total_tokens`` and ``total_rows`` count the whole step's completion tokens and completions, where this batch is
    one part of it, so that the parts' losses (and figures) add up to the step's.
    """
    tokens = total_tokens or mask_BT.sum().clamp(min=1)
    rows = total_rows or len(mask_BT)
    old_logps_BT = old_logps_BT.detach()
    log_ratio_BT = torch.where(mask_BT, logps_BT - old_logps_BT, 0.0)
    if importance_level == "sequence":
        log_ratio_BT = _row_means(log_ratio_BT, mask_BT).unsqueeze(-1).expand_as(log_ratio_BT)
    ratio_BT, advantages_B1 = log_ratio_BT.exp(), advantages_B.unsqueeze(-1)
    low, high = 1 - epsilon_low, 1 + epsilon_high
    objective_BT = torch.min(ratio_BT * advantages_B1, ratio_BT.clamp(low, high) * advantages_B1)
    clipped_BT = ((ratio_BT < low) & (advantages_B1 < 0)) | ((ratio_BT > high) & (advantages_B1 > 0))
    if behaviour_logps_BT is not None:
        weight_BT = torch.where(mask_BT, old_logps_BT - behaviour_logps_BT, 0.0).exp().clamp(max=behaviour_cap)
        objective_BT = objective_BT * weight_BT
    kl_BT = torch.zeros_like(objective_BT)
    if ref_logps_BT is not None:
        kl_BT = k3_kl(torch.where(mask_BT, logps_BT, 0.0), torch.where(mask_BT, ref_logps_BT, 0.0))
    elif kl_weight:
        raise InvalidInput("The KL term needs the reference's log-probabilities: give them, or set kl_weight to 0.")
    loss_BT = torch.where(mask_BT, kl_weight * kl_BT - objective_BT, 0.0)
    if aggregation == "grpo":
        loss = _row_means(loss_BT, mask_BT).sum() / rows
    elif aggregation == "dapo":
        loss = loss_BT.sum() / tokens
    elif max_tokens:
        loss = loss_BT.sum() / (rows * max_tokens)
    else:
        raise InvalidInput("The dr_grpo aggregation divides by max_tokens, the longest completion allowed: give it.")
    return PolicyLoss(loss, kl_BT.detach().sum() / tokens, (clipped_BT & mask_BT).sum() / tokens)


def _row_means(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Return the mean (B,) of each row's values, which are 0 outside the mask; of a row without tokens, 0."""
    return values_BT.sum(-1) / mask_BT.sum(-1).clamp(min=1)

"""Group-relative policy optimisation against loops in plain Python, and what holds whatever the numbers."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from familiar.adapters.policy_losses import Aggregation, PolicyLoss, Scale, group_advantages, grpo_loss, k3_kl
from familiar.memory.errors import InvalidInput

AGGREGATIONS: tuple[Aggregation, ...] = ("grpo", "dr_grpo", "dapo")
REWARDS = st.lists(st.floats(-100, 100, allow_subnormal=False), min_size=4, max_size=4)


@dataclass(frozen=True)
class Rollouts:
    """Eight completions of up to six tokens, with the log-probabilities of everybody who has a say."""

    logps_BT: Tensor
    old_BT: Tensor
    ref_BT: Tensor
    behaviour_BT: Tensor
    mask_BT: Tensor
    advantages_B: Tensor


def rollouts(seed: int, drift: float = 0.4) -> Rollouts:
    generator = torch.Generator().manual_seed(seed)
    behaviour_BT = -3 * torch.rand(8, 6, generator=generator, dtype=torch.float64)

    def away(logps_BT: Tensor) -> Tensor:
        return logps_BT + drift * torch.randn(8, 6, generator=generator, dtype=torch.float64)

    old_BT = away(behaviour_BT)
    lengths_B1 = torch.randint(1, 7, (8, 1), generator=generator)
    advantages_B = torch.randn(8, generator=generator, dtype=torch.float64)
    return Rollouts(away(old_BT), old_BT, away(old_BT), behaviour_BT, torch.arange(6) < lengths_B1, advantages_B)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_advantages_against_their_formula(scale: Scale) -> None:
    rewards = [1.0, 0.0, 0.5, 0.25, 3.0, 2.0, 2.0, -1.0]
    wanted = []
    for group in (rewards[:4], rewards[4:]):
        spread = {"group": group, "batch": rewards}.get(scale)
        by = 1.0
        if spread:
            by = math.sqrt(sum((r - mean(spread)) ** 2 for r in spread) / (len(spread) - 1)) + 1e-4
        wanted += [(reward - mean(group)) / by for reward in group]
    got = group_advantages(torch.tensor(rewards, dtype=torch.float64), 4, scale=scale)
    assert got.tolist() == pytest.approx(wanted)


@given(st.lists(REWARDS, min_size=1, max_size=4), st.sampled_from(["group", "batch", "none"]))
@settings(max_examples=40, deadline=None)
def test_a_groups_advantages_add_up_to_0_in_the_order_of_its_rewards(groups: list[list[float]], scale: Scale) -> None:
    rewards_PG = torch.tensor(groups, dtype=torch.float64)
    advantages_PG = group_advantages(rewards_PG.flatten(), 4, scale=scale).view(-1, 4)
    assert float(advantages_PG.sum(-1).abs().max()) < 1e-7
    in_order_PG = advantages_PG.gather(-1, rewards_PG.argsort(-1))
    assert bool((in_order_PG.diff(dim=-1) >= 0).all())


@given(st.floats(-100, 100, width=32), st.sampled_from(["group", "batch", "none"]))
@settings(max_examples=40, deadline=None)
def test_a_group_of_equal_rewards_gives_no_gradient(reward: float, scale: Scale) -> None:
    """In float32, where the mean of equal numbers can be another number."""
    rows = rollouts(seed=1)
    advantages_B = group_advantages(torch.tensor([reward] * 3 + [0.0, 1.0, 3.0]), 3, scale=scale)
    logps_BT = rows.logps_BT[:6].clone().requires_grad_()
    loss = grpo_loss(logps_BT, rows.old_BT[:6], rows.mask_BT[:6], advantages_B).loss
    (gradient_BT,) = torch.autograd.grad(loss, logps_BT)
    assert advantages_B[:3].tolist() == [0.0] * 3
    assert bool((gradient_BT[:3] == 0).all())
    assert bool((gradient_BT[3:] != 0).any())


@pytest.mark.parametrize(("count", "group"), [(4, 1), (6, 4), (3, 0)])
def test_groups_that_cannot_be_compared_are_refused(count: int, group: int) -> None:
    with pytest.raises(InvalidInput, match=f"{count} completions in groups of {group}"):
        group_advantages(torch.zeros(count), group)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("replayed", [False, True])
def test_the_loss_against_its_formula(
    aggregation: Aggregation, level: Literal["token", "sequence"], replayed: bool
) -> None:
    rows = rollouts(seed=2)
    got = grpo_loss(
        rows.logps_BT,
        rows.old_BT,
        rows.mask_BT,
        rows.advantages_B,
        epsilon_low=0.1,
        epsilon_high=0.3,
        ref_logps_BT=rows.ref_BT,
        kl_weight=0.2,
        aggregation=aggregation,
        max_tokens=9,
        importance_level=level,
        behaviour_logps_BT=rows.behaviour_BT if replayed else None,
        behaviour_cap=1.3,
    )
    per_row: list[list[float]] = []
    kls: list[float] = []
    clipped = 0
    for i, advantage in enumerate(rows.advantages_B.tolist()):
        length = int(rows.mask_BT[i].sum())
        new, old, ref, behaviour = (
            each[i, :length].tolist() for each in (rows.logps_BT, rows.old_BT, rows.ref_BT, rows.behaviour_BT)
        )
        terms = []
        for t in range(length):
            ratio = math.exp(new[t] - old[t])
            if level == "sequence":
                ratio = math.exp((sum(new) - sum(old)) / length)
            objective = min(ratio * advantage, min(max(ratio, 0.9), 1.3) * advantage)
            clipped += objective != ratio * advantage
            if replayed:
                objective *= min(math.exp(old[t] - behaviour[t]), 1.3)
            away = math.exp(ref[t] - new[t])
            kls.append(away - math.log(away) - 1)
            terms.append(0.2 * kls[-1] - objective)
        per_row.append(terms)
    total = sum(map(sum, per_row))
    wanted = {"grpo": mean([mean(terms) for terms in per_row]), "dr_grpo": total / (8 * 9), "dapo": total / len(kls)}
    assert got.loss.item() == pytest.approx(wanted[aggregation])
    assert got.kl.item() == pytest.approx(mean(kls))
    assert got.clipped.item() == pytest.approx(clipped / len(kls))
    assert 0 < clipped < len(kls)


@given(st.integers(0, 10**6), st.sampled_from(AGGREGATIONS), st.sampled_from(["token", "sequence"]))
@settings(max_examples=20, deadline=None)
def test_a_step_is_the_same_however_it_is_cut(
    seed: int, aggregation: Aggregation, level: Literal["token", "sequence"]
) -> None:
    rows = rollouts(seed)
    logps_BT = rows.logps_BT.clone().requires_grad_()

    def part(where: slice) -> PolicyLoss:
        return grpo_loss(
            logps_BT[where],
            rows.old_BT[where],
            rows.mask_BT[where],
            rows.advantages_B[where],
            ref_logps_BT=rows.ref_BT[where],
            kl_weight=0.1,
            aggregation=aggregation,
            max_tokens=6,
            total_tokens=int(rows.mask_BT.sum()),
            total_rows=8,
            importance_level=level,
            behaviour_logps_BT=rows.behaviour_BT[where],
        )

    for cuts in ((0, 2, 4, 6, 8), (0, 1, 8)):
        whole, parts = part(slice(0, 8)), [part(slice(*pair)) for pair in pairwise(cuts)]
        for got, wanted in zip(zip(*parts, strict=True), whole, strict=True):
            torch.testing.assert_close(torch.stack(got).sum(), wanted)
        gradients = [
            torch.autograd.grad(loss, logps_BT)[0] for loss in (torch.stack([p.loss for p in parts]).sum(), whole.loss)
        ]
        torch.testing.assert_close(*gradients)


@given(st.integers(0, 10**6), st.sampled_from(AGGREGATIONS), st.sampled_from(["token", "sequence"]))
@settings(max_examples=20, deadline=None)
def test_the_first_step_makes_good_tokens_likelier_and_clips_none(
    seed: int, aggregation: Aggregation, level: Literal["token", "sequence"]
) -> None:
    rows = rollouts(seed)
    logps_BT = rows.old_BT.clone().requires_grad_()
    loss, _, clipped = grpo_loss(
        logps_BT,
        logps_BT,
        rows.mask_BT,
        rows.advantages_B,
        aggregation=aggregation,
        max_tokens=6,
        importance_level=level,
        behaviour_logps_BT=rows.behaviour_BT,
    )
    (gradient_BT,) = torch.autograd.grad(loss, logps_BT)
    assert clipped.item() == 0
    assert torch.equal(gradient_BT.sign(), -(rows.advantages_B.sign().unsqueeze(-1) * rows.mask_BT))


def test_what_stands_outside_the_mask_counts_for_nothing() -> None:
    rows = rollouts(seed=3)

    def result(*filler: float) -> tuple[PolicyLoss, Tensor]:
        new, old, ref, behaviour = (
            torch.where(rows.mask_BT, each, value)
            for each, value in zip((rows.logps_BT, rows.old_BT, rows.ref_BT, rows.behaviour_BT), filler, strict=True)
        )
        new.requires_grad_()
        found = grpo_loss(
            new, old, rows.mask_BT, rows.advantages_B, ref_logps_BT=ref, kl_weight=0.1, behaviour_logps_BT=behaviour
        )
        return found, torch.autograd.grad(found.loss, new)[0]

    wanted, gradient_BT = result(0.0, 0.0, 0.0, 0.0)
    for filler in ((-math.inf,) * 4, (5.0, -5.0, 1e4, -1e4), (-math.inf, 0.0, 0.0, -math.inf)):
        got, other_BT = result(*filler)
        assert all(torch.equal(*pair) for pair in zip(got, wanted, strict=True))
        assert torch.equal(other_BT, gradient_BT)
    assert bool((gradient_BT[~rows.mask_BT] == 0).all())


def test_a_clipped_token_is_learnt_from_no_more_but_by_its_kl() -> None:
    far = math.log(2)
    logps_BT = torch.tensor([[far], [far], [-far], [-far]], requires_grad=True)
    mask_BT = torch.ones(4, 1, dtype=torch.bool)
    loss, _, clipped = grpo_loss(logps_BT, torch.zeros(4, 1), mask_BT, torch.tensor([1.0, -1.0, 1.0, -1.0]))
    (gradient_BT,) = torch.autograd.grad(loss, logps_BT)
    assert gradient_BT.flatten().tolist() == pytest.approx([0, 2 / 4, -0.5 / 4, 0])
    assert clipped.item() == 0.5


def test_no_replayed_token_weighs_more_than_the_cap() -> None:
    """One that the old policy found a hundred times as likely as its sampler did counts twice, not a hundred times."""
    logps_BT = torch.zeros(1, 3, requires_grad=True)
    behaviour_BT = torch.tensor([[-math.log(100), 0.0, math.log(4)]])
    mask_BT = torch.ones(1, 3, dtype=torch.bool)
    loss = grpo_loss(logps_BT, torch.zeros(1, 3), mask_BT, torch.ones(1), behaviour_logps_BT=behaviour_BT).loss
    (gradient_BT,) = torch.autograd.grad(loss, logps_BT)
    assert (-3 * gradient_BT).flatten().tolist() == pytest.approx([2, 1, 0.25])


@given(st.lists(st.tuples(st.floats(-30, 0), st.floats(-30, 0)), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_the_kl_estimate_is_at_least_0_and_0_only_for_equals(pairs: list[tuple[float, float]]) -> None:
    logps_BT, ref_BT = torch.tensor([pairs]).unbind(-1)
    kl_BT = k3_kl(logps_BT, ref_BT)
    assert bool((kl_BT >= 0).all())
    assert bool((k3_kl(logps_BT, logps_BT) == 0).all())
    assert bool((kl_BT[(logps_BT - ref_BT).abs() > 0.01] > 0).all())


def test_the_kl_estimate_is_right_on_average() -> None:
    generator = torch.Generator().manual_seed(4)
    policy_V, ref_V = torch.randn(2, 5, generator=generator, dtype=torch.float64).log_softmax(-1)
    average = (policy_V.exp() * k3_kl(policy_V, ref_V)).sum()
    torch.testing.assert_close(average, (policy_V.exp() * (policy_V - ref_V)).sum())


def test_what_an_option_needs_is_asked_for() -> None:
    rows = rollouts(seed=5)
    with pytest.raises(InvalidInput, match="KL term needs"):
        grpo_loss(rows.logps_BT, rows.old_BT, rows.mask_BT, rows.advantages_B, kl_weight=0.1)
    with pytest.raises(InvalidInput, match="max_tokens"):
        grpo_loss(rows.logps_BT, rows.old_BT, rows.mask_BT, rows.advantages_B, aggregation="dr_grpo")

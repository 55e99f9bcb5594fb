"""Each loss against a loop in plain Python that follows its formula."""

import math

import pytest
import torch

from familiar.adapters.losses import dpo_loss, kto_kl, kto_loss, sft_loss, token_kl, token_logps
from familiar.memory.errors import InvalidInput

GENERATOR = torch.Generator().manual_seed(0)


def log_softmax(values: list[float]) -> list[float]:
    top = max(values)
    total = sum(math.exp(value - top) for value in values)
    return [value - top - math.log(total) for value in values]


def test_token_logps_are_the_log_softmax_at_each_id() -> None:
    logits_BTV = 30 * torch.randn(2, 3, 5, generator=GENERATOR, dtype=torch.float64)
    ids_BT = torch.tensor([[0, 4, 2], [3, 3, 1]])
    wanted = [
        [log_softmax(row)[i] for row, i in zip(rows, ids, strict=True)]
        for rows, ids in zip(logits_BTV.tolist(), ids_BT.tolist(), strict=True)
    ]
    torch.testing.assert_close(token_logps(logits_BTV, ids_BT), torch.tensor(wanted, dtype=torch.float64))


def test_sft_is_the_mean_over_tokens_and_its_parts_add_up_to_it() -> None:
    logps_N = -torch.rand(7, generator=GENERATOR, dtype=torch.float64)
    assert sft_loss(logps_N).item() == pytest.approx(-sum(logps_N.tolist()) / 7)
    parts = [sft_loss(part, 7) for part in torch.split(logps_N, 3)]
    torch.testing.assert_close(sum(parts), sft_loss(logps_N))


@pytest.mark.parametrize(("beta", "smoothing"), [(0.1, 0.0), (0.5, 0.0), (0.1, 0.2)])
def test_dpo_against_its_formula(beta: float, smoothing: float) -> None:
    values = (-40 * torch.rand(4, 5, generator=GENERATOR, dtype=torch.float64)).tolist()
    loss_B, margin_B = dpo_loss(
        *(torch.tensor(row, dtype=torch.float64) for row in values), beta=beta, label_smoothing=smoothing
    )
    for i, (chosen, rejected, ref_chosen, ref_rejected) in enumerate(zip(*values, strict=True)):
        reward_chosen, reward_rejected = beta * (chosen - ref_chosen), beta * (rejected - ref_rejected)
        preferred = 1 / (1 + math.exp(-(reward_chosen - reward_rejected)))
        wanted = -(1 - smoothing) * math.log(preferred) - smoothing * math.log(1 - preferred)
        assert margin_B[i].item() == pytest.approx(reward_chosen - reward_rejected)
        assert loss_B[i].item() == pytest.approx(wanted)


def test_dpo_at_the_reference_is_log_two_and_pulls_the_replies_apart() -> None:
    chosen_B, rejected_B = torch.tensor([-5.0], requires_grad=True), torch.tensor([-3.0], requires_grad=True)
    loss_B, _ = dpo_loss(chosen_B, rejected_B, chosen_B.detach(), rejected_B.detach(), beta=0.1)
    loss_B.sum().backward()  # type: ignore[no-untyped-call]
    assert loss_B.item() == pytest.approx(math.log(2))
    assert chosen_B.grad is not None
    assert rejected_B.grad is not None
    assert chosen_B.grad.item() == pytest.approx(-0.05)
    assert rejected_B.grad.item() == pytest.approx(0.05)


def test_length_normalised_dpo_against_its_formula() -> None:
    values = (-20 * torch.rand(4, 5, generator=GENERATOR, dtype=torch.float64)).tolist()
    tokens = [[3, 9, 1, 4, 30], [30, 9, 2, 1, 3]]
    loss_B, margin_B = dpo_loss(
        *(torch.tensor(row, dtype=torch.float64) for row in values),
        beta=0.9,
        label_smoothing=0.1,
        length_normalised=True,
        chosen_tokens_B=torch.tensor(tokens[0]),
        rejected_tokens_B=torch.tensor(tokens[1]),
    )
    for i, (chosen, rejected, ref_chosen, ref_rejected) in enumerate(zip(*values, strict=True)):
        margin = 0.9 * ((chosen - ref_chosen) / tokens[0][i] - (rejected - ref_rejected) / tokens[1][i])
        preferred = 1 / (1 + math.exp(-margin))
        assert margin_B[i].item() == pytest.approx(margin)
        assert loss_B[i].item() == pytest.approx(-0.9 * math.log(preferred) - 0.1 * math.log(1 - preferred))


def test_length_normalised_dpo_needs_the_lengths() -> None:
    with pytest.raises(InvalidInput, match="both replies' token counts"):
        dpo_loss(*torch.zeros(4, 1), beta=0.1, length_normalised=True, chosen_tokens_B=torch.ones(1))


def test_kto_against_its_formula() -> None:
    logps, refs = (-9 * torch.rand(2, 6, generator=GENERATOR, dtype=torch.float64)).tolist()
    liked = [True, False, True, True, False, False]
    loss_B, margin_B = kto_loss(
        torch.tensor(logps, dtype=torch.float64),
        torch.tensor(refs, dtype=torch.float64),
        torch.tensor(liked),
        torch.tensor(0.7, dtype=torch.float64),
        beta=0.4,
        desirable_weight=1.5,
        undesirable_weight=0.5,
    )
    for i in range(6):
        weight, sign = (1.5, 1) if liked[i] else (0.5, -1)
        value = weight / (1 + math.exp(-0.4 * sign * (logps[i] - refs[i] - 0.7)))
        assert loss_B[i].item() == pytest.approx(weight - value)
        assert margin_B[i].item() == pytest.approx(0.4 * sign * (logps[i] - refs[i] - 0.7))


def test_kto_makes_liked_replies_likelier_and_disliked_ones_less_likely() -> None:
    logps_B = torch.tensor([-5.0, -5.0], requires_grad=True)
    loss_B, _ = kto_loss(logps_B, logps_B.detach(), torch.tensor([True, False]), torch.zeros(()), beta=0.1)
    (gradient_B,) = torch.autograd.grad(loss_B.sum(), logps_B)
    assert loss_B.tolist() == [0.5, 0.5]
    assert gradient_B.tolist() == pytest.approx([-0.025, 0.025])


def test_the_baseline_of_kto_is_a_mean_never_below_0_and_without_gradient() -> None:
    logps_B = torch.tensor([-1.0, -2.0], requires_grad=True)
    assert kto_kl(logps_B, torch.tensor([-2.0, -1.5])).item() == pytest.approx(0.25)
    assert kto_kl(logps_B, torch.tensor([-1.0, 5.0])).item() == 0
    assert not kto_kl(logps_B, torch.tensor([-2.0, -1.5])).requires_grad


def test_kl_against_its_formula() -> None:
    base_NV = torch.randn(3, 6, generator=GENERATOR, dtype=torch.float64).log_softmax(-1)
    logits_NV = torch.randn(3, 6, generator=GENERATOR, dtype=torch.float64)
    for got, base, logits in zip(token_kl(base_NV, logits_NV), base_NV.tolist(), logits_NV.tolist(), strict=True):
        model = log_softmax(logits)
        assert got.item() == pytest.approx(sum(math.exp(p) * (p - q) for p, q in zip(base, model, strict=True)))
    assert token_kl(base_NV, base_NV + 3).abs().max().item() < 1e-12

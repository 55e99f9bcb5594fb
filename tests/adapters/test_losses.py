"""Each loss against a loop in plain Python that follows its formula."""

import math

import pytest
import torch

from familiar.adapters.losses import dpo_loss, sequence_logps, sft_loss, token_kl, token_logps

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


def test_a_masked_token_counts_for_nothing_even_when_it_is_impossible() -> None:
    logps_BT = torch.tensor([[-1.0, -math.inf, -3.0], [-math.inf, -5.0, -7.0]])
    mask_BT = torch.tensor([[True, False, True], [False, True, False]])
    assert sequence_logps(logps_BT, mask_BT).tolist() == [-4.0, -5.0]
    assert sft_loss(logps_BT, mask_BT).item() == pytest.approx(9 / 3)


def test_sft_parts_add_up_to_the_whole() -> None:
    logps_BT = -torch.rand(6, 4, generator=GENERATOR, dtype=torch.float64)
    mask_BT = torch.rand(6, 4, generator=GENERATOR) > 0.4
    total = int(mask_BT.sum())
    parts = [sft_loss(logps_BT[i : i + 2], mask_BT[i : i + 2], total) for i in (0, 2, 4)]
    torch.testing.assert_close(sum(parts), sft_loss(logps_BT, mask_BT))


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


def test_kl_against_its_formula() -> None:
    base_NV = torch.randn(3, 6, generator=GENERATOR, dtype=torch.float64).log_softmax(-1)
    logits_NV = torch.randn(3, 6, generator=GENERATOR, dtype=torch.float64)
    for got, base, logits in zip(token_kl(base_NV, logits_NV), base_NV.tolist(), logits_NV.tolist(), strict=True):
        model = log_softmax(logits)
        assert got.item() == pytest.approx(sum(math.exp(p) * (p - q) for p, q in zip(base, model, strict=True)))
    assert token_kl(base_NV, base_NV + 3).abs().max().item() < 1e-12

"""Batches: which tokens carry loss, and that padding changes nothing."""

import pytest
import torch
from transformers import PreTrainedModel

from familiar.adapters.forward import collate, completion_logits, completion_logps, per_token_logps

END = 1


def test_only_the_completion_carries_loss_to_the_token() -> None:
    batch = collate([([10, 11, 12], [20, 21, END]), ([10], [30, END])])
    assert batch.first == 0
    assert batch.ids_BT.tolist() == [[10, 11, 12, 20, 21], [10, 30, 0, 0, 0]]
    targets = [row[mask].tolist() for row, mask in zip(batch.targets_BS, batch.mask_BS, strict=True)]
    assert targets == [[20, 21, END], [30, END]]
    assert batch.mask_BS.tolist() == [[False, False, True, True, True], [True, True, False, False, False]]


def test_logits_start_where_the_first_completion_does() -> None:
    batch = collate([([10, 11, 12], [20, END]), ([10, 11], [30, 31, END])])
    assert batch.first == 1
    assert batch.targets_BS.tolist() == [[12, 20, END], [30, 31, END]]


def test_a_batch_says_what_each_row_says_alone(tiny: PreTrainedModel) -> None:
    pairs = [([5, 6, 7, 8], [9, 10, END]), ([5], [11, END]), ([5, 6], [12, 13, 14, 15, 16, END])]
    together = list(per_token_logps(tiny, pairs, batch_size=3))
    alone = list(per_token_logps(tiny, pairs, batch_size=1))
    assert [len(logps) for logps in together] == [3, 2, 6]
    for some, other in zip(together, alone, strict=True):
        assert some == pytest.approx(other, abs=1e-12)


def test_logps_are_those_of_the_plain_forward_pass(tiny: PreTrainedModel) -> None:
    batch = collate([([5, 6, 7], [8, 9, END])])
    logits_TV = tiny(torch.tensor([[5, 6, 7, 8, 9]])).logits[0].log_softmax(-1)
    wanted = torch.stack([logits_TV[2, 8], logits_TV[3, 9], logits_TV[4, END]])
    torch.testing.assert_close(completion_logps(tiny, batch)[0], wanted)
    assert completion_logits(tiny, batch).shape == (1, 3, 64)

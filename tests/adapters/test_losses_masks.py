"""Which tokens count, on the built-in model's own tokenizer and template: the last reply's, to the token."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from familiar.adapters.distillation import distillation_loss
from familiar.adapters.forward import Batch, collate
from familiar.adapters.losses import sequence_logps, sft_loss, token_logps
from familiar.adapters.policy_losses import grpo_loss
from familiar.daemon.scorer import LlamaScorer
from familiar.memory.types import Message

SYSTEM = Message(role="system", content="Answer in metres.")
EARLIER = (
    Message(role="user", content="How high is the tower?"),
    Message(role="assistant", content="It is 30 metres high."),
    Message(role="user", content="And the church beside it?"),
)
REPLY = "It is 30 metres high too, I think."
CONVERSATIONS = (
    (EARLIER, REPLY),
    ((SYSTEM, *EARLIER), EARLIER[1].content),  # the same words as the reply before: only the last ones count
    (EARLIER[:1], "No."),
)


@pytest.fixture(scope="module")
def scorer(model_path: Path) -> Iterator[LlamaScorer]:
    with LlamaScorer.open(model_path, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def batch(scorer: LlamaScorer) -> Batch:
    return collate([scorer.encode(messages, reply) for messages, reply in CONVERSATIONS])


def test_exactly_the_last_replys_tokens_and_its_end_of_turn_count(scorer: LlamaScorer, batch: Batch) -> None:
    vocab = scorer._vocab
    for i, (messages, reply) in enumerate(CONVERSATIONS):
        counted = batch.targets_BS[i][batch.mask_BS[i]].tolist()
        assert counted == [*vocab.tokenise(reply), vocab.eot]
        # they stand where the conversation ends, right after a prompt that holds all earlier turns
        prompt_ids, completion_ids = scorer.encode(messages, reply)
        places = batch.mask_BS[i].nonzero().flatten() + batch.first + 1
        assert places.tolist() == list(range(len(prompt_ids), len(prompt_ids) + len(completion_ids)))
        assert vocab.text_of(prompt_ids).count(EARLIER[1].content) == sum(m.role == "assistant" for m in messages)


def test_no_other_token_changes_a_loss_or_gets_a_gradient(batch: Batch) -> None:
    vocabulary = int(batch.targets_BS.max()) + 1
    generator = torch.Generator().manual_seed(0)
    logits_BSV = torch.randn(*batch.targets_BS.shape, vocabulary, generator=generator, dtype=torch.float64)
    teacher_NV = torch.randn(int(batch.mask_BS.sum()), vocabulary, generator=generator).double().log_softmax(-1)
    advantages_B = torch.tensor([1.0, -1.0, 0.5])
    old_BS = token_logps(logits_BSV, batch.targets_BS) + 0.1

    def losses(logits_BSV: Tensor) -> Tensor:
        logps_BS = token_logps(logits_BSV, batch.targets_BS)
        return torch.stack(
            [
                sft_loss(logps_BS, batch.mask_BS),
                sequence_logps(logps_BS, batch.mask_BS).sum(),
                grpo_loss(logps_BS, old_BS, batch.mask_BS, advantages_B).loss,
                distillation_loss(logits_BSV[batch.mask_BS], teacher_NV).mean(),
            ]
        )

    noise_BSV = 5 * torch.randn(logits_BSV.shape, generator=generator, dtype=torch.float64)
    disturbed = torch.where(batch.mask_BS.unsqueeze(-1), logits_BSV, logits_BSV + noise_BSV)
    torch.testing.assert_close(losses(disturbed), losses(logits_BSV), rtol=0, atol=0)
    for i in range(4):
        (gradient_BSV,) = torch.autograd.grad(losses(logits_BSV.requires_grad_())[i], logits_BSV)
        assert torch.equal(gradient_BSV.abs().sum(-1) > 0, batch.mask_BS)

"""Which tokens count, on the built-in model's own tokenizer and template: the last reply's, to the token."""

from collections.abc import Iterator
from pathlib import Path

import llama_cpp
import pytest
import torch
from transformers import PreTrainedModel

from familiar.adapters.objective import Imitation
from familiar.adapters.recipe import Recipe
from familiar.adapters.rows import Encoded
from familiar.adapters.trees import TreeModel, pack
from familiar.daemon.scorer import LlamaScorer
from familiar.memory.types import Message

EARLIER = "It is 30 metres high."
ASKED = (
    Message(role="system", content="Answer in metres."),
    Message(role="user", content="How high is the tower?"),
    Message(role="assistant", content=EARLIER),
    Message(role="user", content="And the church beside it?"),
)
PROMPT = (
    "<|system|>Answer in metres.<|end|><|user|>How high is the tower?<|end|>"
    f"<|assistant|>{EARLIER}<|end|><|user|>And the church beside it?<|end|><|assistant|>"
)
# the second has the words of the reply before it: only the last ones count
REPLIES = ("It is 20 metres, I think.", EARLIER, "No.")


@pytest.fixture(scope="module")
def rows(model_path: Path) -> list[Encoded]:
    with LlamaScorer.open(model_path, threads=1) as scorer:
        pairs = [scorer.encode(ASKED, reply) for reply in REPLIES]
    return [Encoded(f"row-{i}", tuple(prompt), tuple(reply)) for i, (prompt, reply) in enumerate(pairs)]


@pytest.fixture(scope="module")
def tokenizer(model_path: Path) -> Iterator[llama_cpp.Llama]:
    model = llama_cpp.Llama(str(model_path), vocab_only=True, verbose=False)
    yield model
    model.close()


def test_exactly_the_last_reply_and_its_end_of_turn_are_targets(
    rows: list[Encoded], tokenizer: llama_cpp.Llama
) -> None:
    packed = pack([row.tree for row in rows])
    sizes = [len(row.chosen_ids) for row in rows]
    targets, before = torch.split(packed.targets_N, sizes), torch.split(packed.positions_T[packed.rows_N], sizes)
    for reply, row, ids, places in zip(REPLIES, rows, targets, before, strict=True):
        assert tokenizer.detokenize(list(row.prompt_ids), special=True).decode() == PROMPT
        assert tokenizer.detokenize(ids.tolist(), special=True).decode() == f"{reply}<|end|>"
        first = len(row.prompt_ids)
        assert (places + 1).tolist() == list(range(first, first + len(ids))), "each is predicted by the one before it"


def test_the_loss_is_that_of_a_plain_forward_pass_with_only_those_labels(
    rows: list[Encoded], base: PreTrainedModel, tokenizer: llama_cpp.Llama
) -> None:
    """The labels are found in the rendered text, not by the code under test; with the earlier turn it is another."""
    total, with_earlier, count = 0.0, 0.0, 0
    for reply in REPLIES:
        ids = tokenizer.tokenize(f"{PROMPT}{reply}<|end|>".encode(), add_bos=False, special=True)
        texts = [tokenizer.detokenize(ids[: i + 1], special=True).decode() for i in range(len(ids))]
        counted = [len(text) > len(PROMPT) for text in texts]
        earlier = [PROMPT.index(EARLIER) < len(text) <= PROMPT.index(EARLIER) + len(EARLIER) for text in texts]
        with torch.no_grad():
            logps_TV = base(torch.tensor([ids])).logits[0].log_softmax(-1)
        logps = [0.0, *(logps_TV[i, ids[i + 1]].item() for i in range(len(ids) - 1))]
        total -= sum(value for value, counts in zip(logps, counted, strict=True) if counts)
        with_earlier -= sum(value for value, counts in zip(logps, earlier, strict=True) if counts)
        count += sum(counted)
    assert with_earlier > 1
    with torch.no_grad():
        logits_NV = TreeModel(base).logits([row.tree for row in rows])
        loss, _ = Imitation(Recipe(nll_weight=1.0), {}).loss(logits_NV, rows, rows)
    assert count == len(logits_NV)
    assert loss.item() == pytest.approx(total / count, abs=1e-4)

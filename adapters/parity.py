"""Does the served adapter say what the trained one says? Both score the same tokens.

llama.cpp multiplies 16 bit weights with 16 bit activations, so the two never agree to the last bit; 0.05 of a natural
log-probability in the worst token is ample for that, and for training in bfloat16 ten times as much: both are far below
what a wrong conversion gives.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from familiar.adapters.lora import saved_adapter
from familiar.adapters.protocols import Scorer
from familiar.adapters.rows import Encoded, Tree
from familiar.adapters.trees import TreeModel, completion_logps
from familiar.feedback.pairs import Example

PASS_TOKENS = 2048
MOST_GAP = {torch.float32: 0.05, torch.bfloat16: 0.5}


def most_gap(base: PreTrainedModel) -> float:
    """Return the largest gap in any token that the numbers explain which a model was trained in."""
    return MOST_GAP.get(base.dtype, MOST_GAP[torch.float32])


def torch_logps(base: PreTrainedModel, peft_folder: Path | None, rows: Sequence[Encoded]) -> list[list[float]]:
    """Return the log-probability of each chosen token under an adapter, or under ``base`` alone when it is None."""
    trees = [Tree(row.prompt_ids, (row.chosen_ids,)) for row in rows]
    if peft_folder is None:
        return list(completion_logps(TreeModel(base), trees, PASS_TOKENS))
    with saved_adapter(base, peft_folder) as model:
        return list(completion_logps(TreeModel(model), trees, PASS_TOKENS))


def gaps(
    scorer: Scorer, gguf: Path | None, base: PreTrainedModel, peft_folder: Path | None, examples: Sequence[Example]
) -> list[float]:
    """Return the difference between torch's and llama.cpp's log-probability of each chosen token, as magnitudes.

    ``gguf`` and ``peft_folder`` are the same adapter, None for the base model alone.
    """
    rows = []
    for example in examples:
        prompt_ids, chosen_ids = scorer.encode(example.messages, example.chosen)
        rows.append(Encoded(example.id, tuple(prompt_ids), tuple(chosen_ids)))
    return [
        abs(trained - served)
        for example, logps in zip(examples, torch_logps(base, peft_folder, rows), strict=True)
        for trained, served in zip(logps, scorer.logps(gguf, example.messages, example.chosen), strict=True)
    ]

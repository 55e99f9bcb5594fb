"""From rows of token ids to the logits of their completions, in one forward pass per batch.

Rows are padded on the right and attention is causal, so no real token sees padding and no attention mask is needed.
Logits are taken only from the first completion's start on: the vocabulary is the widest part of a small model. Shapes:
B rows, T inputs, S positions from ``first`` on, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from familiar.adapters.losses import token_logps

Pair = tuple[Sequence[int], Sequence[int]]
"""A prompt's ids and a completion's."""


@dataclass(frozen=True)
class Batch:
    """``targets_BS`` are the ids to predict from input ``first`` on, ``mask_BS`` marks those of a completion."""

    ids_BT: Tensor
    targets_BS: Tensor
    mask_BS: Tensor
    first: int


def collate(pairs: Sequence[Pair], device: torch.device | str = "cpu") -> Batch:
    """Pad prompts and completions into one batch on ``device``. The last token of a row is only ever a target."""
    rows = [[*prompt, *completion] for prompt, completion in pairs]
    first = min(len(prompt) for prompt, _ in pairs) - 1
    length = max(map(len, rows)) - 1
    ids_BT = torch.zeros(len(rows), length, dtype=torch.long)
    targets_BT = torch.zeros(len(rows), length, dtype=torch.long)
    mask_BT = torch.zeros(len(rows), length, dtype=torch.bool)
    for i, (row, (prompt, _)) in enumerate(zip(rows, pairs, strict=True)):
        ids_BT[i, : len(row) - 1] = torch.tensor(row[:-1])
        targets_BT[i, : len(row) - 1] = torch.tensor(row[1:])
        mask_BT[i, len(prompt) - 1 : len(row) - 1] = True
    return Batch(ids_BT.to(device), targets_BT[:, first:].to(device), mask_BT[:, first:].to(device), first)


def completion_logits(model: nn.Module, batch: Batch) -> Tensor:
    """Return the logits (B, S, V) that predict a batch's targets, in float32 or wider."""
    positions = torch.arange(batch.first, batch.ids_BT.shape[1], device=batch.ids_BT.device)
    logits_BSV: Tensor = model(input_ids=batch.ids_BT, use_cache=False, logits_to_keep=positions).logits
    return logits_BSV.to(torch.promote_types(logits_BSV.dtype, torch.float32))


def completion_logps(model: nn.Module, batch: Batch) -> Tensor:
    """Return the log-probability (B, S) of each target; only those under the mask are a completion's."""
    return token_logps(completion_logits(model, batch), batch.targets_BS)


@torch.no_grad()
def per_token_logps(model: nn.Module, pairs: Sequence[Pair], batch_size: int) -> Iterator[list[float]]:
    """Yield the log-probability of each completion token, a list for each pair in turn."""
    device = next(model.parameters()).device
    for start in range(0, len(pairs), batch_size):
        batch = collate(pairs[start : start + batch_size], device)
        for logps_S, mask_S in zip(completion_logps(model, batch), batch.mask_BS, strict=True):
            yield logps_S[mask_S].tolist()

"""Prompts with their completions as trees, each prompt evaluated once, and a causal model that reads them.

All trees of a batch are packed behind one another into one row, so nothing is padded: linear layers see T tokens, and
attention runs within each tree, where a completion sees its prompt and itself. Layers below ``first_layer`` carry no
adapter: what they compute for a tree is kept and used again in every epoch. Shapes: T packed inputs, N completion
tokens, D hidden size, V vocabulary. What is left out: losses (``losses``), and the choice of layers (``recipe``).
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from familiar.adapters.estimate import KEPT_BYTES
from familiar.adapters.losses import token_logps
from familiar.adapters.rows import Tree

_ATTENTION = "familiar_trees"
_FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""Models whose layers are a residual stream under one rotary embedding; others are read row by row."""


@dataclass(frozen=True)
class Packed:
    """Trees as one row. ``rows_N`` are the inputs whose output predicts each target, completion by completion."""

    ids_T: Tensor
    positions_T: Tensor
    rows_N: Tensor
    targets_N: Tensor
    sizes: tuple[int, ...]
    masks: tuple[Tensor, ...]


def pack(trees: Sequence[Tree], device: torch.device | str = "cpu") -> Packed:
    """Put trees behind one another; each mask (L, L) says which of its tree's inputs an input sees."""
    ids: list[int] = []
    positions: list[int] = []
    rows: list[int] = []
    targets: list[int] = []
    masks = []
    for tree in trees:
        start, prompt = len(ids), len(tree.prompt_ids)
        mask_LL = torch.zeros(tree.inputs, tree.inputs, dtype=torch.bool)
        mask_LL[:prompt, :prompt] = torch.ones(prompt, prompt, dtype=torch.bool).tril()
        ids += tree.prompt_ids
        positions += range(prompt)
        for completion in tree.completions:
            at, length = len(ids) - start, len(completion) - 1
            mask_LL[at : at + length, :prompt] = True
            mask_LL[at : at + length, at : at + length] = torch.ones(length, length, dtype=torch.bool).tril()
            rows += [start + prompt - 1, *range(start + at, start + at + length)]
            targets += completion
            ids += completion[:-1]
            positions += range(prompt, prompt + length)
        masks.append(mask_LL.to(device))
    return Packed(
        torch.tensor(ids, device=device),
        torch.tensor(positions, device=device),
        torch.tensor(rows, device=device),
        torch.tensor(targets, device=device),
        tuple(tree.inputs for tree in trees),
        tuple(masks),
    )


class Kept:
    """What the frozen layers computed for trees, the longest unused dropped first beyond ``most_bytes``."""

    def __init__(self, most_bytes: int = KEPT_BYTES) -> None:
        self._parts: OrderedDict[Tree, Tensor] = OrderedDict()
        self._most_bytes = most_bytes
        self._bytes = 0

    def get(self, tree: Tree) -> Tensor | None:
        """What was computed for a tree, (T, D), if it is still there."""
        if tree not in self._parts:
            return None
        self._parts.move_to_end(tree)
        return self._parts[tree]

    def add(self, tree: Tree, part_TD: Tensor) -> None:
        """Keep what was computed for a tree that is not there."""
        self._parts[tree] = part_TD
        self._bytes += part_TD.nbytes
        while self._bytes > self._most_bytes:
            self._bytes -= self._parts.popitem(last=False)[1].nbytes


class TreeModel:
    """A causal language model, with an adapter on it or without, that gives the logits of trees' completions.

    Below ``first_layer`` it has no adapter, and what was ``kept`` is of this base model and this ``first_layer``.
    ``trunk``, ``upper`` and ``head`` are the parts of ``logits``, where ``reads_trees`` says that there are such.
    """

    def __init__(self, model: PreTrainedModel | PeftModel, first_layer: int = 0, *, kept: Kept | None = None) -> None:
        self._model = model
        self._causal: Any = model.get_base_model() if isinstance(model, PeftModel) else model
        config = self._causal.config
        # Mistral's own window is not looked at: llama.cpp serves these files without one
        slides = "sliding_attention" in (getattr(config, "layer_types", None) or ())
        self.reads_trees = config.model_type in _FAMILIES and not slides
        self._first_layer = first_layer
        self._kept = kept or Kept()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = self._causal.device
        return device

    def logits(self, trees: Sequence[Tree]) -> Tensor:
        """Return the logits (N, V), in float32 or wider, that predict the tokens of every completion in turn."""
        if not self.reads_trees:
            return self._row_by_row(trees)
        packed = pack(trees, self.device)
        return self.head(self.upper(self.trunk(trees, packed), packed)[packed.rows_N])

    def logps(self, trees: Sequence[Tree]) -> Tensor:
        """Return the log-probability (N,) of every completion token in turn."""
        targets_N = torch.tensor([token for tree in trees for ids in tree.completions for token in ids])
        return token_logps(self.logits(trees), targets_N.to(self.device))

    def adapted(self, model: PeftModel) -> "TreeModel":
        """The same with an adapter on it, which shares what the frozen layers computed so far."""
        return TreeModel(model, self._first_layer, kept=self._kept)

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """The base model, for as long as the block lasts."""
        with self._model.disable_adapter() if isinstance(self._model, PeftModel) else nullcontext():
            yield

    def trunk(self, trees: Sequence[Tree], packed: Packed) -> Tensor:
        """Return what the layers below the first with an adapter compute, (T, D); kept between calls."""
        if not self._first_layer:
            embedded_TD: Tensor = self._causal.model.embed_tokens(packed.ids_T)
            return embedded_TD
        found = {tree: part_TD for tree in trees if (part_TD := self._kept.get(tree)) is not None}
        missing = list(dict.fromkeys(tree for tree in trees if tree not in found))
        if missing:
            new = pack(missing, self.device)
            with torch.no_grad():
                hidden_TD = self._layers(self._causal.model.embed_tokens(new.ids_T), new, 0, self._first_layer)
            for tree, part_TD in zip(missing, torch.split(hidden_TD, list(new.sizes)), strict=True):
                found[tree] = part_TD.clone()
                self._kept.add(tree, found[tree])
        return torch.cat([found[tree] for tree in trees])

    def upper(self, hidden_TD: Tensor, packed: Packed) -> Tensor:
        """Return what the other layers compute, (T, D)."""
        return self._layers(hidden_TD, packed, self._first_layer, None)

    def _layers(self, hidden_TD: Tensor, packed: Packed, first: int, end: int | None) -> Tensor:
        inner = self._causal.model
        hidden_1TD, positions_1T = hidden_TD.unsqueeze(0), packed.positions_T.unsqueeze(0)
        rotary = inner.rotary_emb(hidden_1TD, position_ids=positions_1T)
        with _tree_attention(self._causal.config):
            for layer in inner.layers[first:end]:
                hidden_1TD = layer(
                    hidden_1TD,
                    attention_mask=packed.masks,
                    position_embeddings=rotary,
                    position_ids=positions_1T,
                    use_cache=False,
                )
        return hidden_1TD.squeeze(0)

    def head(self, hidden_ND: Tensor) -> Tensor:
        """Return the logits (N, V), in float32 or wider."""
        logits_NV: Tensor = self._causal.lm_head(self._causal.model.norm(hidden_ND))
        return logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))

    def _row_by_row(self, trees: Sequence[Tree]) -> Tensor:
        """The same by the model's own forward, where its layers cannot be called one by one."""
        parts = []
        for tree in trees:
            for ids in tree.completions:
                row_1T = torch.tensor([[*tree.prompt_ids, *ids[:-1]]], device=self.device)
                logits_SV: Tensor = self._causal(input_ids=row_1T, use_cache=False, logits_to_keep=len(ids)).logits[0]
                parts.append(logits_SV.to(torch.promote_types(logits_SV.dtype, torch.float32)))
        return torch.cat(parts)


def passes(trees: Sequence[Tree], most_inputs: int) -> Iterator[slice]:
    """Yield slices of trees, in turn, of at most ``most_inputs`` inputs together; a longer tree goes alone."""
    start = total = 0
    for end, tree in enumerate(trees):
        if total and total + tree.inputs > most_inputs:
            yield slice(start, end)
            start, total = end, 0
        total += tree.inputs
    if trees:
        yield slice(start, len(trees))


@torch.no_grad()
def completion_logps(model: TreeModel, trees: Sequence[Tree], most_inputs: int) -> Iterator[list[float]]:
    """Yield the log-probability of each token of each completion of each tree, a list for each completion."""
    for part in passes(trees, most_inputs):
        logps_N = model.logps(trees[part])
        sizes = [len(ids) for tree in trees[part] for ids in tree.completions]
        yield from (piece.tolist() for piece in torch.split(logps_N, sizes))


@contextmanager
def _tree_attention(config: Any) -> Iterator[None]:
    """For as long as the block lasts, the layers of a model with this configuration attend within trees."""
    before = config._attn_implementation
    config._attn_implementation = _ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = before


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    masks: Sequence[Tensor],
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention within each tree; query (1, heads, T, width), the answer (1, T, heads, width)."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    sizes = [len(mask) for mask in masks]
    parts = zip(*(torch.split(each, sizes, 2) for each in (query, key, value)), masks, strict=True)
    seen = [F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling) for q, k, v, mask in parts]
    return torch.cat(seen, 2).transpose(1, 2), None


AttentionInterface.register(_ATTENTION, _attend)

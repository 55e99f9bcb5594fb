"""Familiar's reader of trees with one of its techniques off at a time, each giving the same figures as with all on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from familiar.adapters.objective import Figures, Imitation, add_references
from familiar.adapters.protocols import silent
from familiar.adapters.rows import Encoded, Tree
from familiar.adapters.session import Session
from familiar.adapters.trees import Kept, Packed, TreeModel, pack

if TYPE_CHECKING:
    from learning_ours import Techniques
    from peft import PeftModel


class Switched(TreeModel):
    """A ``TreeModel`` with these techniques."""

    def __init__(self, model: "PeftModel", first_layer: int, techniques: "Techniques") -> None:
        super().__init__(model, first_layer, kept=Kept() if techniques.frozen_layers_kept else Kept(0))
        self._techniques = techniques

    def logits(self, trees: Sequence[Tree]) -> Tensor:
        """As ``TreeModel`` has it; raises ValueError for a model whose layers cannot be called one by one."""
        if not self.reads_trees:
            raise ValueError("The techniques can be told apart only on a model of the Llama or Qwen families.")
        if not self._techniques.prompt_once:
            trees = [Tree(tree.prompt_ids, (ids,)) for tree in trees for ids in tree.completions]
        packed = pack(trees, self.device)
        hidden_TD = self.trunk(trees, packed)
        if not self._techniques.no_padding:
            packed, hidden_TD = padded(packed, hidden_TD)
        hidden_TD = self.upper(hidden_TD, packed)
        if self._techniques.logits_where_needed:
            return self.head(hidden_TD[packed.rows_N])
        return self.head(hidden_TD)[packed.rows_N]


def padded(packed: Packed, hidden_TD: Tensor) -> tuple[Packed, Tensor]:
    """Make every tree as long as the longest, with inputs of zeros that see only themselves and that none sees."""
    most = max(packed.sizes)
    places = [number * most + at for number, size in enumerate(packed.sizes) for at in range(size)]
    places_T = torch.tensor(places, device=hidden_TD.device)
    total = most * len(packed.sizes)
    masks = []
    for mask_LL in packed.masks:
        mask_MM = torch.eye(most, dtype=torch.bool, device=mask_LL.device)
        mask_MM[: len(mask_LL), : len(mask_LL)] = mask_LL
        masks.append(mask_MM)
    wide = replace(
        packed,
        ids_T=packed.ids_T.new_zeros(total).index_copy(0, places_T, packed.ids_T),
        positions_T=packed.positions_T.new_zeros(total).index_copy(0, places_T, packed.positions_T),
        rows_N=places_T[packed.rows_N],
        sizes=(most,) * len(packed.sizes),
        masks=tuple(masks),
    )
    return wide, hidden_TD.new_zeros(total, hidden_TD.shape[1]).index_copy(0, places_T, hidden_TD)


@dataclass(frozen=True)
class EveryStep:
    """DPO whose reference log-probabilities are computed anew in every step, with the adapter off."""

    running: Session

    def loss(self, logits_NV: Tensor, rows: Sequence[Encoded], step: Sequence[Encoded]) -> tuple[Tensor, Figures]:
        """As ``Imitation`` has it."""
        references: dict[str, float] = {}
        with self.running.trees.without_adapter():
            add_references(self.running.trees, rows, references, self.running.recipe, silent)
        return Imitation(self.running.recipe, references).loss(logits_NV, rows, step)

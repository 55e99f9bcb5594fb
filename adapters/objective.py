"""What a step minimises: losses applied to rows, of which each kind has its objective.

Everything is a mean over a whole step, however it is cut into passes: each part is divided by the step's totals, so
that the parts' gradients add up to the step's. What is left out: the optimiser and the order of rows (``train``), and
where on-policy rows come from (``stages``).
"""

import math
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from familiar.adapters.distillation import Direction, distillation_loss
from familiar.adapters.losses import dpo_loss, kto_kl, kto_loss, sft_loss, token_kl, token_logps
from familiar.adapters.protocols import Progress, ProgressCallback
from familiar.adapters.recipe import Recipe
from familiar.adapters.rows import Distilled, Encoded, Rated, Tree, kept_places, reference_keys
from familiar.adapters.trees import TreeModel, completion_logps, passes

MAY_END = 0.05
"""From this probability of ending the reply on, a place in an anchor's reply is left free.

How a reply ends is manner, which is what users correct most; held in place there, an adapter unlearns a sign-off on
every prompt but those that it was trained on.
"""

Figures = dict[str, float]


class Row(Protocol):
    """Anything that is trained on: what the model reads of it."""

    @property
    def tree(self) -> Tree:
        """The prompt with its completions."""
        ...


R = TypeVar("R", bound=Row, contravariant=True)


class Objective(Protocol[R]):
    """A loss of rows of one kind."""

    def loss(self, logits_NV: Tensor, rows: Sequence[R], step: Sequence[R]) -> tuple[Tensor, Figures]:
        """Return what ``rows``, a part of ``step``, add to the step's loss, and to its figures.

        ``logits_NV`` predict the tokens of every completion of every row in turn.
        """
        ...


def accumulate(model: TreeModel, objective: Objective[R], rows: Sequence[R], recipe: Recipe) -> Figures:
    """Add the gradient of the objective's mean over ``rows``, ``pass_tokens`` inputs at a time; return the figures."""
    figures: Figures = {"loss": 0.0}
    trees = [row.tree for row in rows]
    for part in passes(trees, recipe.pass_tokens):
        loss, more = objective.loss(model.logits(trees[part]), rows[part], rows)
        loss.backward()  # type: ignore[no-untyped-call]
        for name, value in {"loss": loss.item(), **more}.items():
            figures[name] = figures.get(name, 0.0) + value
    return figures


@dataclass(frozen=True)
class Imitation:
    """SFT on every chosen reply and DPO on every pair (RPO: Pang et al. 2024, eq. 1; the likelihood is averaged over
    a step's tokens here, not per row). ``references`` are the base model's log-probabilities by ``logps_key``.

    Words that the user kept are the model's own already: learnt again they would only be learnt by heart, at the cost
    of what else it knows. So they count for ``unchanged_weight`` in the likelihood, or for how unlikely they are after
    what was changed, if that is more (the focal loss: Lin et al. 2017, eq. 4, gamma 1): the first word behind a new
    greeting is one that the model would not have said there. The divisor is the sum of the step's least
    weights: kept words that are unlikely add to the loss, and take no weight from the others."""

    recipe: Recipe
    references: Mapping[str, float]

    def loss(self, logits_NV: Tensor, rows: Sequence[Encoded], step: Sequence[Encoded]) -> tuple[Tensor, Figures]:
        """Return the loss of these rows, with their DPO margin and accuracy."""
        recipe = self.recipe
        total_weight = math.fsum(weight for row in step for weight in self._weights(row))
        total_pairs = sum(row.rejected_ids is not None for row in step)
        sequences = _token_logps(logits_NV, rows)
        chosen, rejected = [], []
        nll = logits_NV.new_zeros(())
        for row in rows:
            own = next(sequences)
            weights_T = torch.maximum(own.new_tensor(self._weights(row)), 1.0 - own.detach().exp())
            nll = nll + sft_loss(own * weights_T, total_weight)
            if row.rejected_ids:
                chosen.append(own)
                rejected.append(next(sequences))
        figures = {"nll": nll.item()}
        loss = recipe.nll_weight * nll
        if chosen:
            loss_B, margin_B = preferences(chosen, rejected, [r for r in rows if r.rejected_ids], self)
            dpo = loss_B.sum() / total_pairs
            loss = loss + recipe.dpo_weight * dpo
            figures |= {
                "dpo": dpo.item(),
                "margin": margin_B.sum().item() / total_pairs,
                "accuracy": (margin_B > 0).sum().item() / total_pairs,
            }
        return loss, figures

    def _weights(self, row: Encoded) -> list[float]:
        """What each chosen token counts at least: less where the user left the model's own words as they were."""
        return [1.0 if changed else self.recipe.unchanged_weight for changed in row.changed]


def preferences(
    chosen: Sequence[Tensor], rejected: Sequence[Tensor], rows: Sequence[Encoded], objective: Imitation
) -> tuple[Tensor, Tensor]:
    """Apply DPO to the token log-probabilities of rows that all have a rejected reply; the loss and margin, (B,)."""
    recipe = objective.recipe
    chosen_B, rejected_B = (torch.stack([logps.sum() for logps in part]) for part in (chosen, rejected))
    values = [objective.references[key] for key in reference_keys(rows)]
    reference_B2 = torch.tensor(values, dtype=chosen_B.dtype, device=chosen_B.device).view(-1, 2)
    loss_B, margin_B = dpo_loss(
        chosen_B,
        rejected_B,
        reference_B2[:, 0],
        reference_B2[:, 1],
        beta=recipe.beta,
        label_smoothing=recipe.label_smoothing,
        length_normalised=recipe.length_normalised,
        chosen_tokens_B=chosen_B.new_tensor([len(logps) for logps in chosen]),
        rejected_tokens_B=chosen_B.new_tensor([len(logps) for logps in rejected]),
    )
    return loss_B, margin_B


@dataclass(frozen=True)
class Ratings:
    """KTO on rated replies (Ethayarajh et al. 2024, eq. 7); ``baseline`` is its reference point, see ``kto_baseline``.

    Good and bad ratings weigh alike in a step, however many there are of each (the paper's section 4.2 asks for a ratio
    of 1 to 4/3)."""

    recipe: Recipe
    references: Mapping[str, float]
    baseline: float

    def loss(self, logits_NV: Tensor, rows: Sequence[Rated], step: Sequence[Rated]) -> tuple[Tensor, Figures]:
        """Return the loss of these rows."""
        logps_B = torch.stack([logps.sum() for logps in _token_logps(logits_NV, rows)])
        values = [self.references[key] for key in reference_keys(rows)]
        loss_B = kto_loss(
            logps_B,
            torch.tensor(values, dtype=logps_B.dtype, device=logps_B.device),
            torch.tensor([row.desirable for row in rows], device=logps_B.device),
            logps_B.new_tensor(self.baseline),
            beta=self.recipe.beta,
        ).loss_B
        good = sum(row.desirable for row in step)
        counts = [good if row.desirable else len(step) - good for row in rows]
        share_B = 1.0 / torch.tensor(counts, dtype=logps_B.dtype, device=logps_B.device)
        loss = self.recipe.kto_weight * (loss_B * share_B).sum()
        return loss, {"kto": loss.item()}


class Divergence:
    """From the teacher's replies the student learns all that the teacher might say (forward KL); in its own it drops
    what the teacher would not say (reverse KL)."""

    def loss(self, logits_NV: Tensor, rows: Sequence[Distilled], step: Sequence[Distilled]) -> tuple[Tensor, Figures]:
        """Return the mean divergence per token of the step that these rows add."""
        total = sum(row.size for row in step)
        loss = logits_NV.new_zeros(())
        for row, logits_TV in zip(rows, torch.split(logits_NV, [len(row.reply_ids) for row in rows]), strict=True):
            teacher = (
                torch.from_numpy(row.teacher_ids_TK).to(logits_TV.device),
                torch.from_numpy(row.teacher_logps_TK).to(logits_TV),
            )
            direction: Direction = "reverse" if row.sampled_by_student else "forward"
            loss = loss + distillation_loss(logits_TV, teacher, direction=direction).sum() / total
        return loss, {"divergence": loss.item()}


@torch.no_grad()
def kto_baseline(model: TreeModel, rows: Sequence[Rated], recipe: Recipe) -> float:
    """Return KTO's reference point, ``losses.kto_kl`` of the rows' replies at one another's prompts, in nats."""
    if len(rows) < 2:
        return 0.0
    others = [*rows[1:], rows[0]]
    trees = [Tree(row.prompt_ids, (other.reply_ids,)) for row, other in zip(rows, others, strict=True)]
    now_B = torch.tensor([math.fsum(logps) for logps in completion_logps(model, trees, recipe.pass_tokens)])
    with model.without_adapter():
        base_B = torch.tensor([math.fsum(logps) for logps in completion_logps(model, trees, recipe.pass_tokens)])
    return kto_kl(now_B, base_B).item()


def add_references(
    model: TreeModel,
    rows: Sequence[Encoded | Rated],
    cache: MutableMapping[str, float],
    recipe: Recipe,
    progress: ProgressCallback,
) -> None:
    """Add the base model's log-probability of every reply that needs one to ``cache``, where it is not there yet."""
    needed = [row.tree for row in rows if isinstance(row, Rated) or row.rejected_ids]
    keys = iter(reference_keys(rows))
    missing = {}
    for tree in needed:
        names = [next(keys) for _ in tree.completions]
        if any(name not in cache for name in names):
            missing[tree] = names
    names = [name for names in missing.values() for name in names]
    logps = completion_logps(model, list(missing), recipe.pass_tokens)
    for done, (name, values) in enumerate(zip(names, logps, strict=True), start=1):
        cache[name] = math.fsum(values)
        progress(Progress("reference", done, len(names)))


@dataclass(frozen=True)
class Anchor:
    """A neutral row, the places (S,) of its reply that are held, and the base's log-probabilities (N, V) there."""

    tree: Tree
    held_S: Tensor
    base_logps_NV: Tensor


@torch.no_grad()
def anchored(base: TreeModel, rows: Sequence[Encoded]) -> list[Anchor]:
    """Return the rows with what the base model, which must have no adapter on it, predicts along its replies.

    Where a row has a rejected reply, that is the base model's, and the chosen one is the same in the user's manner: the
    words that both have are held, to what the base model predicts for them in its own manner.
    """
    kept = []
    for row in rows:
        said = row.rejected_ids or row.chosen_ids
        logps_SV = base.logits([Tree(row.prompt_ids, (said,))]).log_softmax(-1)
        is_free = (logps_SV[:, said[-1]] >= math.log(MAY_END)).tolist()
        places = [(old, new) for old, new in zip(*kept_places(said, row.chosen_ids), strict=True) if not is_free[old]]
        if places:
            held_S = torch.zeros(len(row.chosen_ids), dtype=torch.bool, device=logps_SV.device)
            held_S[[new for _, new in places]] = True
            tree = Tree(row.prompt_ids, (row.chosen_ids,))
            kept.append(Anchor(tree, held_S, logps_SV[[old for old, _ in places]]))
    return kept


def anchor_kl(model: TreeModel, anchors: Sequence[Anchor]) -> Tensor:
    """Return the mean KL(base || adapter) over the held places of the anchors' replies, in nats."""
    logits_NV = model.logits([anchor.tree for anchor in anchors])
    held_N = torch.cat([anchor.held_S for anchor in anchors])
    return token_kl(torch.cat([anchor.base_logps_NV for anchor in anchors]), logits_NV[held_N]).mean()


def _token_logps(logits_NV: Tensor, rows: Sequence[Row]) -> Iterator[Tensor]:
    """The log-probabilities of each completion of each row in turn."""
    completions = [ids for row in rows for ids in row.tree.completions]
    targets_N = torch.tensor([token for ids in completions for token in ids], device=logits_NV.device)
    return iter(torch.split(token_logps(logits_NV, targets_N), [len(ids) for ids in completions]))

"""What a round of training came to, on rows that it did not train on."""

import math
from collections.abc import Sequence

import torch

from familiar.adapters.checkpoints import Epoch
from familiar.adapters.objective import anchor_kl, preferences
from familiar.adapters.rows import Encoded
from familiar.adapters.session import Session
from familiar.adapters.trees import completion_logps, passes
from familiar.memory.errors import LearningFailed

MEASURED_ANCHORS = 32
"""The anchors that a round's distance from the base model is measured on, at most."""


@torch.no_grad()
def measure(
    session: Session, held_out: Sequence[Encoded], *, number: int, stage: str, loss: float, reward: float | None
) -> Epoch:
    """Return a round's figures; ``reward`` is what graders give on held-out prompts.

    Raises LearningFailed for a score of NaN.
    """
    recipe = session.recipe
    found = completion_logps(session.trees, [row.tree for row in held_out], recipe.pass_tokens)
    means, chosen, rejected = [], [], []
    for row in held_out:
        logps = next(found)
        means.append(math.fsum(logps) / len(logps))
        if row.rejected_ids:
            chosen.append(torch.tensor(logps))
            rejected.append(torch.tensor(next(found)))
    score = math.fsum(means) / len(means) + (reward or 0.0)
    if not math.isfinite(score):
        raise LearningFailed(f"The held-out score of epoch {number} was not a number: lower learn.learning_rate.")
    margin = accuracy = None
    if chosen:
        pairs = [row for row in held_out if row.rejected_ids]
        margin_B = preferences(chosen, rejected, pairs, session.imitation)[1]
        margin, accuracy = margin_B.mean().item(), (margin_B > 0).float().mean().item()
    return Epoch(number, stage, score, margin, accuracy, _kl(session), reward, loss)


def _kl(session: Session) -> float | None:
    """KL(base || adapter) per held token of some of the anchors, always the same ones; None without anchors."""
    anchors = session.anchors[:: math.ceil(len(session.anchors) / MEASURED_ANCHORS)] if session.anchors else ()
    total = 0.0
    for part in passes([anchor.tree for anchor in anchors], session.recipe.pass_tokens):
        held = sum(int(anchor.held_S.sum()) for anchor in anchors[part])
        total += anchor_kl(session.trees, anchors[part]).item() * held
    return total / sum(int(anchor.held_S.sum()) for anchor in anchors) if anchors else None

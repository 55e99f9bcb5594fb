"""What a round of training came to, on rows that it did not train on."""

import math
from collections.abc import Sequence

import torch

from familiar.adapters.checkpoints import Epoch
from familiar.adapters.objective import anchor_kl, preferences
from familiar.adapters.rows import Encoded
from familiar.adapters.session import Session
from familiar.adapters.trees import completion_logps
from familiar.memory.errors import LearningFailed


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
    kl = None
    if session.anchors:
        kls = [anchor_kl(session.trees, [anchor]) * anchor.held_S.sum() for anchor in session.anchors]
        held = sum(int(anchor.held_S.sum()) for anchor in session.anchors)
        kl = math.fsum(each.item() for each in kls) / held
    return Epoch(number, stage, score, margin, accuracy, kl, reward, loss)

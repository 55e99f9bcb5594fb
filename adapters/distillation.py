"""Learning from a teacher's whole next-token distribution: the divergences, as pure functions.

In self-distillation the teacher is the same model with the user's memories in its prompt, and the student is the
adapter without them: what a prompt brings about goes into the weights (context distillation: Askell et al. 2021,
section 2.3). The tokens are the student's own ("on-policy": Agarwal et al. 2024), so it is taught in the situations
that it gets itself into; the sampling carries no gradient. Shapes: N completion tokens, V vocabulary, K of the
teacher's likeliest tokens. What is left out: sampling, and asking the teacher.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from familiar.adapters.losses import kl
from familiar.memory.errors import InvalidInput

Direction = Literal["reverse", "forward", "jsd"]

_LEAST_REST = 1e-7
"""The least probability of the teacher's tokens outside its top K: below this, it is float32's rounding."""


def distillation_loss(
    student_logits_NV: Tensor,
    teacher: Tensor | tuple[Tensor, Tensor],
    *,
    direction: Direction = "reverse",
    temperature: float = 1.0,
    teacher_share: float = 0.5,
) -> Tensor:
    """Return the divergence (N,) between student and teacher at each token, in nats; only the student gets gradients.

    ``teacher`` is its log-probabilities (N, V), or the ids and the log-probabilities (both (N, K)) of its likeliest
    tokens: all others are then one outcome, for either side, so the student still has to put the right mass on the
    ones it was told about. Merging outcomes can only lower a divergence, and with K = V it is the same.

    - "reverse", KL(student || teacher): the student drops what the teacher would not say, and may leave out some of
      what it would (Gu et al. 2024, "MiniLLM", eq. 1). It is the one that on-policy samples estimate.
    - "forward", KL(teacher || student): the student learns to say all that the teacher would.
    - "jsd", between the two: the generalised Jensen-Shannon divergence (Agarwal et al. 2024, "GKD", eq. 1), of which
      the mixture holds ``teacher_share`` of the teacher. It is bounded, so no single token dominates a step.

    ``temperature`` divides both sides' logits: above 1, unlikely tokens count for more. It needs the full vocabulary,
    as the rest of a top K has no known distribution. Raises InvalidInput for one with a top K.
    """
    student_logps_NV = (student_logits_NV / temperature).log_softmax(-1)
    if isinstance(teacher, Tensor):
        student, target = student_logps_NV, (teacher.detach() / temperature).log_softmax(-1)
    elif temperature == 1.0:
        student, target = _top_and_rest(student_logps_NV, teacher[0].long(), teacher[1].detach())
    else:
        raise InvalidInput(
            f"A temperature of {temperature:g} needs the teacher's full vocabulary but has its top "
            f"{teacher[0].shape[-1]}: leave it at 1, or give all log-probabilities.",
            "temperature",
        )
    if direction == "reverse":
        return kl(student, target)
    if direction == "forward":
        return kl(target, student)
    mixture = torch.logaddexp(student + math.log1p(-teacher_share), target + math.log(teacher_share))
    return teacher_share * kl(target, mixture) + (1 - teacher_share) * kl(student, mixture)


def _top_and_rest(student_logps_NV: Tensor, ids_NK: Tensor, teacher_logps_NK: Tensor) -> tuple[Tensor, Tensor]:
    """Return both sides' log-probabilities over the teacher's top K and, unless that is everything, all the rest."""
    student_logps_NK = student_logps_NV.gather(-1, ids_NK)
    if ids_NK.shape[-1] == student_logps_NV.shape[-1]:
        return student_logps_NK, teacher_logps_NK
    # summed from the rest itself: 1 - the top's sum would lose all its digits, and its gradient, where the top is all
    student_rest_N1 = student_logps_NV.scatter(-1, ids_NK, -math.inf).logsumexp(-1, keepdim=True)
    teacher_rest_N1 = (1 - teacher_logps_NK.exp().sum(-1, keepdim=True)).clamp(min=_LEAST_REST).log()
    return torch.cat([student_logps_NK, student_rest_N1], -1), torch.cat([teacher_logps_NK, teacher_rest_N1], -1)

"""Drawing the next token of many sequences at once, with the log-probability of what was drawn: pure numpy functions.

One pass over the logits gives both the token and its log-probability, where llama.cpp's sampler chains would compute
the same exponentials for each sequence again and keep them to themselves. What is left out: truncation,
penalties, bias and grammars, which ``sampling`` has; a policy is sampled as it is.
"""

import numpy as np
from numpy.typing import NDArray

from familiar.adapters.protocols import TopLogps

_BLOCK = 256
"""Tokens whose weights are summed in one go: float32 is precise enough for so many."""


def draw(
    logits_BV: NDArray[np.float32], uniforms_B: NDArray[np.float32], temperature: float
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return one token per row and the natural log of its probability under the distribution that it was drawn from.

    That is softmax(logits / temperature). ``uniforms_B`` in [0, 1) say where in the cumulative distribution to draw, so
    a row's token depends on its own logits and number only. Temperature 0 takes the likeliest, with log-probability 0.
    """
    if temperature == 0:
        return logits_BV.argmax(axis=1), np.zeros(len(logits_BV))
    rows = np.arange(len(logits_BV))
    shifted_BV = logits_BV - logits_BV.max(axis=1, keepdims=True)
    if temperature != 1:
        shifted_BV /= temperature
    picked_B, total_B = _pick(np.exp(shifted_BV), uniforms_B)
    return picked_B, shifted_BV[rows, picked_B] - np.log(total_B)


def _pick(
    weights_BV: NDArray[np.float32], uniforms_B: NDArray[np.float32]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return where the cumulative sum of each row first exceeds that share of its total, and the totals.

    The sum is taken block by block, then token by token inside the one block: a cumulative sum over a whole vocabulary
    takes longer than everything else here together.
    """
    starts_N = np.arange(0, weights_BV.shape[1], _BLOCK)
    ends_BN = np.cumsum(np.add.reduceat(weights_BV, starts_N, axis=1), axis=1, dtype=np.float64)
    total_B = ends_BN[:, -1]
    target_B = uniforms_B * total_B
    block_B = (ends_BN > target_B[:, None]).argmax(axis=1)
    picked_B = np.empty(len(block_B), np.intp)
    for row, (block, target) in enumerate(zip(block_B.tolist(), target_B.tolist(), strict=True)):
        start = block * _BLOCK
        sums = np.cumsum(weights_BV[row, start : start + _BLOCK], dtype=np.float64)
        left = target - (ends_BN[row, block - 1] if block else 0.0)
        # the two sums differ by rounding: never past the last weight that counts. A weight of 0 adds nothing to the sum
        # before it, so it is never the first that exceeds anything.
        picked_B[row] = start + np.searchsorted(sums, min(left, np.nextafter(sums[-1], 0)), side="right")
    return picked_B, total_B


def log_softmax(logits_TV: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the log-probabilities; the sum over the vocabulary is taken in float64."""
    shifted = logits_TV - logits_TV.max(axis=-1, keepdims=True)
    total = np.exp(shifted).sum(axis=-1, keepdims=True, dtype=np.float64)
    log_probs: NDArray[np.float32] = (shifted - np.log(total)).astype(np.float32)
    return log_probs


def top(log_probs_TV: NDArray[np.float32], picked_T: NDArray[np.int32], k: int) -> TopLogps:
    """Return the ``k`` largest log-probabilities of each row, largest first, and those of ``picked_T``."""
    rows_T1 = np.arange(len(log_probs_TV))[:, None]
    start = log_probs_TV.shape[1] - k
    best_TK = np.argpartition(log_probs_TV, start, axis=1)[:, start:]
    best_TK = best_TK[rows_T1, np.argsort(-log_probs_TV[rows_T1, best_TK], axis=1, kind="stable")]
    return TopLogps(best_TK.astype(np.int32), log_probs_TV[rows_T1, best_TK], log_probs_TV[rows_T1[:, 0], picked_T])

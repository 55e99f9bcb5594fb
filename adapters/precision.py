"""Where and in which numbers a run trains: on a graphics processor if there is one, and in bfloat16 where it is faster.

bfloat16 halves the weights' memory and has 8 bits of mantissa; only the frozen weights and what flows through them are
in it, while the adapter, its optimiser, log-probabilities and losses stay in float32. Whether it is faster is measured,
since processors without instructions for it emulate it; whether it is close enough is too (``parity.gaps``).
"""

import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

MIN_SPEEDUP = 1.3
"""How much faster bfloat16 must multiply to be worth its rounding."""
MIN_WIDTH = 512
"""The hidden size from which it pays: in smaller models what lies between the matrices takes the longer."""
MAX_MEAN_GAP = 0.03
"""By how much, in nats per token, log-probabilities in bfloat16 may differ from the served model's on average."""

_TOKENS = 256
_TRIALS = 7


def device() -> str:
    """The device to train on, by torch's name."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def faster(width: int, inner: int, *, on: str = "cpu", timer: Callable[[], float] = time.perf_counter) -> str:
    """Return the torch type, bfloat16 or float32, for a model of this hidden size and this feed-forward size.

    Both multiply a batch by a layer's matrix in turn; the best of several trials counts, since other work only slows.
    """
    if on == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    if width < MIN_WIDTH:
        return "float32"
    best: dict[torch.dtype, float] = {}
    for _ in range(_TRIALS):
        for dtype in (torch.float32, torch.bfloat16):
            hidden, weight = torch.ones(_TOKENS, width, dtype=dtype), torch.ones(inner, width, dtype=dtype)
            started = timer()
            F.linear(hidden, weight)
            best[dtype] = min(best.get(dtype, float("inf")), timer() - started)
    return "bfloat16" if best[torch.float32] > MIN_SPEEDUP * best[torch.bfloat16] else "float32"

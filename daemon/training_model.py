"""The model that is trained, in torch: where and in which numbers, checked against what is served."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from familiar.adapters.gguf_file import read_header
from familiar.adapters.protocols import Scorer
from familiar.feedback.pairs import Example

CHECKED_ROWS = 3


def load(path: Path, threads: int, scorer: Scorer | None = None, examples: Sequence[Example] = ()) -> Any:
    """Load the model, and have torch use so many threads (0: as it likes).

    It is in bfloat16 where that is faster and its log-probabilities of the examples' replies are, on average, those of
    ``scorer``, the served model; without one it is in float32. Raises as ``base_model.load`` does.
    """
    import torch

    from familiar.adapters import base_model, parity, precision

    if threads:
        torch.set_num_threads(threads)
    device = precision.device()
    if scorer is None or not examples:
        return base_model.load(path, device=device)
    header = read_header(path)
    width = int(header.number(f"{header.architecture}.embedding_length"))
    inner = int(header.number(f"{header.architecture}.feed_forward_length", 4 * width))
    dtype = precision.faster(width, inner, on=device)
    model = base_model.load(path, dtype=dtype, device=device)
    if dtype != "float32":
        gaps = parity.gaps(scorer, None, model, None, examples[:CHECKED_ROWS])
        if fmean(gaps) > precision.MAX_MEAN_GAP:
            del model  # before the other is loaded beside it
            return base_model.load(path, device=device)
    return model

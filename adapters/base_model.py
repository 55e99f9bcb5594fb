"""The served GGUF file as a torch model, so that an adapter is trained on the very weights it is served on.

transformers dequantises the file (design, decision 1). What is left out: its tokenizer and chat template; prompts are
tokenised by llama.cpp, for training too (``protocols.Scorer.encode``).
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from familiar.adapters.extras import require_learn
from familiar.adapters.gguf_file import read_header
from familiar.memory.errors import BadFile

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load(gguf: Path, *, dtype: str = "float32", device: str = "cpu") -> "PreTrainedModel":
    """Return the model in a GGUF file as a torch module, in eval mode and with no gradients.

    ``dtype`` and ``device`` are torch's names; the memory taken is that of the dequantised weights (2.4 GB for 0.6 B
    parameters in float32). Raises BadFile when the file is unreadable or of an architecture that transformers cannot
    load, MissingExtra without ``familiar-llm[learn]``.
    """
    require_learn()
    architecture = read_header(gguf).architecture
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with _quiet():
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                str(gguf.parent), gguf_file=gguf.name, dtype=getattr(torch, dtype), local_files_only=True
            )
    except (ValueError, KeyError, NotImplementedError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadFile(f"{gguf} ({architecture}) cannot be loaded for learning: {reason}") from error
    model.name_or_path = gguf.stem
    model.eval()
    model.requires_grad_(False)
    moved: PreTrainedModel = model.to(device)
    return moved


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what transformers says while loading off the terminal, progress bars included; errors are raised still."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)

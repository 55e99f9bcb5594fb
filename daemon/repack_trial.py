"""Whether llama.cpp survives quantised weights that are laid out anew for AMX: tried once, in a child process.

llama.cpp compiled by GCC before 11.5, 12.4 or 13.3 does not: the compiler drops most of the tile configuration, as it
sees nobody read it, and the first prompt ends the process (GCC bug 114098, llama.cpp issue 20824). Compiled by another
one it does, and is up to twice as fast for it. What is found is kept in the user's cache folder, for each library.

As a program, ``python -m familiar.daemon.repack_trial MODEL`` is that child.
"""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import platformdirs
from llama_cpp import llama_cpp as c

from familiar.daemon import json_file

_TIMEOUT_S = 300
_BATCHES = (2, 33)
"""Tokens of the batches that are tried: AMX takes over from two on, in tiles of up to 16."""


def survives(model: Path, verdicts: Path | None = None) -> bool:
    """Say whether this llama.cpp evaluates a prompt of ``model`` with its weights laid out anew.

    ``verdicts`` is the file of what was found before; None is the one in the user's cache folder.
    """
    verdicts = verdicts or platformdirs.user_cache_path("familiar") / "repacking.json"
    this = library()
    known = _read(verdicts)
    if this not in known:
        known[this] = _try(model)
        # A verdict that cannot be kept costs a second at the next start, and nothing else.
        with contextlib.suppress(OSError):
            verdicts.parent.mkdir(parents=True, exist_ok=True)
            json_file.write(verdicts, known)
    return known[this]


def library() -> str:
    """Return what tells this llama.cpp from another build of it."""
    path = Path(c._lib._name)
    stat = path.stat()
    return f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"


def _try(model: Path) -> bool:
    command = [sys.executable, "-m", "familiar.daemon.repack_trial", str(model)]
    try:
        return subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _read(verdicts: Path) -> dict[str, bool]:
    found = json_file.read(verdicts)
    return {str(name): value is True for name, value in found.items()} if isinstance(found, dict) else {}


def _evaluate(model: str) -> bool:
    """Evaluate a few tokens with the weights laid out anew; return whether they gave numbers."""
    c.llama_backend_init()
    model_params = c.llama_model_default_params()
    model_params.use_extra_bufts = True
    loaded = c.llama_model_load_from_file(os.fsencode(model), model_params)
    if not loaded:
        return False
    params = c.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = 64
    params.flash_attn_type = c.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = c.llama_init_from_model(loaded, params)
    size = int(c.llama_vocab_n_tokens(c.llama_model_get_vocab(loaded)))
    for count in _BATCHES:
        tokens = (c.llama_token * count)(*(index % size for index in range(count)))
        if not context or c.llama_decode(context, c.llama_batch_get_one(tokens, count)):
            return False
        if not np.isfinite(np.ctypeslib.as_array(c.llama_get_logits_ith(context, -1), shape=(size,))).all():
            return False
    return True


if __name__ == "__main__":
    sys.exit(0 if _evaluate(sys.argv[1]) else 1)

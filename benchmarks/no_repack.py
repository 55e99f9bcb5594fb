"""Run llama-cpp-python's own server with its weights laid out as they are in the file.

``python benchmarks/no_repack.py --model …`` takes the options of ``python -m llama_cpp.server``, which has none for
this. It is for builds whose AMX code ends the process on quantised models; see ``servers.py``.
"""

import runpy
from typing import Any

from llama_cpp import llama_cpp as c

_defaults = c.llama_model_default_params


def _without_repacking() -> Any:
    params = _defaults()
    params.use_extra_bufts = False
    return params


if __name__ == "__main__":
    c.llama_model_default_params = _without_repacking
    runpy.run_module("llama_cpp.server", run_name="__main__")

"""The optional part of the installation that learning needs, checked before it is imported.

Modules of this package that import torch at their top are for the learner process alone, which calls ``require_learn``
before it imports them.
"""

from importlib.util import find_spec

from familiar.memory.errors import MissingExtra

_PACKAGES = ("torch", "transformers", "peft", "gguf", "safetensors")


def require_learn() -> None:
    """Raise MissingExtra, naming what is missing, unless everything that learning imports is installed."""
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise MissingExtra(
            f"Learning needs {', '.join(missing)}, which this installation does not have: "
            "run `pip install 'familiar-llm[learn]'`."
        )

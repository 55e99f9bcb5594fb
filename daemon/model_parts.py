"""A model that is split over several GGUF files: ``NAME-00001-of-00003.gguf`` and its siblings.

llama.cpp loads them all when it is given the first (``llama_split_path`` in ``llama.h``). A model in one file is its
own only part.
"""

import re
from pathlib import Path

from familiar.memory.errors import BadFile

_PART = re.compile(r"-(\d{5})-of-(\d{5})(?=\.gguf$)", re.IGNORECASE)


def part_names(name: str) -> list[str]:
    """Return the names of all the files that a model is made of, in order, given any of them."""
    found = _PART.search(name)
    if found is None:
        return [name]
    before, after = name[: found.start()], name[found.end() :]
    return [f"{before}-{number:05}-of-{found[2]}{after}" for number in range(1, int(found[2]) + 1)]


def model_parts(path: Path) -> list[Path]:
    """Return the files that a model is made of, in order. Raises BadFile when one of them is not there."""
    parts = [path.with_name(name) for name in part_names(path.name)]
    missing = [part.name for part in parts if not part.exists()]
    if missing:
        raise BadFile(
            f"{path} is one of {len(parts)} parts of a model, of which {', '.join(missing)} is missing: "
            "put all of them into one folder."
        )
    return parts


def model_bytes(path: Path) -> int:
    """Return the size of a model's file, or of its parts together."""
    return sum(part.stat().st_size for part in model_parts(path))

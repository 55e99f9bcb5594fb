"""What a GGUF model says of itself, as other servers' clients ask for it: its size, quantisation and metadata.

Left out of the metadata: the vocabulary and the chat template, which are long.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llama_cpp import llama_cpp as c

from familiar.adapters.gguf_file import read_header
from familiar.daemon.model_facts import read_facts

_FTYPES = {
    value: name.removeprefix("LLAMA_FTYPE_").removeprefix("MOSTLY_").removeprefix("ALL_")
    for name, value in vars(c).items()
    if name.startswith("LLAMA_FTYPE_") and isinstance(value, int)
}
"""The names of ``general.file_type``: ``enum llama_ftype`` in llama.h."""


@dataclass(frozen=True)
class ModelCard:
    """A model file: ``parameters`` is a number for people (``5.2M``), ``metadata`` the header's single values."""

    architecture: str
    parameters: str
    quantisation: str
    metadata: Mapping[str, str | int | float | bool]


def read_card(path: Path) -> ModelCard:
    """Return a model's card by its header alone. Raises BadFile."""
    facts = read_facts(path)
    header = read_header(facts.path)
    file_type = header.metadata.get("general.file_type")
    kept = {
        key: value
        for key, value in header.metadata.items()
        if not isinstance(value, tuple) and not key.startswith("tokenizer.chat_template") and _is_json(value)
    }
    return ModelCard(
        architecture=facts.architecture,
        parameters=human(facts.parameters),
        quantisation=_FTYPES.get(file_type, "unknown") if isinstance(file_type, int) else "unknown",
        metadata={**kept, "general.parameter_count": facts.parameters},
    )


def human(count: int) -> str:
    """A count as Ollama writes it: 4.9M, 8.0B."""
    for factor, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= factor:
            return f"{count / factor:.1f}{unit}"
    return str(count)


def _is_json(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)

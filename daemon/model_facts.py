"""What a GGUF model is, by its header alone: neither llama.cpp nor a weight is loaded."""

from dataclasses import dataclass
from math import prod
from pathlib import Path

from familiar.adapters.gguf_file import read_header
from familiar.daemon.model_parts import model_parts


@dataclass(frozen=True)
class ModelFacts:
    """A model on this machine. ``path`` is its first part where there are several, ``size_bytes`` that of all.

    ``context_tokens`` is what it was trained with, 0 where the file does not say. ``is_adapter``: the file is a LoRA
    for a model, and none itself.
    """

    path: Path
    name: str
    size_bytes: int
    architecture: str
    parameters: int
    context_tokens: int
    has_chat_template: bool
    is_adapter: bool


def read_facts(path: Path) -> ModelFacts:
    """Return a model's facts; raise BadFile when a file is missing, cut short, or not a model."""
    parts = model_parts(path)
    headers = [read_header(part) for part in parts]
    first = headers[0]
    architecture = first.architecture
    name = first.metadata.get("general.name")
    return ModelFacts(
        path=parts[0],
        name=name if isinstance(name, str) and name else path.stem,
        size_bytes=sum(part.stat().st_size for part in parts),
        architecture=architecture,
        parameters=sum(prod(tensor.shape) for header in headers for tensor in header.tensors.values()),
        context_tokens=int(first.number(f"{architecture}.context_length", 0)),
        has_chat_template=isinstance(first.metadata.get("tokenizer.chat_template"), str),
        is_adapter=first.metadata.get("general.type") == "adapter",
    )

"""How the engine is to run, and what is chosen where nobody said: pure functions of figures that the caller reads.

``EngineOptions`` is what a person may set; ``settings`` takes its defaults and limits from here. Nothing here loads
llama.cpp: ``model_loading`` reads the figures and applies the choices. What is left out: the options of sampling, which
belong to a request.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from familiar.memory.errors import InvalidInput

LIMITS: dict[str, tuple[int, int | None]] = {
    "context_tokens": (0, None),
    "slots": (1, 64),
    "threads": (0, 512),  # GGML_MAX_N_THREADS
    "batch_tokens": (0, 65536),
    "gpu_layers": (-1, None),
    "queue_limit": (1, 65536),
}
"""The least and the most of each whole number, None for no most."""

KV_BYTES = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
}
"""Bytes per element of each type that a key-value cache may have, as ggml lays its blocks of 32 out."""

CHOICES: dict[str, tuple[str, ...]] = {"kv_type": tuple(KV_BYTES), "flash_attention": ("auto", "on", "off")}
"""The words that each other option may be."""

MOST_AUTOMATIC_CONTEXT_TOKENS = 8192
LEAST_AUTOMATIC_CONTEXT_TOKENS = 512
CONTEXT_STEP_TOKENS = 256
"""llama.cpp makes each slot's cache a multiple of this (``llama-context.cpp``: GGML_PAD of n_ctx_seq)."""
KV_SHARE = 0.5
"""The most of the free memory that the cache takes by itself; the rest is for batches, adapters and everything else."""


@dataclass(frozen=True)
class EngineOptions:
    """What an engine is opened with. Raises InvalidInput, naming the field, for a value that cannot be used.

    ``context_tokens`` is per slot. There, in ``threads`` and in ``batch_tokens``, 0 leaves the choice to the engine; -1
    ``gpu_layers`` are all of them, where llama.cpp was built for a GPU. ``flash_attention`` ``auto`` is llama.cpp's own
    choice on a GPU, and on the processor what ``model_loading`` says of the model's size; ``flash_trial`` settles it
    for a service. Figures under it are not to the bit those without it.
    """

    context_tokens: int = 0
    slots: int = 4
    threads: int = 0
    batch_tokens: int = 0
    gpu_layers: int = -1
    kv_type: str = "f16"
    flash_attention: str = "auto"
    mmap: bool = True
    mlock: bool = False
    queue_limit: int = 64

    def __post_init__(self) -> None:
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            if value < low or (high is not None and value > high):
                limits = f"at least {low}" if high is None else f"from {low} to {high}"
                raise InvalidInput(f"{name} must be {limits} but is {value}.", name)
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise InvalidInput(f"{name} must be one of {', '.join(choices)} but is {getattr(self, name)}.", name)
        if 0 < self.batch_tokens < self.slots:
            raise InvalidInput(
                f"batch_tokens must be at least {self.slots}, one for each slot, but is {self.batch_tokens}: "
                "raise it, or take 0 for the automatic choice.",
                "batch_tokens",
            )
        if self.kv_is_quantised and self.flash_attention == "off":
            raise InvalidInput(
                f"kv_type {self.kv_type} needs flash attention, which is off: "
                "set flash_attention to auto or on, or kv_type to f16.",
                "flash_attention",
            )

    @property
    def kv_is_quantised(self) -> bool:
        """Whether the cache's elements are fewer than 16 bits, which llama.cpp evaluates by flash attention only."""
        return KV_BYTES[self.kv_type] < 2


DEFAULTS = EngineOptions()


def default_threads() -> int:
    """Return the threads that this process can use well: physical cores, within its CPU affinity."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))


def kv_bytes_per_token(metadata: Mapping[str, object], kv_type: str) -> float:
    """Return what one token takes in a model's key-value cache; 0 where the metadata do not say.

    Layers may differ: ``head_count_kv`` is then one number per layer, 0 for a layer that keeps no keys and values
    (recurrent ones of a mixed architecture). Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
    """
    prefix = metadata.get("general.architecture")
    heads = _numbers(metadata.get(f"{prefix}.attention.head_count"))
    kv_heads = _numbers(metadata.get(f"{prefix}.attention.head_count_kv")) or heads
    width, layers = metadata.get(f"{prefix}.embedding_length"), metadata.get(f"{prefix}.block_count")
    if not heads or not kv_heads or not isinstance(width, int) or not isinstance(layers, int):
        return 0.0
    head_width = width // max(*heads, 1)
    key = metadata.get(f"{prefix}.attention.key_length", head_width)
    value = metadata.get(f"{prefix}.attention.value_length", head_width)
    if not isinstance(key, int) or not isinstance(value, int):
        return 0.0
    all_heads = kv_heads[0] * layers if len(kv_heads) == 1 else sum(kv_heads)
    return all_heads * (key + value) * KV_BYTES[kv_type]


def _numbers(value: object) -> list[int]:
    listed = value if isinstance(value, tuple) else (value,)
    return [number for number in listed if isinstance(number, int)]


def automatic_context(trained_tokens: int, slots: int, kv_token_bytes: float, free_bytes: float) -> int:
    """Return a context per slot: what the model was trained for, at most 8192, less where memory is short.

    ``free_bytes`` is what is free for caches and all else, with the model in memory; their cache takes at most half.
    It is never under 512 tokens, even where these may not fit: with less there is no conversation.
    """
    wanted = min(trained_tokens, MOST_AUTOMATIC_CONTEXT_TOKENS)
    affordable = free_bytes * KV_SHARE / (kv_token_bytes * slots) if kv_token_bytes else wanted
    if affordable >= wanted:
        return wanted
    steps = int(affordable) // CONTEXT_STEP_TOKENS * CONTEXT_STEP_TOKENS
    return min(wanted, max(LEAST_AUTOMATIC_CONTEXT_TOKENS, steps))

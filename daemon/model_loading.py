"""From a GGUF file and the engine's options to a loaded model with its context, and the automatic values on the way.

What a person should know of the choices is one line each on the service's log: a context made smaller than the model's
for want of memory, and a llama.cpp that was built for another processor.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from familiar.adapters.gguf_file import read_header
from familiar.daemon.engine_options import (
    DEFAULTS,
    MOST_AUTOMATIC_CONTEXT_TOKENS,
    EngineOptions,
    automatic_context,
    default_threads,
    kv_bytes_per_token,
)
from familiar.daemon.free_memory import free_gpu_memory, free_memory
from familiar.daemon.llama import BATCH_TOKENS, OUTPUT_ROWS, REINSTALL, Context, Model, misfit
from familiar.daemon.model_parts import model_bytes
from familiar.memory.errors import BadFile, InvalidInput

log = logging.getLogger("familiar")

GIB = 1 << 30
FLASH_PARAMETERS = 100_000_000
"""From this size on flash attention is faster on every processor that it was measured on."""


@dataclass(frozen=True)
class Loaded:
    """A model and a context over it. ``options`` are those it was opened with, with every automatic value filled in."""

    model: Model
    context: Context
    options: EngineOptions


def load(path: Path, options: EngineOptions) -> Loaded:
    """Load a model; raise BadFile when the file cannot be used, InvalidInput when an option cannot."""
    free_bytes = free_memory()  # before the model's pages are in memory, which may or may not count as free then
    model = Model(path, gpu_layers=options.gpu_layers, mmap=options.mmap, mlock=options.mlock)
    try:
        chosen = replace(
            options,
            context_tokens=_context_tokens(model, path, options, free_bytes),
            threads=options.threads or default_threads(),
            batch_tokens=options.batch_tokens or BATCH_TOKENS,
            flash_attention=flash_attention(model, options),
        )
        if options.mlock:
            _check_locked()
        context = Context(
            model,
            context_tokens=chosen.context_tokens,
            slots=chosen.slots,
            threads=chosen.threads,
            batch_tokens=chosen.batch_tokens,
            kv_type=chosen.kv_type,
            flash_attention=chosen.flash_attention,
            outputs=chosen.slots + OUTPUT_ROWS,
        )
    except BaseException:
        model.close()
        raise
    return Loaded(model, context, chosen)


def _context_tokens(model: Model, path: Path, options: EngineOptions, free_bytes: int) -> int:
    """Return the context per slot: as asked for, else as the model and the free memory have it."""
    trained = model.trained_context_tokens
    if options.context_tokens > trained:
        raise InvalidInput(
            f"The model holds at most {trained} tokens of context but {options.context_tokens} were asked for: "
            "ask for fewer, or 0 for as many as is sensible.",
            "context_tokens",
        )
    if options.context_tokens:
        return options.context_tokens
    metadata = read_metadata(path)
    kv_bytes = kv_bytes_per_token(metadata, options.kv_type)
    free = _free_for_caches(model, path, metadata, options.gpu_layers, free_bytes)
    tokens = automatic_context(trained, options.slots, kv_bytes, free)
    wanted = min(trained, MOST_AUTOMATIC_CONTEXT_TOKENS)
    if tokens < wanted:
        log.warning(
            "The context is %d tokens instead of %d: %d requests at once would take %.1f GiB of the %.1f GiB that are "
            "free beside the model. For a longer one set context_tokens, or fewer slots%s.",
            tokens,
            wanted,
            options.slots,
            kv_bytes * options.slots * wanted / GIB,
            max(0.0, free) / GIB,
            "" if options.kv_is_quantised else ", or kv_type to q8_0",
        )
    return tokens


def read_metadata(path: Path) -> Mapping[str, object]:
    """Return what a model file says of itself; nothing where we cannot read what llama.cpp may."""
    try:
        return read_header(path).metadata
    except BadFile:
        return {}


def _free_for_caches(
    model: Model, path: Path, metadata: Mapping[str, object], gpu_layers: int, free_bytes: int
) -> float:
    """Return the memory that a cache can be taken from, however it is shared between the machine's and a GPU's."""
    layers = metadata.get(f"{model.architecture}.block_count")
    all_layers = layers + 1 if isinstance(layers, int) else 1  # llama.cpp counts the output as one
    on_gpu = 0.0 if not model.on_gpu else 1.0 if gpu_layers < 0 else min(1.0, gpu_layers / all_layers)
    left = []
    if on_gpu < 1:
        left.append(free_bytes / (1 - on_gpu) - model_bytes(path))
    free_on_gpu = free_gpu_memory() if on_gpu else None
    if free_on_gpu is not None:
        left.append(free_on_gpu / on_gpu)
    return min(left, default=float(free_bytes))


def flash_attention(model: Model, options: EngineOptions = DEFAULTS) -> str:
    """Return whether to use flash attention on this processor, or leave it to llama.cpp where there is a GPU.

    On a processor it is worth it from some size on: with 0.6 B parameters eight streams are a quarter faster with it
    and one a twentieth. Below that it is off unless ``flash_trial`` has found otherwise.
    """
    if model.on_gpu:
        return options.flash_attention
    missing = misfit()
    if missing:
        log.warning(
            "llama-cpp-python was built for another processor: this one lacks %s. Should the service end without a "
            "word, build it here: %s",
            ", ".join(missing),
            REINSTALL,
        )
    wanted = options.flash_attention == "on" or options.kv_is_quantised
    if options.flash_attention == "auto" and model.parameters >= FLASH_PARAMETERS and not missing:
        return "on"
    if wanted and missing:
        reason = f"kv_type {options.kv_type}" if options.kv_is_quantised else "flash_attention on"
        raise InvalidInput(
            f"{reason} cannot be used: llama-cpp-python was built for a processor with {', '.join(missing)}, which "
            f"this one lacks, and its flash attention would end the process. Build it here: {REINSTALL}",
            "kv_type" if options.kv_is_quantised else "flash_attention",
        )
    return "on" if wanted else "off"


def _check_locked(status: Path = Path("/proc/self/status")) -> None:
    """Say so when the system did not let the model be locked in memory; llama.cpp goes on without."""
    try:
        locked = re.search(r"^VmLck:\s*(\d+)", status.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return  # not Linux
    if locked and int(locked[1]) == 0:
        log.warning(
            "The model could not be locked in memory (mlock): raise this user's limit, by `ulimit -l unlimited` or "
            "LimitMEMLOCK=infinity of a systemd service."
        )

"""Whether flash attention makes a small model faster on this processor: tried once, and kept in the data folder.

It depends on both: of the same five million parameters eight streams became 1.3 times as fast on one processor, and
lost two fifths on another. Models of ``FLASH_PARAMETERS`` and more gained on either and are not tried.

Figures differ in their last digits with it and without, so whatever computes with a model has to ask here: the service,
the gate's scorer and the learner's sampler then find the same answer in ``flash-attention.json``.
"""

import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from llama_cpp import llama_cpp as c

from familiar.daemon import base_models, json_file
from familiar.daemon.cpu_features import processor_name
from familiar.daemon.engine_options import EngineOptions
from familiar.daemon.llama import Batch, Context, Model, misfit
from familiar.daemon.model_facts import read_facts
from familiar.daemon.model_loading import FLASH_PARAMETERS
from familiar.daemon.repack_trial import library
from familiar.memory.errors import FamiliarError

if TYPE_CHECKING:
    from familiar.daemon.settings import Settings

log = logging.getLogger(__name__)

KEPT = "flash-attention.json"
CLEAR = 1.1
"""How many times as fast, or as slow, is no accident of the trial's."""
_SEQUENCES = (1, 8)
_CONTEXT_TOKENS, _FILLED_TOKENS = 1024, 128
"""What is not filled counts too: without flash attention, values of one place lie as far apart as the cache is long."""
_ROUNDS, _STEPS = 3, 2


def settled(settings: "Settings", path: Path) -> EngineOptions:
    """Return the options for a model, with flash attention chosen where a trial has to tell; else they are as given.

    The first process that asks makes the trial, which computes for 0.15 s on 5 M parameters and for 3 s at most.
    """
    options, data_dir = settings.engine_options, settings.data_dir
    if options.kv_is_quantised:
        return replace(options, flash_attention="on")
    on_gpu = options.gpu_layers != 0 and c.llama_supports_gpu_offload()
    if options.flash_attention != "auto" or on_gpu or misfit():
        return options
    try:
        if read_facts(path).parameters >= FLASH_PARAMETERS:
            return options
        model = base_models.identify(path, data_dir).sha256
        key = " | ".join((model, options.kv_type, library(), processor_name()))
        chosen = _read(data_dir).get(key)
        if chosen is None:
            # Whoever was first decides: two that differ would be worse than either.
            chosen = _keep(data_dir, key, "on" if worth_it(gains(path, options.kv_type)) else "off")
    except (FamiliarError, RuntimeError, OSError) as error:
        log.debug("Flash attention was not tried on %s: %s", path, error)
        return options  # what is wrong with the file is said when it is opened
    return replace(options, flash_attention=chosen)


def worth_it(gains: Sequence[float]) -> bool:
    """Whether one sequence or many become clearly faster, and neither clearly slower."""
    return max(gains) >= CLEAR and min(gains) > 1 / CLEAR


def gains(path: Path, kv_type: str) -> list[float]:
    """Return how many times as fast a model's next tokens are with flash attention: of one sequence, and of eight.

    One thread computes, and its processor time is what counts: other programs then change little, and no team of
    threads is left behind that the engine's would have to wait for (see ``embedder``). Raises BadFile when the model
    cannot be used, RuntimeError when llama.cpp cannot evaluate it in this way.
    """
    with contextlib.closing(Model(path, gpu_layers=0)) as model, contextlib.ExitStack() as stack:
        contexts = {}
        for attention in ("off", "on"):
            context = Context(
                model,
                context_tokens=_CONTEXT_TOKENS,
                slots=max(_SEQUENCES),
                threads=1,
                kv_type=kv_type,
                batch_tokens=_FILLED_TOKENS,
                flash_attention=attention,
                outputs=max(_SEQUENCES),
            )
            contexts[attention] = stack.enter_context(contextlib.closing(context))
        batch = Batch(_FILLED_TOKENS)
        for context in contexts.values():
            _fill(context, batch, model.vocab.size)
        best: dict[tuple[str, int], float] = {}
        for _, count, attention in product(range(_ROUNDS), _SEQUENCES, contexts):
            _step(contexts[attention], batch, count)  # plans the graph, which the next ones use again
            taken = min(_step(contexts[attention], batch, count) for _ in range(_STEPS))
            best[attention, count] = min(taken, best.get((attention, count), taken))
    return [best["off", count] / best["on", count] for count in _SEQUENCES]


def _fill(context: Context, batch: Batch, n_vocab: int) -> None:
    """Give every slot the same beginning, so that attention has something to look at."""
    batch.clear()
    batch.add(0, 0, [place % n_vocab for place in range(_FILLED_TOKENS)], outputs=1)
    context.decode(batch)
    for slot in range(1, max(_SEQUENCES)):
        context.copy(0, slot)


def _step(context: Context, batch: Batch, count: int) -> float:
    """Evaluate one more token of ``count`` slots, and forget it again; return the seconds that it computed."""
    batch.clear()
    for slot in range(count):
        batch.add(slot, _FILLED_TOKENS, [0], outputs=1)
    begun = time.thread_time()
    context.decode(batch)
    context.outputs(count)  # llama.cpp may only now be done
    taken = time.thread_time() - begun
    for slot in range(count):
        context.keep(slot, _FILLED_TOKENS)
    return taken


def _read(data_dir: Path) -> dict[str, str]:
    kept = json_file.read(data_dir / KEPT)
    return {key: value for key, value in kept.items() if value in ("on", "off")} if isinstance(kept, dict) else {}


def _keep(data_dir: Path, key: str, found: str) -> str:
    """Keep what was found, unless another process was quicker; return what is kept. Raises OSError."""
    known = _read(data_dir)
    if key not in known:
        known[key] = found
        json_file.write(data_dir / KEPT, known)
    return known[key]

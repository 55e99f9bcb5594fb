"""llama.cpp's C API as a few typed objects: a model, a context over it, a batch, an adapter.

Thin on purpose: each method is one or two calls, with failures raised instead of returned. Nothing here is safe from
two threads at once, save a model's vocabulary. Sources: ``llama.h``, as bound by llama-cpp-python's ``llama_cpp.py``.
"""

import ctypes
import logging
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from llama_cpp import llama_cpp as c
from numpy.typing import NDArray

from familiar.adapters.gguf_file import read_header
from familiar.daemon import repack_trial
from familiar.daemon.cpu_features import (
    compiled_features,
    kills_quantised,
    missing_features,
    processor_flags,
    uses_amx,
    uses_tiles,
)
from familiar.daemon.engine_options import KV_BYTES, default_threads
from familiar.daemon.model_parts import model_parts
from familiar.daemon.vocab import Vocab
from familiar.memory.errors import BadFile, InvalidInput

log = logging.getLogger(__name__)

REINSTALL = "pip install --force-reinstall --no-cache-dir --no-binary llama-cpp-python llama-cpp-python"
"""What makes llama.cpp fit this processor."""
BATCH_TOKENS = 512
"""Most tokens in one decode, and in one physical batch: llama.cpp's own default for the latter."""
OUTPUT_ROWS = 32
"""Prompt tokens whose logits are asked for in one batch, where a request wants the prompt's log-probabilities."""
_LOAD_MODES = {  # by whether to map the file, and whether to lock its memory
    (True, False): c.LLAMA_LOAD_MODE_AUTO,
    (False, False): c.LLAMA_LOAD_MODE_NONE,
    (True, True): c.LLAMA_LOAD_MODE_MMAP_MLOCK,
    (False, True): c.LLAMA_LOAD_MODE_MLOCK,
}
_FLASH_ATTENTION = {
    "auto": c.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "on": c.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": c.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}
_KV_TYPES = {  # enum ggml_type in ggml.h; llama-cpp-python does not bind BF16's
    **{name: getattr(c, f"GGML_TYPE_{name.upper()}") for name in KV_BYTES if name != "bf16"},
    "bf16": 30,
}
_LOG_ERROR = 4  # enum ggml_log_level: none, debug, info, warn, error, continued

# Through ctypes' usual door every call gives up the interpreter lock and then waits for it again. For calls of a few
# microseconds, between two decodes, that only lets other threads into the middle of a step: these keep the lock.
_locked = ctypes.PyDLL(c._lib._name)
sample_row: Callable[[object, object, int], int] = _locked.llama_sampler_sample
"""``llama_sampler_sample(chain, context, row)``: draw from a row of the last batch, and have the chain take note."""
sample_row.argtypes, sample_row.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32), ctypes.c_int32  # type: ignore[attr-defined]
_logits_of = _locked.llama_get_logits_ith
_logits_of.argtypes, _logits_of.restype = (ctypes.c_void_p, ctypes.c_int32), ctypes.POINTER(ctypes.c_float)

_reports: deque[str] = deque(maxlen=8)
_loading = threading.Lock()  # what is in _reports belongs to the load that holds it


@c.llama_log_callback  # type: ignore[untyped-decorator]
def _on_log(level: int, text: bytes, _: object) -> None:
    if level == _LOG_ERROR:
        line = text.decode("utf-8", "replace").strip()
        _reports.append(line)
        log.debug("llama.cpp: %s", line)


_started = False


def _start() -> None:
    """Start llama.cpp once per process, with its log quiet."""
    global _started
    if not _started:
        c.llama_log_set(_on_log, None)
        c.llama_backend_init()
        _started = True


def system_info() -> str:
    """Return llama.cpp's line of what it was compiled for."""
    line: bytes = c.llama_print_system_info()
    return line.decode()


def misfit() -> list[str]:
    """Return what llama.cpp was compiled for that this processor lacks, by llama.cpp's names."""
    return missing_features(compiled_features(system_info()), processor_flags())


def _reason() -> str:
    """Return the first error of the last load in one line, without the function name that llama.cpp puts before it."""
    report = _reports[0] if _reports else "llama.cpp gave no reason"
    return " ".join(report.split(": ", 1)[-1].split()).rstrip(".")


def _may_repack(path: Path) -> bool:
    """Say whether llama.cpp may lay the weights out anew for this processor, as it does unless told otherwise."""
    if not uses_amx(compiled_features(system_info()), processor_flags()):
        return True
    types = _tensor_types(path)
    return types is not None and (not uses_tiles(types) or repack_trial.survives(path))


def _tensor_types(path: Path) -> set[int] | None:
    """The ggml types of a model's tensors, None where we cannot read what llama.cpp may."""
    try:
        headers = [read_header(part) for part in model_parts(path)]
    except BadFile:
        return None
    return {tensor.type for header in headers for tensor in header.tensors.values()}


def _check_processor(path: Path) -> None:
    missing = misfit()
    killing = kills_quantised(missing, _tensor_types(path) or ()) if missing else []
    if killing:
        raise BadFile(
            f"The model {path} has quantised weights, and llama-cpp-python was built for a processor with "
            f"{', '.join(killing)}, which this one lacks: it would end the process. Build it here ({REINSTALL}), or "
            "choose a file of 16-bit weights."
        )


def _check_magic(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise BadFile(f"The model {path} could not be opened: {error.strerror or error}.") from error
    if start != b"GGUF":
        raise BadFile(f"The model {path} is not a GGUF file: its first four bytes are not GGUF.")


class Adapter:
    """A LoRA adapter in memory; it belongs to the model that loaded it."""

    def __init__(self, handle: object) -> None:
        self.handle = handle

    def free(self) -> None:
        """Free it; no context may have it set."""
        c.llama_adapter_lora_free(self.handle)


class Model:
    """A GGUF model in memory.

    Raises BadFile, in one line, when the file is missing, not GGUF, cut short, or of an unknown architecture.
    """

    def __init__(self, path: Path, *, gpu_layers: int = 0, mmap: bool = True, mlock: bool = False) -> None:
        """``gpu_layers`` -1 is all of them; without a GPU in llama.cpp's build none of them is, whatever is said."""
        _check_magic(path)
        _check_processor(path)
        params = c.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        params.load_mode = _LOAD_MODES[mmap, mlock]
        params.use_extra_bufts = _may_repack(path)
        with _loading:
            _start()
            _reports.clear()
            self.handle = c.llama_model_load_from_file(os.fsencode(path), params)
            if not self.handle:
                raise BadFile(f"The model {path} could not be loaded: {_reason()}.")
        self.path = path
        self.on_gpu = gpu_layers != 0 and bool(c.llama_supports_gpu_offload())
        self.vocab = Vocab(self.handle)
        self.architecture = self.metadata("general.architecture") or "unknown"
        self.parameters = int(c.llama_model_n_params(self.handle))
        self.trained_context_tokens = int(c.llama_model_n_ctx_train(self.handle))

    def metadata(self, key: str) -> str | None:
        """Return a metadata value as text, None when the file has none of that key."""
        length = int(c.llama_model_meta_val_str(self.handle, key.encode(), None, 0))
        if length < 0:
            return None
        buffer = ctypes.create_string_buffer(length + 1)
        c.llama_model_meta_val_str(self.handle, key.encode(), buffer, length + 1)
        return buffer.value.decode("utf-8", "replace")

    def chat_template(self, name: str | None = None) -> str | None:
        """Return the chat template that the file carries, if any; ``name`` asks for another one than the usual."""
        template: bytes | None = c.llama_model_chat_template(self.handle, name.encode() if name else None)
        return template.decode("utf-8", "replace") if template else None

    def load_adapter(self, path: Path) -> Adapter:
        """Load a LoRA from a file that ``check_lora`` has passed; raise BadFile when it does not fit the model."""
        with _loading:
            _reports.clear()
            handle = c.llama_adapter_lora_init(self.handle, os.fsencode(path))
            if not handle:
                raise BadFile(f"The adapter {path} could not be loaded: {_reason()}.")
        return Adapter(handle)

    def close(self) -> None:
        """Free the model and every adapter loaded for it; its contexts must be closed before."""
        if self.handle:
            c.llama_model_free(self.handle)
            self.handle = None


class Batch:
    """Tokens to evaluate together, of one or many slots. Rows are numbered as they are added."""

    def __init__(self, capacity: int = BATCH_TOKENS) -> None:
        self.capacity = capacity
        self._token = np.zeros(capacity, np.int32)
        self._position = np.zeros(capacity, np.int32)
        self._slot = np.zeros(capacity, np.int32)
        self._output = np.zeros(capacity, np.int8)
        self._slots_per_token = np.ones(capacity, np.int32)
        # llama.cpp wants a pointer per token to that token's list of slots; each of ours is one entry long.
        self._slot_pointers = np.arange(capacity, dtype=np.uintp) * self._slot.itemsize + self._slot.ctypes.data
        int32 = ctypes.POINTER(ctypes.c_int32)
        self.struct = c.llama_batch(
            n_tokens=0,
            token=self._token.ctypes.data_as(int32),
            pos=self._position.ctypes.data_as(int32),
            n_seq_id=self._slots_per_token.ctypes.data_as(int32),
            seq_id=self._slot_pointers.ctypes.data_as(ctypes.POINTER(int32)),
            logits=self._output.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )

    def __len__(self) -> int:
        return int(self.struct.n_tokens)

    def clear(self) -> None:
        """Empty it."""
        self.struct.n_tokens = 0

    def add(self, slot: int, position: int, tokens: Sequence[int], *, outputs: int) -> int:
        """Add a slot's ``tokens`` from ``position`` on, wanting logits of the last ``outputs``; return the last row."""
        start, end = len(self), len(self) + len(tokens)
        if start + 1 == end:  # nearly always, and worth the shortcut
            self._token[start], self._position[start], self._slot[start] = tokens[0], position, slot
            self._output[start] = outputs
            self.struct.n_tokens = end
            return start
        self._token[start:end] = tokens
        self._position[start:end] = np.arange(position, position + len(tokens))
        self._slot[start:end] = slot
        self._output[start:end] = 0
        self._output[end - outputs : end] = 1
        self.struct.n_tokens = end
        return end - 1


class Context:
    """A model's working memory: one key-value cache per slot, of ``context_tokens`` each.

    Each slot has a cache of its own (``kv_unified`` off): what lies in one can then not change another's figures by a
    single bit, and each can reach the whole ``context_tokens``. The price is that slots whose numbers are not
    neighbours are evaluated in separate passes.
    """

    def __init__(
        self,
        model: Model,
        *,
        context_tokens: int,
        slots: int = 1,
        threads: int = 0,
        batch_tokens: int = BATCH_TOKENS,
        kv_type: str = "f16",
        flash_attention: str = "off",
        outputs: int = 0,
    ) -> None:
        """``outputs`` is the most rows of logits that one batch will ask for; 0 is one per token."""
        params = c.llama_context_default_params()
        params.n_outputs_max = outputs
        params.n_ctx = context_tokens * slots
        params.n_seq_max = slots
        params.n_batch = params.n_ubatch = batch_tokens
        params.n_threads = params.n_threads_batch = threads or default_threads()
        params.flash_attn_type = _FLASH_ATTENTION[flash_attention]
        params.type_k = params.type_v = _KV_TYPES[kv_type]
        params.kv_unified = False
        self.batch_tokens = batch_tokens
        self._n_vocab = model.vocab.size
        self._adapter: Adapter | None = None
        with _loading:
            _reports.clear()
            self.handle = c.llama_init_from_model(model.handle, params)
            if not self.handle:
                raise InvalidInput(
                    f"A context of {slots} × {context_tokens} tokens of {kv_type} could not be made ({_reason()}): "
                    "ask for a smaller context, fewer slots, or another kv_type.",
                    "context_tokens",
                )
        self._memory = c.llama_get_memory(self.handle)
        if not self._memory:
            self.close()
            raise BadFile(
                "The model keeps no key-value cache, so it cannot chat (an embedding model?): choose a chat model."
            )

    def decode(self, batch: Batch) -> None:
        """Evaluate a batch; raise RuntimeError when llama.cpp cannot."""
        code = int(c.llama_decode(self.handle, batch.struct))
        if code:
            raise RuntimeError(f"llama_decode failed with code {code} on a batch of {len(batch)} tokens")

    def outputs(self, count: int) -> NDArray[np.float32]:
        """Return the last decode's ``count`` rows of logits, shape (count, vocab); overwritten by the next decode."""
        return np.ctypeslib.as_array(c.llama_get_logits(self.handle), shape=(count, self._n_vocab))

    def row(self, row: int) -> NDArray[np.float32]:
        """Return the logits after one row of the last batch, shape (vocab,); overwritten by the next decode."""
        return np.ctypeslib.as_array(_logits_of(self.handle, row), shape=(self._n_vocab,))

    def has_numbers(self, row: int) -> bool:
        """Say whether a row of the last batch is numbers; NaN anywhere in it is NaN everywhere, by the final norm."""
        return not math.isnan(_logits_of(self.handle, row)[0])

    def set_adapter(self, adapter: Adapter | None) -> bool:
        """Evaluate under ``adapter`` from now on, None being the bare base model; return whether that is a change."""
        if adapter is self._adapter:
            return False
        if adapter is None:
            code = int(c.llama_set_adapters_lora(self.handle, None, 0, None))
        else:
            handles = (c.llama_adapter_lora_p_ctypes * 1)(adapter.handle)
            code = int(c.llama_set_adapters_lora(self.handle, handles, 1, (ctypes.c_float * 1)(1.0)))
        if code:
            raise RuntimeError(f"llama_set_adapters_lora failed with code {code}")
        self._adapter = adapter
        return True

    def free_adapter(self, adapter: Adapter) -> None:
        """Free an adapter, taking it off this context first if it is set."""
        if adapter is self._adapter:
            self.set_adapter(None)
        adapter.free()

    def keep(self, slot: int, tokens: int) -> int:
        """Forget a slot's cache after its first ``tokens``; return how many are kept.

        That is none of them where the model cannot forget only a part (recurrent architectures).
        """
        if tokens and c.llama_memory_seq_rm(self._memory, slot, tokens, -1):
            return tokens
        c.llama_memory_seq_rm(self._memory, slot, -1, -1)
        return 0

    def copy(self, source: int, target: int) -> None:
        """Make one slot's cache a copy of another's, at the beginning of the next decode."""
        c.llama_memory_seq_rm(self._memory, target, -1, -1)
        c.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def wipe(self) -> None:
        """Forget every slot's cache and zero its memory."""
        c.llama_memory_clear(self._memory, True)

    def close(self) -> None:
        """Free the context."""
        if self.handle:
            c.llama_free(self.handle)
            self.handle = None

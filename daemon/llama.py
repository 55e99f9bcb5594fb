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
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
from llama_cpp import llama_cpp as c
from numpy.typing import NDArray

from familiar.daemon.vocab import Vocab
from familiar.memory.errors import BadFile, InvalidInput

log = logging.getLogger(__name__)

BATCH_TOKENS = 512
"""Most tokens in one decode, and in one physical batch: llama.cpp's own default for the latter."""
_LOG_ERROR = 4  # enum ggml_log_level: none, debug, info, warn, error, continued

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


def _reason() -> str:
    """Return the first error of the last load in one line, without the function name that llama.cpp puts before it."""
    report = _reports[0] if _reports else "llama.cpp gave no reason"
    return " ".join(report.split(": ", 1)[-1].split()).rstrip(".")


def default_threads() -> int:
    """Return the threads that this process can use well: physical cores, within its CPU affinity."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))


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

    def __init__(self, path: Path, *, gpu_layers: int = 0) -> None:
        _check_magic(path)
        params = c.llama_model_default_params()
        params.n_gpu_layers = gpu_layers
        with _loading:
            _start()
            _reports.clear()
            self.handle = c.llama_model_load_from_file(os.fsencode(path), params)
            if not self.handle:
                raise BadFile(f"The model {path} could not be loaded: {_reason()}.")
        self.gpu_layers = gpu_layers
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

    def chat_template(self) -> str | None:
        """Return the chat template that the file carries, if any."""
        template: bytes | None = c.llama_model_chat_template(self.handle, None)
        return template.decode("utf-8", "replace") if template else None

    def load_adapter(self, path: Path) -> Adapter:
        """Load a LoRA from a file that ``check_adapter`` has passed; raise BadFile when it does not fit the model."""
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
        self._token[start:end] = tokens
        self._position[start:end] = np.arange(position, position + len(tokens))
        self._slot[start:end] = slot
        self._output[start:end] = 0
        self._output[end - outputs : end] = 1
        self.struct.n_tokens = end
        return end - 1


class Context:
    """A model's working memory: one key-value cache per slot, f16, of ``context_tokens`` each.

    Each slot has a cache of its own (``kv_unified`` off): what lies in one can then not change another's figures by a
    single bit, and each can reach the whole ``context_tokens``. The price is that slots whose numbers are not
    neighbours are evaluated in separate passes.
    """

    def __init__(self, model: Model, *, context_tokens: int, slots: int = 1, threads: int = 0) -> None:
        params = c.llama_context_default_params()
        params.n_ctx = context_tokens * slots
        params.n_seq_max = slots
        params.n_batch = params.n_ubatch = BATCH_TOKENS
        params.n_threads = params.n_threads_batch = threads or default_threads()
        # A CPU build made for AMX uses it in its flash attention without asking whether the CPU has it, and the process
        # dies of an illegal instruction (llama-cpp-python 0.3.36 on an AMD EPYC). On a GPU llama.cpp chooses.
        on_gpu = model.gpu_layers and c.llama_supports_gpu_offload()
        params.flash_attn_type = c.LLAMA_FLASH_ATTN_TYPE_AUTO if on_gpu else c.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.kv_unified = False
        self._n_vocab = model.vocab.size
        self._adapter: Adapter | None = None
        self.handle = c.llama_init_from_model(model.handle, params)
        if not self.handle:
            raise InvalidInput(
                f"A context of {slots} × {context_tokens} tokens could not be allocated: "
                "ask for a smaller context, or fewer slots.",
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

    def has_numbers(self, row: int) -> bool:
        """Say whether a row of the last decode is numbers; NaN anywhere in it is NaN everywhere, by the final norm."""
        return not math.isnan(c.llama_get_logits_ith(self.handle, row)[0])

    def set_adapter(self, adapter: Adapter | None) -> None:
        """Evaluate under ``adapter`` from now on; None is the bare base model, to the bit."""
        if adapter is self._adapter:
            return
        if adapter is None:
            code = int(c.llama_set_adapters_lora(self.handle, None, 0, None))
        else:
            handles = (c.llama_adapter_lora_p_ctypes * 1)(adapter.handle)
            code = int(c.llama_set_adapters_lora(self.handle, handles, 1, (ctypes.c_float * 1)(1.0)))
        if code:
            raise RuntimeError(f"llama_set_adapters_lora failed with code {code}")
        self._adapter = adapter

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

    def wipe(self) -> None:
        """Forget every slot's cache and zero its memory."""
        c.llama_memory_clear(self._memory, True)

    def close(self) -> None:
        """Free the context."""
        if self.handle:
            c.llama_free(self.handle)
            self.handle = None

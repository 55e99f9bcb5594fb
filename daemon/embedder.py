"""Texts to vectors by llama.cpp: one context without a conversation, for the engine's thread alone.

A model that was made for it says how the vectors of its tokens become one (``pooling_type`` in its file); of a chat
model the mean over the tokens of the last layer's states is taken. Vectors have length 1.

It is on the engine's thread because a second thread that computes would have an OpenMP team of its own: with more
threads than cores, every step of both waits for the other's (measured: decoding at a tenth of its speed).
"""

import ctypes
from collections.abc import Iterator, Sequence

import numpy as np
from llama_cpp import llama_cpp as c
from numpy.typing import NDArray

from familiar.daemon.engine_options import default_threads
from familiar.daemon.llama import Batch, Model
from familiar.memory.errors import BadFile, InvalidInput

MOST_TOKENS = 2048
"""Tokens of one input, at most."""
_MOST_TOGETHER = 16
_TOGETHER_TOKENS = 256
"""Inputs and tokens that are evaluated together, unless one input is longer: what is more takes longer for each, as all
share the cache (1.3 times as long for 1,024 tokens on 0.6 B parameters, 1.9 times on 5 M), and holds up replies."""


class Embedder:
    """Embeds token sequences with one model."""

    def __init__(self, model: Model, *, threads: int = 0) -> None:
        self.model = model
        self.dimensions = int(c.llama_model_n_embd_out(model.handle))
        self.most_tokens = min(model.trained_context_tokens, MOST_TOKENS)
        pools = model.metadata(f"{model.architecture}.pooling_type")
        params = c.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = self.most_tokens
        params.n_seq_max = _MOST_TOGETHER
        params.kv_unified = True  # the inputs share the context, however long each of them is
        params.n_threads = params.n_threads_batch = threads or default_threads()
        params.flash_attn_type = c.LLAMA_FLASH_ATTN_TYPE_DISABLED  # as in llama.Context
        params.embeddings = True
        params.pooling_type = c.LLAMA_POOLING_TYPE_UNSPECIFIED if pools else c.LLAMA_POOLING_TYPE_MEAN
        self._handle = c.llama_init_from_model(model.handle, params)
        if not self._handle or c.llama_pooling_type(self._handle) in (
            c.LLAMA_POOLING_TYPE_NONE,
            c.LLAMA_POOLING_TYPE_RANK,
        ):
            raise BadFile(f"The model {model.metadata('general.name') or '?'} gives no embeddings: choose another one.")
        self._memory = c.llama_get_memory(self._handle)
        self._batch = Batch(self.most_tokens)

    def tokenise(self, text: str) -> list[int]:
        """Return a text's tokens, with those that the model wants around it."""
        return self.model.vocab.tokenise(text, around=True)

    def check(self, inputs: Sequence[Sequence[int]]) -> None:
        """Raise InvalidInput (``input``) for one that is empty, too long, or holds a token that there is not."""
        for index, ids in enumerate(inputs):
            if not 0 < len(ids) <= self.most_tokens:
                raise InvalidInput(
                    f"input[{index}] is {len(ids)} tokens but must be 1 to {self.most_tokens}: shorten or split it.",
                    "input",
                )
            wrong = next((token for token in ids if not 0 <= token < self.model.vocab.size), None)
            if wrong is not None:
                last = self.model.vocab.size - 1
                raise InvalidInput(f"input[{index}] has token {wrong} but the model has 0 to {last}.", "input")

    def embed(self, inputs: Sequence[Sequence[int]]) -> Iterator[list[NDArray[np.float32]]]:
        """Yield the inputs' vectors, shape (dimensions,), some at a time: those that are evaluated together."""
        group: list[Sequence[int]] = []
        tokens = 0
        for ids in inputs:
            if group and (len(group) == _MOST_TOGETHER or tokens + len(ids) > _TOGETHER_TOKENS):
                yield self._evaluate(group)
                group, tokens = [], 0
            group.append(ids)
            tokens += len(ids)
        if group:
            yield self._evaluate(group)

    def _evaluate(self, group: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        self._batch.clear()
        for slot, ids in enumerate(group):
            self._batch.add(slot, 0, ids, outputs=len(ids))
        if self._memory:
            c.llama_memory_clear(self._memory, True)
        code = int(c.llama_decode(self._handle, self._batch.struct))
        if code:
            raise RuntimeError(f"llama_decode failed with code {code} on {len(self._batch)} tokens to embed")
        return [self._vector(slot) for slot in range(len(group))]

    def _vector(self, slot: int) -> NDArray[np.float32]:
        pointer = ctypes.cast(c.llama_get_embeddings_seq(self._handle, slot), ctypes.POINTER(ctypes.c_float))
        vector = np.ctypeslib.as_array(pointer, shape=(self.dimensions,)).astype(np.float32)
        length = float(np.linalg.norm(vector))
        return vector / length if length else vector

    def close(self) -> None:
        """Free the context; the model is the caller's."""
        if self._handle:
            c.llama_free(self._handle)
            self._handle = None

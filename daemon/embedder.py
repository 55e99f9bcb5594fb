"""Texts to vectors by llama.cpp: one context without a conversation, for the engine's thread alone.

A model that was made for it says how the vectors of its tokens become one (``pooling_type`` in its file); of a chat
model the mean over the tokens of the last layer's states is taken. Vectors have length 1.

llama.cpp cuts texts for a BERT model into WordPieces nearly as Hugging Face's tokenizers do. Three differences are
left: the vowel signs of Indian scripts are dropped, a word of more than 100 characters is spelt out where it would be
unknown, and ``[SEP]`` and its like are plain text.

It is on the engine's thread because a second thread that computes would have an OpenMP team of its own: with more
threads than cores, every step of both waits for the other's (measured: decoding at a tenth of its speed).
"""

import ctypes
import hashlib
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from llama_cpp import llama_cpp as c
from numpy.typing import NDArray

from familiar.adapters.gguf_file import read_header
from familiar.daemon.engine_options import default_threads
from familiar.daemon.llama import Batch, Model
from familiar.memory.errors import BadFile, InvalidInput

MOST_TOKENS = 2048
"""Tokens of one input, at most."""
CUT_TOKENS = 256
"""What a text is cut to where it may be: sentence models are trained on no longer ones, and searching must be quick."""
_TOKEN_CHARACTERS = 32
"""Characters that a token stands for on average, at the very most."""
_MOST_TOGETHER = 16
_TOGETHER_TOKENS = 64
"""Inputs and tokens that are evaluated together, unless one input is longer: what is more takes longer for each, as all
are compared with all (1.5 times as long for 256 tokens on 22 M parameters), and holds up replies."""
_HASHED_BYTES = 1 << 20


def embedder_name(path: Path) -> str:
    """A model's own name and a hash of its file: vectors that were made under another one cannot be compared.

    Only the file's size, beginning and end are read, so that it takes no time.
    """
    try:
        name = read_header(path).metadata.get("general.name")
    except BadFile:
        name = None  # llama.cpp may know more kinds of file than we do
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        digest = hashlib.sha256(str(size).encode())
        for start in (0, max(0, size - _HASHED_BYTES)):
            file.seek(start)
            digest.update(file.read(_HASHED_BYTES))
    return f"{name or path.stem}@{digest.hexdigest()[:12]}"


class Embedder:
    """Embeds token sequences with one model."""

    def __init__(self, model: Model, *, threads: int = 0) -> None:
        self.model = model
        self.dimensions = int(c.llama_model_n_embd_out(model.handle))
        self.most_tokens = min(model.trained_context_tokens, MOST_TOKENS)
        self._decomposes = c.llama_vocab_type(model.vocab.handle) == c.LLAMA_VOCAB_TYPE_WPM
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

    def tokenise(self, text: str, *, cut: bool = False) -> list[int]:
        """Return a text's tokens, with those that the model wants around it; no more than CUT_TOKENS with ``cut``."""
        if self._decomposes:
            # Of what a character decomposes into llama.cpp keeps the first part alone: one consonant of a syllable in
            # Korean.
            text = unicodedata.normalize("NFD", text)
        vocab, most = self.model.vocab, min(CUT_TOKENS, self.most_tokens)
        text = text[: most * _TOKEN_CHARACTERS] if cut else text  # however long it is, this is quick
        tokens = vocab.tokenise(text, around=True)
        if not cut or len(tokens) <= most:
            return tokens
        plain = vocab.tokenise(text)
        before = next((at for at in range(len(tokens)) if tokens[at : at + len(plain)] == plain), 0)
        after = tokens[before + len(plain) :]
        return tokens[: most - len(after)] + after

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

    def groups(self, inputs: Sequence[Sequence[int]]) -> list[list[Sequence[int]]]:
        """Return the inputs, in their order, in groups that are best evaluated together."""
        groups: list[list[Sequence[int]]] = []
        tokens = 0
        for ids in inputs:
            if not groups or len(groups[-1]) == _MOST_TOGETHER or tokens + len(ids) > _TOGETHER_TOKENS:
                groups.append([])
                tokens = 0
            groups[-1].append(ids)
            tokens += len(ids)
        return groups

    def evaluate(self, group: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        """Return the vectors of one group's inputs, each of shape (dimensions,)."""
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

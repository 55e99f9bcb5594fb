"""Exact log-probabilities from llama.cpp: what the gate and the training data are measured with.

It opens the model file itself, with a context of its own, so it runs in the learner's process as it would in the
service's. Each call evaluates its text afresh, in the same pieces, so equal calls give equal figures. Under an adapter
whose weights are damaged so far that it computes no numbers, each raises BadFile. Not for two threads at once.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from familiar.adapters.rows import kept_places
from familiar.daemon.adapter_cache import AdapterCache, AdapterKey
from familiar.daemon.drawing import log_softmax
from familiar.daemon.engine_options import EngineOptions
from familiar.daemon.llama import BATCH_TOKENS, Batch, Context, Model
from familiar.daemon.model_loading import flash_attention
from familiar.daemon.sampling import Sampler, Sampling
from familiar.daemon.template import ChatTemplate, encode_completion, encode_prompt
from familiar.daemon.text_stream import TextStream
from familiar.memory.errors import BadFile, InvalidInput
from familiar.memory.types import Message

MOST_CONTEXT_TOKENS = 8192
MOST_LOGITS = 1 << 24
"""Logits in memory at once: 64 MB of them."""


class LlamaScorer:
    """Implements ``familiar.adapters.protocols.Scorer`` on one GGUF model."""

    def __init__(self, model: Model, context: Context, context_tokens: int) -> None:
        vocab = model.vocab
        self.model = model
        """For a ``LlamaSampler`` beside it, which is to be closed first."""
        self._vocab = vocab
        self._context = context
        self.context_tokens = context_tokens
        """How many tokens a conversation may have here, reply included."""
        self._adapters = AdapterCache(model, context)
        self._template = ChatTemplate(model.chat_template(), bos=vocab.text(vocab.bos), eos=vocab.text(vocab.eos))
        self._piece = max(1, min(BATCH_TOKENS, MOST_LOGITS // vocab.size))
        self._batch = Batch(BATCH_TOKENS)

    @classmethod
    def open(cls, path: Path, *, threads: int = 0, flash: str = "auto") -> "LlamaScorer":
        """Load the model; raise BadFile as ``Model`` does. ``threads`` 0 is as many as there are physical cores.

        ``flash`` is the service's ``flash_attention``: what is judged must be what answers.
        """
        model = Model(path)
        tokens = min(model.trained_context_tokens, MOST_CONTEXT_TOKENS)
        attention = flash_attention(model, EngineOptions(flash_attention=flash))
        context = Context(model, context_tokens=tokens, threads=threads, flash_attention=attention)
        return cls(model, context, tokens)

    def close(self) -> None:
        """Free the context and the model; harmless when done already."""
        self._context.close()
        self.model.close()

    def __enter__(self) -> "LlamaScorer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def encode(self, messages: Sequence[Message], completion: str) -> tuple[list[int], list[int]]:
        """Return the prompt's tokens and the completion's, end of turn included, as the service has them."""
        return encode_prompt(self._vocab, self._template, messages), encode_completion(self._vocab, completion)

    def logps(self, adapter: Path | None, messages: Sequence[Message], completion: str) -> list[float]:
        """Return the natural-log probability of each completion token, the end of turn included."""
        prompt, reply = self.encode(messages, completion)
        return self._token_logps(adapter, prompt, reply)

    def text_logps(self, adapter: Path | None, text: str) -> list[float]:
        """Return the natural-log probability of each token of plain text.

        Its first token has nothing before it to be judged by: it is scored only where the model adds a BOS token.
        """
        ids = self.encode_text(text)
        return self._token_logps(adapter, ids[:1], ids[1:]) if len(ids) > 1 else []

    def encode_text(self, text: str) -> list[int]:
        """Return the tokens of plain text, with what the model puts before any text."""
        return ([self._vocab.bos] if self._vocab.adds_bos else []) + self._vocab.tokenise(text)

    def token_kl(self, adapter: Path, messages: Sequence[Message], completion: str, rewritten: str) -> float:
        """Return the mean over the tokens that both texts have of KL(adapter || base), in nats."""
        prompt, reply = self.encode(messages, completion)
        other = self.encode(messages, rewritten)[1]
        base_SV = np.concatenate(list(self._log_probs(None, prompt, reply)))
        adapted_SV = np.concatenate(list(self._log_probs(adapter, prompt, other)))
        old, new = kept_places(reply, other)
        kl_S = np.sum(np.exp(adapted_SV[new]) * (adapted_SV[new] - base_SV[old]), axis=-1, dtype=np.float64)
        return float(kl_S.mean())  # the end of turn is always in common

    def generate(self, adapter: Path | None, messages: Sequence[Message], max_tokens: int) -> str:
        """Return the greedy reply of at most ``max_tokens`` tokens."""
        prompt = encode_prompt(self._vocab, self._template, messages)
        self._start(adapter, len(prompt) + 1)
        greedy = Sampling(temperature=0)
        sampler = Sampler(greedy, self._vocab, context_tokens=self.context_tokens)
        stream = TextStream()
        text, position, pending = "", 0, prompt
        try:
            for _ in range(min(max_tokens, self.context_tokens - len(prompt))):
                row = 0
                for at in range(0, len(pending), BATCH_TOKENS):
                    piece = pending[at : at + BATCH_TOKENS]
                    self._batch.clear()
                    row = self._batch.add(0, position, piece, outputs=int(at + len(piece) == len(pending)))
                    self._context.decode(self._batch)
                    position += len(piece)
                if not self._context.has_numbers(row):
                    damaged(self._context, adapter)
                token = sampler.sample(self._context, row)
                if self._vocab.ends_generation(token):
                    break
                text += stream.push(self._vocab.piece(token))
                pending = [token]
        finally:
            sampler.close()
        return text + stream.finish()

    def _token_logps(self, adapter: Path | None, prompt: Sequence[int], reply: Sequence[int]) -> list[float]:
        logps: list[float] = []
        for log_probs_TV in self._log_probs(adapter, prompt, reply):
            targets = reply[len(logps) : len(logps) + len(log_probs_TV)]
            logps += (float(row[target]) for row, target in zip(log_probs_TV, targets, strict=True))
        return logps

    def _log_probs(
        self, adapter: Path | None, prompt: Sequence[int], reply: Sequence[int]
    ) -> Iterator[NDArray[np.float32]]:
        """Yield log-probabilities of every token at each position of ``reply``, in pieces of shape (T, vocab)."""
        self._start(adapter, len(prompt) + len(reply))
        yield from reply_log_probs(self._context, self._batch, adapter, [*prompt, *reply], len(prompt), self._piece)

    def _start(self, adapter: Path | None, tokens: int) -> None:
        """Set the adapter and empty the cache, once it is known that ``tokens`` fit."""
        if tokens > self.context_tokens:
            raise InvalidInput(
                f"The text is {tokens} tokens but the context holds {self.context_tokens}: shorten it.", "messages"
            )
        self._context.set_adapter(None if adapter is None else self._adapters.get(AdapterKey.of_content(adapter)))
        self._context.keep(0, 0)


def reply_log_probs(
    context: Context,
    batch: Batch,
    adapter: Path | None,
    ids: Sequence[int],
    prompt_tokens: int,
    piece: int,
    kept: int = 0,
) -> Iterator[NDArray[np.float32]]:
    """Yield log-probabilities of every token at each of ``ids`` after the prompt's, in pieces of shape (T, vocab).

    ``piece`` is the largest T. ``kept`` of the prompt's tokens, all but the last at most, are in the first slot's cache
    already. Raises BadFile as ``damaged`` does; the context is already under ``adapter``.
    """
    first, last = prompt_tokens - 1, len(ids) - 1  # each position's output predicts the token after it
    for start, end in [*pieces(kept, first, BATCH_TOKENS), *pieces(first, last, piece)]:
        outputs = end - start if start >= first else 0
        batch.clear()
        batch.add(0, start, ids[start:end], outputs=outputs)
        context.decode(batch)
        if outputs:
            logits_TV = context.outputs(outputs)
            if np.isnan(logits_TV[:, 0]).any():
                damaged(context, adapter)
            yield log_softmax(logits_TV)


def damaged(context: Context, adapter: Path | None) -> NoReturn:
    """Raise BadFile for weights that compute no numbers."""
    context.wipe()  # or the next text would meet the NaN in the cache
    what = f"adapter {adapter}" if adapter else "model"
    raise BadFile(f"The {what} computes no numbers (NaN): its weights are damaged.")


def pieces(start: int, end: int, most: int) -> list[tuple[int, int]]:
    """Return the (start, end) of consecutive pieces of at most ``most``, which together are from start to end."""
    return [(at, min(at + most, end)) for at in range(start, end, most)]

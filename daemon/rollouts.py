"""Replies sampled from the policy in training, many at a time, and a teacher's log-probabilities along them.

All running replies advance together, one token each per ``llama_decode``; a finished one's place is taken by the next.
Each distinct prompt is evaluated once and its cache copied to the other members of its group, and prompts that begin
alike share that beginning. What is left out: penalties, stop strings and grammars, since a policy gradient needs the
distribution as the policy has it. Not for two threads at once.
"""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from familiar.adapters.gguf_lora import check_lora
from familiar.adapters.protocols import Completion, Draw, Progress, ProgressCallback, TopLogps, silent
from familiar.daemon.adapter_cache import AdapterKey
from familiar.daemon.drawing import draw, log_softmax, top
from familiar.daemon.engine_options import CONTEXT_STEP_TOKENS, EngineOptions, kv_bytes_per_token
from familiar.daemon.free_memory import free_memory
from familiar.daemon.llama import BATCH_TOKENS, Adapter, Batch, Context, Model
from familiar.daemon.model_loading import flash_attention, read_metadata
from familiar.daemon.scorer import MOST_CONTEXT_TOKENS, MOST_LOGITS, damaged, pieces, reply_log_probs
from familiar.daemon.slots import common_prefix
from familiar.daemon.template import ChatTemplate, encode_prompt
from familiar.daemon.text_stream import TextStream
from familiar.daemon.vocab import Vocab
from familiar.memory.errors import InvalidInput
from familiar.memory.types import Message

MOST_SLOTS = 64
"""Sequences in flight at once. Measured on 5 M parameters and two cores: twice as many bring nothing more."""
KV_SHARE = 0.25
"""The most of the free memory that the cache takes: the trainer shares the machine."""
TELL_S = 0.5
"""Seconds until the caller hears of a run again in which no reply has ended: it may want to stop it."""


class LlamaSampler:
    """Implements ``familiar.adapters.protocols.Sampler`` and ``Teacher`` on one model, which stays the caller's.

    It may share the model with a ``LlamaScorer``: each has a context of its own. Close it before the model. It keeps
    the adapter that was used last, and goes by the file's content: one written anew at the same path is loaded anew.
    """

    def __init__(self, model: Model, *, threads: int = 0, slots: int = MOST_SLOTS, flash: str = "auto") -> None:
        """``threads`` 0 is as many as there are physical cores, ``slots`` the most sequences in flight.

        ``flash`` is the service's ``flash_attention``.
        """
        vocab = model.vocab
        self._model = model
        self._vocab = vocab
        self._threads = threads
        self._attention = flash_attention(model, EngineOptions(flash_attention=flash))
        self._most_slots = slots
        self._limit = min(model.trained_context_tokens, MOST_CONTEXT_TOKENS)
        self._template = ChatTemplate(model.chat_template(), bos=vocab.text(vocab.bos), eos=vocab.text(vocab.eos))
        self._kv_bytes = kv_bytes_per_token(read_metadata(model.path), "f16")
        self._piece = max(1, min(BATCH_TOKENS, MOST_LOGITS // vocab.size))
        self._batch = Batch(BATCH_TOKENS)
        self._context: Context | None = None
        self._slots = self._context_tokens = self._wanted = 0
        self._loaded: tuple[AdapterKey, Adapter] | None = None

    def close(self) -> None:
        """Free the context and the adapter; harmless when done already."""
        self._drop_context()
        self._drop_adapter()

    def __enter__(self) -> "LlamaSampler":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def sample(
        self,
        adapter: Path | None,
        prompts: Sequence[Sequence[Message]],
        how: Draw,
        progress: ProgressCallback = silent,
    ) -> list[list[Completion]]:
        """Return the completions of each prompt. A completion depends on the seed, its prompt's place in ``prompts``
        and its place in the group, not on what else is sampled, up to the rounding of batched products.

        ``progress`` hears of it as replies end, and often enough to stop the run by raising. Raises InvalidInput for a
        prompt that leaves no room to reply, BadFile for an adapter that cannot be used or computes no numbers.
        """
        encoded = [self._encode(messages, 1) for messages in prompts]
        if not encoded:
            return []
        longest = min(self._limit, max(map(len, encoded)) + how.max_tokens)
        context = self._prepare(adapter, longest, len(encoded) * how.group)
        run = _Run(context, self._batch, self._slots, adapter)
        waiting = deque(
            _Reply(index, member, encoded[index], min(how.max_tokens, self._limit - len(encoded[index])))
            for index in sorted(range(len(encoded)), key=encoded.__getitem__)  # so that those that begin alike are near
            for member in range(how.group)
        )
        total, done, told = len(waiting), 0, time.monotonic()
        replies: dict[tuple[int, int], Completion] = {}
        while waiting or run.replies:
            if waiting and None in run.places:
                fresh = [waiting.popleft() for _ in range(min(len(waiting), run.places.count(None)))]
                for reply in fresh:
                    reply.uniforms = _uniforms(how.seed, reply)
                going, logits_BV = fresh, np.stack([run.start(reply) for reply in fresh])
            else:
                going = run.replies
                logits_BV = run.step()
            uniforms_B = np.array([reply.uniforms[len(reply.ids)] for reply in going])
            picked_B, logps_B = draw(logits_BV, uniforms_B, how.temperature)
            for reply, token, logp in zip(going, picked_B.tolist(), logps_B.tolist(), strict=True):
                reply.ids.append(token)
                reply.logps.append(logp)
                ended = self._vocab.ends_generation(token)
                if ended or len(reply.ids) == reply.most:
                    run.end(reply)
                    replies[reply.prompt_index, reply.member] = _completion(reply, self._vocab, ended)
            if len(replies) > done or time.monotonic() - told > TELL_S:
                done, told = len(replies), time.monotonic()
                progress(Progress("rollouts", done, total))
            if not waiting:
                run.close_ranks()
        return [[replies[index, member] for member in range(how.group)] for index in range(len(encoded))]

    def top_logps(
        self,
        adapter: Path | None,
        rows: Sequence[tuple[Sequence[Message], Sequence[int]]],
        k: int,
        progress: ProgressCallback = silent,
        *,
        temperature: float = 1.0,
    ) -> list[TopLogps]:
        """Return the ``k`` likeliest tokens at each token of each completion, given as (messages, completion ids).

        What several begin with is evaluated once. ``progress`` hears of each row and may stop the run by raising.
        ``temperature`` divides the logits.

        Raises InvalidInput for a row longer than the context and for a ``k`` that the vocabulary has not, BadFile as
        ``sample`` does.
        """
        if not 1 <= k <= self._vocab.size:
            raise InvalidInput(f"k must be from 1 to the vocabulary's {self._vocab.size} tokens but is {k}.", "k")
        texts = [(self._encode(messages, len(reply)), list(reply)) for messages, reply in rows]
        if not texts:
            return []
        context = self._prepare(adapter, max(len(prompt) + len(reply) for prompt, reply in texts), 1)
        found: dict[int, TopLogps] = {}
        held: list[int] = []
        for index in sorted(range(len(texts)), key=texts.__getitem__):
            prompt, reply = texts[index]
            ids = [*prompt, *reply]
            kept = context.keep(0, min(common_prefix(held, ids), len(prompt) - 1))
            parts = [top(np.empty((0, self._vocab.size), np.float32), np.empty(0, np.int32), k)]
            left = np.array(reply, np.int32)
            for log_probs_TV in reply_log_probs(context, self._batch, adapter, ids, len(prompt), self._piece, kept):
                picked_T, left = np.split(left, [len(log_probs_TV)])
                drawn_TV = log_probs_TV if temperature == 1 else log_softmax(log_probs_TV / temperature)
                parts.append(top(drawn_TV, picked_T, k))
            held = ids[:-1]
            found[index] = _joined(parts)
            progress(Progress("teacher", len(found), len(texts)))
        return [found[index] for index in range(len(texts))]

    def _encode(self, messages: Sequence[Message], reply_tokens: int) -> list[int]:
        """Return a prompt's tokens once it is known that it and ``reply_tokens`` more fit."""
        ids = encode_prompt(self._vocab, self._template, messages)
        if len(ids) + reply_tokens > self._limit:
            raise InvalidInput(
                f"The prompt is {len(ids)} tokens and the reply at least {reply_tokens} but the context holds "
                f"{self._limit}: shorten it.",
                "messages",
            )
        return ids

    def _prepare(self, adapter: Path | None, tokens: int, sequences: int) -> Context:
        """Return an empty context under ``adapter`` with room for ``sequences`` of ``tokens``, or as many as fit."""
        wanted = min(sequences, self._most_slots)
        if self._context is None or tokens > self._context_tokens or wanted > self._wanted:
            self._drop_context()
            steps = -(-max(tokens, self._context_tokens) // CONTEXT_STEP_TOKENS)
            self._context_tokens, self._wanted = steps * CONTEXT_STEP_TOKENS, max(wanted, self._wanted)
            self._slots = _slots_that_fit(self._wanted, self._context_tokens * self._kv_bytes, free_memory())
            self._context = Context(
                self._model,
                context_tokens=self._context_tokens,
                slots=self._slots,
                threads=self._threads,
                flash_attention=self._attention,
                outputs=max(self._slots, self._piece),
            )
        for slot in range(self._slots):
            self._context.keep(slot, 0)
        self._context.set_adapter(self._load(adapter))
        return self._context

    def _load(self, path: Path | None) -> Adapter | None:
        if path is None:
            return None
        key = AdapterKey.of_content(path)
        if self._loaded is None or self._loaded[0] != key:
            self._drop_adapter()
            check_lora(path, self._model.architecture)
            self._loaded = key, self._model.load_adapter(path)
        return self._loaded[1]

    def _drop_adapter(self) -> None:
        if self._loaded is not None:
            adapter = self._loaded[1]
            self._loaded = None
            if self._context is None:
                adapter.free()
            else:
                self._context.free_adapter(adapter)

    def _drop_context(self) -> None:
        if self._context is not None:
            self._context.close()
            self._context = None


@dataclass(eq=False)
class _Reply:
    """A reply on its way: at most ``most`` tokens, drawn by ``uniforms``, one of them each."""

    prompt_index: int
    member: int
    prompt: list[int]
    most: int
    uniforms: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    ids: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)


class _Run:
    """The slots of one call of ``sample``: which reply is in which, and what their caches hold."""

    def __init__(self, context: Context, batch: Batch, slots: int, adapter: Path | None) -> None:
        self.places: list[_Reply | None] = [None] * slots
        self._context = context
        self._batch = batch
        self._adapter = adapter
        self._held: list[list[int]] = [[] for _ in range(slots)]  # the prompt that each slot's cache begins with
        self._last: tuple[list[int], NDArray[np.float32]] = ([], np.empty(0, np.float32))

    @property
    def replies(self) -> list[_Reply]:
        """The running replies, in the order of their slots."""
        return [reply for reply in self.places if reply is not None]

    def start(self, reply: _Reply) -> NDArray[np.float32]:
        """Put a reply into a free slot; return the logits after its prompt, shape (vocab,).

        The prompt's beginning is taken from whichever slot has most of it. The newest prompt's logits are kept, so all
        of it can be taken for the next of its group.
        """
        slot, prompt = self.places.index(None), reply.prompt
        known, logits_V = self._last
        most = len(prompt) - (known != prompt)
        shared = [min(most, common_prefix(held, prompt)) for held in self._held]
        donor = max(range(len(shared)), key=lambda other: (shared[other], other == slot))
        if donor != slot and shared[donor]:
            self._context.copy(donor, slot)
        at = self._context.keep(slot, shared[donor])
        self.places[slot], self._held[slot] = reply, prompt
        for start, end in pieces(at, len(prompt), BATCH_TOKENS):
            self._batch.clear()
            row = self._batch.add(slot, start, prompt[start:end], outputs=int(end == len(prompt)))
            self._context.decode(self._batch)
            if end == len(prompt):
                if not self._context.has_numbers(row):
                    damaged(self._context, self._adapter)
                logits_V = self._context.row(row).copy()
                self._last = prompt, logits_V
        return logits_V

    def step(self) -> NDArray[np.float32]:
        """Evaluate each running reply's newest token; return the logits after them, one row per reply."""
        self._batch.clear()
        for slot, reply in enumerate(self.places):
            if reply is not None:
                self._batch.add(slot, len(reply.prompt) + len(reply.ids) - 1, reply.ids[-1:], outputs=1)
        self._context.decode(self._batch)
        logits_BV = self._context.outputs(len(self._batch))
        if np.isnan(logits_BV[:, 0]).any():
            damaged(self._context, self._adapter)
        return logits_BV

    def end(self, reply: _Reply) -> None:
        """Free a reply's slot; its prompt stays there for the next."""
        self.places[self.places.index(reply)] = None

    def close_ranks(self) -> None:
        """Move the last replies into the free slots before them: llama.cpp evaluates neighbouring slots in one pass."""
        free = [slot for slot, reply in enumerate(self.places) if reply is None]
        taken = [slot for slot, reply in enumerate(self.places) if reply is not None]
        for hole, last in zip(free, reversed(taken), strict=False):
            if hole > last:
                break
            self._context.copy(last, hole)
            self.places[hole], self.places[last] = self.places[last], None
            self._held[hole] = self._held[last]


def _uniforms(seed: int, reply: _Reply) -> NDArray[np.float32]:
    """Return the numbers in [0, 1) that a reply is drawn by: its own, whatever it runs beside."""
    return np.random.default_rng((seed, reply.prompt_index, reply.member)).random(reply.most, dtype=np.float32)


def _completion(reply: _Reply, vocab: Vocab, ended: bool) -> Completion:
    stream = TextStream()
    said = reply.ids[:-1] if ended else reply.ids
    text = stream.push(b"".join(map(vocab.piece, said))) + stream.finish()
    return Completion(tuple(reply.ids), tuple(reply.logps), text, "stop" if ended else "length")


def _joined(parts: Sequence[TopLogps]) -> TopLogps:
    return TopLogps(
        np.concatenate([part.ids_TK for part in parts]),
        np.concatenate([part.logps_TK for part in parts]),
        np.concatenate([part.picked_T for part in parts]),
    )


def _slots_that_fit(wanted: int, slot_bytes: float, free_bytes: int) -> int:
    """Return how many slots to have: as many as wanted, fewer where memory is short, and at least one."""
    return max(1, min(wanted, int(free_bytes * KV_SHARE / slot_bytes))) if slot_bytes else wanted

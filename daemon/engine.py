"""The model at work: one thread that owns llama.cpp's context, and the calls by which every other thread uses it.

Requests wait in a bounded queue and are given slots in the order in which they came; ``scheduler`` has what happens
then.

What is the same as what. With no adapter, logits are those of plain llama.cpp to the bit, before, between and after
adapter swaps, for a request that is evaluated alone and with nothing reused (``cache_key`` ""): 512 prompt tokens at a
time, then one token at a time. Beside other running requests, or after a reused prefix, the same numbers are summed in
batches of another shape, and logits may differ in their last bits; then a reply can differ where two tokens are all but
equally likely, and so can the reply to a repeated seed.
"""

import hashlib
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from familiar.daemon.adapter_cache import AdapterKey, check_adapter
from familiar.daemon.generation import Chunk, Generation, Usage
from familiar.daemon.llama import Context, Model
from familiar.daemon.sampling import Sampling
from familiar.daemon.scheduler import Scheduler
from familiar.daemon.slots import Owner, Request
from familiar.daemon.template import ChatTemplate, encode_prompt
from familiar.memory.errors import Busy, InvalidInput
from familiar.memory.types import Message

__all__ = ["Chunk", "Engine", "EngineBusy", "EngineClosed", "Generation", "ModelInfo", "Sampling", "Usage"]

MOST_AUTOMATIC_CONTEXT_TOKENS = 8192
QUEUE_LIMIT = 64


class EngineBusy(Busy):
    """The queue is full; asking again a little later is worth it."""


class EngineClosed(Busy):
    """The engine was closed, before the call or while it was being answered."""

    code = "shutting_down"


@dataclass(frozen=True)
class ModelInfo:
    """The loaded model. ``context_tokens`` is what each request can use of ``trained_context_tokens``."""

    path: Path
    name: str
    architecture: str
    parameters: int
    size_bytes: int
    context_tokens: int
    trained_context_tokens: int

    @cached_property
    def sha256(self) -> str:
        """The file's hash, in hex; reading the whole file, the first time."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


class Engine:
    """One base model, its slots and its adapters. Every method is safe from any thread."""

    def __init__(self, model: Model, context: Context, info: ModelInfo, slots: int, queue_limit: int) -> None:
        vocab = model.vocab
        self.info = info
        self._model = model
        self._context = context
        self._template = ChatTemplate(model.chat_template(), bos=vocab.text(vocab.bos), eos=vocab.text(vocab.eos))
        self._queue_limit = queue_limit
        # Written by callers and read by the thread, under _changed:
        self._changed = threading.Condition()
        self._waiting: deque[Request] = deque()
        self._drops: list[Path] = []
        self._closing = False
        # The vocabulary is used from callers' threads and must outlive each use:
        self._vocab_use = threading.Lock()
        self._scheduler = Scheduler(model, context, slots=slots, context_tokens=info.context_tokens)  # the thread's own
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        context_tokens: int = 0,
        threads: int = 0,
        slots: int = 4,
        gpu_layers: int = 0,
        queue_limit: int = QUEUE_LIMIT,
    ) -> "Engine":
        """Load a model and start its thread.

        ``context_tokens`` is per slot; 0 is what the model was trained for, at most 8192. ``threads`` 0 is as many as
        there are physical cores. Raises BadFile when the file cannot be used, InvalidInput when a size cannot.
        """
        if slots < 1:
            raise InvalidInput(f"slots must be at least 1 but is {slots}.", "slots")
        path = Path(path)
        model = Model(path, gpu_layers=gpu_layers)
        try:
            trained = model.trained_context_tokens
            if context_tokens > trained or context_tokens < 0:
                raise InvalidInput(
                    f"The model holds at most {trained} tokens of context but {context_tokens} were asked for: "
                    f"ask for fewer, or 0 for as many as is sensible.",
                    "context_tokens",
                )
            tokens = context_tokens or min(trained, MOST_AUTOMATIC_CONTEXT_TOKENS)
            info = ModelInfo(
                path=path,
                name=model.metadata("general.name") or path.stem,
                architecture=model.architecture,
                parameters=model.parameters,
                size_bytes=path.stat().st_size,
                context_tokens=tokens,
                trained_context_tokens=trained,
            )
            context = Context(model, context_tokens=tokens, slots=slots, threads=threads)
        except BaseException:
            model.close()
            raise
        try:
            return cls(model, context, info, slots, queue_limit)
        except BaseException:
            context.close()
            model.close()
            raise

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Return a conversation's tokens; raise InvalidInput (``messages``) when the model's template refuses it."""
        with self._vocab_use:
            self._check_open()
            return encode_prompt(self._model.vocab, self._template, messages)

    def count_tokens(self, text: str) -> int:
        """Return how many tokens plain text is."""
        with self._vocab_use:
            self._check_open()
            return len(self._model.vocab.tokenise(text))

    def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, *, adapter: Path | None = None, cache_key: str = ""
    ) -> Generation:
        """Queue a request and return its reply in the making.

        What was computed for a prompt is reused for a later one that begins alike, under the same adapter and the same
        ``cache_key`` (a user) only; with an empty one, never. Raises InvalidInput (``messages``) when the prompt does
        not fit the context, BadFile when the adapter is missing or damaged, EngineBusy when the queue is full. An
        adapter of another model is found out later: the iteration then raises BadFile.
        """
        prompt, limit = tuple(prompt_ids), self.info.context_tokens
        if not prompt:
            raise InvalidInput("The messages are 0 tokens but a prompt needs at least 1: say something.", "messages")
        if len(prompt) >= limit:
            raise InvalidInput(
                f"The messages are {len(prompt)} tokens but the context holds {limit}, the reply included: "
                f"shorten them, or serve with a larger context.",
                "messages",
            )
        key = None
        if adapter is not None:
            key = AdapterKey.of(adapter)
            if not self._scheduler.has_adapter(key):
                check_adapter(adapter, self.info.architecture)
        generation = Generation(len(prompt), self._wake)
        request = Request(prompt, sampling, Owner(key, cache_key), generation)
        with self._changed:
            self._check_open()
            if len(self._waiting) >= self._queue_limit:
                raise EngineBusy(
                    f"{len(self._waiting)} requests are waiting already, the most allowed: try again soon."
                )
            self._waiting.append(request)
            self._changed.notify()
        return generation

    def drop_adapter(self, path: Path) -> None:
        """Let go of an adapter's memory, once no running reply uses it; asking for it again loads its file anew."""
        with self._changed:
            self._drops.append(path)
            self._changed.notify()

    def close(self) -> None:
        """End every reply with EngineClosed, stop the thread and free the model. Harmless when done already."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        with self._vocab_use:
            self._context.close()
            self._model.close()

    def _check_open(self) -> None:
        if self._closing:
            raise EngineClosed("The engine is closed: the service is stopping.")

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    # ---- the engine's thread ----

    def _run(self) -> None:
        try:
            while self._wait():
                self._scheduler.release_cancelled()
                self._admit()
                self._scheduler.step()
        finally:
            closed = EngineClosed("The engine was closed before the reply was complete.")
            with self._changed:
                self._closing = True
                waiting, self._waiting = self._waiting, deque()
            self._scheduler.end_all(closed)
            for request in waiting:
                request.generation.put(closed)

    def _wait(self) -> bool:
        """Wait for something to do and take the callers' wishes; return False when it is to close."""
        with self._changed:
            while not (self._closing or self._waiting or self._drops or self._scheduler.busy):
                self._changed.wait()
            drops, self._drops = self._drops, []
            cancelled = [request for request in self._waiting if request.generation.cancelled]
            for request in cancelled:
                self._waiting.remove(request)
            closing = self._closing
        for request in cancelled:
            request.generation.put(None)
        for path in drops:
            self._scheduler.drop_adapter(path)
        return not closing

    def _admit(self) -> None:
        """Give the free slots to the requests that have waited longest."""
        while self._scheduler.has_room:
            with self._changed:
                if not self._waiting:
                    return
                request = self._waiting.popleft()
            self._scheduler.place(request)

"""The model at work: one thread that owns llama.cpp's context, and the calls by which every other thread uses it.

Requests wait in a bounded queue and are given slots in the order in which they came; ``scheduler`` has what happens
then.

What is the same as what. An *exact* request (``familiar:base`` makes them) is never batched with another one and reuses
nothing: a batch of prompt tokens at a time (512, or ``batch_tokens``), then one token at a time. Its logits are those
of plain llama.cpp with the same options to the bit, under no adapter or under its own, whatever else runs, before,
between and after adapter swaps; so the same seed gives the same reply. Where it asks for its prompt's log-probabilities
too, the prompt goes on in smaller batches: the same ones each time, but not plain llama.cpp's. Any other request may
run beside others of its adapter, or go on from a reused prefix: then the same numbers are summed in batches of another
shape, and logits may differ in their last bits. A reply can then differ where two tokens are all but equally likely,
and so can the reply to a repeated seed.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from familiar.adapters.gguf_lora import check_lora
from familiar.daemon.adapter_cache import AdapterKey
from familiar.daemon.embedder import Embedder, embedder_name
from familiar.daemon.engine_options import DEFAULTS, EngineOptions
from familiar.daemon.engine_stats import Counters, EngineStats
from familiar.daemon.generation import Chunk, Event, Generation, Usage
from familiar.daemon.llama import Context, Model
from familiar.daemon.model_loading import load
from familiar.daemon.model_parts import model_bytes
from familiar.daemon.sampling import Sampling
from familiar.daemon.scheduler import Scheduler
from familiar.daemon.slots import Family, Owner, Request
from familiar.daemon.template import CHATML, ChatTemplate, encode_prompt
from familiar.daemon.template_messages import template_messages
from familiar.daemon.tool_formats import ToolFormat, detect
from familiar.memory.errors import BadFile, Busy, InvalidInput
from familiar.memory.types import Message

log = logging.getLogger("familiar")

__all__ = ["Chunk", "Engine", "EngineBusy", "EngineClosed", "Generation", "ModelInfo", "Sampling", "Usage"]


_SHORT_TOKEN = 8
"""Characters in a token of a long text, and more than most have: what has fewer is made tokens and then judged."""


class EngineBusy(Busy):
    """The queue is full; asking again a little later is worth it."""


class ContextOverflow(InvalidInput):
    """A prompt that the context cannot hold; the code is OpenAI's. ``prompt_tokens`` may be in words: "at least 9"."""

    code = "context_length_exceeded"

    def __init__(self, prompt_tokens: int | str, context_tokens: int, param: str, instead: str = "shorten it") -> None:
        """``instead`` is what the client can do, before a larger context."""
        super().__init__(
            # Begins as OpenAI's does: clients know an overflow by these words.
            f"This model's maximum context length is {context_tokens} tokens, the reply included, but the {param} "
            f"{_have(param)} {prompt_tokens}: {instead}, or serve with a larger context.",
            param,
        )
        self.prompt_tokens = prompt_tokens


def _have(param: str) -> str:
    return "have" if param.endswith("s") else "has"


class EngineClosed(Busy):
    """The engine was closed, before the call or while it was being answered."""

    code = "shutting_down"


@dataclass(frozen=True)
class ModelInfo:
    """The loaded model. ``context_tokens`` is what each request can use of ``trained_context_tokens``.

    ``flash_attention`` is on or off, and auto where llama.cpp chooses for a GPU.
    """

    path: Path
    name: str
    architecture: str
    parameters: int
    size_bytes: int
    context_tokens: int
    trained_context_tokens: int
    flash_attention: str


@dataclass
class _Embedding:
    """Texts being embedded: ``groups`` are those still to do, each evaluated together on the engine's thread."""

    embedder: Embedder
    groups: deque[list[Sequence[int]]]
    vectors: list[NDArray[np.float32]] = field(default_factory=list)
    result: "Future[list[NDArray[np.float32]]]" = field(default_factory=Future)


class Engine:
    """One base model, its slots and its adapters. Every method is safe from any thread."""

    def __init__(
        self, model: Model, context: Context, info: ModelInfo, options: EngineOptions, embedding_model: Path | None
    ) -> None:
        vocab = model.vocab
        self.info = info
        self._model = model
        self._context = context
        source = model.chat_template()
        self._template = ChatTemplate(source, bos=vocab.text(vocab.bos), eos=vocab.text(vocab.eos))
        # Some files have a template of its own for requests with tools.
        tool_source = model.chat_template("tool_use") or source
        self._tool_template = ChatTemplate(tool_source, bos=vocab.text(vocab.bos), eos=vocab.text(vocab.eos))
        self.chat_template = source or CHATML
        self.supports_tools = self._tool_template.supports_tools
        self.tool_format: ToolFormat | None = detect(tool_source) if self.supports_tools else None
        self.slots = options.slots
        self.queue_limit = options.queue_limit
        self._threads = options.threads
        self.embedding_model = embedding_model
        self._embedder: Embedder | None = None
        self._embedder_opening = threading.Lock()
        # Written by callers and read by the thread, under _changed:
        self._changed = threading.Condition()
        self._waiting: deque[Request] = deque()
        self._drops: list[Path] = []
        self._embeddings: deque[_Embedding] = deque()
        self._closing = False
        # The vocabulary is used from callers' threads and must outlive each use:
        self._vocab_use = threading.Lock()
        self._after_step: list[Callable[[], None]] = []
        self._on_request: list[Callable[[], None]] = []
        self._counters = Counters()
        # The thread's own:
        self._scheduler = Scheduler(
            model, context, slots=options.slots, context_tokens=info.context_tokens, counters=self._counters
        )
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, path: Path, options: EngineOptions = DEFAULTS, *, embedding_model: Path | None = None) -> "Engine":
        """Load a model and start its thread; raise BadFile when the file cannot be used, InvalidInput for an option.

        ``embedding_model`` is the file that ``embed`` loads when it is first called, or ``warm_embedder``; None is the
        model itself.
        """
        path = Path(path)
        loaded = load(path, options)
        model, context = loaded.model, loaded.context
        try:
            info = ModelInfo(
                path=path,
                name=model.metadata("general.name") or path.stem,
                architecture=model.architecture,
                parameters=model.parameters,
                size_bytes=model_bytes(path),
                context_tokens=loaded.options.context_tokens,
                trained_context_tokens=model.trained_context_tokens,
                flash_attention=loaded.options.flash_attention,
            )
            return cls(model, context, info, loaded.options, embedding_model)
        except BaseException:
            context.close()
            model.close()
            raise

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def encode_prompt(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None = None) -> list[int]:
        """Return a conversation's tokens; raise InvalidInput (``messages``) when the model's template refuses it.

        One that is far too long for the context raises ContextOverflow at once: making it tokens would take seconds.
        """
        with self._vocab_use:
            self._check_open()
            self._check_length(sum(len(message["content"] or "") for message in messages), "messages")
            template = self._tool_template if tools else self._template
            return encode_prompt(self._model.vocab, template, messages, tools)

    def render_prompt(self, messages: Sequence[Message]) -> str:
        """Return a conversation as the template writes it; raise InvalidInput (``messages``) when it refuses it."""
        return self._template.render(template_messages(messages, short_ids=self._template.short_ids))

    def encode_text(self, text: str) -> list[int]:
        """Return the tokens of a plain prompt, after BOS where the model has one; control tokens may be spelt out.

        One that is far too long for the context raises ContextOverflow.
        """
        with self._vocab_use:
            self._check_open()
            self._check_length(len(text), "prompt")
            vocab = self._model.vocab
            return ([vocab.bos] if vocab.adds_bos else []) + vocab.tokenise(text, control=True)

    def _check_length(self, characters: int, param: str) -> None:
        """Refuse what cannot fit before it is made tokens: others wait for the vocabulary meanwhile."""
        limit = self.info.context_tokens
        if characters > limit * _SHORT_TOKEN:
            least = characters // self._model.vocab.longest_bytes
            if least > limit:
                raise ContextOverflow(f"at least {least}", limit, param)

    def check_tokens(self, tokens: Sequence[int], param: str = "prompt") -> list[int]:
        """Return the tokens; raise InvalidInput (``param``) for one that there is not."""
        size = self._model.vocab.size
        wrong = next((token for token in tokens if not 0 <= token < size), None)
        if wrong is not None:
            raise InvalidInput(
                f"The {param} {_have(param)} token {wrong} but the model has 0 to {size - 1}: check them.", param
            )
        return list(tokens)

    def decode_tokens(self, tokens: Sequence[int]) -> bytes:
        """Return the bytes that tokens spell."""
        with self._vocab_use:
            self._check_open()
            return b"".join(self._model.vocab.spelling(token) for token in tokens)

    def tokenise(self, text: str, *, control: bool, around: bool) -> list[int]:
        """Return the tokens of a text; ``control`` and ``around`` are said in ``Vocab.tokenise``."""
        with self._vocab_use:
            self._check_open()
            return self._model.vocab.tokenise(text, control=control, around=around)

    def count_tokens(self, text: str) -> int:
        """Return how many tokens plain text is."""
        return len(self.tokenise(text, control=False, around=False))

    def generate(
        self,
        prompt_ids: Sequence[int],
        sampling: Sampling,
        *,
        adapter: Path | None = None,
        cache_key: str = "",
        exact: bool = False,
    ) -> Generation:
        """Queue a request and return its reply in the making: ``choices`` with one choice."""
        return self.choices(prompt_ids, [sampling], adapter=adapter, cache_key=cache_key, exact=exact)[0]

    def choices(
        self,
        prompt_ids: Sequence[int],
        samplings: Sequence[Sampling],
        *,
        adapter: Path | None = None,
        cache_key: str = "",
        exact: bool = False,
        whole: bool = False,
        param: str = "messages",
        deliver: Callable[[int, Event], None] | None = None,
    ) -> list[Generation]:
        """Queue several replies to one prompt, one per sampling, and return them in the making.

        What was computed for a prompt is reused for a later one that begins alike, under the same adapter and the same
        ``cache_key`` (a user) only; with an empty one, never. ``exact`` is said in the module's docstring. With
        ``deliver`` the events of the choice at an index go there, on the engine's thread; see ``after_step``. A
        ``whole`` reply is an empty chunk at its beginning, and all of it in another one at its end.

        Raises InvalidInput (``param``) when the prompt does not fit the context, BadFile when the adapter is missing
        or damaged, EngineBusy when the queue has no room for all of them. An adapter of another model is found out
        later: the iteration then raises BadFile.
        """
        prompt, limit = tuple(prompt_ids), self.info.context_tokens
        if not prompt:
            raise InvalidInput(f"The {param} {_have(param)} 0 tokens: say something.", param)
        if len(prompt) >= limit:
            raise ContextOverflow(len(prompt), limit, param)
        key = None
        if adapter is not None:
            key = AdapterKey.of(adapter)
            if not self._scheduler.has_adapter(key):
                check_lora(adapter, self.info.architecture)
        owner, family = Owner(key, "" if exact else cache_key), Family()
        requests = []
        for index, sampling in enumerate(samplings):
            generation = Generation(len(prompt), self._wake, partial(deliver, index) if deliver else None)
            requests.append(Request(prompt, sampling, owner, generation, exact, whole, family))
        for call in self._on_request:
            call()
        with self._changed:
            self._check_open()
            # An empty queue takes any request: one of more choices than may wait would else be told to wait for ever.
            # What free slots are about to take does not wait.
            room = self.queue_limit + self.slots - self._scheduler.running
            if self._waiting and len(self._waiting) + len(requests) > room:
                raise EngineBusy(
                    f"{len(self._waiting)} requests are waiting already and at most {self.queue_limit} may: try again "
                    f"soon."
                )
            self._waiting.extend(requests)
            self._changed.notify()
        return [request.generation for request in requests]

    def check_choices(self, choices: int) -> None:
        """Raise InvalidInput (``n``) for more replies to one prompt than can be made at a time."""
        if choices > self.slots:
            raise InvalidInput(
                f"n is {choices} but this service makes at most {self.slots} replies at a time: "
                "ask for fewer, or serve with more slots.",
                "n",
            )

    def after_step(self, call: Callable[[], None]) -> None:
        """Have ``call`` called on the engine's thread after each step, when what it produced has been delivered."""
        self._after_step.append(call)

    def on_request(self, call: Callable[[], None]) -> None:
        """Have ``call`` called at each request for replies or embeddings, on the asking thread and before its work."""
        self._on_request.append(call)

    def stats(self) -> EngineStats:
        """What has been done so far, and what is being done."""
        counters, scheduler = self._counters, self._scheduler
        return EngineStats(
            **vars(counters),
            waiting=len(self._waiting),
            running=scheduler.running,
            slots=self.slots,
            adapters_loaded=scheduler.adapters_loaded,
        )

    def embed(
        self, inputs: Sequence[str | Sequence[int]], *, truncate: bool = False
    ) -> tuple[list[NDArray[np.float32]], int]:
        """Return a vector of length 1 for each text or token sequence, shape (dimensions,), and their tokens in all.

        Blocks until they are there; running replies go on meanwhile, and so do other calls of this. ``truncate`` cuts
        long texts to what the model is good for, and to what is quick. Raises InvalidInput (``input``) for an input
        that is empty or too long, BadFile when the model gives no embeddings.
        """
        embedder = self._open_embedder()
        with self._vocab_use:
            self._check_open()
            ids = [embedder.tokenise(each, cut=truncate) if isinstance(each, str) else list(each) for each in inputs]
        embedder.check(ids)
        if not ids:
            return [], 0
        for call in self._on_request:
            call()
        work = _Embedding(embedder, deque(embedder.groups(ids)))
        with self._changed:
            self._check_open()
            self._embeddings.append(work)
            self._changed.notify()
        return work.result.result(), sum(map(len, ids))

    @cached_property
    def embedder_name(self) -> str:
        """What says by which model a vector was made: its name and a hash, the same as long as its file is."""
        return embedder_name(self.embedding_model or self.info.path)

    @property
    def embedding_dimensions(self) -> int:
        """How many numbers a vector has. Loads the model, as ``embed`` does."""
        return self._open_embedder().dimensions

    def warm_embedder(self) -> None:
        """Load the model that embeds, in the background, so that the first ``embed`` finds it ready."""
        threading.Thread(target=self._warm_embedder, name="embedder", daemon=True).start()

    def _warm_embedder(self) -> None:
        try:
            self.embed(["Hello"])
        except EngineClosed:
            pass
        except BadFile as error:
            log.warning("%s", error)

    def _open_embedder(self) -> Embedder:
        with self._embedder_opening:
            self._check_open()
            if self._embedder is None:
                model = Model(self.embedding_model) if self.embedding_model else self._model
                self._embedder = Embedder(model, threads=self._threads)
            return self._embedder

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
        with self._embedder_opening, self._vocab_use:
            if self._embedder:
                self._embedder.close()
                if self._embedder.model is not self._model:
                    self._embedder.model.close()
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
                self._embed_some()
                self._hand_over()
        finally:
            closed = EngineClosed("The engine was closed before the reply was complete.")
            with self._changed:
                self._closing = True
                waiting, self._waiting = self._waiting, deque()
                embeddings, self._embeddings = self._embeddings, deque()
            self._scheduler.end_all(closed)
            for request in waiting:
                request.generation.put(closed)
            for work in embeddings:
                work.result.set_exception(closed)
            self._hand_over()

    def _embed_some(self) -> None:
        """Evaluate one group of the embeddings that have waited longest; what is left of them waits for the others."""
        if not self._embeddings:
            return
        work = self._embeddings[0]
        try:
            work.vectors += work.embedder.evaluate(work.groups.popleft())
        except Exception as error:
            self._embeddings.popleft()
            work.result.set_exception(error)
            return
        if work.groups:
            self._embeddings.rotate(-1)
        else:
            self._embeddings.popleft()
            work.result.set_result(work.vectors)

    def _hand_over(self) -> None:
        for call in self._after_step:
            call()

    def _wait(self) -> bool:
        """Wait for something to do and take the callers' wishes; return False when it is to close."""
        with self._changed:
            while not (self._closing or self._waiting or self._drops or self._embeddings or self._scheduler.running):
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
        while self._waiting and self._scheduler.has_room:
            with self._changed:
                ready = (request for request in self._waiting if not self._scheduler.should_wait(request))
                request = next(ready, None)
                if request is None:
                    return
                self._waiting.remove(request)
            self._scheduler.place(request)

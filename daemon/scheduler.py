"""Which sequences are evaluated in which batch, and what becomes of each token. For the engine's thread alone.

Every step evaluates one batch: the next token of each running reply and the next part of each new prompt, together.
All sequences of one batch run under the same adapter, so where requests of several adapters are running, each adapter
has the context for ``TURN_S`` at a time (at least one step), the one longest without it next; the others' caches stay
in their slots meanwhile. A change of adapter costs llama.cpp about a millisecond on a small model, since it plans its
graph anew: a turn is long beside that, and short to someone who reads along.
"""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from familiar.daemon.adapter_cache import AdapterCache, AdapterKey
from familiar.daemon.engine_stats import Counters
from familiar.daemon.generation import Chunk, TokenLogprob
from familiar.daemon.llama import OUTPUT_ROWS, Batch, Context, Model
from familiar.daemon.sampling import Sampler, token_logprob
from familiar.daemon.slots import Group, Job, Request, Slot, choose, least_worth_copying
from familiar.memory.errors import BadFile

log = logging.getLogger(__name__)

TURN_S = 0.05
PROMPT_SHARE = 128
"""Most prompt tokens in a batch beside running replies, so that a long prompt does not hold up who reads along."""


class Scheduler:
    """The slots of one context, and the adapters that take turns on it."""

    def __init__(
        self,
        model: Model,
        context: Context,
        *,
        slots: int,
        context_tokens: int,
        counters: Counters,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._vocab = model.vocab
        self._context = context
        self._context_tokens = context_tokens
        self._copy_min_tokens = least_worth_copying(context_tokens)
        self._slots = [Slot(number) for number in range(slots)]
        self._adapters = AdapterCache(model, context)
        self._batch = Batch(context.batch_tokens)
        self._counters = counters
        self._timer = timer
        self._group: Group | None = None
        self._steps = 0
        self._turn = 0
        self._turn_ends = 0.0

    @property
    def running(self) -> int:
        """How many replies are running."""
        return sum(slot.job is not None for slot in self._slots)

    @property
    def has_room(self) -> bool:
        """Whether a slot is free."""
        return self.running < len(self._slots)

    @property
    def adapters_loaded(self) -> int:
        """How many adapters are in memory."""
        return len(self._adapters)

    def has_adapter(self, key: AdapterKey) -> bool:
        """Say whether an adapter is loaded. This one call is safe from any thread."""
        return key in self._adapters

    def should_wait(self, request: Request) -> bool:
        """Say whether the request's prompt is just being evaluated for another choice, to be copied from there."""
        copies = not request.exact and len(request.prompt) > self._copy_min_tokens
        return copies and any(
            slot.job and slot.job.in_prompt and slot.job.request.family is request.family for slot in self._slots
        )

    def place(self, request: Request) -> None:
        """Give a request a free slot; an adapter that cannot be loaded fails this request alone."""
        key = request.owner.adapter
        started_s = time.monotonic()
        try:
            if key:
                self._adapters.get(key, self._in_use())
            sampler = Sampler(request.sampling, self._vocab, context_tokens=self._context_tokens)
        except Exception as error:
            request.generation.put(error)
            return
        place = choose(self._slots, request, self._copy_min_tokens)
        slot = place.slot
        if place.donor:
            self._context.copy(place.donor.id, slot.id)
            slot.tokens = list(place.donor.tokens[: place.kept])
        kept = self._context.keep(slot.id, place.kept)
        del slot.tokens[kept:]
        slot.owner = request.owner
        shown = {self._vocab.control[mark].id for mark in request.sampling.markers if mark in self._vocab.control}
        slot.job = Job(request, sampler, list(request.prompt[kept:]), self._turn, frozenset(shown))
        request.generation.cached_tokens = kept
        request.generation.timing.started_s = started_s
        self._counters.prompt_tokens += len(request.prompt)
        self._counters.cached_tokens += kept

    def release_cancelled(self) -> None:
        """Free the slots of replies that nobody wants any more."""
        for slot in self._slots:
            if slot.job and slot.job.request.generation.cancelled:
                self._leave(slot, None)

    def drop_adapter(self, path: Path) -> None:
        """Let go of an adapter and of what was computed under it, once no reply uses it."""
        self._adapters.drop(path)
        self._forget_idle(lambda adapter: adapter.path == path.resolve())

    def end_all(self, error: BaseException) -> None:
        """End every running reply with ``error``."""
        for slot in self._slots:
            self._leave(slot, error)

    def step(self) -> None:
        """Evaluate one batch, if there is anything to evaluate. What goes wrong ends the replies it concerns."""
        running: Sequence[Slot] = self._slots
        try:
            running = self._next_group()
            if running:
                self._evaluate(running)
        except Exception as error:
            log.exception("a step of the engine failed")
            for slot in running:
                self._leave(slot, error)
                self._forget(slot)
        freed = self._adapters.sweep(self._in_use())
        if freed:
            self._forget_idle(lambda adapter: adapter in freed)

    def _in_use(self) -> set[AdapterKey | None]:
        return {slot.job.request.owner.adapter for slot in self._slots if slot.job}

    def _next_group(self) -> list[Slot]:
        """Return the slots to run in this step, all of one adapter, having set that adapter."""
        groups: dict[Group, list[Slot]] = {}
        for slot in self._slots:
            if slot.job:
                groups.setdefault(slot.job.request.group, []).append(slot)
        if not groups:
            return []
        if self._group not in groups or (len(groups) > 1 and self._timer() >= self._turn_ends):
            # a job's turn is the last one that it had: who has waited longest is next, the one just served last
            self._group = min(
                groups, key=lambda key: (min(slot.job.turn for slot in groups[key] if slot.job), key == self._group)
            )
            self._turn += 1
            self._turn_ends = self._timer() + TURN_S
        group, adapter = groups[self._group], self._group[0]
        changed = self._context.set_adapter(self._adapters.get(adapter, self._in_use()) if adapter else None)
        self._counters.adapter_swaps += changed
        for slot in group:
            if slot.job:
                slot.job.turn = self._turn
        self._steps += 1
        return group

    def _evaluate(self, running: Sequence[Slot]) -> None:
        """Evaluate one batch, and give each sequence whose prompt is through its next token."""
        self._batch.clear()
        rows: list[tuple[Slot, Job, int]] = []
        for slot, count in self._shares(running):
            if not (job := slot.job):
                continue
            tokens, job.pending = job.pending[:count], job.pending[count:]
            every = job.request.sampling.prompt_logprobs and job.in_prompt
            outputs = len(tokens) if every else 0 if job.pending else 1
            row = self._batch.add(slot.id, len(slot.tokens), tokens, outputs=outputs)
            slot.tokens += tokens
            if outputs:
                rows.append((slot, job, row))
        self._context.decode(self._batch)
        self._counters.decoded_batches += 1
        lost = []
        for slot, job, row in rows:
            if not self._context.has_numbers(row):
                lost.append((slot, job))
                continue
            if job.request.sampling.prompt_logprobs and job.in_prompt:
                self._note_prompt(slot, job, row)
            if not job.pending:
                self._sample(slot, job, row)
        if lost:
            self._recover(lost)

    def _shares(self, running: Sequence[Slot]) -> list[tuple[Slot, int]]:
        """How many tokens of each sequence go into the next batch, in the order of the slots.

        Each has room for one, so no prompt can keep another sequence waiting; what else there is prompts share evenly,
        the short ones first, so that none waits for a long one to be through.
        """
        long = sorted(
            (slot for slot in running if slot.job and len(slot.job.pending) > 1), key=lambda slot: _pending(slot)
        )
        room = self._batch.capacity - len(running)
        if len(long) < len(running):
            room = min(room, PROMPT_SHARE)
        shares = {slot.id: 1 for slot in running}
        for place, slot in enumerate(long):
            most = room // (len(long) - place) + 1
            if slot.job and slot.job.request.sampling.prompt_logprobs:
                most = min(most, max(1, OUTPUT_ROWS // len(long)))
            shares[slot.id] = min(_pending(slot), most)
            room -= shares[slot.id] - 1
        return [(slot, shares[slot.id]) for slot in running]

    def _sample(self, slot: Slot, job: Job, row: int) -> None:
        """Choose a sequence's next token: hand over its text, and end the reply where it ends."""
        generation, sampling = job.request.generation, job.request.sampling
        token = None if sampling.max_tokens == 0 else job.sampler.sample(self._context, row)
        if generation.timing.first_token_s is None:
            generation.timing.first_token_s = time.monotonic()
            generation.prompt_logprobs = tuple(job.prompt_logprobs)
            if job.request.whole:
                generation.put(Chunk(""))
        if token is None:
            self._leave(slot, Chunk("", "length"))
            return
        if self._vocab.ends_generation(token):
            self._leave(slot, self._chunk(job, job.stream.finish(), "stop"))
            return
        generation.completion_tokens += 1
        if sampling.logprobs is not None:
            entry = token_logprob(token, self._context.row(row), sampling.logprobs, self._vocab)
            job.held.append((job.stream.taken_bytes, entry))
        text = job.stream.push(self._vocab.spelling(token) if token in job.shown else self._vocab.piece(token))
        if job.stream.stopped:
            self._leave(slot, self._chunk(job, text, "stop"))
        elif generation.completion_tokens == sampling.max_tokens or len(slot.tokens) == self._context_tokens:
            self._leave(slot, self._chunk(job, text + job.stream.finish(), "length"))
        else:
            job.pending = [token]
            if text:
                chunk = self._chunk(job, text)
                if job.request.whole:
                    job.unsaid.append(chunk)
                else:
                    generation.put(chunk)

    @staticmethod
    def _chunk(job: Job, text: str, finish_reason: str | None = None) -> Chunk:
        """A chunk with the logprobs of the tokens that its text begins or ends."""
        if not job.held:
            return Chunk(text, finish_reason)
        out = job.stream.given_bytes
        ready = tuple(entry for start, entry in job.held if start < out)
        job.held = [] if finish_reason else job.held[len(ready) :]
        return Chunk(text, finish_reason, ready)

    def _note_prompt(self, slot: Slot, job: Job, row: int) -> None:
        """Take the log-probabilities of the prompt's tokens that the last batch foretold; ``row`` is its last one."""
        top, prompt = job.request.sampling.logprobs or 0, job.request.prompt
        if not job.prompt_logprobs:
            job.prompt_logprobs.append(TokenLogprob(prompt[0], self._vocab.spelling(prompt[0]), None))
        known, through = len(job.prompt_logprobs), len(slot.tokens)
        for position in range(known, min(through + 1, len(prompt))):
            # the row of position p foretells the token at p + 1
            logits = self._context.row(row - (through - position))
            job.prompt_logprobs.append(token_logprob(prompt[position], logits, top, self._vocab))

    def _recover(self, lost: Sequence[tuple[Slot, Job]]) -> None:
        """Start the sequences whose logits are no numbers again, in a clean cache; end those it has happened to before.

        An adapter with infinite or absurd weights leaves NaN in its slot's cache, and attention multiplies even what it
        masks: zero times NaN is NaN, so the slot's next owner would inherit it. Only the whole cache can be wiped; the
        other running sequences compute theirs anew.
        """
        self._context.wipe()
        for slot in self._slots:
            if slot.job:
                slot.job.pending = slot.tokens + slot.job.pending
                slot.job.prompt_logprobs = []
            else:
                slot.owner = None
            slot.tokens = []
        for slot, job in lost:
            if job.restarted:
                adapter = job.request.owner.adapter
                what = f"adapter {adapter.path}" if adapter else "model"
                self._leave(slot, BadFile(f"The {what} computes no numbers (NaN): its weights are damaged."))
            job.restarted = True

    def _leave(self, slot: Slot, event: Chunk | BaseException | None) -> None:
        """End a slot's reply; what was computed stays for the conversation's next turn."""
        if job := slot.job:
            slot.job = None
            slot.last_used = self._steps
            job.sampler.close()
            generation = job.request.generation
            generation.timing.ended_s = time.monotonic()
            self._counters.completion_tokens += generation.completion_tokens
            if job.unsaid:
                last = [event] if isinstance(event, Chunk) else []
                generation.put(_joined([*job.unsaid, *last]))
            if not (job.unsaid and isinstance(event, Chunk)):
                generation.put(event)

    def _forget_idle(self, goes: Callable[[AdapterKey], bool]) -> None:
        """Forget what idle slots hold that was computed under the adapters that go."""
        for slot in self._slots:
            if not slot.job and slot.owner and slot.owner.adapter and goes(slot.owner.adapter):
                self._forget(slot)

    def _forget(self, slot: Slot) -> None:
        self._context.keep(slot.id, 0)
        slot.tokens = []
        slot.owner = None


def _joined(chunks: Sequence[Chunk]) -> Chunk:
    logprobs = tuple(entry for chunk in chunks for entry in chunk.logprobs)
    return Chunk("".join(chunk.text for chunk in chunks), chunks[-1].finish_reason, logprobs)


def _pending(slot: Slot) -> int:
    return len(slot.job.pending) if slot.job else 0

"""Which sequences are evaluated in which batch, and what becomes of each token. For the engine's thread alone.

Every step evaluates one batch: the next token of each running reply and the next part of each new prompt, together.
All sequences of one batch run under the same adapter, so where requests of several adapters are running, each adapter
has the context for ``TURN_STEPS`` steps at a time, the one longest without it next; the others' caches stay in their
slots meanwhile.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from familiar.daemon.adapter_cache import AdapterCache, AdapterKey
from familiar.daemon.generation import Chunk
from familiar.daemon.llama import Batch, Context, Model
from familiar.daemon.sampling import Sampler
from familiar.daemon.slots import Job, Request, Slot, choose
from familiar.memory.errors import BadFile

log = logging.getLogger(__name__)

TURN_STEPS = 32


class Scheduler:
    """The slots of one context, and the adapters that take turns on it."""

    def __init__(self, model: Model, context: Context, *, slots: int, context_tokens: int) -> None:
        self._vocab = model.vocab
        self._context = context
        self._context_tokens = context_tokens
        self._slots = [Slot(number) for number in range(slots)]
        self._adapters = AdapterCache(model, context)
        self._batch = Batch()
        self._adapter: AdapterKey | None = None
        self._steps = 0
        self._turn = 0
        self._turn_ends = 0

    @property
    def busy(self) -> bool:
        """Whether any reply is running."""
        return any(slot.job for slot in self._slots)

    @property
    def has_room(self) -> bool:
        """Whether a slot is free."""
        return not all(slot.job for slot in self._slots)

    def has_adapter(self, key: AdapterKey) -> bool:
        """Say whether an adapter is loaded. This one call is safe from any thread."""
        return key in self._adapters

    def place(self, request: Request) -> None:
        """Give a request a free slot; an adapter that cannot be loaded fails this request alone."""
        key = request.owner.adapter
        try:
            if key:
                self._adapters.get(key, self._in_use())
            sampler = Sampler(request.sampling, n_vocab=self._vocab.size, context_tokens=self._context_tokens)
        except Exception as error:
            request.generation.put(error)
            return
        slot, kept = choose([slot for slot in self._slots if not slot.job], request)
        kept = self._context.keep(slot.id, kept)
        del slot.tokens[kept:]
        slot.owner = request.owner
        slot.job = Job(request, sampler, pending=list(request.prompt[kept:]), turn=self._turn)
        request.generation.usage = replace(request.generation.usage, cached_tokens=kept)

    def release_cancelled(self) -> None:
        """Free the slots of replies that nobody wants any more."""
        for slot in self._slots:
            if slot.job and slot.job.request.generation.cancelled:
                self._leave(slot, None)

    def drop_adapter(self, path: Path) -> None:
        """Let go of an adapter and of what was computed under it, once no reply uses it."""
        self._adapters.drop(path)
        for slot in self._slots:
            if not slot.job and slot.owner and slot.owner.adapter and slot.owner.adapter.path == path.resolve():
                self._forget(slot)

    def end_all(self, error: BaseException) -> None:
        """End every running reply with ``error``."""
        for slot in self._slots:
            self._leave(slot, error)

    def step(self) -> None:
        """Evaluate one batch, if there is anything to evaluate. What goes wrong ends the replies it concerns."""
        self._adapters.sweep(self._in_use())
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

    def _in_use(self) -> set[AdapterKey | None]:
        return {slot.job.request.owner.adapter for slot in self._slots if slot.job}

    def _next_group(self) -> list[Slot]:
        """Return the slots to run in this step, all of one adapter, having set that adapter."""
        groups: dict[AdapterKey | None, list[Slot]] = {}
        for slot in self._slots:
            if slot.job:
                groups.setdefault(slot.job.request.owner.adapter, []).append(slot)
        if not groups:
            return []
        if self._adapter not in groups or (len(groups) > 1 and self._steps >= self._turn_ends):
            # a job's turn is the last one that it had: who has waited longest is next, the one just served last
            self._adapter = min(groups, key=lambda key: min(slot.job.turn for slot in groups[key] if slot.job))
            self._turn += 1
            self._turn_ends = self._steps + TURN_STEPS
        group = groups[self._adapter]
        self._context.set_adapter(self._adapters.get(self._adapter, set(groups)) if self._adapter else None)
        for slot in group:
            if slot.job:
                slot.job.turn = self._turn
        self._steps += 1
        return group

    def _evaluate(self, running: Sequence[Slot]) -> None:
        """Evaluate one batch, and give each sequence whose prompt is through its next token."""
        self._batch.clear()
        room = self._batch.capacity - len(running)
        rows: list[tuple[Slot, Job, int]] = []
        for slot in running:
            if not (job := slot.job):
                continue
            # each has room for one token, so no prompt can keep another sequence waiting
            tokens, job.pending = job.pending[: room + 1], job.pending[room + 1 :]
            room -= len(tokens) - 1
            row = self._batch.add(slot.id, len(slot.tokens), tokens, outputs=0 if job.pending else 1)
            slot.tokens += tokens
            if not job.pending:
                rows.append((slot, job, row))
        self._context.decode(self._batch)
        lost = []
        for slot, job, row in rows:
            if self._context.has_numbers(row):
                self._advance(slot, job, job.sampler.sample(self._context, row))
            else:
                lost.append((slot, job))
        if lost:
            self._recover(lost)

    def _advance(self, slot: Slot, job: Job, token: int) -> None:
        """Take a sequence's next token: hand over its text, and end the reply where it ends."""
        generation, sampling = job.request.generation, job.request.sampling
        if self._vocab.ends_generation(token):
            self._leave(slot, Chunk(job.stream.finish(), "stop"))
            return
        job.produced += 1
        generation.usage = replace(generation.usage, completion_tokens=job.produced)
        text = job.stream.push(self._vocab.piece(token))
        if job.stream.stopped:
            self._leave(slot, Chunk(text, "stop"))
        elif job.produced == sampling.max_tokens or len(slot.tokens) == self._context_tokens:
            self._leave(slot, Chunk(text + job.stream.finish(), "length"))
        else:
            job.pending = [token]
            if text:
                generation.put(Chunk(text))

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
            job.request.generation.put(event)

    def _forget(self, slot: Slot) -> None:
        self._context.keep(slot.id, 0)
        slot.tokens = []
        slot.owner = None

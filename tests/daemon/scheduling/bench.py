"""A scheduler on a real model, step by step, under the test's clock: what the tests of this folder share."""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from familiar.daemon.adapter_cache import AdapterKey
from familiar.daemon.engine import Generation, Sampling
from familiar.daemon.engine_stats import Counters
from familiar.daemon.generation import TokenLogprob
from familiar.daemon.llama import Batch, Context, Model
from familiar.daemon.scheduler import Scheduler
from familiar.daemon.slots import Family, Owner, Request

SLOTS, BATCH = 4, 512
ROUNDING = 0.03  # nats: f16 products are summed in another order in batches of another shape


@dataclass(frozen=True)
class Step:
    """One batch: how many tokens of each slot were in it, and which adapter was set."""

    tokens: dict[int, int]
    adapter: object | None


class RecordingContext(Context):
    """A context that notes what it evaluates."""

    steps: list[Step]
    set_to: object | None = None

    def decode(self, batch: Batch) -> None:
        tokens = Counter(int(slot) for slot in batch._slot[: len(batch)])
        self.steps.append(Step(dict(tokens), self.set_to))
        super().decode(batch)

    def set_adapter(self, adapter: Any) -> bool:
        self.set_to = adapter
        return super().set_adapter(adapter)


class Bench:
    """A scheduler with the queue that the engine has before it. ``now_s`` goes on by ``step_s`` with each step."""

    def __init__(self, model: Model, step_s: float = 0.01, slots: int = SLOTS) -> None:
        self.now_s, self._step_s = 0.0, step_s
        self.context = RecordingContext(model, context_tokens=1024, slots=slots, threads=1)
        self.context.steps = []
        self.counters = Counters()
        self.scheduler = Scheduler(
            model, self.context, slots=slots, context_tokens=1024, counters=self.counters, timer=lambda: self.now_s
        )
        self.waiting: deque[Request] = deque()

    @property
    def steps(self) -> list[Step]:
        return self.context.steps

    def ask(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        adapter: Path | None = None,
        user: str = "",
        exact: bool = False,
        family: Family | None = None,
    ) -> Generation:
        generation = Generation(len(prompt), lambda: None)
        owner = Owner(AdapterKey.of(adapter) if adapter else None, "" if exact else user)
        self.waiting.append(Request(tuple(prompt), sampling, owner, generation, exact, family=family or Family()))
        return generation

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            self.scheduler.release_cancelled()
            while self.scheduler.has_room:
                ready = next((each for each in self.waiting if not self.scheduler.should_wait(each)), None)
                if ready is None:
                    break
                self.waiting.remove(ready)
                self.scheduler.place(ready)
            self.scheduler.step()
            self.now_s += self._step_s

    def finish(self) -> None:
        while self.scheduler.running or self.waiting:
            self.step()

    def reply(self, *given: Any, **more: Any) -> list[TokenLogprob]:
        generation = self.ask(*given, **more)
        self.finish()
        return entries(generation)


def entries(generation: Generation) -> list[TokenLogprob]:
    return [entry for chunk in generation for entry in chunk.logprobs]


def near(left: Sequence[TokenLogprob], right: Sequence[TokenLogprob]) -> bool:
    """Whether two greedy replies are the same to a rounding: as far as they agree, so do their figures."""
    for one, other in zip(left, right, strict=False):
        if one.token != other.token:
            return abs((one.logprob or 0) - (other.logprob or 0)) < 2 * ROUNDING
        if abs((one.logprob or 0) - (other.logprob or 0)) > ROUNDING:
            return False
    return len(left) == len(right) > 0


def prompt(model: Model, length: int, *, start: int = 0) -> list[int]:
    """So many tokens of text; another ``start`` is another text from the very beginning."""
    words = "river tea owl stone winter letter garden piano road cloud".split()
    text = words[start % 10].title() + " ".join(
        f" The {words[(start + i) % 10]} is near the {words[(start + i * 7 + 3) % 10]}." for i in range(length)
    )
    return model.vocab.tokenise(text)[:length]

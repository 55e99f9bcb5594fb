"""Whose tokens are evaluated in which batch: the scheduler on a real model, step by step, under the test's clock."""

import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from familiar.daemon.adapter_cache import AdapterCache, AdapterKey
from familiar.daemon.engine import Engine, EngineBusy, EngineClosed, Generation, Sampling
from familiar.daemon.engine_options import EngineOptions
from familiar.daemon.engine_stats import Counters
from familiar.daemon.generation import TokenLogprob
from familiar.daemon.llama import Adapter, Batch, Context, Model
from familiar.daemon.scheduler import PROMPT_SHARE, TURN_S, Scheduler
from familiar.daemon.slots import Family, Owner, Request
from familiar.memory.errors import BadFile
from familiar.memory.types import Message

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


@pytest.fixture
def bench(model: Model) -> Iterator[Callable[..., Bench]]:
    """Make a bench: ``bench(step_s=0.01, slots=4)``."""
    made: list[Bench] = []

    def make(**more: Any) -> Bench:
        made.append(Bench(model, **more))
        return made[-1]

    yield make
    for each in made:
        each.scheduler.end_all(EngineClosed("The test is over."))
        each.context.close()


@pytest.fixture(scope="module")
def endless_bias(model: Model) -> tuple[tuple[int, float], ...]:
    return tuple((token, -1000.0) for token in range(model.vocab.size) if model.vocab.ends_generation(token))


@pytest.fixture
def sampling(endless_bias: tuple[tuple[int, float], ...]) -> Callable[[int | None], Sampling]:
    """Greedy, of exactly so many tokens, each with its log-probability."""
    return lambda tokens: Sampling(temperature=0, max_tokens=tokens, logit_bias=endless_bias, logprobs=0)


def prompt(model: Model, length: int, *, start: int = 0) -> list[int]:
    """So many tokens of text; another ``start`` is another text from the very beginning."""
    words = "river tea owl stone winter letter garden piano road cloud".split()
    text = words[start % 10].title() + " ".join(
        f" The {words[(start + i) % 10]} is near the {words[(start + i * 7 + 3) % 10]}." for i in range(length)
    )
    return model.vocab.tokenise(text)[:length]


# ---- turns of adapters ----


def test_adapters_take_turns_of_equal_length_in_a_fixed_order(
    bench: Callable[..., Bench], model: Model, write_lora: Callable[..., Path], sampling: Callable[..., Sampling]
) -> None:
    table = bench(step_s=TURN_S / 4.9)
    for adapter in (None, write_lora("a.gguf", seed=1), write_lora("b.gguf", seed=2), None):
        table.ask(prompt(model, 8), sampling(None), adapter=adapter)
    table.step(60)
    turns = [(adapter, len(list(steps))) for adapter, steps in groupby(step.adapter for step in table.steps)]
    assert [length for _, length in turns] == [5] * 12
    assert [adapter for adapter, _ in turns] == [adapter for adapter, _ in turns[:3]] * 4
    assert len({id(adapter) for adapter, _ in turns}) == 3
    # the two of the same adapter are evaluated together, always
    assert {frozenset(step.tokens) for step in table.steps if step.adapter is None} == {frozenset({0, 3})}
    assert table.counters.adapter_swaps == 11  # it began with none set


def test_a_turn_is_one_step_at_least_and_goes_on_while_nobody_else_waits(
    bench: Callable[..., Bench], model: Model, write_lora: Callable[..., Path], sampling: Callable[..., Sampling]
) -> None:
    table = bench(step_s=TURN_S * 3)
    first = table.ask(prompt(model, 8), sampling(None))
    table.step(7)
    assert table.counters.adapter_swaps == 0
    table.ask(prompt(model, 8), sampling(None), adapter=write_lora("a.gguf"))
    table.step(6)
    assert [bool(step.adapter) for step in table.steps[7:]] == [True, False] * 3
    assert first.completion_tokens == 10


def test_who_waits_longest_is_next_and_a_newcomer_before_the_one_just_served(
    bench: Callable[..., Bench], model: Model, write_lora: Callable[..., Path], sampling: Callable[..., Sampling]
) -> None:
    table = bench(step_s=TURN_S)
    asked: dict[str, Generation] = {}
    served = ""
    for step in range(10):
        if step in (2, 3, 5):
            name = {2: "a", 3: "b", 5: "c"}[step]
            asked[name] = table.ask(prompt(model, 8), sampling(None), adapter=write_lora(f"{name}.gguf"))
        elif step == 0:
            asked["-"] = table.ask(prompt(model, 8), sampling(None))
        before = {name: generation.completion_tokens for name, generation in asked.items()}
        table.step()
        served += next(name for name, generation in asked.items() if generation.completion_tokens > before[name])
    assert served == "--a-ab-acb"


def test_nobody_starves_beside_an_adapter_whose_requests_never_end(
    bench: Callable[..., Bench], model: Model, write_lora: Callable[..., Path], sampling: Callable[..., Sampling]
) -> None:
    table, busy = bench(step_s=TURN_S / 2), write_lora("busy.gguf")
    for start in range(3):
        table.ask(prompt(model, 40, start=start), sampling(3), adapter=busy)
    patient = table.ask(prompt(model, 40), sampling(12))
    for number in range(28):
        table.ask(prompt(model, 40, start=number), sampling(3), adapter=busy)
        table.step()
    # half of the steps are its own, but for the queue before it
    assert patient.completion_tokens == 12


def test_exact_requests_run_alone_and_others_go_on_between_them(
    bench: Callable[..., Bench], model: Model, sampling: Callable[..., Sampling]
) -> None:
    table = bench(step_s=TURN_S / 2)
    exact = [table.ask(prompt(model, 30, start=i), sampling(8), user="me", exact=True) for i in range(2)]
    other = [table.ask(prompt(model, 30, start=i), sampling(8), user="me") for i in (2, 3)]
    table.finish()
    assert {frozenset(step.tokens) for step in table.steps} == {frozenset({0}), frozenset({1}), frozenset({2, 3})}
    assert [len(entries(each)) for each in (*exact, *other)] == [8] * 4
    again = table.ask(prompt(model, 30), sampling(2), user="me")
    table.finish()
    assert again.cached_tokens == 0  # what an exact request leaves is nobody's


# ---- the shares of a batch ----


def test_prompts_share_a_batch_evenly_and_a_short_one_is_through_at_once(
    bench: Callable[..., Bench], model: Model, sampling: Callable[..., Sampling]
) -> None:
    table = bench()
    long = [table.ask(prompt(model, 700, start=i), sampling(1)) for i in range(2)]
    short = table.ask(prompt(model, 20, start=2), sampling(1))
    table.step()
    assert table.steps[0].tokens == {0: 246, 1: 246, 2: 20}
    assert (short.completion_tokens, long[0].completion_tokens) == (1, 0)
    table.step()
    assert table.steps[1].tokens == {0: 256, 1: 256}
    table.finish()
    assert sum(sum(step.tokens.values()) for step in table.steps) == 1420


def test_a_prompt_alone_fills_the_batch(
    bench: Callable[..., Bench], model: Model, sampling: Callable[..., Sampling]
) -> None:
    table = bench()
    table.ask(prompt(model, 1000), sampling(1))
    table.finish()
    assert [step.tokens for step in table.steps] == [{0: BATCH}, {0: 1000 - BATCH}]


def test_running_replies_go_on_beside_a_long_prompt(
    bench: Callable[..., Bench], model: Model, sampling: Callable[..., Sampling]
) -> None:
    table = bench()
    running = [table.ask(prompt(model, 8, start=i), sampling(None)) for i in range(2)]
    table.step()
    long = table.ask(prompt(model, 900, start=2), sampling(1))
    table.step(7)
    for step in table.steps[1:]:
        assert step.tokens == {0: 1, 1: 1, 2: min(PROMPT_SHARE + 1, 900)} or step is table.steps[-1]
    assert [each.completion_tokens for each in running] == [8, 8]
    assert long.completion_tokens == 1  # seven times 129 tokens


def test_with_prompt_logprobs_a_prompt_goes_on_a_little_at_a_time(bench: Callable[..., Bench], model: Model) -> None:
    table = bench()
    echo = Sampling(temperature=0, max_tokens=0, logprobs=0, prompt_logprobs=True)
    both = [table.ask(prompt(model, 100, start=i), echo) for i in range(2)]
    table.finish()
    assert max(sum(step.tokens.values()) for step in table.steps) <= 32
    assert [len(each.prompt_logprobs) for each in both] == [100, 100]


# ---- choices of one prompt, and what is copied ----


@pytest.mark.parametrize("length", [200, 30])
def test_choices_evaluate_their_prompt_once(
    bench: Callable[..., Bench], model: Model, sampling: Callable[..., Sampling], length: int
) -> None:
    table, family = bench(), Family()
    choices = [table.ask(prompt(model, length), sampling(5), user="me", family=family) for _ in range(4)]
    table.finish()
    evaluated = sum(sum(step.tokens.values()) for step in table.steps) - 4 * 4  # less the tokens chosen but the last
    assert evaluated == (length + 3 if length > 32 else 4 * length)
    assert [each.cached_tokens for each in choices] == [0, *[length - 1 if length > 32 else 0] * 3]
    replies = [entries(each) for each in choices]
    assert all(near(reply, replies[0]) for reply in replies)


def test_choices_wait_for_their_prompt_and_hold_up_nobody(
    bench: Callable[..., Bench], model: Model, sampling: Callable[..., Sampling]
) -> None:
    table, family = bench(), Family()
    choices = [table.ask(prompt(model, 900), sampling(2), user="me", family=family) for _ in range(3)]
    other = table.ask(prompt(model, 20, start=1), sampling(2), user="you")
    table.step()
    assert table.steps[0].tokens == {0: BATCH - 20, 1: 20}
    assert len(table.waiting) == 2
    table.finish()
    assert [len(entries(each)) for each in (*choices, other)] == [2] * 4


def test_choices_of_an_exact_request_each_evaluate_their_prompt(
    bench: Callable[..., Bench], model: Model, sampling: Callable[..., Sampling]
) -> None:
    table, family = bench(), Family()
    choices = [table.ask(prompt(model, 100), sampling(1), exact=True, family=family) for _ in range(3)]
    table.finish()
    assert [step.tokens for step in table.steps] == [{0: 100}, {1: 100}, {2: 100}]
    replies = [entries(each) for each in choices]
    assert replies == [replies[0]] * 3


def test_a_prefix_copied_from_an_idle_slot_gives_what_reusing_it_there_gives(
    bench: Callable[..., Bench], model: Model, sampling: Callable[..., Sampling]
) -> None:
    # Long after the shared beginning, so that the copy is worth it and the donor keeps its own.
    shared, own = prompt(model, 100), prompt(model, 300, start=1)
    longer = [*shared, *prompt(model, 9, start=2)]
    table = bench()
    table.reply([*shared, *own], sampling(1), user="me")
    generation = table.ask(longer, sampling(8), user="me")
    table.finish()
    copied = entries(generation)
    assert [step.tokens for step in table.steps[1:2]] == [{1: 9}]  # another slot than the donor
    assert generation.cached_tokens == 100
    beside = bench()
    beside.reply(shared, sampling(1), user="me")
    reused = beside.ask(longer, sampling(8), user="me")
    beside.finish()
    assert reused.cached_tokens == 100
    assert near(entries(reused), copied)
    assert near(bench().reply(longer, sampling(8)), copied)
    # and the donor is as it was
    donor = table.ask([*shared, *own], sampling(3), user="me")
    table.finish()
    assert donor.cached_tokens == 399
    assert near(entries(donor), bench().reply([*shared, *own], sampling(3)))


def test_a_prefix_copied_from_a_running_slot_and_from_the_copy_gives_what_computing_gives(
    bench: Callable[..., Bench], model: Model, sampling: Callable[..., Sampling]
) -> None:
    shared = prompt(model, 150)
    longer = [[*shared, *prompt(model, 9, start=i)] for i in (2, 3, 4)]
    table = bench()
    donor = table.ask([*shared, *prompt(model, 9, start=1)], sampling(20), user="me")
    table.step(3)
    copies = [table.ask(each, sampling(8), user="me") for each in longer]
    table.step()
    assert table.steps[3].tokens == {0: 1, 1: 9, 2: 9, 3: 9}
    table.finish()
    assert [each.cached_tokens for each in copies] == [150] * 3
    fresh = bench()
    for generation, each in zip(copies, longer, strict=True):
        assert near(entries(generation), fresh.reply(each, sampling(8)))
    expected = fresh.reply([*shared, *prompt(model, 9, start=1)], sampling(20))
    assert near(entries(donor), expected)


def test_nothing_is_copied_across_users_adapters_or_from_nobody(
    bench: Callable[..., Bench], model: Model, write_lora: Callable[..., Path], sampling: Callable[..., Sampling]
) -> None:
    table, lora, shared = bench(slots=8), write_lora("a.gguf"), prompt(model, 200)
    owners: list[dict[str, Any]] = [
        {"user": "me"},
        {"user": "you"},
        {"user": ""},
        {"user": ""},
        {"user": "me", "adapter": lora},
        {"user": "you", "adapter": lora},
        {"user": "me", "exact": True},
    ]
    for busy in (False, True):
        asked = []
        for number, owner in enumerate(owners):
            asked.append(table.ask([*shared, *prompt(model, 5, start=number)], sampling(6), **owner))
            if not busy:
                table.finish()
        table.finish()
        if not busy:
            assert [each.cached_tokens for each in asked] == [0] * 7
    assert [each.cached_tokens >= 200 for each in asked] == [True, True, False, False, True, True, False]


# ---- what goes wrong ----


def test_damaged_weights_harm_no_copy_that_is_in_flight(
    bench: Callable[..., Bench], model: Model, write_lora: Callable[..., Path], sampling: Callable[..., Sampling]
) -> None:
    shared = prompt(model, 150)
    longer = [[*shared, *prompt(model, 9, start=i)] for i in (2, 3)]
    table, fresh = bench(), bench()
    table.reply([*shared, *prompt(model, 300, start=1)], sampling(2), user="me")
    # placed in one go: the first batch evaluates the damaged adapter's prompt and carries out both copies
    broken = table.ask(prompt(model, 20), sampling(4), adapter=write_lora("nan.gguf", strength=float("nan")), user="me")
    copies = [table.ask(each, sampling(8), user="me") for each in longer]
    table.finish()
    with pytest.raises(BadFile, match="computes no numbers"):
        broken.text()
    for generation, each in zip(copies, longer, strict=True):
        assert generation.cached_tokens == 150  # they were, before all was wiped
        assert near(entries(generation), fresh.reply(each, sampling(8)))
    again = table.ask(longer[0], sampling(8), user="me")
    table.finish()
    assert again.cached_tokens == 158
    assert near(entries(again), fresh.reply(longer[0], sampling(8)))


def test_damaged_weights_end_a_reply_that_began_well_and_others_go_on_where_they_were(
    bench: Callable[..., Bench], model: Model, write_lora: Callable[..., Path], sampling: Callable[..., Sampling]
) -> None:
    table, fresh = bench(step_s=TURN_S), bench()
    running = [table.ask(prompt(model, 60, start=i), sampling(20), user="me") for i in range(2)]
    echo = Sampling(temperature=0, max_tokens=0, logprobs=0, prompt_logprobs=True)
    half = table.ask(prompt(model, 200, start=4), echo)
    table.step(4)
    broken = table.ask(prompt(model, 700), sampling(4), adapter=write_lora("nan.gguf", strength=float("nan")))
    table.finish()
    with pytest.raises(BadFile):
        broken.text()
    for start, generation in enumerate(running):
        assert near(entries(generation), fresh.reply(prompt(model, 60, start=start), sampling(20)))
    expected = fresh.ask(prompt(model, 200, start=4), echo)
    fresh.finish()
    got, wanted = ([entry.logprob for entry in each.prompt_logprobs[1:]] for each in (half, expected))
    assert got == pytest.approx(wanted, abs=ROUNDING)


def test_cancelling_stops_at_once_and_in_the_middle_of_a_prompt_too(
    bench: Callable[..., Bench], model: Model, sampling: Callable[..., Sampling]
) -> None:
    table = bench()
    reply, long = (table.ask(prompt(model, n, start=n), sampling(None), user="me") for n in (8, 900))
    table.step(3)
    assert (reply.completion_tokens, long.completion_tokens) == (3, 0)
    reply.cancel()
    long.cancel()
    table.step(3)
    assert len(table.steps) == 3
    assert (reply.completion_tokens, long.completion_tokens) == (3, 0)
    assert len(entries(reply)) == 3
    assert long.text() == ""
    assert reply.finish_reason is long.finish_reason is None
    # what was computed of the prompt is there for whoever asks again
    again = table.ask(prompt(model, 900, start=900), sampling(4), user="me")
    table.finish()
    assert again.cached_tokens == sum(step.tokens.get(1, 0) for step in table.steps[:3])
    assert near(entries(again), bench().reply(prompt(model, 900, start=900), sampling(4)))


def test_a_cancelled_first_choice_leaves_the_others_their_prompt(
    bench: Callable[..., Bench], model: Model, sampling: Callable[..., Sampling]
) -> None:
    table, family = bench(), Family()
    choices = [table.ask(prompt(model, 900), sampling(4), user="me", family=family) for _ in range(3)]
    table.step()
    choices[0].cancel()
    table.finish()
    assert choices[0].text() == ""
    assert [each.cached_tokens for each in choices] == [0, BATCH, 899]
    replies = [entries(each) for each in choices[1:]]
    assert near(*replies)
    assert near(replies[0], bench().reply(prompt(model, 900), sampling(4)))


# ---- adapters in memory ----


def test_the_longest_unused_adapter_goes_first_by_count_and_by_bytes_but_none_in_use(
    model: Model, write_lora: Callable[..., Path]
) -> None:
    context = Context(model, context_tokens=256, threads=1)
    keys = [AdapterKey.of(write_lora(f"{i}.gguf", seed=i)) for i in range(5)]
    size = keys[0].size_bytes
    for limits in ({"kept": 3}, {"kept_bytes": 3 * size + 1}):
        cache = AdapterCache(model, context, **limits)
        adapters = [cache.get(key) for key in keys[:3]]
        assert cache.get(keys[0]) is adapters[0]  # now the most recently used
        context.set_adapter(adapters[1])
        cache.get(keys[3])  # takes the place of the one that is set on the context
        assert [key in cache for key in keys] == [True, False, True, True, False]
        cache.get(keys[4], in_use=keys[:4])  # all others are in use: one more than is kept
        assert [key in cache for key in keys] == [True, False, True, True, True]
        assert (len(cache), cache.bytes) == (4, 4 * size)
        cache.get(keys[4], in_use=[keys[0]])
        assert [key in cache for key in keys] == [True, False, False, True, True]
        for key in keys:
            cache.drop(key.path)
        assert set(cache.sweep([keys[3]])) == {keys[0], keys[4]}
        assert cache.sweep([]) == [keys[3]]
        assert len(cache) == 0
    context.close()


def test_a_dropped_adapter_goes_with_the_last_reply_that_uses_it_and_so_does_what_it_computed(
    bench: Callable[..., Bench], model: Model, write_lora: Callable[..., Path], sampling: Callable[..., Sampling]
) -> None:
    table, lora, kept = bench(), write_lora("a.gguf"), write_lora("b.gguf")
    table.reply(prompt(model, 100, start=1), sampling(2), adapter=lora, user="you")
    table.reply(prompt(model, 100, start=1), sampling(2), adapter=kept, user="you")
    running = table.ask(prompt(model, 100), sampling(6), adapter=lora, user="me")
    table.step(2)
    table.scheduler.drop_adapter(lora)
    table.step(2)
    assert table.scheduler.adapters_loaded == 2
    table.finish()
    assert len(entries(running)) == 6
    assert table.scheduler.adapters_loaded == 1  # at the end of the step that ended the reply
    for user, start, adapter, cached in (("me", 0, lora, 0), ("you", 1, lora, 0), ("you", 1, kept, 99)):
        again = table.ask(prompt(model, 100, start=start), sampling(2), adapter=adapter, user=user)
        table.finish()
        assert again.cached_tokens == cached
    table.scheduler.drop_adapter(lora)
    table.step()  # with nothing to evaluate
    assert table.scheduler.adapters_loaded == 1
    # what was computed under one that has left the memory before goes too
    table.scheduler._adapters._kept = 1
    for adapter in (lora, kept):
        table.reply(prompt(model, 100, start=2), sampling(2), adapter=adapter, user="me")
    assert table.scheduler.adapters_loaded == 1
    table.scheduler.drop_adapter(lora)
    last = table.ask(prompt(model, 100, start=2), sampling(2), adapter=lora, user="me")
    table.finish()
    assert last.cached_tokens == 0


def test_a_hundred_adapters_are_resident_each_with_its_own_reply(
    bench: Callable[..., Bench],
    model: Model,
    write_lora: Callable[..., Path],
    sampling: Callable[..., Sampling],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    different = [write_lora(f"{i}.gguf", seed=i, strength=4.0) for i in range(5)]
    paths = [Path(shutil.copyfile(different[i % 5], tmp_path / f"copy{i}.gguf")) for i in range(100)]
    loads: list[Path] = []
    load = Model.load_adapter

    def noting(self: Model, path: Path) -> Adapter:
        loads.append(path)
        return load(self, path)

    monkeypatch.setattr(Model, "load_adapter", noting)
    table = bench()
    replies = []
    for _ in range(2):
        asked = [table.ask(prompt(model, 10), sampling(4), adapter=path, user="me") for path in paths]
        table.finish()
        replies.append([[entry.token for entry in entries(each)] for each in asked])
        assert table.scheduler.adapters_loaded == 100
    assert len(loads) == 100
    assert replies[0] == replies[1]
    assert replies[0][:5] * 20 == replies[0]
    assert len({tuple(reply) for reply in replies[0]}) == 5


# ---- the engine around it ----


@pytest.fixture
def open_engine(model_path: Path) -> Iterator[Callable[..., Engine]]:
    """Open an engine with options; it is closed at the end."""
    opened: list[Engine] = []

    def make(**options: Any) -> Engine:
        opened.append(Engine.open(model_path, EngineOptions(threads=1, **options)))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def test_the_queue_is_bounded_and_what_free_slots_take_does_not_wait(
    open_engine: Callable[..., Engine], model: Model, sampling: Callable[..., Sampling]
) -> None:
    engine, text = open_engine(slots=4, queue_limit=2), prompt(model, 8)
    running = [engine.generate(text, sampling(None)) for _ in range(4)]  # however slow the engine is to take them
    for each in running:
        next(iter(each))
    waiting = engine.choices(text, [sampling(2)] * 2)
    for n in (1, 2, 3):
        with pytest.raises(EngineBusy, match="2 requests are waiting"):
            engine.choices(text, [sampling(2)] * n)
    assert engine.stats().waiting == 2
    waiting[0].cancel()  # which makes room
    assert waiting[0].text() == ""
    third = engine.generate(text, sampling(2))
    for each in running:
        each.cancel()
    assert waiting[1].text() == third.text() != ""


def test_cancelling_gives_at_most_one_more_token(
    open_engine: Callable[..., Engine], model: Model, sampling: Callable[..., Sampling]
) -> None:
    engine = open_engine(slots=2)
    for _ in range(5):
        both = [engine.generate(prompt(model, 20, start=i), sampling(None)) for i in range(2)]
        chunks = [iter(each) for each in both]
        for each in chunks:
            next(each), next(each)
        for generation, rest in zip(both, chunks, strict=True):
            generation.cancel()
            seen = generation.completion_tokens
            list(rest)
            assert generation.completion_tokens <= seen + 1
        assert engine.stats().running <= 1


def test_closing_ends_all_that_is_in_flight(
    open_engine: Callable[..., Engine],
    model: Model,
    write_lora: Callable[..., Path],
    sampling: Callable[..., Sampling],
) -> None:
    engine, lora = open_engine(slots=4), write_lora("a.gguf")
    text, long = prompt(model, 30), prompt(model, 1000)
    first = engine.generate(text, sampling(None))
    next(iter(first))
    delivered: list[object] = []
    replies = [
        first,
        engine.generate(text, sampling(None), adapter=lora, cache_key="me"),
        engine.generate(long, sampling(None), exact=True),
        *engine.choices(long, [sampling(None)] * 3, cache_key="me", whole=True),
        *(engine.generate(long, sampling(None), cache_key="you") for _ in range(5)),
    ]
    engine.choices(text, [sampling(None)], deliver=lambda index, event: delivered.append(event))
    engine.drop_adapter(lora)
    engine.close()
    for reply in replies:
        with pytest.raises(EngineClosed):
            reply.text()
    assert isinstance(delivered[-1], EngineClosed)
    assert not engine._thread.is_alive()
    assert (engine.stats().running, engine.stats().waiting) == (0, 0)
    with pytest.raises(EngineClosed):
        engine.embed(["late"])
    with pytest.raises(EngineClosed):
        engine.encode_prompt([Message(role="user", content="late")])

"""Whose turn it is: adapters, exact requests, and the shares of a batch."""

from collections.abc import Callable
from itertools import groupby
from pathlib import Path

from familiar.daemon.engine import Generation, Sampling
from familiar.daemon.llama import Model
from familiar.daemon.scheduler import PROMPT_SHARE, TURN_S
from tests.daemon.scheduling.bench import BATCH, Bench, entries, prompt

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

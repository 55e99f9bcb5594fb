"""What is evaluated once: choices of one prompt, and prefixes that are copied from other slots."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from familiar.daemon.engine import Sampling
from familiar.daemon.llama import Model
from familiar.daemon.slots import Family
from tests.daemon.scheduling.bench import BATCH, Bench, entries, near, prompt


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

"""What goes wrong: damaged weights and cancelled replies, beside others that go on."""

from collections.abc import Callable
from pathlib import Path

import pytest

from familiar.daemon.engine import Sampling
from familiar.daemon.llama import Model
from familiar.daemon.scheduler import TURN_S
from familiar.daemon.slots import Family
from familiar.memory.errors import BadFile
from tests.daemon.scheduling.bench import BATCH, ROUNDING, Bench, entries, near, prompt


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

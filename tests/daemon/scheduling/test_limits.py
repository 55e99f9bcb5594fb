"""The engine around the scheduler: a bounded queue, cancelling, and closing."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from familiar.daemon.engine import Engine, EngineBusy, EngineClosed, Sampling
from familiar.daemon.engine_options import EngineOptions
from familiar.daemon.llama import Model
from familiar.memory.types import Message
from tests.daemon.scheduling.bench import prompt


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

"""Fixtures of the scheduler's tests."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from familiar.daemon.engine import EngineClosed, Sampling
from familiar.daemon.llama import Model
from tests.daemon.scheduling.bench import Bench


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


@pytest.fixture
def sampling(endless: Sampling) -> Callable[[int | None], Sampling]:
    """Greedy, of exactly so many tokens, each with its log-probability."""
    return lambda tokens: Sampling(temperature=0, max_tokens=tokens, logit_bias=endless.logit_bias, logprobs=0)

"""Requests of every kind at one engine from many threads at once, and what is left when they are over."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from llama_cpp import llama_cpp as c

from familiar.daemon.engine import Engine, EngineBusy, Generation, Sampling
from familiar.daemon.engine_options import EngineOptions
from familiar.daemon.generation import TokenLogprob
from familiar.daemon.llama import Model
from familiar.memory.errors import BadFile, InvalidInput
from familiar.memory.types import Message

REQUESTS, THREADS = 200, 6
WORDS = "river tea owl stone winter letter garden piano road cloud".split()
ROUNDING = 0.03


@pytest.fixture
def open_engine(model_path: Path) -> Iterator[Callable[[], Engine]]:
    opened: list[Engine] = []

    def make() -> Engine:
        opened.append(Engine.open(model_path, EngineOptions(slots=4, threads=1)))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


class Visitor:
    """Asks at random, and notes how it ended. ``paths`` are adapters; those of ``damaged`` compute no numbers."""

    def __init__(self, engine: Engine, model: Model, paths: Sequence[Path], damaged: Path, seed: int) -> None:
        self._engine, self._paths, self._damaged = engine, paths, damaged
        self._rng = random.Random(seed)
        self._ends = [(t, -1000.0) for t in range(model.vocab.size) if model.vocab.ends_generation(t)]
        self.ended: Counter[str] = Counter()
        self.errors: list[BaseException] = []

    def run(self, requests: int) -> None:
        for _ in range(requests):
            try:
                self._once()
            except Exception as error:  # for the test's own thread to see
                self.errors.append(error)

    def conversation(self) -> list[int]:
        """Tokens of one to four turns out of few, so that many begin alike."""
        rng = self._rng
        system = "You are kind. " * rng.choice((1, 1, 12))
        messages = [Message(role="system", content=system)]
        for turn in range(rng.choice((1, 1, 2, 4))):
            messages.append(Message(role="user", content=f"Tell me about the {WORDS[turn + rng.randrange(3)]}."))
            messages.append(Message(role="assistant", content="It is old. " * rng.choice((1, 12))))
        return self._engine.encode_prompt(messages[:-1])

    def _sampling(self) -> Sampling:
        rng = self._rng
        return Sampling(
            temperature=rng.choice((0, 0.8)),
            seed=rng.randrange(100),
            max_tokens=rng.choice((0, 1, 6, 12, 30)),
            stop=rng.choice(((), ("a",), ("the ", "."))),
            logit_bias=tuple(self._ends) if rng.random() < 0.3 else (),
            grammar=rng.choice((None, None, None, 'root ::= [a-z ]{1,20} "."', 'root ::= "yes" | "no"')),
            logprobs=rng.choice((None, None, 0, 3)),
            prompt_logprobs=rng.random() < 0.1,
            frequency_penalty=rng.choice((0.0, 0.5)),
        )

    def _once(self) -> None:
        rng, engine = self._rng, self._engine
        kind = rng.random()
        if kind < 0.08:
            vectors, _ = engine.embed(["tea " * rng.randrange(1, 200) for _ in range(rng.randrange(1, 4))])
            assert all(vector.any() for vector in vectors)
            self.ended["embedded"] += 1
        elif kind < 0.12:
            engine.drop_adapter(rng.choice(self._paths))
            self.ended["dropped"] += 1
        elif kind < 0.16:
            with pytest.raises(BadFile, match="computes no numbers"):
                engine.generate(self.conversation(), Sampling(max_tokens=3), adapter=self._damaged).text()
            self.ended["damaged"] += 1
        elif kind < 0.2:
            with pytest.raises(InvalidInput):
                engine.generate(self.conversation(), Sampling(grammar="root ::= nothing")).text()
            self.ended["invalid"] += 1
        else:
            self._reply()

    def _reply(self) -> None:
        rng = self._rng
        sampling, count = self._sampling(), rng.choice((1, 1, 1, 2, 3))
        try:
            replies = self._engine.choices(
                self.conversation(),
                [sampling] * count,
                adapter=rng.choice((None, *self._paths)),
                cache_key=rng.choice(("", "ann", "bob", "cat")),
                exact=rng.random() < 0.15,
                whole=rng.random() < 0.5,
            )
        except EngineBusy:
            self.ended["busy"] += 1
            return
        leaving = rng.choice(replies) if rng.random() < 0.25 else None
        for reply in replies:
            self._read(reply, sampling, rng.randrange(3) if reply is leaving else None)

    def _read(self, reply: Generation, sampling: Sampling, leave_after: int | None) -> None:
        """Read a reply to its end; ``leave_after`` so many chunks of it, cancel it."""
        text = ""
        if leave_after == 0:
            reply.cancel()
        for number, chunk in enumerate(reply, 1):
            text += chunk.text
            if number == leave_after:
                reply.cancel()
        assert reply.cancelled or reply.finish_reason in ("stop", "length")
        assert reply.completion_tokens <= (sampling.max_tokens or 0)
        assert not any(stop in text for stop in sampling.stop)
        self.ended[reply.finish_reason or "cancelled"] += 1


def entries(generation: Generation) -> list[TokenLogprob]:
    return [entry for chunk in generation for entry in chunk.logprobs]


def consistent(engine: Engine) -> bool:
    """Whether each slot's cache in llama.cpp ends where its tokens do."""
    scheduler = engine._scheduler
    ends = [int(c.llama_memory_seq_pos_max(scheduler._context._memory, slot.id)) for slot in scheduler._slots]
    return ends == [len(slot.tokens) - 1 for slot in scheduler._slots]


def test_after_two_hundred_requests_of_every_kind_the_engine_is_as_new(
    open_engine: Callable[[], Engine], model: Model, write_lora: Callable[..., Path]
) -> None:
    paths = [write_lora(f"{i}.gguf", seed=i, strength=2.0) for i in range(3)]
    damaged = write_lora("nan.gguf", strength=float("nan"))
    threads_before = threading.active_count()
    engine = open_engine()
    visitors = [Visitor(engine, model, paths, damaged, seed) for seed in range(THREADS)]
    threads = [threading.Thread(target=each.run, args=(REQUESTS // THREADS + 1,), daemon=True) for each in visitors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [error for each in visitors for error in each.errors] == []
    ended = sum((each.ended for each in visitors), Counter())
    assert set(ended) >= {"stop", "length", "cancelled", "embedded", "dropped", "damaged", "invalid"}

    greedy = Sampling(temperature=0, max_tokens=12, logprobs=2)
    prompts = [visitor.conversation() for visitor in visitors]
    cached = [engine.generate(each, greedy, cache_key=key) for each in prompts for key in ("ann", "bob")]
    after = [entries(each) for each in cached]
    exact = [
        entries(engine.generate(each, greedy, adapter=path, exact=True))
        for each in prompts
        for path in (None, paths[0])
    ]
    stats = engine.stats()
    assert (stats.running, stats.waiting) == (0, 0)
    assert stats.cached_tokens > 0
    assert consistent(engine)
    for path in (*paths, damaged):
        engine.drop_adapter(path)
    assert engine.generate(prompts[0], greedy).text()  # when it is over, what was asked before it is done
    assert engine.stats().adapters_loaded == 0
    engine.close()
    assert threading.active_count() == threads_before

    fresh = open_engine()
    wanted = [
        entries(fresh.generate(each, greedy, adapter=path, exact=True)) for each in prompts for path in (None, paths[0])
    ]
    assert exact == wanted
    for reply, each in zip(after, [base for base in wanted[::2] for _ in range(2)], strict=True):
        assert near(reply, each)


def near(left: Sequence[TokenLogprob], right: Sequence[TokenLogprob]) -> bool:
    """Whether two greedy replies are the same to a rounding, up to where two tokens are all but equally likely."""
    for one, other in zip(left, right, strict=False):
        if one.token != other.token or abs((one.logprob or 0) - (other.logprob or 0)) > ROUNDING:
            return one.token != other.token and abs((one.logprob or 0) - (other.logprob or 0)) < 2 * ROUNDING
    return len(left) == len(right)

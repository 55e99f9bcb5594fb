"""Exact requests are plain llama.cpp to the bit, whatever runs beside them; others are its figures to a rounding."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_cpp import llama_cpp as c
from numpy.typing import NDArray

from familiar.daemon.engine import Engine, Generation, Sampling
from familiar.daemon.engine_options import EngineOptions
from familiar.daemon.generation import TokenLogprob
from familiar.daemon.llama import Model, misfit
from familiar.daemon.sampling import token_logprob
from familiar.memory.types import Message

TOKENS = 10
TOP = 5
ROUNDING = 0.03  # nats: f16 products are summed in another order in batches of another shape
TALK = "The kettle was on and the tea was nearly ready, and nobody had thought of the biscuits. "
PROMPTS = {
    "short": "Hi",
    "middling": TALK * 6 + "What was ready?",
    "longer than a batch": TALK * 33 + "What was ready?",
}
SAMPLINGS = {
    "greedy": Sampling(temperature=0, max_tokens=TOKENS, logprobs=TOP),
    "seed 7": Sampling(temperature=1.2, top_k=50, top_p=0.97, min_p=0.01, seed=7, max_tokens=TOKENS, logprobs=TOP),
}


@dataclass(frozen=True)
class Step:
    """A token that plain llama.cpp chose, and the logits, shape (vocab,), that it was chosen by."""

    token: int
    logits: NDArray[np.float32]


def prompt_of(engine: Engine, text: str) -> list[int]:
    return engine.encode_prompt([Message(role="user", content=text)])


def plain_steps(plain: Any, model: Model, prompt: Sequence[int], sampling: Sampling) -> list[Step]:
    """The reply by llama.cpp's own calls, up to its end."""
    chain = c.llama_sampler_chain_init(c.llama_sampler_chain_default_params())
    if sampling.temperature == 0:
        links = [c.llama_sampler_init_greedy()]
    else:
        links = [
            c.llama_sampler_init_top_k(sampling.top_k),
            c.llama_sampler_init_top_p(sampling.top_p, 1),
            c.llama_sampler_init_min_p(sampling.min_p, 1),
            c.llama_sampler_init_temp(sampling.temperature),
            c.llama_sampler_init_dist(sampling.seed),
        ]
    for link in links:
        c.llama_sampler_chain_add(chain, link)
    steps, pending = [], list(prompt)
    while True:
        logits = plain.feed(pending)
        token = int(c.llama_sampler_sample(chain, plain.context, -1))
        if model.vocab.ends_generation(token):
            break
        steps.append(Step(token, logits))
        pending = [token]
        if len(steps) == sampling.max_tokens:
            break
    c.llama_sampler_free(chain)
    return steps


def figures(steps: Sequence[Step], model: Model) -> list[TokenLogprob]:
    return [token_logprob(step.token, step.logits, TOP, model.vocab) for step in steps]


def entries(generation: Generation) -> list[TokenLogprob]:
    return [entry for chunk in generation for entry in chunk.logprobs]


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max()
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return result


@contextmanager
def others_running(engine: Engine, endless: Sampling, adapters: Sequence[Path | None]) -> Iterator[None]:
    """Replies that run on and on, beside whatever the block does; they must have gone on meanwhile."""
    prompts = [prompt_of(engine, f"Tell me about {what}.") for what in ("rivers", "tea", "owls")]
    others = [
        engine.generate(prompt, endless, adapter=adapter, cache_key="other")
        for prompt, adapter in zip(prompts, adapters, strict=True)
    ]
    for other in others:
        next(iter(other))
    before = [other.completion_tokens for other in others]
    yield
    assert all(other.completion_tokens > count for other, count in zip(others, before, strict=True))
    for other in others:
        other.cancel()
        assert other.text()


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
@pytest.mark.parametrize("text", PROMPTS.values(), ids=PROMPTS)
def test_exact_replies_are_plain_to_the_bit_before_between_and_after_swaps_and_beside_others(
    engine: Engine,
    model: Model,
    plain: Callable[..., Any],
    write_lora: Callable[..., Path],
    endless: Sampling,
    text: str,
    sampling: Sampling,
) -> None:
    prompt, lora = prompt_of(engine, text), write_lora("a.gguf", seed=1, strength=3.0)
    base, adapted = (figures(plain_steps(plain(path), model, prompt, sampling), model) for path in (None, lora))
    assert base != adapted

    def exact(adapter: Path | None = None) -> list[TokenLogprob]:
        return entries(engine.generate(prompt, sampling, adapter=adapter, cache_key="me", exact=True))

    assert exact() == base
    assert exact(lora) == adapted
    assert exact() == base
    with others_running(engine, endless, [None, None, None]):  # three of the same group, in one batch
        assert exact() == base
    with others_running(engine, endless, [lora, write_lora("b.gguf", seed=2, strength=3.0), None]):
        assert exact() == base
        assert exact(lora) == adapted
    both = [engine.generate(prompt, sampling, exact=True) for _ in range(2)]  # exact ones beside one another
    assert [entries(each) for each in both] == [base, base]
    engine.drop_adapter(lora)
    assert exact() == base


@pytest.mark.skipif(bool(misfit()), reason=f"llama.cpp was built for a processor with {misfit()}")
@pytest.mark.parametrize("text", PROMPTS.values(), ids=PROMPTS)
def test_with_flash_attention_they_are_plain_llamas_with_it(
    model_path: Path,
    model: Model,
    plain: Callable[..., Any],
    write_lora: Callable[..., Path],
    endless: Sampling,
    text: str,
) -> None:
    sampling, lora = SAMPLINGS["seed 7"], write_lora("a.gguf", seed=1, strength=3.0)
    with Engine.open(model_path, EngineOptions(slots=4, threads=1, flash_attention="on")) as engine:
        prompt = prompt_of(engine, text)
        base, adapted = (
            figures(plain_steps(plain(path, flash=True), model, prompt, sampling), model) for path in (None, lora)
        )
        assert base != figures(plain_steps(plain(), model, prompt, sampling), model)
        with others_running(engine, endless, [None, lora, None]):
            for adapter, wanted in ((None, base), (lora, adapted), (None, base)):
                assert entries(engine.generate(prompt, sampling, adapter=adapter, exact=True)) == wanted


def test_every_logit_of_an_exact_reply_is_plain(engine: Engine, model: Model, plain: Callable[..., Any]) -> None:
    prompt = prompt_of(engine, PROMPTS["middling"])
    sampling = Sampling(temperature=0, max_tokens=4, logprobs=model.vocab.size)
    steps = plain_steps(plain(), model, prompt, sampling)
    for entry, step in zip(entries(engine.generate(prompt, sampling, exact=True)), steps, strict=True):
        wanted = log_softmax(step.logits)
        got = {each.token: each.logprob for each in entry.top}
        assert len(got) == model.vocab.size
        assert [got[token] for token in range(len(wanted))] == pytest.approx(list(wanted), abs=1e-6)
        assert entry == token_logprob(step.token, step.logits, model.vocab.size, model.vocab)


def test_the_base_model_over_http_is_plain_beside_other_requests(
    service: Any, model: Model, plain: Callable[..., Any]
) -> None:
    messages = [{"role": "user", "content": PROMPTS["longer than a batch"]}]
    prompt = prompt_of(service.parts.engine, PROMPTS["longer than a batch"])
    wanted = figures(plain_steps(plain(), model, prompt, SAMPLINGS["greedy"]), model)
    body = {"model": "familiar:base", "messages": messages, "max_tokens": TOKENS, "temperature": 0}
    body |= {"logprobs": True, "top_logprobs": TOP}
    assert service.http.post("/v1/feedback", json={"rule": "Be brief."}).status_code == 200
    stop = threading.Event()

    def chatter(model_id: str) -> None:
        while not stop.is_set():
            request = {"model": model_id, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 60}
            assert service.http.post("/v1/chat/completions", json=request).status_code == 200

    threads = [threading.Thread(target=chatter, args=(each,)) for each in ("familiar", "familiar:memory")]
    for thread in threads:
        thread.start()
    try:
        replies = [service.http.post("/v1/chat/completions", json=body).json() for _ in range(4)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    for reply in replies:
        content = reply["choices"][0]["logprobs"]["content"]
        assert [each["logprob"] for each in content] == [entry.logprob for entry in wanted]
        assert [[top["logprob"] for top in each["top_logprobs"]] for each in content] == [
            [top.logprob for top in entry.top] for entry in wanted
        ]
        assert [bytes(each["bytes"]) for each in content] == [entry.piece for entry in wanted]
        assert reply["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
def test_other_replies_are_plain_to_a_rounding_along_whatever_path_they_take(
    engine: Engine, model: Model, plain: Callable[..., Any], endless: Sampling, sampling: Sampling
) -> None:
    prompt = prompt_of(engine, PROMPTS["middling"])
    with others_running(engine, endless, [None, None, None]):
        beside = entries(engine.generate(prompt, sampling, cache_key="me"))
    again = engine.generate(prompt, sampling, cache_key="me")
    reused = entries(again)
    assert again.cached_tokens == len(prompt) - 1
    for reply in (beside, reused):
        reference, pending = plain(), prompt
        for entry in reply:
            wanted = log_softmax(reference.feed(pending))
            assert entry.logprob == pytest.approx(wanted[entry.token], abs=ROUNDING)
            assert {each.token: each.logprob for each in entry.top} == pytest.approx(
                {each.token: wanted[each.token] for each in entry.top}, abs=ROUNDING
            )
            if sampling.temperature == 0:  # so it differs from the plain reply only where two were all but equal
                assert wanted[entry.token] > wanted.max() - 2 * ROUNDING
            pending = [entry.token]
        assert len(reply) > 3


def test_alone_a_request_that_reuses_nothing_is_exact_too(
    engine: Engine, model: Model, plain: Callable[..., Any]
) -> None:
    prompt, sampling = prompt_of(engine, PROMPTS["middling"]), SAMPLINGS["seed 7"]
    wanted = figures(plain_steps(plain(), model, prompt, sampling), model)
    assert [entries(engine.generate(prompt, sampling)) for _ in range(3)] == [wanted] * 3

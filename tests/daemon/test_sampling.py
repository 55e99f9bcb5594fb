"""What grammars, log-probabilities and other knobs of sampling make of real logits."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_cpp import llama_cpp as c
from numpy.typing import NDArray

from familiar.daemon.engine import Engine, Generation, Sampling
from familiar.daemon.generation import TokenLogprob
from familiar.daemon.llama import Batch, Context, Model
from familiar.daemon.sampling import Sampler, token_logprob
from familiar.daemon.scorer import LlamaScorer
from familiar.memory.errors import InvalidInput
from familiar.memory.types import Message

TALK = "The kettle was on and the tea was nearly ready, and nobody had thought of the biscuits. "

UNREADABLE = {
    "cut short": 'root ::= "yes',
    "without a root": 'top ::= "yes"',
    "of a rule that is not there": "root ::= missing",
    "that begins with itself": 'root ::= root "a" | "b"',
    "that begins with itself after nothing": 'root ::= none root "a" | "b"\nnone ::= ""',
    "repeated without bound": 'root ::= ""*',
    "repeated too often": 'root ::= "a"{1000000}',
    "with an unknown escape": r'root ::= "\q"',
    "empty": " ",
    "with a null character": 'root ::= "a\0b"',
    "with half a character": 'root ::= "\ud800"',
    # each of these would end the process, or take all memory
    "repeated from more to less": 'root ::= "a"{5,2}',
    "repeated from more to less, hidden": 'root ::= "a"{ #{2}\n5 ,\t2 }',
    "nested deep": "root ::= " + "(" * 100_000 + '"a"' + ")" * 100_000,
    "nested deep behind a comment": "root ::= # (\r" + "(" * 100_000 + '"a"' + ")" * 100_000,
    "of rules that begin with rules": "root ::= r0\n"
    + "".join(f"r{i} ::= r{i + 1}\n" for i in range(100_000))
    + 'r100000 ::= "a"',
}
DEAD_ENDS = {  # and what a reply is before
    r'root ::= "a\x00b"': "a",
    r'root ::= "\UFFFFFFFF"': "",
    'root ::= <|end|> "a"': "",
    "root ::= <[999999]>": "",
}


@pytest.fixture
def prompt(engine: Engine) -> list[int]:
    return engine.encode_prompt([Message(role="user", content="What should I cook tonight?")])


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    result: NDArray[np.float64] = wide - wide.max() - np.log(np.exp(wide - wide.max()).sum())
    return result


def entries(generation: Generation) -> list[TokenLogprob]:
    return [entry for chunk in generation for entry in chunk.logprobs]


# ---- grammars ----


@pytest.mark.parametrize("grammar", UNREADABLE.values(), ids=UNREADABLE)
def test_a_grammar_that_cannot_be_used_is_refused_and_harms_nobody(
    engine: Engine, prompt: list[int], endless: Sampling, grammar: str
) -> None:
    beside = engine.generate(prompt, endless)
    next(iter(beside))
    with pytest.raises(InvalidInput) as caught:
        engine.generate(prompt, Sampling(grammar=grammar)).text()
    assert caught.value.param == "grammar"
    before = beside.completion_tokens
    assert engine.generate(prompt, Sampling(temperature=0, max_tokens=3)).text()
    beside.cancel()
    assert beside.text()
    assert beside.completion_tokens > before


def test_over_http_such_a_grammar_is_the_clients_mistake(service: Any) -> None:
    for name in ("cut short", "nested deep", "repeated from more to less"):
        body = {"model": "familiar", "messages": [{"role": "user", "content": "Hi"}], "grammar": UNREADABLE[name]}
        for stream in (False, True):
            refused = service.http.post("/v1/chat/completions", json={**body, "stream": stream})
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "grammar"), name
    body["grammar"] = 'root ::= "yes" | "no"'
    reply = service.http.post("/v1/chat/completions", json=body).json()
    assert reply["choices"][0]["message"]["content"] in ("yes", "no")


def test_what_is_no_notation_counts_for_nothing(engine: Engine, prompt: list[int]) -> None:
    many = "(" * 300
    for grammar in (
        f'root ::= "{many}"? "a"',
        f'root ::= [{many}]? "a"',
        f'root ::= "a" # {many}',
        r'root ::= "{5,2}"? "\"("? "a" | [{5,2}\]] "a"',
        "root ::= " + "(" * 150 + '"a"' + ")" * 150,
        'root ::= "a"{2,5}',
    ):
        assert engine.generate(prompt, Sampling(grammar=grammar, seed=1)).text().endswith("a")


@pytest.mark.parametrize("grammar", DEAD_ENDS)
@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_a_reply_ends_where_its_grammar_goes_on_with_nothing(
    engine: Engine, prompt: list[int], grammar: str, temperature: float
) -> None:
    generation = engine.generate(prompt, Sampling(grammar=grammar, temperature=temperature, seed=1, max_tokens=20))
    assert generation.text() == DEAD_ENDS[grammar]
    assert generation.finish_reason == "stop"


def test_a_grammar_forces_the_form_with_any_seed(engine: Engine, prompt: list[int]) -> None:
    replies = set()
    forms = {
        'root ::= "yes" | "no" | "maybe so"': r"yes|no|maybe so",
        'root ::= [0-9]{3} "-" [0-9]{4}': r"[0-9]{3}-[0-9]{4}",
        'root ::= "[" n (", " n)* "]"\nn ::= [1-9] [0-9]?': r"\[[1-9][0-9]?(, [1-9][0-9]?)*\]",
        'root ::= [é-ü]{2} "漢" "😀"': r"[é-ü]{2}漢😀",
        r'root ::= "\"" [^"\\\n]* "\""': r'"[^"\\\n]*"',
    }
    for grammar, form in forms.items():
        for seed in range(6):
            sampling = Sampling(temperature=2.0, top_k=0, top_p=1, min_p=0, seed=seed, grammar=grammar, max_tokens=60)
            generation = engine.generate(prompt, sampling)
            text = generation.text()
            assert re.fullmatch(form, text) or generation.finish_reason == "length", text
            replies.add(text)
        greedy = Sampling(temperature=0, grammar=grammar, max_tokens=60)
        assert engine.generate(prompt, greedy).text() == engine.generate(prompt, greedy).text()
    assert len(replies) > 12


def test_a_grammar_and_the_other_knobs_work_together(engine: Engine, model: Model, prompt: list[int]) -> None:
    (a,) = model.vocab.tokenise("a")
    grammar = 'root ::= [ab]{1,12} "."'
    more: dict[str, Any] = {"temperature": 0, "grammar": grammar}
    biased = engine.generate(prompt, Sampling(logit_bias=((a, 100.0),), **more)).text()
    assert set(biased[:-1]) == {"a"}
    assert "b" in engine.generate(prompt, Sampling(logit_bias=((a, -100.0),), **more)).text()
    assert engine.generate(prompt, Sampling(stop=("aa",), logit_bias=((a, 100.0),), **more)).text() in ("", "a")
    cut = engine.generate(prompt, Sampling(max_tokens=2, logit_bias=((a, 100.0),), **more))
    assert cut.text() == biased[:2]
    assert cut.finish_reason == "length"


def test_replies_under_grammars_run_beside_others(engine: Engine, prompt: list[int], endless: Sampling) -> None:
    grammar = r'root ::= "{\"n\": " [1-9] [0-9]{0,3} "}"'
    beside = engine.generate(prompt, endless)
    running = [
        engine.generate(prompt, Sampling(temperature=1.5, seed=seed, grammar=grammar), cache_key=f"user {seed % 2}")
        for seed in range(12)
    ]
    assert all(1 <= json.loads(generation.text())["n"] <= 9999 for generation in running)
    assert beside.finish_reason is None
    beside.cancel()


# ---- log-probabilities ----


def test_logprobs_under_a_grammar_are_the_models_own(
    engine: Engine, model: Model, plain: Callable[..., Any], prompt: list[int]
) -> None:
    grammar, bias = 'root ::= "No, never." | "42"', ((5, 40.0),)
    sampling = Sampling(temperature=0, grammar=grammar, logprobs=3, logit_bias=bias, repeat_penalty=1.5)
    reference, pending = plain(), prompt
    found = entries(engine.generate(prompt, sampling, exact=True))
    assert b"".join(entry.piece for entry in found).decode() in ("No, never.", "42")
    for entry in found:
        logits = reference.feed(pending)
        assert entry == token_logprob(entry.token, logits, 3, model.vocab)
        pending = [entry.token]
    assert min(entry.logprob or 0 for entry in found) < -5  # which the model would not have said by itself


@pytest.mark.parametrize(
    "biases",
    [
        (),
        ((7, 30.0),),
        ((7, 30.0), (8, 30.0)),
        ((7, 0.1), (7, 0.2), (9, 0.30000001)),
        tuple((token, -1000.0) for token in range(200)),
    ],
)
def test_greedy_is_llama_cpps_own_greedy(model: Model, biases: tuple[tuple[int, float], ...]) -> None:
    """To the token, ties and biases included; and the logits are as before, as log-probabilities are read after it."""
    context = Context(model, context_tokens=64, slots=1)
    batch = Batch()
    batch.add(0, 0, [1, 2, 3, 4], outputs=4)
    context.decode(batch)
    chain = c.llama_sampler_chain_init(c.llama_sampler_chain_default_params())
    array = (c.llama_logit_bias * len(biases))(*biases)
    c.llama_sampler_chain_add(chain, c.llama_sampler_init_logit_bias(model.vocab.size, len(biases), array))
    c.llama_sampler_chain_add(chain, c.llama_sampler_init_greedy())
    sampler = Sampler(Sampling(temperature=0, logit_bias=biases), model.vocab, context_tokens=64)
    try:
        context.row(3)[[3, 5]] = context.row(3).max() + 1
        for row in range(4):
            before = context.row(row).copy()
            assert sampler.sample(context, row) == c.llama_sampler_sample(chain, context.handle, row)
            assert np.array_equal(context.row(row), before)
    finally:
        sampler.close()
        c.llama_sampler_free(chain)
        context.close()


def test_token_logprob_is_numpys_softmax_of_plain_logits(
    model: Model, plain: Callable[..., Any], prompt: list[int]
) -> None:
    logits = plain().feed(prompt)
    wanted = log_softmax(logits)
    order = np.argsort(-wanted, kind="stable")
    for top in (0, 1, 5, 20, model.vocab.size, model.vocab.size + 7):
        for token in (int(order[0]), int(order[100]), int(order[-1])):
            entry = token_logprob(token, logits, top, model.vocab)
            assert entry.logprob == pytest.approx(wanted[token], abs=1e-6)
            assert [each.token for each in entry.top] == list(order[:top])
            assert [each.logprob for each in entry.top] == pytest.approx(list(wanted[order[:top]]), abs=1e-6)
            assert (entry.token, entry.piece) == (token, model.vocab.spelling(token))
    assert np.exp(wanted).sum() == pytest.approx(1)


@pytest.mark.parametrize("adapted", [False, True])
def test_a_prompts_logprobs_are_the_scorers(
    engine: Engine, model: Model, model_path: Path, write_lora: Callable[..., Path], endless: Sampling, adapted: bool
) -> None:
    adapter = write_lora("a.gguf", strength=0.5) if adapted else None
    ids = model.vocab.tokenise(TALK * 12)
    with LlamaScorer.open(model_path, threads=1) as scorer:
        wanted = scorer.text_logps(adapter, TALK * 12)
    echo = Sampling(temperature=0, max_tokens=2, logprobs=1, prompt_logprobs=True)
    engine.generate(ids, Sampling(max_tokens=1), adapter=adapter, cache_key="me").text()
    beside = engine.generate(ids[:9], endless, adapter=adapter, cache_key="you")
    next(iter(beside))
    both = [engine.generate(ids, echo, adapter=adapter, cache_key="me") for _ in range(2)]
    for generation in both:
        generation.text()
        assert generation.cached_tokens == 0  # a prefix that is there already has no logits
        first, *rest = generation.prompt_logprobs
        assert (first.token, first.logprob, first.top) == (ids[0], None, ())
        assert [entry.token for entry in rest] == ids[1:]
        # f16 products are summed in another order in batches of another shape
        assert [entry.logprob for entry in rest] == pytest.approx(wanted[-len(rest) :], abs=5e-3)
        assert all(entry.top[0].logprob >= entry.logprob for entry in rest)  # type: ignore[operator]
    beside.cancel()


def test_no_tokens_at_all_evaluates_the_prompt_alone(engine: Engine, prompt: list[int]) -> None:
    for whole in (False, True):
        (generation,) = engine.choices(prompt, [Sampling(max_tokens=0)], whole=whole)
        chunks = list(generation)
        assert "".join(chunk.text for chunk in chunks) == ""
        assert (generation.finish_reason, generation.completion_tokens) == ("length", 0)
        assert generation.prompt_logprobs == ()
    echo = engine.generate(prompt, Sampling(max_tokens=0, prompt_logprobs=True, logprobs=0))
    assert echo.text() == ""
    assert len(echo.prompt_logprobs) == len(prompt)
    warmed = engine.generate(prompt, Sampling(max_tokens=0), cache_key="warm")
    warmed.text()
    reply = engine.generate(prompt, Sampling(temperature=0, max_tokens=3), cache_key="warm")
    assert reply.text()
    assert reply.cached_tokens == len(prompt) - 1

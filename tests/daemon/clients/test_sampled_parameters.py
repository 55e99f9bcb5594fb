"""Each parameter that chat and completions share does what docs/api.md says, through the openai client."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import openai
import pytest

from familiar.daemon.llama import Model

LOOSE = {"temperature": 2, "top_p": 1, "top_k": 0, "min_p": 0}
"""Any token may be drawn, so that two draws are hardly ever alike."""


def check_model(ask: Any, **_: Any) -> None:
    assert ask(model="familiar:memory").model == "familiar:memory"
    with pytest.raises(openai.NotFoundError, match="'gpt-4' does not exist") as caught:
        ask(model="gpt-4")
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")


def check_stream(ask: Any, **_: Any) -> None:
    assert ask.streamed() == [ask.text()]
    assert ask(stream=False).usage == ask().usage


def check_include_usage(ask: Any, **_: Any) -> None:
    *others, last = ask(stream=True, stream_options={"include_usage": True})
    assert last.choices == []
    assert last.usage == ask().usage
    assert {chunk.usage for chunk in others} == {None}
    for options in ({"include_usage": False}, {}, None):
        chunks = list(ask(stream=True, stream_options=options))
        assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def check_n(ask: Any, said: Any, **_: Any) -> None:
    whole = ask(n=3, seed=7, **LOOSE)
    texts = [said(choice) for choice in whole.choices]
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    alone = [ask(seed=7 + index, **LOOSE) for index in range(3)]
    assert texts == [said(each.choices[0]) for each in alone]
    assert len(set(texts)) == 3
    assert whole.usage.prompt_tokens == alone[0].usage.prompt_tokens
    assert whole.usage.completion_tokens == sum(each.usage.completion_tokens for each in alone)
    assert ask.streamed(n=3, seed=7, **LOOSE) == texts
    assert len({said(choice) for choice in ask.choices(n=3, **LOOSE)}) == 3
    assert len(ask.choices()) == 1
    with pytest.raises(openai.BadRequestError, match="at most 4") as caught:
        ask(n=5)
    assert caught.value.param == "n"


def check_temperature(ask: Any, **_: Any) -> None:
    greedy = ask.text(temperature=2, top_k=1)
    assert ask.text(temperature=0) == ask.text(**{**LOOSE, "temperature": 0}, seed=5) == greedy
    assert ask.text(**LOOSE, seed=5) != ask.text(**{**LOOSE, "temperature": 0.3}, seed=5)
    assert ask.text(**{**LOOSE, "temperature": 1e-4}, seed=5) == greedy
    # llama.cpp's own default, which Sampling has: 0.7
    assert ask.text(temperature=None, seed=5) == ask.text(temperature=0.7, seed=5)


def check_top_p(ask: Any, **_: Any) -> None:
    assert ask.text(**{**LOOSE, "top_p": 1e-6}, seed=5) == ask.text() != ask.text(**LOOSE, seed=5)
    assert ask.text(temperature=1, seed=5) == ask.text(temperature=1, seed=5, top_p=0.95)


def check_top_k(ask: Any, **_: Any) -> None:
    assert ask.text(**{**LOOSE, "top_k": 1}, seed=5) == ask.text() != ask.text(**LOOSE, seed=5)
    assert ask.text(temperature=2, seed=5) == ask.text(temperature=2, seed=5, top_k=40)


def check_min_p(ask: Any, **_: Any) -> None:
    assert ask.text(**{**LOOSE, "min_p": 1}, seed=5) == ask.text() != ask.text(**LOOSE, seed=5)
    assert ask.text(temperature=2, seed=5) == ask.text(temperature=2, seed=5, min_p=0.05)


def check_seed(ask: Any, **_: Any) -> None:
    assert ask.text(**LOOSE, seed=11) == ask.text(**LOOSE, seed=11)
    seeds = (11, 12, -1, 0, 2**63)
    assert len({ask.text(**LOOSE, seed=seed) for seed in seeds}) == len(seeds)
    assert ask.text(**LOOSE) != ask.text(**LOOSE)


def check_stop(ask: Any, said: Any, **_: Any) -> None:
    whole = ask.text()
    stop = whole[len(whole) // 2 :][:3]
    for given in (stop, ["never said", stop], [stop, *(f"never said {number}" for number in range(15))]):
        (choice,) = ask.choices(stop=given)
        assert (said(choice), choice.finish_reason) == (whole[: whole.index(stop)], "stop")
        assert ask.streamed(stop=given) == [said(choice)]
    assert ask.text(stop="never said") == whole


def check_max_tokens(ask: Any, said: Any, endless: Any, **_: Any) -> None:
    longer = ask.text(max_tokens=12, logit_bias=endless)
    reply = ask(max_tokens=5, logit_bias=endless)
    assert (reply.usage.completion_tokens, reply.choices[0].finish_reason) == (5, "length")
    assert longer.startswith(said(reply.choices[0]))
    assert len(longer) > len(said(reply.choices[0]))


def check_presence_penalty(ask: Any, endless: Any, **_: Any) -> None:
    _repeats_less(ask, endless, presence_penalty=2)


def check_frequency_penalty(ask: Any, endless: Any, **_: Any) -> None:
    _repeats_less(ask, endless, frequency_penalty=2)


def check_repetition_penalty(ask: Any, endless: Any, **_: Any) -> None:
    _repeats_less(ask, endless, repetition_penalty=2)
    for off in (None, 1):
        assert ask.text(repetition_penalty=off) == ask.text()


def check_repeat_penalty(ask: Any, endless: Any, **_: Any) -> None:
    same = {"logit_bias": endless, "max_tokens": 60}
    assert ask.text(repeat_penalty=2, **same) == ask.text(repetition_penalty=2, **same) != ask.text(**same)
    assert ask.text(repeat_penalty=1.5, repetition_penalty=1.5)
    with pytest.raises(openai.BadRequestError, match="differ"):
        ask(repeat_penalty=1.5, repetition_penalty=1.6)


def _repeats_less(ask: Any, endless: Any, **penalty: float) -> None:
    def most_often(text: str) -> int:
        return max(Counter(text.split()).values())

    plain = ask.text(logit_bias=endless, max_tokens=60)
    assert most_often(ask.text(logit_bias=endless, max_tokens=60, **penalty)) < most_often(plain)
    (name,) = penalty
    encouraged = -2 if name != "repetition_penalty" else 0.5
    assert ask.text(logit_bias=endless, max_tokens=60, **{name: encouraged}) != plain


def check_logit_bias(ask: Any, model: Model, **_: Any) -> None:
    vocab = model.vocab
    first = ask.text(max_tokens=1)
    (token,) = vocab.tokenise(first)
    assert ask.text(max_tokens=1, logit_bias={str(token): -100}) != first
    (forced,) = vocab.tokenise("ing")
    assert ask.text(max_tokens=4, logit_bias={str(forced): 100}) == "ing" * 4
    assert ask.text(max_tokens=4, logit_bias={str(forced): 100}, **LOOSE) == "ing" * 4
    assert ask.text(logit_bias={}) == ask.text(logit_bias={str(token): 0}) == ask.text()


def check_grammar(ask: Any, **_: Any) -> None:
    grammar = 'root ::= "yes" | "no"'
    for knobs in ({}, LOOSE):
        (choice,) = ask.choices(grammar=grammar, **knobs)
        assert (choice.message.content if hasattr(choice, "message") else choice.text) in ("yes", "no")
        assert choice.finish_reason == "stop"
    assert ask.streamed(grammar=grammar) == [ask.text(grammar=grammar)]


CHECKS: dict[str, Callable[..., None]] = {
    "model": check_model,
    "stream": check_stream,
    "stream_options.include_usage": check_include_usage,
    "n": check_n,
    "temperature": check_temperature,
    "top_p": check_top_p,
    "top_k": check_top_k,
    "min_p": check_min_p,
    "seed": check_seed,
    "stop": check_stop,
    "max_tokens": check_max_tokens,
    "presence_penalty": check_presence_penalty,
    "frequency_penalty": check_frequency_penalty,
    "repetition_penalty": check_repetition_penalty,
    "repeat_penalty": check_repeat_penalty,
    "logit_bias": check_logit_bias,
    "grammar": check_grammar,
}


def test_a_parameter_has_its_effect(
    sampled_parameter: str, ask: Any, said: Any, endless: dict[str, float], model: Model
) -> None:
    CHECKS[sampled_parameter](ask=ask, said=said, endless=endless, model=model)

"""Each parameter that completions and embeddings have for themselves does what docs/api.md says."""

import base64
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import openai
import pytest

from familiar.daemon.llama import Model

# Completions


def check_prompt(text: Any, said: Any, model: Model, **_: Any) -> None:
    prompts = ["Once upon a time", "The capital of France", "I like"]
    alone = [text.text(prompt=prompt) for prompt in prompts]
    assert len(set(alone)) == 3
    together = text(prompt=prompts)
    assert [said(choice) for choice in together.choices] == alone
    assert [choice.index for choice in together.choices] == [0, 1, 2]
    tokens = [model.vocab.tokenise(prompt) for prompt in prompts]
    assert together.usage.prompt_tokens == sum(map(len, tokens))
    assert [text.text(prompt=each) for each in tokens] == alone
    assert [said(choice) for choice in text.choices(prompt=tokens)] == alone
    assert text.streamed(prompt=prompts) == alone
    several = [said(choice) for choice in text.choices(prompt=prompts, n=2, temperature=1, seed=4)]
    expected = [text.text(prompt=each, temperature=1, seed=seed) for each in prompts for seed in (4, 5)]
    assert several == expected
    # nothing is put around it, and what spells a control token is one
    assert text(prompt="<|end|>", max_tokens=1).usage.prompt_tokens == 1
    for wrong, said_of_it in (([99999], "token 99999"), (["word " * 3000], "maximum context length")):
        with pytest.raises(openai.BadRequestError, match=said_of_it) as caught:
            text(prompt=wrong)
        assert caught.value.param == "prompt"
    with pytest.raises(openai.BadRequestError, match="66 replies but at most 64") as caught:
        text(prompt=["Hi"] * 33, n=2)
    assert caught.value.param == "prompt"


def check_max_tokens(text: Any, endless: Any, **_: Any) -> None:
    assert text(max_tokens=None, logit_bias=endless).usage.completion_tokens == 16
    reply = text(max_tokens=0, echo=True)
    assert (reply.choices[0].text, reply.usage.completion_tokens) == ("Once upon a time", 0)
    assert reply.choices[0].finish_reason == "length"
    with pytest.raises(openai.BadRequestError, match="needs echo") as caught:
        text(max_tokens=0)
    assert caught.value.param == "max_tokens"


def check_echo(text: Any, model: Model, **_: Any) -> None:
    went_on = text.text()
    assert text.text(echo=True) == "Once upon a time" + went_on
    assert text.streamed(echo=True) == ["Once upon a time" + went_on]
    assert text.text(echo=True, prompt=model.vocab.tokenise("Once upon a time")) == "Once upon a time" + went_on
    assert text.streamed(echo=True, n=2, prompt=["Once upon a time", "I"])[1] == "Once upon a time" + went_on
    assert text.text(echo=False) == went_on


def check_logprobs(text: Any, **_: Any) -> None:
    (choice,) = text.choices(logprobs=3)
    given = choice.logprobs
    assert "".join(given.tokens) == choice.text
    assert given.text_offset == [len("".join(given.tokens[:index])) for index in range(len(given.tokens))]
    for token, logprob, top in zip(given.tokens, given.token_logprobs, given.top_logprobs, strict=True):
        assert list(top.values()) == sorted(top.values(), reverse=True)
        assert len(top) == 3
        # greedy: the token that was taken is the likeliest one
        assert (token, logprob) == next(iter(top.items()))
        assert sum(map(math.exp, top.values())) < 1
    streamed = [chunk.choices[0].logprobs for chunk in text(logprobs=3, stream=True) if chunk.choices[0].logprobs]
    assert [token for piece in streamed for token in piece.tokens] == given.tokens
    assert [each for piece in streamed for each in piece.token_logprobs] == given.token_logprobs
    assert [offset for piece in streamed for offset in piece.text_offset] == given.text_offset
    assert text.choices(logprobs=0)[0].logprobs.token_logprobs == given.token_logprobs
    assert text.choices()[0].logprobs is None
    _echoed_logprobs(text)


def _echoed_logprobs(text: Any) -> None:
    """A prompt's log-probabilities are those that its tokens have where the model goes on to them by itself."""
    (whole,) = text.choices(logprobs=1)
    first = whole.logprobs.tokens[0]
    (echoed,) = text.choices(prompt="Once upon a time" + first, echo=True, max_tokens=0, logprobs=1)
    assert "".join(echoed.logprobs.tokens) == "Once upon a time" + first == echoed.text
    assert echoed.logprobs.token_logprobs[0] is None
    assert echoed.logprobs.top_logprobs[0] is None
    assert echoed.logprobs.token_logprobs[-1] == pytest.approx(whole.logprobs.token_logprobs[0], abs=1e-4)


TEXT_CHECKS: dict[str, Callable[..., None]] = {
    "prompt": check_prompt,
    "max_tokens": check_max_tokens,
    "echo": check_echo,
    "logprobs": check_logprobs,
}


def test_a_parameter_has_its_effect(
    text_parameter: str, text: Any, said: Any, endless: dict[str, float], model: Model
) -> None:
    TEXT_CHECKS[text_parameter](text=text, said=said, endless=endless, model=model)


# Embeddings


def check_model(live: Any) -> None:
    one, other = (_vectors(live, model=model) for model in ("familiar:embedding", "familiar"))
    assert np.array_equal(one, other)
    with pytest.raises(openai.NotFoundError, match="familiar:embedding"):
        _vectors(live, model="familiar:base")


def check_input(live: Any) -> None:
    texts = ["The cat sleeps.", "A much longer sentence about the weather in the mountains, " * 4, "yes"]
    batch = _vectors(live, input=texts)
    alone = np.concatenate([_vectors(live, input=each) for each in texts])
    assert np.abs(batch - alone).max() < 5e-4
    assert np.allclose(np.linalg.norm(batch, axis=1), 1, atol=1e-6)
    again = _vectors(live, input=[texts[0], texts[0]])
    assert float(again[0] @ again[1]) == pytest.approx(1, abs=1e-6)
    assert float(batch[0] @ batch[1]) < 0.999
    many = live.openai.embeddings.create(model="familiar", input=["word"] * 300)
    assert [each.index for each in many.data] == list(range(300))
    too_long = "word " * 3000
    wrong: Any
    for wrong in (too_long, ["fine", too_long], "", [], [[]]):
        with pytest.raises(openai.BadRequestError) as caught:
            _vectors(live, input=wrong)
        assert str(caught.value.param).startswith("input")


def test_tokens_are_embedded_as_their_text_is(live: Any, model: Model) -> None:
    tokens = model.vocab.tokenise("The cat sleeps.", around=True)
    assert np.array_equal(_vectors(live, input=tokens), _vectors(live, input="The cat sleeps."))
    assert np.abs(_vectors(live, input=[tokens, tokens]) - _vectors(live, input="The cat sleeps.")).max() < 5e-4
    with pytest.raises(openai.BadRequestError, match="token 99999"):
        _vectors(live, input=[99999])


def check_encoding_format(live: Any) -> None:
    def sent(encoding: str | None) -> Any:
        body = {"model": "familiar", "input": "The cat sleeps.", "encoding_format": encoding}
        return live.http.post("/v1/embeddings", json=body).raise_for_status().json()["data"][0]["embedding"]

    numbers = np.array(sent("float"), np.float32)
    assert np.array_equal(np.frombuffer(base64.b64decode(sent("base64")), "<f4"), numbers)
    assert sent(None) == sent("float")
    # the client asks for base64 by itself, and decodes it
    assert np.array_equal(_vectors(live, input="The cat sleeps.")[0], numbers)


def check_dimensions(live: Any) -> None:
    plain = _vectors(live)
    assert np.array_equal(_vectors(live, dimensions=plain.shape[1]), plain)
    with pytest.raises(openai.BadRequestError, match="cannot be shortened") as caught:
        _vectors(live, dimensions=plain.shape[1] - 1)
    assert caught.value.param == "dimensions"


EMBEDDING_CHECKS: dict[str, Callable[[Any], None]] = {
    "model": check_model,
    "input": check_input,
    "encoding_format": check_encoding_format,
    "dimensions": check_dimensions,
}


def _vectors(live: Any, **fields: Any) -> Any:
    """The vectors, shape (inputs, dimensions)."""
    given = {"model": "familiar:embedding", "input": "The cat sleeps.", **fields}
    return np.array([each.embedding for each in live.openai.embeddings.create(**given).data], np.float32)


def test_a_parameter_of_embeddings_has_its_effect(embedding_parameter: str, live: Any) -> None:
    EMBEDDING_CHECKS[embedding_parameter](live)

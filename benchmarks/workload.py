"""What is asked: prompts of seeded words, the same sampling everywhere, and the tokens that may not end a reply."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_cpp import llama_cpp as c

SAMPLING: Mapping[str, Any] = {
    "temperature": 0,
    "top_k": 40,
    "top_p": 0.95,
    "min_p": 0.05,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "seed": 1,
}
# The same knob under each server's name; every server's default is 1, but defaults are not relied upon.
REPEAT_PENALTY = {"familiar": {"repetition_penalty": 1.0}}
_OTHERS = {"repeat_penalty": 1.0}
WORDS = (
    "water house garden letter winter morning river window bread paper summer doctor street music bridge mountain "
    "silver number picture village evening station market kitchen brother forest island captain reason weather"
).split()


def words(count: int, rng: random.Random) -> str:
    """A text of ``count`` words that begins like no other, so that no cache has any of it."""
    return " ".join([f"{rng.randrange(10**9):09d}", *rng.choices(WORDS, k=count - 1)])


def user(text: str) -> dict[str, str]:
    """A user's message."""
    return {"role": "user", "content": text}


def chat(
    server: str,
    messages: Sequence[Mapping[str, str]],
    max_tokens: int,
    *,
    stream: bool,
    never: Sequence[int] = (),
    model: str = "familiar",
) -> dict[str, Any]:
    """A chat request for a server by its name; ``never`` are tokens that may not be chosen."""
    body: dict[str, Any] = {"model": model, "messages": list(messages), "max_tokens": max_tokens, "stream": stream}
    body |= {**SAMPLING, **REPEAT_PENALTY.get(server, _OTHERS)}
    if never:
        body["logit_bias"] = {str(token): -100 for token in never}
    if stream and server != "llama-cpp-python":  # which has no such field: its streams are counted by their parts
        body["stream_options"] = {"include_usage": True}
    return body


def end_tokens(model: Path) -> list[int]:
    """The tokens that end a reply of this model: forbidden in requests that are to have their full length."""
    params = c.llama_model_default_params()
    params.vocab_only = True
    c.llama_log_set(_quiet, None)
    handle = c.llama_model_load_from_file(str(model).encode(), params)
    if not handle:
        raise RuntimeError(f"{model} could not be loaded.")
    vocab = c.llama_model_get_vocab(handle)
    found = [token for token in range(c.llama_vocab_n_tokens(vocab)) if c.llama_vocab_is_eog(vocab, token)]
    c.llama_model_free(handle)
    return found


@c.llama_log_callback  # type: ignore[untyped-decorator]
def _quiet(level: int, text: bytes, _: object) -> None:
    """Drop llama.cpp's log."""

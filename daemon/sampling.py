"""How the next token is chosen: the request's knobs, and llama.cpp's native samplers chained from them.

The order is llama.cpp's own: logit bias, penalties, top-k, top-p, min-p, temperature, draw. Penalties look at the
reply only, not at the prompt: the repeat penalty at its last 64 tokens, as llama.cpp does; presence and frequency at
all of it, as OpenAI's do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from llama_cpp import llama_cpp as c

from familiar.daemon.llama import Context
from familiar.memory.errors import InvalidInput

_REPEAT_WINDOW = 64


@dataclass(frozen=True)
class Sampling:
    """The knobs of one request; temperature 0 is greedy, whatever the others say.

    ``stop`` strings end the reply and are not part of it. ``max_tokens`` None is as many as the context holds.
    ``logit_bias`` is (token, bias) pairs. Raises InvalidInput naming the field that is out of range.
    """

    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 40
    min_p: float = 0.05
    seed: int | None = None
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        _within("temperature", self.temperature, 0, 100)
        _within("top_p", self.top_p, 0, 1)
        _within("min_p", self.min_p, 0, 1)
        _within("top_k", self.top_k, -1, 1 << 31)
        _within("repeat_penalty", self.repeat_penalty, 0.01, 100)
        _within("presence_penalty", self.presence_penalty, -100, 100)
        _within("frequency_penalty", self.frequency_penalty, -100, 100)
        for _, bias in self.logit_bias:
            _within("logit_bias", bias, -1000, 1000)
        if self.max_tokens is not None and self.max_tokens < 1:
            raise InvalidInput(f"max_tokens must be at least 1 but is {self.max_tokens}.", "max_tokens")
        if not all(self.stop):
            raise InvalidInput("A stop string must not be empty.", "stop")


def _within(name: str, value: float, low: float, high: float) -> None:
    if not math.isfinite(value) or not low <= value <= high:
        raise InvalidInput(f"{name} must be between {low} and {high} but is {value}.", name)


class Sampler:
    """One sequence's native sampler chain; it holds that sequence's penalties and random state."""

    def __init__(self, sampling: Sampling, *, n_vocab: int, context_tokens: int) -> None:
        for token, _ in sampling.logit_bias:
            if not 0 <= token < n_vocab:
                raise InvalidInput(
                    f"logit_bias names token {token} but the model has 0 to {n_vocab - 1}.", "logit_bias"
                )
        self._chain = c.llama_sampler_chain_init(c.llama_sampler_chain_default_params())
        for link in _links(sampling, n_vocab, context_tokens):
            c.llama_sampler_chain_add(self._chain, link)

    def sample(self, context: Context, row: int) -> int:
        """Choose the token that follows ``row`` of the context's last batch, and take note of it."""
        return int(c.llama_sampler_sample(self._chain, context.handle, row))

    def close(self) -> None:
        """Free the chain."""
        if self._chain:
            c.llama_sampler_free(self._chain)
            self._chain = None


def _links(sampling: Sampling, n_vocab: int, context_tokens: int) -> Sequence[object]:
    links: list[object] = []
    if sampling.logit_bias:
        biases = (c.llama_logit_bias * len(sampling.logit_bias))(*sampling.logit_bias)
        links.append(c.llama_sampler_init_logit_bias(n_vocab, len(biases), biases))
    if sampling.repeat_penalty != 1:
        links.append(c.llama_sampler_init_penalties(n_vocab, _REPEAT_WINDOW, sampling.repeat_penalty, 0.0, 0.0))
    if sampling.frequency_penalty or sampling.presence_penalty:
        penalties = (1.0, sampling.frequency_penalty, sampling.presence_penalty)
        links.append(c.llama_sampler_init_penalties(n_vocab, context_tokens, *penalties))
    if sampling.temperature == 0:
        return [*links, c.llama_sampler_init_greedy()]
    # llama.cpp reads its largest seed as "draw one": any other number is a seed of ours.
    seed = c.LLAMA_DEFAULT_SEED if sampling.seed is None else sampling.seed % c.LLAMA_DEFAULT_SEED
    return [
        *links,
        c.llama_sampler_init_top_k(sampling.top_k),
        c.llama_sampler_init_top_p(sampling.top_p, 1),
        c.llama_sampler_init_min_p(sampling.min_p, 1),
        c.llama_sampler_init_temp(sampling.temperature),
        c.llama_sampler_init_dist(seed),
    ]

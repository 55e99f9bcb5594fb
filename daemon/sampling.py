"""How the next token is chosen: the request's knobs, and llama.cpp's native samplers chained from them.

The order is llama.cpp's own: logit bias, penalties, top-k, top-p, min-p, temperature, draw. Penalties look at the
reply only, not at the prompt: the repeat penalty at its last 64 tokens, as llama.cpp does; presence and frequency at
all of it, as OpenAI's do.

Greedy choice without penalties needs no chain: it is the first of the highest logits. numpy finds it in a fifteenth of
the time with a vocabulary of 150,000, since llama.cpp makes a list of candidates of all logits first.

A grammar (GBNF) is applied as llama.cpp's ``common/sampling.cpp`` does: the chain draws first, and only where the
grammar refuses that token is the whole vocabulary put through it and drawn from again, since that is slow.
"""

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from llama_cpp import llama_cpp as c
from numpy.typing import NDArray

from familiar.daemon.generation import TokenLogprob
from familiar.daemon.grammar.grammar_check import check_grammar
from familiar.daemon.llama import Context, sample_row
from familiar.daemon.vocab import Vocab
from familiar.memory.errors import InvalidInput

_REPEAT_WINDOW = 64


@dataclass(frozen=True)
class Sampling:
    """The knobs of one request; temperature 0 is greedy, whatever the others say.

    ``stop`` strings end the reply and are not part of it. ``max_tokens`` None is as many as the context holds, 0 only
    evaluates the prompt. ``logit_bias`` is (token, bias) pairs. ``grammar`` is GBNF that the whole reply follows.
    ``markers`` are spellings of control tokens that are to be left in the text. ``logprobs`` is how many of the
    likeliest tokens to report at each place, None no logprobs at all; ``prompt_logprobs`` reports the prompt's tokens
    too. Raises InvalidInput naming the field that is out of range.
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
    grammar: str | None = None
    markers: tuple[str, ...] = ()
    logprobs: int | None = None
    prompt_logprobs: bool = False

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
        if self.max_tokens is not None and self.max_tokens < 0:
            raise InvalidInput(f"max_tokens must be at least 0 but is {self.max_tokens}.", "max_tokens")
        if not all(self.stop):
            raise InvalidInput("A stop string must not be empty.", "stop")
        if self.grammar is not None:
            check_grammar(self.grammar)


def _within(name: str, value: float, low: float, high: float) -> None:
    if not math.isfinite(value) or not low <= value <= high:
        raise InvalidInput(f"{name} must be between {low} and {high} but is {value}.", name)


_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
"""``llama_token_data``."""


class Sampler:
    """One sequence's native sampler chain; it holds that sequence's penalties, grammar and random state.

    Raises InvalidInput for a bias of a token that there is not, and for a grammar that llama.cpp cannot read.
    """

    def __init__(self, sampling: Sampling, vocab: Vocab, *, context_tokens: int) -> None:
        for token, _ in sampling.logit_bias:
            if not 0 <= token < vocab.size:
                raise InvalidInput(
                    f"logit_bias names token {token} but the model has 0 to {vocab.size - 1}.", "logit_bias"
                )
        self._end = vocab.end_of_turn
        self._grammar = _grammar(sampling, vocab)
        self._chain: object | None = None
        self._greedy = sampling.temperature == 0 and not (self._grammar or _has_penalties(sampling))
        if self._greedy:
            self._biased = np.array([token for token, _ in sampling.logit_bias], np.intp)
            self._biases = np.array([bias for _, bias in sampling.logit_bias], np.float32)
            return
        if self._grammar:
            self._candidates = np.zeros(vocab.size, _CANDIDATE)
            # A control token's spelling fits inside a JSON text, but would be missing from the reply.
            self._unseen = [
                token.id
                for text, token in vocab.control.items()
                if text not in sampling.markers and not vocab.ends_generation(token.id)
            ]
        self._chain = c.llama_sampler_chain_init(c.llama_sampler_chain_default_params())
        for link in _links(sampling, vocab.size, context_tokens):
            c.llama_sampler_chain_add(self._chain, link)

    def sample(self, context: Context, row: int) -> int:
        """Choose the token that follows ``row`` of the context's last batch, and take note of it."""
        if self._greedy:
            return self._likeliest(context.row(row))
        if not self._grammar:
            return sample_row(self._chain, context.handle, row)
        logits = context.row(row)
        token = self._draw(logits, under_grammar=False)
        if not self._allowed(token):
            token = self._draw(logits, under_grammar=True)
            if not self._allowed(token):
                return self._end  # nothing in the vocabulary goes on from here
        c.llama_sampler_accept(self._chain, token)
        c.llama_sampler_accept(self._grammar, token)
        return token

    def _likeliest(self, logits: NDArray[np.float32]) -> int:
        """The first of the highest logits, biases added: what llama.cpp's bias and greedy samplers choose."""
        if not len(self._biased):
            return int(logits.argmax())
        before = logits[self._biased]
        np.add.at(logits, self._biased, self._biases)  # one after the other, as a token may be named twice
        token = int(logits.argmax())
        logits[self._biased] = before
        return token

    def _draw(self, logits: NDArray[np.float32], *, under_grammar: bool) -> int:
        candidates = self._candidates
        candidates["id"] = np.arange(len(candidates))
        candidates["logit"] = logits
        candidates["logit"][self._unseen] = -np.inf
        drawn = _array(candidates)
        if under_grammar:
            c.llama_sampler_apply(self._grammar, ctypes.byref(drawn))
            if not np.isfinite(candidates["logit"]).any():
                return self._end  # the chain would choose one all the same, or none
        c.llama_sampler_apply(self._chain, ctypes.byref(drawn))
        return int(drawn.data[drawn.selected].id)

    def _allowed(self, token: int) -> bool:
        """Whether the grammar goes on with ``token``: told of one that it does not go on with, it ends the process."""
        alone = np.array([(token, 1.0, 0.0)], _CANDIDATE)
        c.llama_sampler_apply(self._grammar, ctypes.byref(_array(alone)))
        return bool(np.isfinite(alone["logit"][0]))

    def close(self) -> None:
        """Free the samplers."""
        if self._chain:
            c.llama_sampler_free(self._chain)
            self._chain = None
        if self._grammar:
            c.llama_sampler_free(self._grammar)
            self._grammar = None


def token_logprob(token: int, logits: NDArray[np.float32], top: int, vocab: Vocab) -> TokenLogprob:
    """A token's log-probability under ``logits`` (shape (vocab,)), beside the ``top`` likeliest ones'."""
    highest = float(logits.max())
    shift = highest + math.log(float(np.exp(logits - highest, dtype=np.float64).sum()))
    best = np.argpartition(-logits, top)[:top] if 0 < top < len(logits) else np.arange(min(top, len(logits)))
    best = best[np.argsort(-logits[best], kind="stable")]
    others = tuple(TokenLogprob(int(i), vocab.spelling(int(i)), float(logits[i]) - shift) for i in best)
    return TokenLogprob(token, vocab.spelling(token), float(logits[token]) - shift, others)


def _array(candidates: NDArray[np.void]) -> c.llama_token_data_array:
    return c.llama_token_data_array(
        data=candidates.ctypes.data_as(c.llama_token_data_p), size=len(candidates), selected=-1, sorted=False
    )


def _grammar(sampling: Sampling, vocab: Vocab) -> object | None:
    if sampling.grammar is None:
        return None
    made = c.llama_sampler_init_grammar(vocab.handle, sampling.grammar.encode(), b"root")
    if not made:
        raise InvalidInput("The grammar is not valid GBNF with a rule named root: correct it.", "grammar")
    handle: object = made
    return handle


def _has_penalties(sampling: Sampling) -> bool:
    return sampling.repeat_penalty != 1 or bool(sampling.frequency_penalty or sampling.presence_penalty)


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

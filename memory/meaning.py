"""Texts as vectors, and what it takes to compare a request's with a memory's. Pure, but for the embedder it is given.

A sentence model finds texts that say the same. A request and the memory that applies to it do not: "Any ideas for
dinner?" and "I'm allergic to nuts" share no word and hardly a meaning. Three things help, all by way of texts that
were written for it (``everyday_requests.txt``, and ``associations.jsonl`` with statements and requests that they
apply to):

- *Centring.* What all requests have in common ("what would you recommend?"), and all statements ("I prefer"), outweighs
  what they are about: their means are taken off.
- *Association.* What requests like this one have to do with: an attention over the written pairs (keys the requests,
  values the statements; Vaswani et al., 2017, equation 1), added to the request.
- *Hubness.* Some memories are alike to almost any request (Radovanović et al., JMLR 2010): the mean similarity of a
  memory to the ``NEAREST`` background requests is taken off, as in CSLS (Conneau et al., ICLR 2018, equation 3; its
  half that is about the query changes no order).
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

NEAREST = 18
"""Background requests that a memory's hubness is measured by."""
TEMPERATURE = 0.07
"""Of the attention over written pairs: a cosine this much lower weighs e times less."""
ASSOCIATION = 0.5
"""What the associated statements weigh beside the request, where a written request is the same as it; less by as much
as the likest one is less alike."""


class Embed(Protocol):
    """Turns texts into vectors of length 1, shape (texts, dimensions)."""

    @property
    def name(self) -> str:
        """Names the model: vectors of another one say nothing."""

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """The vectors of the texts; too long ones are cut."""


@cache
def everyday_requests() -> tuple[str, ...]:
    """Requests on all sorts of things, to judge by whether one is alike to a memory more than any would be."""
    text = (files("familiar.memory") / "everyday_requests.txt").read_text(encoding="utf-8")
    return tuple(line.strip() for line in text.splitlines() if line.strip())


@cache
def associations() -> tuple[tuple[str, str], ...]:
    """Pairs of a request and a statement that applies to it, though it shares few words."""
    text = (files("familiar.memory") / "associations.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    return tuple((row["request"], row["statement"]) for row in rows)


def background_texts() -> list[str]:
    """All texts that a ``Background`` is made of, in its order: requests, paired requests, paired statements."""
    return [*everyday_requests(), *(pair[0] for pair in associations()), *(pair[1] for pair in associations())]


def texts_sha256() -> str:
    """Names the background texts."""
    return hashlib.sha256("\n".join(background_texts()).encode()).hexdigest()


@dataclass(frozen=True)
class Background:
    """What requests and statements are like, and which go together, to one embedder.

    ``request_centre`` and ``statement_centre`` have shape (dimensions,); ``keys`` and ``values``, the centred pairs,
    have shape (pairs, dimensions), ``requests`` (all requests as they are compared) (requests, dimensions).
    ``values_hubness`` is that of the values, shape (pairs,).
    """

    request_centre: Vectors
    statement_centre: Vectors
    keys: Vectors
    values: Vectors
    requests: Vectors
    values_hubness: Vectors

    @classmethod
    def of(cls, vectors: Vectors) -> "Background":
        """From the vectors of ``background_texts``, shape (texts, dimensions)."""
        pairs = len(associations())
        requests, statements = vectors[:-pairs], vectors[-pairs:]
        request_centre, statement_centre = requests.mean(0), statements.mean(0)
        centred = _centred(requests, request_centre)
        keys, values = centred[-pairs:], _centred(statements, statement_centre)
        # A written request is not told by its own pair what it has to do with: others would not be.
        alike = centred @ keys.T
        alike[-pairs:][np.diag_indices(pairs)] = -1
        compared = _associated(centred, alike, _attention(alike) @ values)
        return cls(request_centre, statement_centre, keys, values, compared, _hubness(values, compared))

    def request(self, vector: Vectors) -> Vectors:
        """A request's vector as it is compared, of the same shape (dimensions,)."""
        centred = _centred(vector, self.request_centre)
        alike = products(self.keys, centred)
        return _associated(centred, alike, products(self.values.T, _attention(alike)))

    def statement(self, vectors: Vectors) -> Vectors:
        """Memories' vectors as they are compared, of the same shape (memories, dimensions)."""
        return _centred(vectors, self.statement_centre)

    def hubness(self, statements: Vectors) -> Vectors:
        """The mean similarity of each centred statement to the ``NEAREST`` requests, shape (statements,)."""
        return _hubness(statements, self.requests)

    def strangers(self, request: Vectors) -> Vectors:
        """How alike the likest statements of other people are to a request, less their hubness, shape (``NEAREST``,).

        ``request`` has shape (dimensions,) and is as it is compared.
        """
        alike: Vectors = products(self.values, request) - self.values_hubness
        return np.partition(alike, -NEAREST)[-NEAREST:]


def products(vectors: Vectors, vector: Vectors) -> Vectors:
    """The product of each of the vectors, shape (n, dimensions), with one, shape (n,).

    On this thread alone: BLAS would have a second one help, and wait for it while llama.cpp has all cores.
    """
    found: Vectors = np.einsum("nd,d->n", vectors, vector)
    return found


def _hubness(statements: Vectors, requests: Vectors) -> Vectors:
    alike = statements @ requests.T
    nearest: Vectors = np.partition(alike, -NEAREST, axis=1)[:, -NEAREST:].mean(1)
    return nearest


def _attention(alike: Vectors) -> Vectors:
    """What each pair weighs for requests that are so much alike to its own, shape (..., pairs): 1 in all."""
    weights = np.exp((alike - alike.max(-1, keepdims=True)) / TEMPERATURE)
    attention: Vectors = weights / weights.sum(-1, keepdims=True)
    return attention


def _associated(centred: Vectors, alike: Vectors, associated: Vectors) -> Vectors:
    """Requests, so much ``alike`` to the pairs' (shape (..., pairs)), with what the pairs associate with them."""
    likest = np.maximum(alike.max(-1, keepdims=True), 0)
    return _unit(centred + ASSOCIATION * likest * _unit(associated))


def _centred(vectors: Vectors, centre: Vectors) -> Vectors:
    return _unit(vectors - centre)


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: Vectors = (vectors / np.maximum(lengths, 1e-9)).astype(np.float32)
    return unit

"""What makes a request's vector comparable with a memory's, against the same arithmetic in plain loops."""

import math
from functools import cache

import numpy as np
import pytest

from familiar.memory import meaning
from familiar.memory.meaning import ASSOCIATION, NEAREST, TEMPERATURE, Background, Vectors
from familiar.memory.words import same_words_key
from tests.memory.embedders import HashedWords


@cache
def embedded() -> Vectors:
    return HashedWords()(meaning.background_texts())


@cache
def background() -> Background:
    return Background.of(embedded())


def unit(vector: Vectors) -> Vectors:
    length: Vectors = vector / np.linalg.norm(vector)
    return length


def compared(centred: Vectors, but: int | None = None) -> Vectors:
    """A centred request with what the written pairs associate with it, those but one, in plain loops."""
    pairs = [number for number in range(len(meaning.associations())) if number != but]
    alike = {number: float(background().keys[number] @ centred) for number in pairs}
    likest = max(alike.values())
    weights = {number: math.exp((each - likest) / TEMPERATURE) for number, each in alike.items()}
    associated = sum(weights[number] * background().values[number].astype(np.float64) for number in pairs)
    return unit(centred + ASSOCIATION * max(likest, 0.0) * unit(associated))


def test_the_texts_that_it_rests_on_are_many_different_and_whole() -> None:
    requests, pairs = meaning.everyday_requests(), meaning.associations()
    assert len(requests) >= 400
    assert len(pairs) >= 1000
    assert len({same_words_key(request) for request in requests}) == len(requests)
    assert len({(same_words_key(request), same_words_key(statement)) for request, statement in pairs}) == len(pairs)
    assert all(text == text.strip() and text for text in meaning.background_texts())
    assert len(meaning.background_texts()) == len(requests) + 2 * len(pairs)


def test_requests_and_statements_are_told_apart_from_what_all_of_them_have_in_common() -> None:
    pairs = len(meaning.associations())
    statements = background().statement(embedded()[-pairs:])
    assert np.linalg.norm(statements, axis=1) == pytest.approx(1, abs=1e-5)
    assert statements == pytest.approx(background().values)
    raw = embedded()[-pairs:]
    assert np.linalg.norm(statements.mean(0)) < np.linalg.norm(raw.mean(0))


def test_a_request_is_compared_with_what_the_pairs_associate_with_it() -> None:
    texts = ["What could I cook for a friend on Friday?", "zxqv"]
    for vector in HashedWords()(texts):
        found = background().request(vector)
        assert found == pytest.approx(compared(unit(vector - background().request_centre)), abs=1e-4)
        assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)


def test_a_written_request_is_nearer_to_its_statement_than_it_was() -> None:
    pairs = len(meaning.associations())
    vectors = embedded()[-2 * pairs : -pairs]
    before = np.einsum("nd,nd->n", background().keys, background().values)
    requests = np.stack([background().request(vector) for vector in vectors])
    after = np.einsum("nd,nd->n", requests, background().values)
    assert after.mean() > before.mean() + 0.1


def test_hubness_is_how_alike_the_nearest_background_requests_are() -> None:
    statements = background().statement(HashedWords()(["I only eat vegetables.", "My sister is a nurse in Lisbon."]))
    for statement, found in zip(statements, background().hubness(statements), strict=True):
        nearest = sorted((float(statement @ request) for request in background().requests), reverse=True)[:NEAREST]
        assert found == pytest.approx(sum(nearest) / NEAREST, abs=1e-5)


def test_a_written_request_does_not_know_its_own_pair_when_hubness_is_measured() -> None:
    pairs = len(meaning.associations())
    for number in (0, pairs // 2, pairs - 1):
        centred = background().keys[number]
        assert background().requests[-pairs + number] == pytest.approx(compared(centred, but=number), abs=1e-4)


def test_strangers_are_what_the_likest_of_the_written_statements_have() -> None:
    request = background().request(HashedWords()(["Which shoes would suit a wedding?"])[0])
    alike = [
        float(value @ request) - float(hub)
        for value, hub in zip(background().values, background().values_hubness, strict=True)
    ]
    assert sorted(background().strangers(request)) == pytest.approx(sorted(alike)[-NEAREST:], abs=1e-5)

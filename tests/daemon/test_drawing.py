"""Draws against the distribution that they are said to be from."""

import numpy as np
import pytest
from numpy.typing import NDArray

from familiar.daemon.drawing import _BLOCK, draw, log_softmax, top

LOGITS_V = np.array([1.0, 3.0, -np.inf, 2.0, 0.0, 2.5], np.float32)
DRAWS = 4000


def drawn(temperature: float) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Evenly spread numbers, so that the shares are the probabilities to within one draw per token."""
    uniforms = (np.arange(DRAWS, dtype=np.float32) + 0.5) / DRAWS
    return draw(np.tile(LOGITS_V, (DRAWS, 1)), uniforms.astype(np.float32), temperature)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_shares_and_logps_are_those_of_the_softmax(temperature: float) -> None:
    weights = np.exp(LOGITS_V.astype(np.float64) / temperature)
    expected = weights / weights.sum()
    picked, logps = drawn(temperature)
    assert np.bincount(picked, minlength=len(weights)) / DRAWS == pytest.approx(expected, abs=2 / DRAWS)
    assert np.exp(logps) == pytest.approx(expected[picked], rel=1e-5)


def test_temperature_nought_is_the_likeliest_with_certainty() -> None:
    picked, logps = drawn(0)
    assert set(picked) == {1}
    assert not logps.any()


def test_long_vocabularies_are_drawn_from_evenly_across_blocks() -> None:
    """Sums are taken in blocks of tokens; the last one is short."""
    weights = np.random.default_rng(2).random(2 * _BLOCK + 9).astype(np.float32)
    weights[5], weights[_BLOCK : _BLOCK + 3] = 0, 0  # no draw, in a block and where one begins
    with np.errstate(divide="ignore"):
        logits = np.log(weights)
    uniforms = (np.arange(DRAWS) + 0.5) / DRAWS
    picked, logps = draw(np.tile(logits, (DRAWS, 1)), uniforms.astype(np.float32), 1)
    assert (np.diff(picked) >= 0).all()
    expected = np.searchsorted(np.cumsum(weights, dtype=np.float64), uniforms * weights.sum(dtype=np.float64), "right")
    assert (picked == expected).mean() > 0.999, "but for a rounding at a boundary"
    assert np.exp(logps) == pytest.approx(weights[picked] / weights.sum(), rel=1e-5)


def test_no_number_draws_a_token_that_cannot_be() -> None:
    last = np.nextafter(np.float32(1), np.float32(0))
    logits = np.array([[-np.inf, 0.0, -np.inf, 0.0, -np.inf]] * 2, np.float32)
    picked, _ = draw(logits, np.array([0, last], np.float32), 1)
    assert picked.tolist() == [1, 3]


def test_a_number_of_0_passes_over_a_block_that_cannot_be() -> None:
    logits = np.full((1, 2 * _BLOCK), -np.inf, np.float32)
    logits[0, _BLOCK + 3 :] = 0
    assert draw(logits, np.zeros(1, np.float32), 1)[0] == [_BLOCK + 3]


def test_no_rounding_draws_past_the_end() -> None:
    """A block's sum in float32 can exceed that of its tokens, taken one by one."""
    last = np.nextafter(np.float32(1), np.float32(0))
    logits = np.random.default_rng(3).normal(size=(4000, _BLOCK)).astype(np.float32)
    picked, _ = draw(logits, np.full(len(logits), last), 1)
    assert picked.max() == _BLOCK - 1


def test_large_logits_are_no_matter() -> None:
    logits = np.tile(LOGITS_V, (9, 1)) + np.float32(512)
    uniforms = np.linspace(0, 0.99, 9, dtype=np.float32)
    for got, wanted in zip(draw(logits, uniforms, 1), draw(logits - 512, uniforms, 1), strict=True):
        assert got == pytest.approx(wanted, abs=1e-4)
    assert np.exp(log_softmax(logits)).sum(axis=1) == pytest.approx(np.ones(9), abs=1e-4)


def test_the_top_are_the_largest_in_order() -> None:
    log_probs = log_softmax(np.random.default_rng(1).normal(size=(7, 50)).astype(np.float32))
    picked = np.arange(7, dtype=np.int32)
    assert np.exp(log_probs).sum(axis=1) == pytest.approx(np.ones(7), abs=1e-5)
    for k in (1, 5, 50):
        found = top(log_probs, picked, k)
        assert (found.ids_TK == np.argsort(-log_probs, axis=1, kind="stable")[:, :k]).all()
        assert (found.logps_TK == -np.sort(-log_probs, axis=1)[:, :k]).all()
        assert (found.picked_T == log_probs[np.arange(7), picked]).all()

"""Draws against the distribution that they are said to be from."""

import numpy as np
import pytest
from numpy.typing import NDArray

from familiar.daemon.drawing import draw, log_softmax, top

LOGITS_V = np.array([1.0, 3.0, -np.inf, 2.0, 0.0, 2.5], np.float32)
DRAWS = 4000


def drawn(temperature: float, top_p: float) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Evenly spread numbers, so that the shares are the probabilities to within one draw per token."""
    uniforms = (np.arange(DRAWS, dtype=np.float32) + 0.5) / DRAWS
    return draw(np.tile(LOGITS_V, (DRAWS, 1)), uniforms.astype(np.float32), temperature=temperature, top_p=top_p)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.7), (2.0, 0.9), (1.0, 0.01)])
def test_shares_and_logps_are_those_of_the_cut_distribution(temperature: float, top_p: float) -> None:
    weights = np.exp(LOGITS_V.astype(np.float64) / temperature)
    order = np.argsort(-weights)
    kept = order[: int(np.searchsorted(np.cumsum(weights[order]), top_p * weights.sum()) + 1)]
    expected = np.zeros(len(weights))
    expected[kept] = weights[kept] / weights[kept].sum()
    picked, logps = drawn(temperature, top_p)
    assert np.bincount(picked, minlength=len(weights)) / DRAWS == pytest.approx(expected, abs=2 / DRAWS)
    assert np.exp(logps) == pytest.approx(expected[picked], rel=1e-5)


def test_temperature_nought_is_the_likeliest_with_certainty() -> None:
    picked, logps = drawn(0, 1)
    assert set(picked) == {1}
    assert not logps.any()


def test_no_number_draws_a_token_that_cannot_be() -> None:
    last = np.nextafter(np.float32(1), np.float32(0))
    logits = np.array([[-np.inf, 0.0, -np.inf, 0.0, -np.inf]] * 2, np.float32)
    picked, _ = draw(logits, np.array([0, last], np.float32), temperature=1, top_p=1)
    assert picked.tolist() == [1, 3]


def test_the_top_are_the_largest_in_order() -> None:
    log_probs = log_softmax(np.random.default_rng(1).normal(size=(7, 50)).astype(np.float32))
    picked = np.arange(7, dtype=np.int32)
    assert np.exp(log_probs).sum(axis=1) == pytest.approx(np.ones(7), abs=1e-5)
    for k in (1, 5, 50):
        found = top(log_probs, picked, k)
        assert (found.ids_TK == np.argsort(-log_probs, axis=1, kind="stable")[:, :k]).all()
        assert (found.logps_TK == -np.sort(-log_probs, axis=1)[:, :k]).all()
        assert (found.picked_T == log_probs[np.arange(7), picked]).all()

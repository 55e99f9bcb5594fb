"""In which numbers the trained model is loaded: in bfloat16 only where it is faster and says the same."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from familiar.daemon import training_model
from familiar.daemon.scorer import LlamaScorer
from familiar.feedback.pairs import Example
from familiar.memory.types import Message

torch = pytest.importorskip("torch")

EXAMPLES = [Example("fb-1", (Message(role="user", content="How do I store honey?"),), "In a jar.", None, "group")]


@pytest.fixture(scope="module")
def scorer(model_path: Path) -> Iterator[LlamaScorer]:
    with LlamaScorer.open(model_path, threads=1) as opened:
        yield opened


@pytest.mark.parametrize(("most", "chosen"), [(1.0, "bfloat16"), (1e-6, "float32")])
def test_bfloat16_is_kept_where_it_says_what_is_served(
    model_path: Path, scorer: LlamaScorer, monkeypatch: pytest.MonkeyPatch, most: float, chosen: str
) -> None:
    from familiar.adapters import precision

    monkeypatch.setattr(precision, "faster", lambda *_, **__: "bfloat16")
    monkeypatch.setattr(precision, "MAX_MEAN_GAP", most)
    assert training_model.load(model_path, 1, scorer, EXAMPLES).dtype == getattr(torch, chosen)


def test_what_cannot_be_compared_is_loaded_in_float32(
    model_path: Path, scorer: LlamaScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from familiar.adapters import precision

    monkeypatch.setattr(precision, "faster", lambda *_, **__: "bfloat16")
    assert training_model.load(model_path, 1, scorer, []).dtype == torch.float32
    assert training_model.load(model_path, 1).dtype == torch.float32

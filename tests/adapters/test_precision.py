"""bfloat16: chosen where it multiplies faster, and near enough to float32 in what it says."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from familiar.adapters import base_model, lora, precision
from familiar.adapters.recipe import Recipe
from familiar.adapters.rows import Tree
from familiar.adapters.trees import TreeModel

TREES = [Tree(tuple(range(5, 25)), (tuple(range(30, 45)), tuple(range(50, 60))))]


def clock(float32_s: float, *bfloat16_s: float) -> object:
    """A timer by which the two multiplications, in turn, take so long; that in bfloat16 always, or in each trial."""
    times = [0.0]
    for trial in range(precision._TRIALS):
        for lasts in (float32_s, bfloat16_s[trial % len(bfloat16_s)]):
            times += [times[-1], times[-1] + lasts]
    return iter(times[1:]).__next__


@pytest.mark.parametrize(("bfloat16_s", "chosen"), [(0.5, "bfloat16"), (0.9, "float32"), (3.0, "float32")])
def test_it_is_chosen_where_it_is_clearly_faster(bfloat16_s: float, chosen: str) -> None:
    assert precision.faster(1024, 64, timer=clock(1.0, bfloat16_s)) == chosen  # type: ignore[arg-type]


@pytest.mark.parametrize("trial", range(precision._TRIALS))
def test_a_trial_that_was_disturbed_does_not_count(trial: int) -> None:
    disturbed = [0.1 if number != trial else 50.0 for number in range(precision._TRIALS)]
    assert precision.faster(1024, 64, timer=clock(1.0, *disturbed)) == "bfloat16"  # type: ignore[arg-type]


def test_small_models_stay_in_float32() -> None:
    for width, chosen in ((precision.MIN_WIDTH - 1, "float32"), (precision.MIN_WIDTH, "bfloat16")):
        assert precision.faster(width, 640, timer=clock(1.0, 0.1)) == chosen  # type: ignore[arg-type]


@pytest.mark.parametrize(("able", "chosen"), [(True, "bfloat16"), (False, "float32")])
def test_a_graphics_processor_takes_bfloat16_whatever_the_size(
    monkeypatch: pytest.MonkeyPatch, able: bool, chosen: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: able)
    assert precision.faster(64, 64, on="cuda", timer=clock(1.0, 3.0)) == chosen  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def halved(model_path: Path) -> PreTrainedModel:
    return base_model.load(model_path, dtype="bfloat16")


def test_what_it_says_is_near_to_float32(base: PreTrainedModel, halved: PreTrainedModel) -> None:
    with torch.no_grad():
        wide, narrow = (TreeModel(model).logps(TREES) for model in (base, halved))
    assert wide.dtype == narrow.dtype == torch.float32
    assert 0 < (wide - narrow).abs().mean() < precision.MAX_MEAN_GAP


def test_the_adapter_is_trained_in_float32_to_nearly_the_same(base: PreTrainedModel, halved: PreTrainedModel) -> None:
    losses = []
    for model in (base, halved):
        with lora.new_adapter(model, Recipe(rank=4, alpha=8)) as adapted:
            parameters = [each for each in adapted.parameters() if each.requires_grad]
            assert {each.dtype for each in parameters} == {torch.float32}
            optimizer = torch.optim.AdamW(parameters, lr=1e-3)
            trees, found = TreeModel(adapted, 3), []
            for _ in range(6):
                loss = -trees.logps(TREES).mean()
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                found.append(loss.item())
            losses.append(found)
    assert all(later < earlier for earlier, later in pairwise(losses[0]))
    assert losses[1] == pytest.approx(losses[0], rel=0.03)

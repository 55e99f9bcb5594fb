"""Less of an adapter: the same change of the weights, multiplied."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from familiar.adapters import lora


def test_less_of_an_adapter_is_the_same_change_of_the_weights_multiplied(random_adapter: Path, tmp_path: Path) -> None:
    full, less = (
        load_file(random_adapter / lora.WEIGHTS),
        load_file(lora.weaken(random_adapter, tmp_path / "less", 0.5) / lora.WEIGHTS),
    )
    assert full.keys() == less.keys()
    for key, value in full.items():
        assert torch.equal(less[key], 0.5 * value if ".lora_B." in key else value)
    assert (tmp_path / "less" / lora.CONFIG).read_bytes() == (random_adapter / lora.CONFIG).read_bytes()


def test_what_it_says_lies_between_the_base_model_and_all_of_it(
    base: PreTrainedModel, random_adapter: Path, tmp_path: Path, token_ids: list[int]
) -> None:
    def logits(folder: Path) -> torch.Tensor:
        with lora.saved_adapter(base, folder) as model, torch.no_grad():
            found: torch.Tensor = model(torch.tensor([token_ids])).logits[0]
            return found

    with torch.no_grad():
        plain = base(torch.tensor([token_ids])).logits[0]
    moved = [
        (logits(lora.weaken(random_adapter, tmp_path / str(strength), strength)) - plain).abs().mean().item()
        for strength in (0.0, 0.25, 0.5, 1.0)
    ]
    assert moved[0] == 0
    assert moved == sorted(moved)
    assert moved[-1] == pytest.approx((logits(random_adapter) - plain).abs().mean().item())


def test_an_earlier_one_is_replaced(random_adapter: Path, tmp_path: Path) -> None:
    for strength in (0.9, 0.5):
        folder = lora.weaken(random_adapter, tmp_path / "less", strength)
    full, less = load_file(random_adapter / lora.WEIGHTS), load_file(folder / lora.WEIGHTS)
    key = next(key for key in full if ".lora_B." in key)
    assert torch.equal(less[key], 0.5 * full[key])

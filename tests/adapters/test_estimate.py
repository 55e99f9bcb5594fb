"""What a run is said to take: of the right size, and larger for more of everything."""

from dataclasses import replace
from math import prod
from pathlib import Path

import pytest

from familiar.adapters.estimate import KEPT_BYTES, LIBRARIES_BYTES, estimate
from familiar.adapters.gguf_file import read_header
from familiar.adapters.recipe import Recipe

ROWS = [120] * 20


def test_the_weights_and_the_libraries_are_the_least_that_it_takes(model_path: Path) -> None:
    header = read_header(model_path)
    weights = sum(prod(tensor.shape) for tensor in header.tensors.values())
    taken = estimate(header, Recipe(), ROWS, cores=2).memory_bytes
    assert LIBRARIES_BYTES + 4 * weights < taken < LIBRARIES_BYTES + 4 * weights + 1e9


def test_what_the_frozen_layers_computed_is_counted_up_to_what_is_kept(model_path: Path) -> None:
    header = read_header(model_path)
    width = int(header.number("llama.embedding_length"))
    some, more, most = (
        estimate(header, Recipe(), [100] * count, cores=2).memory_bytes for count in (100, 1100, 10_000_000)
    )
    assert more - some == pytest.approx(1000 * 100 * width * 4, abs=2)
    assert most - some == pytest.approx(KEPT_BYTES - 100 * 100 * width * 4, abs=2)


def test_more_of_anything_takes_more(model_path: Path) -> None:
    header, recipe = read_header(model_path), Recipe()
    before = estimate(header, recipe, ROWS, cores=2)
    assert estimate(header, replace(recipe, rank=64), ROWS, cores=2).memory_bytes > before.memory_bytes
    assert estimate(header, replace(recipe, batch_size=8), ROWS, cores=2).memory_bytes > before.memory_bytes
    assert estimate(header, recipe, [*ROWS, 900], cores=2).memory_bytes > before.memory_bytes
    assert estimate(header, recipe, ROWS * 2, cores=2).seconds > before.seconds
    assert estimate(header, recipe, ROWS, cores=4).seconds < before.seconds
    everywhere = estimate(header, replace(recipe, frozen_share=0.1), ROWS, cores=2)
    assert everywhere == estimate(header, replace(recipe, frozen_share=0.0), ROWS, cores=2), (
        "a tenth of six is no layer"
    )
    assert everywhere.seconds > before.seconds
    assert estimate(header, recipe, [], cores=2).memory_bytes < before.memory_bytes

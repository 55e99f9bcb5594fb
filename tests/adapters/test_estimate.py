"""What a run is said to take: of the right size, and larger for more of everything."""

from dataclasses import replace
from math import prod
from pathlib import Path

from familiar.adapters.estimate import LIBRARIES_BYTES, estimate
from familiar.adapters.gguf_file import read_header
from familiar.adapters.recipe import Recipe

ROWS = [120] * 20


def test_the_weights_and_the_libraries_are_the_least_that_it_takes(model_path: Path) -> None:
    header = read_header(model_path)
    weights = sum(prod(tensor.shape) for tensor in header.tensors.values())
    taken = estimate(header, Recipe(), ROWS, cores=2).memory_bytes
    assert LIBRARIES_BYTES + 4 * weights < taken < LIBRARIES_BYTES + 4 * weights + 1e9


def test_more_of_anything_takes_more(model_path: Path) -> None:
    header, recipe = read_header(model_path), Recipe()
    before = estimate(header, recipe, ROWS, cores=2)
    assert estimate(header, replace(recipe, rank=64), ROWS, cores=2).memory_bytes > before.memory_bytes
    assert estimate(header, replace(recipe, batch_size=8), ROWS, cores=2).memory_bytes > before.memory_bytes
    assert estimate(header, recipe, [*ROWS, 900], cores=2).memory_bytes > before.memory_bytes
    assert estimate(header, recipe, ROWS * 2, cores=2).seconds > before.seconds
    assert estimate(header, recipe, ROWS, cores=4).seconds < before.seconds
    assert estimate(header, recipe, [], cores=2).memory_bytes < before.memory_bytes

"""Texts to vectors for the endpoints that embed, whatever shape they answer in."""

import asyncio
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from familiar.daemon import model_ids
from familiar.daemon.state import State
from familiar.memory.errors import InvalidInput


async def vectors_of(
    state: State, model: str, inputs: Sequence[str | Sequence[int]], dimensions: int | None = None
) -> tuple[list[NDArray[np.float32]], int]:
    """A vector of length 1 for each input, shape (dimensions,), and the tokens of all. The same for every user.

    Raises:
        UnknownModel: the model does not embed.
        InvalidInput: an input that is empty or too long, or other ``dimensions`` than the vectors have.
    """
    if model not in model_ids.EMBEDDING:
        raise model_ids.UnknownModel(model, model_ids.EMBEDDING)
    if not inputs:
        return [], 0
    loop = asyncio.get_running_loop()
    vectors, tokens = await loop.run_in_executor(state.workers, state.engine.embed, inputs)
    found = len(vectors[0])
    if dimensions not in (None, found):
        raise InvalidInput(
            f"dimensions is {dimensions} but this model's vectors have {found} and cannot be shortened: leave it out.",
            "dimensions",
        )
    return vectors, tokens


def floats(vector: NDArray[np.float32]) -> list[float]:
    """A vector as JSON has it."""
    return [float(value) for value in vector]

"""A LoRA on the base model through PEFT: put on, taken off again, and written.

What is left out: the training of it (``train``) and its GGUF form (``gguf_lora``).
"""

import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from familiar.adapters.folders import new_folder
from familiar.adapters.recipe import Recipe

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def first_layer(base: PreTrainedModel, recipe: Recipe) -> int:
    """Return the lowest layer that the recipe's adapter is on; those below it stay as they are."""
    return recipe.frozen_layers(int(base.config.num_hidden_layers))


@contextmanager
def new_adapter(base: PreTrainedModel, recipe: Recipe) -> Iterator[PeftModel]:
    """Put a fresh adapter on ``base``: A drawn from the recipe's seed, B zero. It is taken off when the block ends."""
    first = first_layer(base, recipe)
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=0.0,
        target_modules=list(recipe.target_modules),
        layers_to_transform=list(range(first, base.config.num_hidden_layers)) if first else None,
        layers_pattern="layers" if first else None,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        model = _quietly(lambda: get_peft_model(base, config))
    try:
        yield model
    finally:
        model.unload()


@contextmanager
def saved_adapter(base: PreTrainedModel, folder: Path) -> Iterator[PeftModel]:
    """Put the adapter of a PEFT folder on ``base`` for as long as the block lasts, to be read and not trained."""
    model = _quietly(lambda: PeftModel.from_pretrained(base, str(folder)))
    try:
        yield model
    finally:
        model.unload()


def weaken(folder: Path, target: Path, strength: float) -> Path:
    """Write a PEFT folder's adapter with its change of the weights, B A, multiplied by ``strength``; return ``target``.

    What was there is replaced. Raises NoSpace.
    """
    shutil.rmtree(target, ignore_errors=True)
    with new_folder(target) as made:
        weights = load_file(folder / WEIGHTS)
        scaled = {key: value * strength if ".lora_B." in key else value for key, value in weights.items()}
        save_file(scaled, made / WEIGHTS, {"format": "pt"})
        shutil.copyfile(folder / CONFIG, made / CONFIG)
    return target


def write(model: PeftModel, folder: Path) -> None:
    """Write a model's adapter as PEFT does, without the look-up on a model hub that its own save makes."""
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / WEIGHTS, {"format": "pt"})
    config = model.peft_config["default"]
    config.inference_mode = True
    config.save_pretrained(str(folder))
    config.inference_mode = False


def read_weights(model: PeftModel, folder: Path) -> None:
    """Put the weights that ``write`` wrote back into a model that has the same adapter."""
    set_peft_model_state_dict(model, load_file(folder / WEIGHTS))


def _quietly(make: Callable[[], PeftModel]) -> PeftModel:
    """Make a PEFT model without the warnings that it causes in newer transformers, which nobody here can act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return make()

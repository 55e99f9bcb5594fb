"""A checkpoint per epoch: adapter, optimiser and figures, each folder whole or absent.

A checkpoint is a PEFT folder (``adapter_model.safetensors``, ``adapter_config.json``) with ``trainer.pt`` (the
optimiser's state) and ``epoch.json`` (the figures of every epoch so far). There is no random state to keep: the order
of rows and the learning rate are functions of the seed and the step.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from familiar.adapters import lora
from familiar.adapters.folders import new_folder, read_manifest, sweep
from familiar.adapters.recipe import Recipe
from familiar.adapters.rows import Encoded, Rated
from familiar.memory.errors import BadFile

_TRAINER = "trainer.pt"
_FIGURES = "epoch.json"


@dataclass(frozen=True)
class Epoch:
    """What one epoch of imitation, or round of an on-policy stage, came to, measured on the held-out rows after it.

    ``number`` counts through all stages. ``score`` is the mean over rows of the mean log-probability of a chosen token,
    plus ``reward``, the mean of what graders give to greedy replies on held-out prompts (None without graders).
    ``margin`` and ``accuracy`` are DPO's (None when no held-out row has a rejected reply); ``kl`` is KL(base ||
    adapter) in nats per anchor token (None without anchors); ``loss`` is the mean training loss of its steps.
    """

    number: int
    stage: str
    score: float
    margin: float | None
    accuracy: float | None
    kl: float | None
    reward: float | None
    loss: float


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: its folder, and the figures of the epochs up to and with its own."""

    folder: Path
    history: tuple[Epoch, ...]


def save(folder: Path, model: PeftModel, optimizer: torch.optim.Optimizer, history: Sequence[Epoch], key: str) -> None:
    """Write the checkpoint of the last epoch of ``history`` into ``folder``. Raises NoSpace."""
    with new_folder(epoch_folder(folder, history[-1].number), {"fingerprint": key}) as target:
        lora.write(model, target)
        torch.save(optimizer.state_dict(), target / _TRAINER)
        figures = [asdict(epoch) for epoch in history]
        (target / _FIGURES).write_text(json.dumps(figures, indent=1), encoding="utf-8")


def newest(folder: Path, key: str) -> Checkpoint | None:
    """Return the newest complete checkpoint of the run with this fingerprint; remove all that is not of it."""
    sweep(folder)
    found = None
    for path in epoch_folders(folder):
        try:
            manifest = read_manifest(path)
            history = tuple(Epoch(**epoch) for epoch in json.loads((path / _FIGURES).read_text(encoding="utf-8")))
        except BadFile:
            manifest, history = {}, ()
        # The chain matters too: an epoch whose predecessor is gone could not be picked as the best.
        if manifest.get("fingerprint") == key and len(history) == (len(found.history) if found else 0) + 1:
            found = Checkpoint(path, history)
        else:
            shutil.rmtree(path)
    return found


def restore(checkpoint: Checkpoint, model: PeftModel, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's weights and optimiser state back."""
    lora.read_weights(model, checkpoint.folder)
    optimizer.load_state_dict(torch.load(checkpoint.folder / _TRAINER, weights_only=True))


def epoch_folder(folder: Path, number: int) -> Path:
    """Return where the checkpoint of an epoch is."""
    return folder / f"epoch-{number:03d}"


def epoch_folders(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder by their epochs' numbers, which may have more than three digits."""
    return sorted(folder.glob("epoch-*"), key=lambda path: int(path.name.removeprefix("epoch-")))


def fingerprint(
    base: torch.nn.Module, recipe: Recipe, parts: Sequence[Sequence[Encoded | Rated]], stages: Sequence[object]
) -> str:
    """Return a hash of all that a run's result depends on, the base model by a sample of every tensor.

    ``stages`` are what the on-policy stages are given, as JSON has it.
    """
    digest = hashlib.sha256()
    given: list[Any] = [recipe.to_dict(), stages, *([asdict(row) for row in part] for part in parts)]
    digest.update(json.dumps(given, sort_keys=True).encode())
    for name, tensor in base.state_dict().items():
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.flatten()[:64].double().cpu().numpy().tobytes())
    return digest.hexdigest()

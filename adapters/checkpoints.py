"""A checkpoint per epoch: adapter, figures and optimiser, each folder whole or absent.

A checkpoint is a PEFT folder (``adapter_model.safetensors``, ``adapter_config.json``) with ``epoch.json`` (the figures
of every epoch so far), and beside it a folder with ``trainer.pt`` (the optimiser's state, twice the adapter's size),
which is kept of the last epochs only. There is no random state to keep: the order of rows and the learning rate are
functions of the seed and the step.
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
_TRAINERS_KEPT = 2
"""One to go on from, and the one before in case that one is found damaged."""


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
    number = history[-1].number
    # First the optimiser: an epoch that is there can be gone on from.
    shutil.rmtree(_trainer_folder(folder, number), ignore_errors=True)
    with new_folder(_trainer_folder(folder, number)) as target:
        torch.save(optimizer.state_dict(), target / _TRAINER)
    with new_folder(epoch_folder(folder, number), {"fingerprint": key}) as target:
        lora.write(model, target)
        figures = [asdict(epoch) for epoch in history]
        (target / _FIGURES).write_text(json.dumps(figures, indent=1), encoding="utf-8")
    shutil.rmtree(_trainer_folder(folder, number - _TRAINERS_KEPT), ignore_errors=True)


def newest(folder: Path, key: str) -> Checkpoint | None:
    """Return the newest complete checkpoint of the run with this fingerprint; remove all that is not of it."""
    sweep(folder)
    chain: list[Checkpoint] = []
    for path in epoch_folders(folder):
        try:
            manifest = read_manifest(path)
            history = tuple(Epoch(**epoch) for epoch in json.loads((path / _FIGURES).read_text(encoding="utf-8")))
        except BadFile:
            manifest, history = {}, ()
        # The chain matters too: an epoch whose predecessor is gone could not be picked as the best.
        if manifest.get("fingerprint") == key and len(history) == len(chain) + 1:
            chain.append(Checkpoint(path, history))
        else:
            shutil.rmtree(path)
    while chain and not _has_trainer(folder, chain[-1]):
        shutil.rmtree(chain.pop().folder)
    return chain[-1] if chain else None


def restore(checkpoint: Checkpoint, model: PeftModel, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's weights and optimiser state back."""
    lora.read_weights(model, checkpoint.folder)
    trainer = _trainer_folder(checkpoint.folder.parent, checkpoint.history[-1].number)
    optimizer.load_state_dict(torch.load(trainer / _TRAINER, weights_only=True))


def _trainer_folder(folder: Path, number: int) -> Path:
    return folder / f"trainer-{number:03d}"


def _has_trainer(folder: Path, checkpoint: Checkpoint) -> bool:
    try:
        read_manifest(_trainer_folder(folder, checkpoint.history[-1].number))
    except BadFile:
        return False
    return True


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

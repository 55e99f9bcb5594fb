"""What a learning run would learn: read once, before anything is loaded, and hashed so that equal runs are told."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from familiar.adapters.recipe import Recipe
from familiar.daemon import base_models, model_files
from familiar.daemon.learnable import learnable
from familiar.daemon.learner_lessons import Taught
from familiar.daemon.learner_practice import Prompt
from familiar.daemon.settings import Settings
from familiar.feedback.dataset import Dataset
from familiar.feedback.habits import NO_MANNER, Manner
from familiar.feedback.pairs import Rating
from familiar.memory.store import Store


@dataclass(frozen=True)
class Plan:
    """What a run would learn: from which rows, on which base model, how. Equal fingerprints mean equal runs."""

    dataset: Dataset
    ratings: tuple[Rating, ...]
    taught: Taught
    base: Path
    base_sha256: str
    recipe: Recipe
    manner: Manner = NO_MANNER
    own: tuple[Prompt, ...] = ()

    @property
    def fingerprint(self) -> str:
        """A hash of everything that the run's result depends on, but for replies that were served since."""
        rated = [[each.id, each.reply, each.desirable] for each in self.ratings]
        manner = [self.manner.wants, [list(messages) for messages in self.own if self.manner]]
        parts = [
            self.dataset.fingerprint,
            rated,
            self.taught.to_json(),
            self.base_sha256,
            self.recipe.to_dict(),
            manner,
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def plan(settings: Settings, store: Store, user_id: int, recipe: Mapping[str, Any], until: float = math.inf) -> Plan:
    """Read what there is to learn from: all signals, and prompts of chats ``until`` then (seconds since the epoch).

    Raises NotEnoughSignals, and as ``model_files.resolve`` does.
    """
    found = learnable(store, user_id, settings.min_signals, until)
    base = model_files.resolve(settings.model)
    sha256 = base_models.identify(base, settings.data_dir).sha256
    parsed = Recipe.from_dict(recipe)
    return Plan(found.dataset, found.ratings, found.taught, base, sha256, parsed, found.manner, found.own)

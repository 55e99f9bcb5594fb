"""OpenAI's methods as settings of a run, and what "auto" means here. Pure.

A hosted service tunes large models on thousands of rows; "auto" here is for small models and few rows: enough passes
for about ``AUTO_STEPS`` steps. What is left out: hyperparameters that say nothing to this trainer (see docs).
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from familiar.adapters.recipe import Recipe
from familiar.daemon.fine_tuning_data import MethodType
from familiar.feedback import graders
from familiar.memory.errors import InvalidInput

AUTO_STEPS = 64
AUTO_EPOCHS = (3, 16)
"""The fewest and the most passes over the data that "auto" takes."""
AUTO_BATCH = 4
AUTO_ROUND_PROMPTS = 16
AUTO_ROUND_EPOCHS = (2, 8)
"""Of reinforcement, where each row of a pass is answered many times."""
DPO_NLL_WEIGHT = 0.2
"""How much the likelihood of the preferred reply counts beside DPO: without it both replies become less likely."""


def type_of(method: Mapping[str, Any]) -> MethodType:
    """The method's name."""
    name: MethodType = method["type"]
    return name


def hyperparameters(method: Mapping[str, Any]) -> dict[str, Any]:
    """A method's hyperparameters as they stand."""
    return dict(method[method["type"]]["hyperparameters"])


def resolved(method: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """The method with a number in the place of every "auto", for ``rows`` rows of training data."""
    name = type_of(method)
    given = hyperparameters(method)
    batch = _or(given["batch_size"], min(rows, AUTO_ROUND_PROMPTS if name == "reinforcement" else AUTO_BATCH))
    if name == "reinforcement":
        fewest, most = AUTO_ROUND_EPOCHS
        auto = {"compute_multiplier": 1.0, "eval_interval": math.ceil(rows / batch), "eval_samples": 1}
    else:
        fewest, most = AUTO_EPOCHS
        auto = {"beta": Recipe.beta} if name == "dpo" else {}
    auto |= {
        "n_epochs": max(fewest, min(most, math.ceil(AUTO_STEPS * batch / rows))),
        "batch_size": batch,
        "learning_rate_multiplier": 1.0,
    }
    values = {key: _or(value, auto.get(key)) for key, value in given.items()}
    return {**method, name: {**method[name], "hyperparameters": values}}


def recipe(method: Mapping[str, Any], base: Recipe, seed: int, rows: int) -> Recipe:
    """The settings of a run with a method that was ``resolved``; ``base`` has the settings that a person may set.

    Nothing holds the model in place but the data: there are no neutral rows, and every pass is taken.
    """
    given = hyperparameters(method)
    chosen = replace(
        base,
        epochs=given["n_epochs"],
        batch_size=given["batch_size"],
        learning_rate=base.learning_rate * given["learning_rate_multiplier"],
        seed=seed,
        patience=0,
        kl_weight=0.0,
        epoch_rows=max(rows, base.epoch_rows),
    )
    if type_of(method) == "dpo":
        return replace(chosen, beta=given["beta"], dpo_weight=1.0, nll_weight=DPO_NLL_WEIGHT)
    return chosen


def check_grader(definition: Mapping[str, Any]) -> graders.Grader:
    """The grader of a job. Raises InvalidInput for one that cannot be run, or not in a job."""
    grader = graders.parse(definition)
    if graders.needs_embedder(grader):
        raise InvalidInput(
            "The metric cosine is not available in fine-tuning jobs: use another evaluation_metric.",
            "method.reinforcement.grader",
        )
    return grader


def _or(value: Any, auto: Any) -> Any:
    return auto if value == "auto" else value

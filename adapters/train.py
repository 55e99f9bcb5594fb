"""Train a LoRA on one user's signals: imitation first, then what the model makes of it itself, under a leash.

Imitation reads corrections (SFT and DPO) and ratings (KTO), a small draw of older rows beside the new ones. The
on-policy stages that follow (``stages``) learn from replies sampled from the adapter as it is. Every step also holds
neutral replies to the base model's (KL), so that the adapter learns the signals and nothing else. After every epoch or
round all is measured on held-out rows and written; the best of them is the result.
"""

import math
import random
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from transformers import PreTrainedModel

from familiar.adapters import checkpoints
from familiar.adapters.checkpoints import Epoch
from familiar.adapters.measure import measure
from familiar.adapters.objective import Divergence, Figures, Ratings, kto_baseline
from familiar.adapters.protocols import Progress, ProgressCallback, silent
from familiar.adapters.recipe import Recipe
from familiar.adapters.rows import Distilled, Encoded, Rated
from familiar.adapters.session import Session, Step, session
from familiar.memory.errors import InvalidInput, NotEnoughSignals

LEAST_PRACTISED = 32
"""How many of the rows that are practised an epoch reads at least."""
PRACTISED_EPOCHS = 0.8
"""The share of the epochs that is taken where there is something to practise, since each then has several times as many
steps: more of them forget more and follow no better."""
PRACTISED_LEASH = 2.5
"""How many times the KL weight is taken there: the anchors are in the user's manner, and do not fight the lesson."""


class Stage(Protocol):
    """On-policy learning after imitation: every round makes its rows with the adapter as it is then."""

    name: str
    rounds: int
    learning_rate: float

    def steps(self, session: Session, number: int, progress: ProgressCallback) -> list[Step]:
        """Return the steps of round ``number``, from 1 on; equal seeds and adapters give equal rows."""
        ...

    def reward(self, session: Session) -> float | None:
        """Return what graders give to greedy replies to held-out prompts, 0 to 1; None where none applies."""
        ...

    def given(self) -> object:
        """Return all that its result depends on, as JSON has it."""
        ...


def train(
    base: PreTrainedModel,
    rows: Sequence[Encoded],
    held_out: Sequence[Encoded],
    recipe: Recipe,
    *,
    folder: Path,
    reference_logps: MutableMapping[str, float],
    progress: ProgressCallback = silent,
    anchors: Sequence[Encoded] = (),
    ratings: Sequence[Rated] = (),
    stages: Sequence[Stage] = (),
    practised: Sequence[Distilled] = (),
    new_ids: frozenset[str] = frozenset(),
) -> Path:
    """Train an adapter and return the PEFT folder of its best round; every round leaves a checkpoint in ``folder``.

    A run that was cut off goes on from its newest checkpoint and ends as an unbroken one would. ``reference_logps``
    holds the base model's log-probabilities by ``logps_key``; what it lacks is computed and added. ``anchors`` are
    neutral rows (a prompt and the base model's own greedy reply) that the KL term holds in place; they cost
    reply tokens x vocabulary x 4 bytes of memory (6 MB for 12 short replies at 4,096 tokens, 220 MB at 151,936).
    ``practised`` are rows of which every epoch draws as many as there are signals, or ``LEAST_PRACTISED``.
    ``new_ids`` are the rows that every epoch reads when it cannot read all. ``base`` is given back without the adapter.

    Raises NotEnoughSignals without anything to train on or held-out rows, InvalidInput for a row longer than the model
    can read or a model without the recipe's target modules, LearningFailed when a loss is not a number, NoSpace.
    """
    if not (rows or ratings or stages) or not held_out:
        raise NotEnoughSignals(
            f"Learning needs at least 1 row to train on and 1 to hold out but has {len(rows) + len(ratings)} and "
            f"{len(held_out)}: correct more."
        )
    _check(base, [*rows, *ratings, *held_out, *anchors], recipe)
    if practised:
        epochs = math.ceil(PRACTISED_EPOCHS * recipe.epochs)
        recipe = replace(recipe, epochs=epochs, kl_weight=PRACTISED_LEASH * recipe.kl_weight)
    key = checkpoints.fingerprint(
        base,
        recipe,
        (rows, ratings, held_out, anchors),
        [
            [*sorted(new_ids)],
            [[row.prompt_ids, row.reply_ids] for row in practised],
            *(each.given() for each in stages),
        ],
    )
    with session(base, recipe, [*rows, *held_out, *ratings], anchors, reference_logps, progress) as running:
        found = checkpoints.newest(folder, key)
        history = list(found.history) if found else []
        if found:
            checkpoints.restore(found, running.model, running.optimizer)

        def finish(stage: str, losses: Sequence[float]) -> None:
            """Measure what a round came to and keep it."""
            rewards = [reward for each in stages if (reward := each.reward(running)) is not None]
            epoch = measure(
                running,
                held_out,
                number=len(history) + 1,
                stage=stage,
                loss=math.fsum(losses) / len(losses) if losses else 0.0,
                reward=math.fsum(rewards) / len(rewards) if rewards else None,
            )
            history.append(epoch)
            checkpoints.save(folder, running.model, running.optimizer, history, key)
            figures = {name: value for name, value in vars(epoch).items() if isinstance(value, float | int)}
            progress(Progress("held_out", epoch.number, epoch.number, figures))

        if rows or ratings:
            _imitate(running, rows, ratings, practised, new_ids, history, finish, progress)
        for stage in stages:
            for number in range(1 + sum(epoch.stage == stage.name for epoch in history), stage.rounds + 1):
                steps = stage.steps(running, number, progress)
                losses = []
                for i, step in enumerate(steps):
                    figures = running.step(step, running.taken, stage.learning_rate)
                    losses.append(figures["loss"])
                    _tell(progress, i + 1, len(steps), figures, len(history) + 1)
                finish(stage.name, losses)
    return checkpoints.epoch_folder(folder, best(history, recipe.kl_budget).number)


def best(history: Sequence[Epoch], kl_budget: float) -> Epoch:
    """Return the epoch of the highest held-out score within the KL budget, the earlier of two equals.

    When none is within the budget it is the one nearest to the base model; the gate has the last word.
    """
    within = [epoch for epoch in history if epoch.kl is None or epoch.kl <= kl_budget]
    if not within:
        return min(history, key=lambda epoch: epoch.kl or 0.0)
    return max(within, key=lambda epoch: epoch.score)


def learning_rate_at(step: int, total: int, recipe: Recipe) -> float:
    """Return the learning rate of step 0 … total - 1: a linear warm-up, then a cosine or linear fall to nearly 0."""
    warmup = math.ceil(recipe.warmup_share * total)
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    left = 1 - (step - warmup) / max(1, total - warmup)
    return recipe.learning_rate * (left if recipe.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left)))


def _check(base: PreTrainedModel, rows: Sequence[Encoded | Rated], recipe: Recipe) -> None:
    limit = getattr(base.config, "max_position_embeddings", None) or math.inf
    for row in rows:
        if (tokens := row.tree.depth) > limit:
            raise InvalidInput(f"The row {row.id} has {tokens} tokens but the model reads {limit}: leave it out.")
    names = {name.rpartition(".")[2] for name, _ in base.named_modules()}
    absent = [name for name in recipe.target_modules if name not in names]
    if absent:
        raise InvalidInput(f"This model has no layers named {', '.join(absent)}, so it cannot be adapted: use another.")


def _imitate(
    running: Session,
    rows: Sequence[Encoded],
    ratings: Sequence[Rated],
    practised: Sequence[Distilled],
    new_ids: frozenset[str],
    history: list[Epoch],
    finish: Callable[[str, Sequence[float]], None],
    progress: ProgressCallback,
) -> None:
    """Take the epochs of imitation that are left, each in an order drawn from the seed and its number."""
    recipe = running.recipe
    while len(history) < recipe.epochs and all(epoch.stage == "imitation" for epoch in history):
        if _is_spent(history, recipe):
            return
        number = len(history) + 1
        drawn = _draw(rows, ratings, practised, new_ids, recipe, number)
        steps = math.ceil(len(drawn) / recipe.batch_size)
        losses = []
        for i in range(steps):
            at = (number - 1) * steps + i
            step = _step(running, drawn[i * recipe.batch_size : (i + 1) * recipe.batch_size])
            figures = running.step(step, at, learning_rate_at(at, steps * recipe.epochs, recipe))
            losses.append(figures["loss"])
            _tell(progress, at + 1, steps * recipe.epochs, figures, number)
        finish("imitation", losses)


def _draw(
    rows: Sequence[Encoded],
    ratings: Sequence[Rated],
    practised: Sequence[Distilled],
    new_ids: frozenset[str],
    recipe: Recipe,
    number: int,
) -> list[Encoded | Rated | Distilled]:
    """The rows of an epoch, shuffled: all, or the new ones and as many drawn from the older ones as there is room.

    Beside them are as many that are practised, if there are.
    """
    chance = random.Random(f"{recipe.seed}/{number}")
    drawn: list[Any] = [*rows, *ratings]
    if len(drawn) > recipe.epoch_rows:
        new = [row for row in drawn if row.id in new_ids]
        old = [row for row in drawn if row.id not in new_ids]
        new = chance.sample(new, min(len(new), recipe.epoch_rows))
        drawn = new + chance.sample(old, min(len(old), recipe.epoch_rows - len(new)))
    drawn += chance.sample(practised, min(len(practised), max(LEAST_PRACTISED, len(drawn))))
    chance.shuffle(drawn)
    return drawn


def _step(running: Session, rows: Sequence[Encoded | Rated | Distilled]) -> Step:
    pairs = [row for row in rows if isinstance(row, Encoded)]
    rated = [row for row in rows if isinstance(row, Rated)]
    practised = [row for row in rows if isinstance(row, Distilled)]
    parts: list[tuple[Any, Sequence[Any]]] = []
    if pairs:
        parts.append((running.imitation, pairs))
    if rated:
        baseline = kto_baseline(running.trees, rated, running.recipe)
        parts.append((Ratings(running.recipe, running.references, baseline), rated))
    if practised:
        parts.append((Divergence(), practised))
    return Step(tuple(parts))


def _tell(progress: ProgressCallback, done: int, total: int, figures: Figures, epoch: int) -> None:
    progress(Progress("train", done, total, {**figures, "epoch": epoch}))


def _is_spent(history: Sequence[Epoch], recipe: Recipe) -> bool:
    """Tell whether ``patience`` epochs have brought neither a better epoch to keep nor a better score.

    The score counts even past the KL budget: KL often rises early and comes back under it while the score improves.
    """
    if not recipe.patience or not history:
        return False
    latest = max(best(history, recipe.kl_budget).number, best(history, math.inf).number)
    return len(history) - latest >= recipe.patience

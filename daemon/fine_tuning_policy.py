"""Reinforcement in a fine-tuning job: replies are sampled, graded, and those above their group's mean made likelier.

A step of such a job, as it is told and counted, is a round: replies to ``batch_size`` prompts, graded and learnt from.
Graders that ask a model ask the base model, as in the service, and rewards are used as they are given. What is left
out: graders that compare sentence vectors, since their model belongs to the service, and reasoning.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from familiar.adapters.protocols import Completion, Progress
from familiar.adapters.recipe import Recipe
from familiar.adapters.rows import Encoded
from familiar.daemon import fine_tuning_recipe, flash_trial, training_model
from familiar.daemon.fine_tuning_data import Prompted
from familiar.daemon.fine_tuning_folders import run_folder
from familiar.daemon.fine_tuning_report import Context, Reporter
from familiar.daemon.oracle import Oracle
from familiar.daemon.scorer import LlamaScorer
from familiar.feedback import graders
from familiar.memory.errors import InvalidInput

ANCHORED_REPLIES, ANCHORED_TOKENS = 2, 64
"""The trainer measures itself on given replies too: the base model's own to so many of the prompts, and how long."""
MOST_GROUP = 64


@dataclass
class Grading:
    """Gives rewards, and tells once of a grader that fails."""

    context: Context
    grader: graders.Grader
    rows: Sequence[Prompted]
    score: graders.ScoreModel
    told: bool = False

    def __call__(self, completions: Sequence[tuple[int, Completion]]) -> list[float]:
        """The reward of each completion of the row of this number."""
        self.context.check_stop()
        pairs = [(completion.text, self.rows[number].item) for number, completion in completions]
        grades = graders.run_many(self.grader, pairs, score=self.score)
        if not self.told and (failures := graders.failures(grades)):
            self.told = True
            self.context.log.say(f"The grader {failures}", "warn")
        return [grade.reward for grade in grades]


def recipe(method: Mapping[str, Any], base: Recipe, seed: int, rows: int) -> Recipe:
    """The settings of a run with a method that was ``resolved``."""
    given = fine_tuning_recipe.hyperparameters(method)
    chosen = fine_tuning_recipe.recipe(method, base, seed, rows)
    group = max(2, min(MOST_GROUP, round(chosen.policy.group * given["compute_multiplier"])))
    policy = replace(
        chosen.policy,
        rounds=given["n_epochs"] * math.ceil(rows / given["batch_size"]),
        prompts=given["batch_size"],
        group=group,
        learning_rate=chosen.policy.learning_rate * given["learning_rate_multiplier"],
    )
    return replace(chosen, policy=policy)


def train(context: Context, rows: Sequence[Prompted], held_out: Sequence[Prompted]) -> tuple[int, int]:
    """Train on rewards, and return how many tokens were sampled to learn from, and in how many steps."""
    settings, job = context.settings, context.job
    grader = fine_tuning_recipe.check_grader(job.method["reinforcement"]["grader"])
    chosen = recipe(job.method, Recipe.from_dict(settings.recipe), job.seed, len(rows))
    flash = flash_trial.settled(settings, context.base).flash_attention
    with Oracle.open(context.base, threads=settings.threads, flash=flash) as oracle:
        scorer = oracle.scorer
        limit = scorer.context_tokens - chosen.policy.max_tokens
        for row in [*rows, *held_out]:
            if (tokens := len(scorer.encode(row.messages, "")[0])) > limit:
                raise InvalidInput(f"Line {row.line}: {tokens} tokens, but a prompt may have {limit}: shorten it.")
        measured = [_answered(scorer, row) for row in rows[:ANCHORED_REPLIES]]
        context.check_stop()
        base = training_model.load(context.base, settings.threads)
        context.check_stop()
        from familiar.adapters.stages import PolicyStage, Rewarded, Where
        from familiar.adapters.train import train

        folder = run_folder(settings.data_dir, job)
        grading = Grading(context, grader, [*rows, *held_out], oracle.answer)
        rewarded = Rewarded([row.messages for row in rows], [row.messages for row in held_out], grading)
        stage = PolicyStage(rewarded, Where(oracle, context.base, folder / "policy"), chosen.policy, job.seed)
        report = RoundReporter(context, chosen.policy.rounds, validated=bool(held_out))
        train(base, (), measured, chosen, folder=folder, reference_logps={}, progress=report, stages=(stage,))
    return stage.sampled_tokens(), chosen.policy.rounds


class RoundReporter(Reporter):
    """Tells of rounds with their mean reward, and publishes a checkpoint every ``eval_interval`` of them."""

    def __init__(self, context: Context, rounds: int, *, validated: bool) -> None:
        super().__init__(context, validated=validated)
        self._total = rounds
        self._interval: int = fine_tuning_recipe.hyperparameters(context.job.method)["eval_interval"]
        self._rewards: list[float] = []

    def _train(self, made: Progress) -> None:
        self._loss = made.figures["loss"]
        self._rewards.append(made.figures["reward"])

    def _held_out(self, made: Progress) -> None:
        self._step = made.done
        told: dict[str, float] = {"step": self._step, "total_steps": self._total}
        said = self._where()
        if self._rewards:
            reward = round(math.fsum(self._rewards) / len(self._rewards), 6)
            told |= {"train_loss": round(self._loss, 6), "train_mean_reward": reward}
            said += f": training mean reward={reward:.2f}"
            self._rewards = []
        else:  # every reply to a prompt was worth the same as its others
            said += ": all replies to each prompt were worth the same, so nothing was learnt"
        if self._validated and made.figures.get("reward") is not None:
            told["valid_mean_reward"] = round(made.figures["reward"], 6)
            said += f", validation mean reward={made.figures['reward']:.2f}"
        self._context.log.metrics(said, told)
        self._estimate()
        if self._step % self._interval == 0 or self._step == self._total:
            told.pop("total_steps")
            self._publish(made.done, told)


def _answered(scorer: LlamaScorer, row: Prompted) -> Encoded:
    """The prompt with what the base model says to it."""
    prompt, reply = scorer.encode(row.messages, scorer.generate(None, row.messages, ANCHORED_TOKENS))
    return Encoded(f"line-{row.line}", tuple(prompt), tuple(reply))

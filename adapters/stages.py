"""The on-policy stages of a run: self-distillation of memories, and GRPO where a grader applies.

Both learn from replies that llama.cpp samples under the adapter as it is, so the policy file is written anew for every
round. A round's draw depends on the seed and its number alone, so that one which was cut off is drawn again alike.
"""

import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from familiar.adapters.losses import token_logps
from familiar.adapters.objective import Divergence, Figures
from familiar.adapters.policy_losses import group_advantages, grpo_loss
from familiar.adapters.protocols import Completion, Draw, ProgressCallback, Sampler, Teacher, greedy
from familiar.adapters.recipe import Distillation, Policy
from familiar.adapters.rows import Distilled, Group, Ids, Lesson
from familiar.adapters.session import Session, Step
from familiar.memory.types import Message

Messages = tuple[Message, ...]
Rewards = Callable[[Sequence[tuple[int, Completion]]], list[float]]
"""What graders give to completions of the prompts of these numbers; several of one prompt are compared."""


class Oracle(Sampler, Teacher, Protocol):
    """The served model, able to draw replies, to judge them, and to turn a prompt into ids."""

    def encode(self, messages: Sequence[Message], completion: str) -> tuple[list[int], list[int]]:
        """As ``Scorer`` has it."""
        ...


@dataclass(frozen=True)
class Where:
    """What on-policy stages sample with: the model, its file, and a folder for the policy's."""

    oracle: Oracle
    base_gguf: Path
    folder: Path

    def prompt_ids(self, messages: Messages) -> Ids:
        """Return a prompt's ids, with the generation prompt."""
        return tuple(self.oracle.encode(messages, "")[0])


class DistillationStage:
    """Self-distillation: the adapter without the memories learns what the base model says with them."""

    name = "distillation"

    def __init__(
        self, lessons: Sequence[Lesson], where: Where, recipe: Distillation, batch_size: int, seed: int
    ) -> None:
        self.rounds, self.learning_rate = recipe.rounds, recipe.learning_rate
        self._lessons = lessons
        self._where = where
        self._recipe = recipe
        self._batch_size = batch_size
        self._seed = seed

    def given(self) -> object:
        """All that the result depends on beside the recipe."""
        return [[list(lesson.messages), list(lesson.told)] for lesson in self._lessons]

    def reward(self, session: Session) -> None:
        """No grader applies."""

    def steps(self, session: Session, number: int, progress: ProgressCallback) -> list[Step]:
        """Sample a reply to each of this round's prompts, ask the teacher about it, and cut all into steps."""
        recipe, oracle = self._recipe, self._where.oracle
        chance = random.Random(f"{self._seed}/distillation/{number}")
        lessons = chance.sample(list(self._lessons), min(recipe.prompts, len(self._lessons)))
        taught = round(len(lessons) * (1 - (number - 1) / max(1, recipe.rounds - 1)))
        seed = chance.randrange(2**31)
        policy = session.write_policy(self._where.folder, self._where.base_gguf)
        told, asked = [each.told for each in lessons[:taught]], [each.messages for each in lessons[taught:]]
        teachers = oracle.sample(None, told, greedy(recipe.max_tokens), progress)
        students = oracle.sample(policy, asked, Draw(group=1, max_tokens=recipe.max_tokens, seed=seed), progress)
        replies = [reply.ids for (reply,) in (*teachers, *students)]
        judged = [(lesson.told, ids) for lesson, ids in zip(lessons, replies, strict=True)]
        tops = oracle.top_logps(None, judged, recipe.top_k, progress)
        rows = [
            Distilled(self._where.prompt_ids(lesson.messages), ids, top.ids_TK, top.logps_TK, place >= taught, len(ids))
            for place, (lesson, ids, top) in enumerate(zip(lessons, replies, tops, strict=True))
        ]
        steps = []
        for _ in range(recipe.passes_per_round):
            chance.shuffle(rows)
            steps += [
                Step(((Divergence(), rows[start : start + self._batch_size]),))
                for start in range(0, len(rows), self._batch_size)
            ]
        return steps


@dataclass(frozen=True)
class Rewarded:
    """Prompts to learn from, and others to measure on, which are numbered after them, with what rewards replies.

    ``served`` are replies to prompts of these numbers that were made while serving, with the log-probabilities under
    which they were drawn there.
    """

    prompts: Sequence[Messages]
    held_out: Sequence[Messages]
    rewards: Rewards
    served: Mapping[int, Sequence[Completion]] = field(default_factory=dict)


class PolicyStage:
    """GRPO: of several completions of a prompt, those that the graders like better than the rest become likelier."""

    name = "policy"

    def __init__(self, rewarded: Rewarded, where: Where, recipe: Policy, seed: int) -> None:
        self.rounds, self.learning_rate = recipe.rounds, recipe.learning_rate
        self._rewarded = rewarded
        self._where = where
        self._recipe = recipe
        self._seed = seed

    def given(self) -> object:
        """All that the result depends on beside the recipe and the graders."""
        served = {number: [each.ids for each in replies] for number, replies in self._rewarded.served.items()}
        return [list(map(list, self._rewarded.prompts)), list(map(list, self._rewarded.held_out)), served]

    def reward(self, session: Session) -> float | None:
        """The mean reward of greedy replies to held-out prompts, which are numbered after the others."""
        given = self._rewarded
        if not given.held_out:
            return None
        policy = session.write_policy(self._where.folder, self._where.base_gguf)
        replies = self._where.oracle.sample(policy, given.held_out, greedy(self._recipe.max_tokens))
        rewards = given.rewards([(len(given.prompts) + i, reply) for i, (reply,) in enumerate(replies)])
        return float(np.mean(rewards))

    def steps(self, session: Session, number: int, progress: ProgressCallback) -> list[Step]:
        """Sample this round's groups, have them graded, and learn from them and from those of the rounds before.

        Rounds take all prompts in turn, in another order each time that these begin anew. A reply that was served to
        one of the round's prompts is one more of its group.
        """
        recipe, given = self._recipe, self._rewarded
        chance = random.Random(f"{self._seed}/policy/{number}")
        numbers = self._numbers(number)
        how = Draw(
            group=recipe.group,
            max_tokens=recipe.max_tokens,
            temperature=recipe.temperature,
            seed=chance.randrange(2**31),
        )
        policy = session.write_policy(self._where.folder, self._where.base_gguf)
        sampled = self._where.oracle.sample(policy, [given.prompts[i] for i in numbers], how, progress)
        replies = [(*drawn, *given.served.get(i, ())) for i, drawn in zip(numbers, sampled, strict=True)]
        worth = iter(given.rewards([(i, each) for i, those in zip(numbers, replies, strict=True) for each in those]))
        groups = [
            Group(
                self._where.prompt_ids(given.prompts[i]),
                tuple(each.ids for each in those),
                tuple(each.logps for each in those),
                tuple(next(worth) for _ in those),
            )
            for i, those in zip(numbers, replies, strict=True)
        ]
        self._keep(number, groups)
        older = [group for back in range(1, recipe.replay_rounds + 1) for group in self._kept(number - back)]
        rows = [group for group in (*groups, *older) if len(set(group.rewards)) > 1]
        chance.shuffle(rows)
        objective = PolicyObjective(recipe, session)
        size = max(1, recipe.prompts // 4)
        return [Step(((objective, rows[start : start + size]),)) for start in range(0, len(rows), size)]

    def sampled_tokens(self) -> int:
        """How many tokens the replies of all rounds have, of those too that were made before a cut."""
        groups = (group for number in range(1, self.rounds + 1) for group in self._kept(number))
        return sum(len(ids) for group in groups for ids in group.completions)

    def _numbers(self, number: int) -> list[int]:
        """The prompts of a round: all of them in as few rounds as there have to be, of about the same size."""
        count = len(self._rewarded.prompts)
        rounds = math.ceil(count / self._recipe.prompts)
        before, at = divmod(number - 1, rounds)
        order = random.Random(f"{self._seed}/policy/order/{before}").sample(range(count), count)
        return order[at::rounds]

    def _keep(self, number: int, groups: Sequence[Group]) -> None:
        """Write a round's groups beside the policy, so that a run that is cut off replays the same ones."""
        self._where.folder.mkdir(parents=True, exist_ok=True)
        rows = [[group.prompt_ids, group.completions, group.behaviour_logps, group.rewards] for group in groups]
        (self._where.folder / f"groups-{number:03d}.json").write_text(json.dumps(rows), encoding="utf-8")

    def _kept(self, number: int) -> list[Group]:
        path = self._where.folder / f"groups-{number:03d}.json"
        if not path.exists():
            return []
        return [
            Group(tuple(prompt), tuple(map(tuple, completions)), tuple(map(tuple, logps)), tuple(rewards))
            for prompt, completions, logps, rewards in json.loads(path.read_text(encoding="utf-8"))
        ]


@dataclass(frozen=True)
class PolicyObjective:
    """GRPO's loss of groups; one update for each sample, so the old policy is the present one, and what the sampler's
    other rounding or age brings is made up for by importance weights."""

    recipe: Policy
    session: Session

    def loss(self, logits_NV: Tensor, rows: Sequence[Group], step: Sequence[Group]) -> tuple[Tensor, Figures]:
        """Return the loss that these groups add, with their mean reward."""
        recipe = self.recipe
        completions = [ids for row in rows for ids in row.completions]
        sizes = [len(ids) for ids in completions]
        targets_N = torch.tensor([token for ids in completions for token in ids], device=logits_NV.device)
        logps = torch.split(token_logps(logits_NV / recipe.temperature, targets_N), sizes)
        logps_BT = pad_sequence(list(logps), batch_first=True)
        behaviour = [logps_BT.new_tensor(each) for row in rows for each in row.behaviour_logps]
        mask_BT = pad_sequence([torch.ones(size, dtype=torch.bool) for size in sizes], batch_first=True)
        reference_BT = None
        if recipe.kl_weight:
            with torch.no_grad(), self.session.trees.without_adapter():
                logits_base_NV = self.session.trees.logits([row.tree for row in rows])
                base = token_logps(logits_base_NV / recipe.temperature, targets_N)
            reference_BT = pad_sequence(list(torch.split(base, sizes)), batch_first=True)
        spread = torch.tensor([reward for row in step for reward in row.rewards]).std()
        advantages = [
            group_advantages(torch.tensor(row.rewards), len(row.rewards), scale=recipe.advantage_scale, spread=spread)
            for row in rows
        ]
        result = grpo_loss(
            logps_BT,
            logps_BT.detach(),
            mask_BT.to(logps_BT.device),
            torch.cat(advantages).to(logps_BT),
            epsilon_low=recipe.epsilon_low,
            epsilon_high=recipe.epsilon_high,
            ref_logps_BT=reference_BT,
            kl_weight=recipe.kl_weight,
            aggregation=recipe.aggregation,
            importance_level=recipe.importance_level,
            max_tokens=recipe.max_tokens,
            total_tokens=sum(row.tree.targets for row in step),
            total_rows=sum(len(row.completions) for row in step),
            behaviour_logps_BT=pad_sequence(behaviour, batch_first=True),
            behaviour_cap=recipe.behaviour_cap,
        )
        mean = sum(sum(row.rewards) / len(row.rewards) for row in rows) / len(step)
        return result.loss, {"reward": mean, "policy_kl": result.kl.item()}

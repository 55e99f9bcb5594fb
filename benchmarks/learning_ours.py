"""Familiar's side of ``learning.py``: its trainer as the learner calls it, and with one technique at a time off.

The variants run the trainer's own session and steps without its measuring and checkpoints, so that what differs is the
technique alone; each computes the same losses as the rest.
"""

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learning_data import Data, Pair, brevity
from learning_job import Job, Meter, Plan

from familiar.adapters.protocols import Completion, Progress, silent
from familiar.adapters.recipe import Policy, Recipe
from familiar.adapters.rows import Encoded
from familiar.daemon.llama import Model
from familiar.daemon.oracle import Oracle
from familiar.daemon.template import ChatTemplate, encode_completion, encode_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TRAINER = "trainer"
"""The variant that is the whole trainer; the others are of the loop."""


@dataclass(frozen=True)
class Techniques:
    """What makes the trainer quick, each of which can be off."""

    references_kept: bool = True
    prompt_once: bool = True
    logits_where_needed: bool = True
    upper_layers_only: bool = True
    frozen_layers_kept: bool = True
    no_padding: bool = True
    bfloat16: bool = False


ALL_ON = "all_on"
VARIANTS: dict[str, Techniques] = {
    ALL_ON: Techniques(),
    "no_references_kept": Techniques(references_kept=False),
    "no_prompt_once": Techniques(prompt_once=False),
    "no_logits_where_needed": Techniques(logits_where_needed=False),
    "no_upper_layers_only": Techniques(upper_layers_only=False),
    "no_frozen_layers_kept": Techniques(frozen_layers_kept=False),
    "padded": Techniques(no_padding=False),
    "bfloat16": Techniques(bfloat16=True),
    "all_off": Techniques(*[False] * 6),
}


def recipe(plan: Plan, *, upper_layers_only: bool = True) -> Recipe:
    """DPO and nothing else, so that both sides minimise the same."""
    return Recipe(
        rank=plan.rank,
        alpha=plan.alpha,
        frozen_share=Recipe().frozen_share if upper_layers_only else 0.0,
        learning_rate=plan.learning_rate,
        epochs=plan.epochs,
        patience=0,
        batch_size=plan.batch_size,
        beta=plan.beta,
        dpo_weight=1.0,
        nll_weight=0.0,
        kl_weight=0.0,
        seed=plan.seed,
        policy=Policy(
            rounds=plan.rounds,
            prompts=plan.prompts,
            group=plan.group,
            max_tokens=plan.max_tokens,
            learning_rate=plan.policy_learning_rate,
            epsilon_high=0.2,
            replay_rounds=0,
        ),
    )


def encoded(model: Path, pairs: Sequence[Pair]) -> list[Encoded]:
    """The pairs as token ids, by llama.cpp, as the learner has them."""
    with_ids = []
    loaded = Model(model)
    try:
        vocab = loaded.vocab
        template = ChatTemplate(loaded.chat_template(), bos=vocab.text(vocab.bos), eos=vocab.text(vocab.eos))
        for number, pair in enumerate(pairs):
            prompt = encode_prompt(vocab, template, pair.messages)
            chosen, rejected = (encode_completion(vocab, text) for text in (pair.chosen, pair.rejected))
            with_ids.append(Encoded(f"pair-{number}", tuple(prompt), tuple(chosen), tuple(rejected)))
    finally:
        loaded.close()
    return with_ids


def dpo(job: Job) -> dict[str, Any]:
    """Train on the pairs; the adapter of the last epoch is the result, since TRL's side has no other either."""
    meter = Meter()
    import torch

    from familiar.adapters import base_model, checkpoints, train

    torch.set_num_threads(job.plan.threads)
    meter.imported()
    data = Data.load(job.data)
    techniques = VARIANTS.get(job.variant, Techniques())
    with meter.phase("encode"):
        rows, held_out = encoded(job.model, data.pairs), encoded(job.model, data.held_out)
    with meter.phase("load"):
        base = base_model.load(job.model, dtype="bfloat16" if techniques.bfloat16 else "float32")
    meter.loaded()
    wanted = recipe(job.plan, upper_layers_only=techniques.upper_layers_only)
    with meter.phase("train"):
        if job.variant == TRAINER:
            train.train(base, rows, held_out, wanted, folder=job.folder, reference_logps={})
            adapter = checkpoints.epoch_folder(job.folder, wanted.epochs)
        else:
            adapter = job.folder / "adapter"
            _loop(base, rows, wanted, techniques, adapter)
    steps = wanted.epochs * math.ceil(len(rows) / wanted.batch_size)
    tokens = {
        "prompt_tokens": sum(len(row.prompt_ids) for row in rows) / len(rows),
        "reply_tokens": sum(row.tree.targets for row in rows) / (2 * len(rows)),
    }
    return {**meter.finish(), "steps": steps, "adapter": str(adapter), **tokens}


def _loop(
    base: "PreTrainedModel", rows: Sequence[Encoded], wanted: Recipe, techniques: Techniques, folder: Path
) -> None:
    """Take the steps of ``wanted`` with these techniques, and write the adapter."""
    from learning_techniques import EveryStep, Switched

    from familiar.adapters import lora
    from familiar.adapters.objective import add_references
    from familiar.adapters.session import Step, session
    from familiar.adapters.train import learning_rate_at

    references: dict[str, float] = {}
    steps = math.ceil(len(rows) / wanted.batch_size)
    with session(base, wanted, (), (), references, silent) as started:
        trees = Switched(started.model, lora.first_layer(base, wanted), techniques)
        running = replace(started, trees=trees)
        objective: Any = running.imitation
        if techniques.references_kept:
            with trees.without_adapter():
                add_references(trees, rows, references, wanted, silent)
        else:
            objective = EveryStep(running)
        for epoch in range(wanted.epochs):
            drawn = random.Random(f"{wanted.seed}/{epoch}").sample(list(rows), len(rows))
            for i in range(steps):
                part = drawn[i * wanted.batch_size : (i + 1) * wanted.batch_size]
                at = epoch * steps + i
                running.step(Step(((objective, part),)), at, learning_rate_at(at, steps * wanted.epochs, wanted))
        folder.mkdir(parents=True)
        lora.write(running.model, folder)


class TimedOracle(Oracle):
    """Counts the seconds in which replies are drawn."""

    rollout_s = 0.0

    def sample(self, *given: Any, **named: Any) -> list[list[Completion]]:
        """As ``Sampler`` has it."""
        started = time.monotonic()
        try:
            return super().sample(*given, **named)
        finally:
            self.rollout_s += time.monotonic() - started


def grpo(job: Job) -> dict[str, Any]:
    """Learn brevity from replies that llama.cpp samples."""
    meter = Meter()
    import torch

    from familiar.adapters import base_model, checkpoints, train
    from familiar.adapters.stages import PolicyStage, Rewarded, Where

    torch.set_num_threads(job.plan.threads)
    meter.imported()
    data = Data.load(job.data)
    with meter.phase("encode"):
        held_out = encoded(job.model, data.held_out[:1])  # the trainer measures on one row at least
    with meter.phase("load"):
        base = base_model.load(job.model)
    meter.loaded()
    wanted, steps = recipe(job.plan), 0

    def count(made: Progress) -> None:
        nonlocal steps
        steps += made.phase == "train"

    with meter.phase("train"), TimedOracle.open(job.model, threads=job.plan.threads) as oracle:
        rewarded = Rewarded(data.prompts, (), lambda replies: [brevity(reply.text) for _, reply in replies])
        stage = PolicyStage(rewarded, Where(oracle, job.model, job.folder / "policy"), wanted.policy, wanted.seed)
        train.train(base, (), held_out, wanted, folder=job.folder, reference_logps={}, stages=[stage], progress=count)
    assert isinstance(oracle, TimedOracle)
    adapter = checkpoints.epoch_folder(job.folder, wanted.policy.rounds)
    return {**meter.finish(), "rollout_s": oracle.rollout_s, "steps": steps, "adapter": str(adapter)}

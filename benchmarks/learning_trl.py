"""TRL's side of ``learning.py``: DPOTrainer and GRPOTrainer with peft, as one who knows them would run them on a CPU.

Their defaults, but for what the comparison fixes (rows, steps, rank, learning rate), and without logging, saving and
progress bars. Gradient checkpointing and bfloat16, which TRL has on by default, are off as they cost time here, and
are variants. Datasets hold the prompts as the tokenizer's own template renders them: TRL tokenises them itself.
"""

import math
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from learning_data import Data, Messages, Pair, brevity
from learning_job import Job, Meter

VARIANTS: dict[str, dict[str, Any]] = {
    "trl": {},
    "trl_precomputed": {"precompute_ref_log_probs": True},
    "trl_checkpointed": {"gradient_checkpointing": True},
    "trl_bfloat16": {"bf16": True},
    "trl_upper_layers": {},
}
UPPER_LAYERS = "trl_upper_layers"


def untyped(name: str) -> Any:
    """Import a module that says nothing of types, which takes seconds: only once a trainer is made."""
    return import_module(name)


def tokenizer(model: Path) -> Any:
    """The tokenizer that transformers makes of the vocabulary in a GGUF file, with its chat template."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(model.parent), gguf_file=model.name)


def rendered(tokens: Any, messages: Messages) -> str:
    """A prompt as text, up to where the reply begins."""
    text: str = tokens.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    return text


def lora_config(job: Job, base: Any) -> Any:
    """The same adapter as Familiar's, on every layer unless the variant says otherwise."""
    from peft import LoraConfig

    from familiar.adapters.recipe import PROJECTIONS, Recipe

    count = int(base.config.num_hidden_layers)
    layers = list(range(Recipe().frozen_layers(count), count)) if job.variant == UPPER_LAYERS else None
    return LoraConfig(
        r=job.plan.rank,
        lora_alpha=job.plan.alpha,
        lora_dropout=0.0,
        target_modules=list(PROJECTIONS),
        layers_to_transform=layers,
        layers_pattern=None if layers is None else "layers",
        task_type="CAUSAL_LM",
    )


def common(job: Job) -> dict[str, Any]:
    """Arguments of both trainers."""
    return {
        "output_dir": str(job.folder / "trainer"),
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "report_to": "none",
        "logging_strategy": "no",
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": job.plan.seed,
        "gradient_checkpointing": False,
        "bf16": False,
    }


def load(model: Path) -> Any:
    """The base model that Familiar's side loads, in the same way, without the mark of a quantised one.

    Its weights are dequantised, and transformers would refuse to train it for the file that they came from.
    """
    from familiar.adapters import base_model

    base: Any = base_model.load(model)
    if getattr(base, "hf_quantizer", None) is not None:
        base.hf_quantizer.remove_quantization_config(base)
    return base


def dpo_trainer(job: Job, base: Any, pairs: Sequence[Pair]) -> Any:
    """A DPOTrainer of the job's variant, its data tokenised."""
    trl, datasets = untyped("trl"), untyped("datasets")
    plan, tokens = job.plan, tokenizer(job.model)
    rows = [
        {"prompt": rendered(tokens, pair.messages), "chosen": pair.chosen, "rejected": pair.rejected} for pair in pairs
    ]
    steps = plan.epochs * math.ceil(len(pairs) / plan.batch_size)
    settings = {
        **common(job),
        "per_device_train_batch_size": plan.batch_size,
        "num_train_epochs": plan.epochs,
        "learning_rate": plan.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": math.ceil(0.1 * steps),
        "beta": plan.beta,
        **VARIANTS[job.variant],
    }
    return trl.DPOTrainer(
        model=base,
        args=trl.DPOConfig(**settings),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokens,
        peft_config=lora_config(job, base),
    )


def dpo(job: Job) -> dict[str, Any]:
    """Train on the pairs and write the adapter."""
    meter = Meter()
    base = _base(job, meter)
    data = Data.load(job.data)
    with meter.phase("prepare"):
        trainer = dpo_trainer(job, base, data.pairs)
    return _train(job, meter, trainer)


def grpo(job: Job) -> dict[str, Any]:
    """Learn brevity from replies that transformers samples."""
    meter = Meter()
    base = _base(job, meter)
    trl, datasets = untyped("trl"), untyped("datasets")
    trainer_class: Any = trl.GRPOTrainer

    class Timed(trainer_class):  # type: ignore[misc]
        """Counts the seconds in which replies are drawn."""

        rollout_s = 0.0

        def _generate_single_turn(self, *given: Any, **named: Any) -> Any:
            started = time.monotonic()
            try:
                return super()._generate_single_turn(*given, **named)
            finally:
                self.rollout_s += time.monotonic() - started

    def reward(completions: Sequence[str], **_: Any) -> list[float]:
        return [brevity(text) for text in completions]

    plan = job.plan
    steps_per_round = plan.prompts // plan.groups_per_step
    with meter.phase("prepare"):
        tokens = tokenizer(job.model)
        prompts = [{"prompt": rendered(tokens, messages)} for messages in Data.load(job.data).prompts]
        settings = {
            **common(job),
            "per_device_train_batch_size": plan.groups_per_step * plan.group,
            "steps_per_generation": steps_per_round,
            "max_steps": plan.rounds * steps_per_round,
            "num_generations": plan.group,
            "max_completion_length": plan.max_tokens,
            "learning_rate": plan.policy_learning_rate,
            "lr_scheduler_type": "constant",
            **VARIANTS[job.variant],
        }
        trainer = Timed(
            model=base,
            reward_funcs=reward,
            args=trl.GRPOConfig(**settings),
            train_dataset=datasets.Dataset.from_list(prompts),
            processing_class=tokens,
            peft_config=lora_config(job, base),
        )
    return {**_train(job, meter, trainer), "rollout_s": trainer.rollout_s}


def _base(job: Job, meter: Meter) -> Any:
    """Import all that TRL needs, and load the base model."""
    import torch

    trl = untyped("trl")
    _ = trl.DPOTrainer, trl.GRPOTrainer  # TRL imports its parts when they are named
    torch.set_num_threads(job.plan.threads)
    meter.imported()
    with meter.phase("load"):
        base = load(job.model)
    meter.loaded()
    return base


def _train(job: Job, meter: Meter, trainer: Any) -> dict[str, Any]:
    with meter.phase("train"):
        trainer.train()
    adapter = job.folder / "adapter"
    with meter.phase("save"):
        trainer.model.save_pretrained(str(adapter))
    return {**meter.finish(), "steps": trainer.state.global_step, "adapter": str(adapter)}

"""Whether both sides of ``learning.py`` do the same task, and how good what they learnt is: one measure for both."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from learning_data import Data, Messages, brevity, make
from learning_job import Job
from learning_ours import encoded, recipe
from learning_trl import dpo_trainer, load, rendered, tokenizer

from familiar.adapters.rows import Encoded

MOST_GAP = 1e-3
JUDGED_GROUP = 8


def data(job: Job) -> dict[str, Any]:
    """Make the data and write it."""
    plan = job.plan
    made = make(
        plan.rows, plan.held_out, plan.prompts, preference=plan.preference, seed=plan.seed, threads=plan.threads
    )
    made.save(job.data)
    return {}


def agree(job: Job) -> dict[str, Any]:
    """Compare every token id, and DPO's loss of the first batch under the same random adapter.

    Raises RuntimeError when the two sides do not do the same task.
    """
    import torch

    from familiar.adapters.objective import Imitation, add_references
    from familiar.adapters.protocols import silent
    from familiar.adapters.trees import TreeModel

    torch.set_num_threads(job.plan.threads)
    given = Data.load(job.data)
    ours = encoded(job.model, given.pairs)
    trainer = dpo_trainer(job, load(job.model), given.pairs)
    for row, theirs in zip(ours, trainer.train_dataset, strict=True):
        for name in ("prompt_ids", "chosen_ids", "rejected_ids"):
            if list(getattr(row, name)) != theirs[name]:
                raise RuntimeError(f"{row.id}: {name} differ: {getattr(row, name)} and {theirs[name]}.")
    tokens = tokenizer(job.model)
    for messages, row in zip((pair.messages for pair in given.pairs), ours, strict=True):
        if tokens(text=[rendered(tokens, messages)])["input_ids"][0] != list(row.prompt_ids):
            raise RuntimeError(f"{row.id}: the prompt's ids differ between GRPO's two sides.")
    generator = torch.Generator().manual_seed(job.plan.seed)
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    first = ours[: job.plan.batch_size]
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(len(first))])
    with torch.no_grad():
        theirs_loss = float(trainer.compute_loss(trainer.model, batch))
        trees, wanted = TreeModel(trainer.model), recipe(job.plan)
        references: dict[str, float] = {}
        with trees.without_adapter():
            add_references(trees, first, references, wanted, silent)
        logits_NV = trees.logits([row.tree for row in first])
        loss, _ = Imitation(wanted, references).loss(logits_NV, first, first)
    gap = abs(theirs_loss - float(loss))
    if not gap <= MOST_GAP:
        raise RuntimeError(f"The first batch's loss is {float(loss):.5f} here and {theirs_loss:.5f} in TRL.")
    return {"first_loss": float(loss), "loss_gap": gap}


def judge(job: Job) -> dict[str, Any]:
    """Measure the adapters (PEFT folders by name, and none under the name ``base``) on what nobody trained on.

    ``variant`` is ``dpo`` or ``grpo``.
    """
    return _preferences(job) if job.variant == "dpo" else _rewards(job)


def _preferences(job: Job) -> dict[str, Any]:
    """Held-out accuracy, mean margin, and mean log-probability of a chosen token, by transformers' own forward."""
    import torch

    from familiar.adapters import base_model, lora

    torch.set_num_threads(job.plan.threads)
    rows = encoded(job.model, Data.load(job.data).held_out)
    base = base_model.load(job.model)
    reference = [_logps(base, row) for row in rows]
    found = {"base": _figures(reference, reference, rows, job.plan.beta)}
    for name, folder in job.adapters.items():
        with lora.saved_adapter(base, Path(folder)) as model:
            found[name] = _figures([_logps(model, row) for row in rows], reference, rows, job.plan.beta)
    return found


def _logps(model: Any, row: Encoded) -> tuple[float, float]:
    """The log-probabilities of the chosen and the rejected reply."""
    import torch

    found = []
    with torch.no_grad():
        for reply in (row.chosen_ids, row.rejected_ids or ()):
            ids_1T = torch.tensor([[*row.prompt_ids, *reply]])
            logps_NV = model(input_ids=ids_1T, use_cache=False).logits[0, -len(reply) - 1 : -1].log_softmax(-1)
            found.append(math.fsum(logps_NV.gather(1, ids_1T[0, -len(reply) :, None]).flatten().tolist()))
    return found[0], found[1]


def _figures(
    logps: Sequence[tuple[float, float]],
    reference: Sequence[tuple[float, float]],
    rows: Sequence[Encoded],
    beta: float,
) -> dict[str, float]:
    margins = [
        beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
        for (chosen, rejected), (ref_chosen, ref_rejected) in zip(logps, reference, strict=True)
    ]
    return {
        "accuracy": fmean(margin > 0 for margin in margins),
        "margin": fmean(margins),
        "chosen_logp": fmean(chosen / len(row.chosen_ids) for (chosen, _), row in zip(logps, rows, strict=True)),
    }


def _rewards(job: Job) -> dict[str, Any]:
    """The mean reward of sampled replies to the prompts that were learnt on and to others, by llama.cpp."""
    from familiar.adapters import gguf_lora
    from familiar.adapters.protocols import Draw
    from familiar.daemon.oracle import Oracle

    given, found = Data.load(job.data), {}
    how = Draw(group=JUDGED_GROUP, max_tokens=job.plan.max_tokens, seed=job.plan.seed)
    with Oracle.open(job.model, threads=job.plan.threads) as oracle:

        def mean(adapter: Path | None, prompts: Sequence[Messages]) -> float:
            replies = oracle.sample(adapter, prompts, how)
            return fmean(brevity(reply.text) for group in replies for reply in group)

        for number, (name, folder) in enumerate([("base", None), *job.adapters.items()]):
            adapter = None
            if folder is not None:
                adapter = job.folder / f"adapter-{number}.gguf"
                gguf_lora.to_gguf(Path(folder), adapter, job.model)
            found[name] = {
                "reward": mean(adapter, given.prompts),
                "held_out_reward": mean(adapter, given.held_out_prompts),
            }
    return found

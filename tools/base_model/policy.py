"""The last stage: let the model answer, and make the replies likelier that the curriculum's checkers find right.

``python tools/base_model/policy.py --run RUN --minutes 10``

It goes on from ``RUN/tune.pt`` and writes ``RUN/policy.pt``, which ``export_gguf.py --stage policy`` exports.
Group-relative policy optimisation (Shao et al. 2024), as the product's own learner does it on an adapter: replies are
drawn by llama.cpp from an export of the weights as they are, so each round is on-policy, and all weights learn. Prompts
whose replies earn all the same say nothing and are left out. Replies that are cut off at ``MAX_TOKENS`` earn nothing.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import export_gguf
import torch
import torch.nn.functional as F
from curriculum.tasks import Task, sample_task
from model import Config, Llama
from tokenizers import Tokenizer
from torch import Tensor
from train import save

from familiar.adapters.policy_losses import group_advantages, grpo_loss
from familiar.adapters.protocols import Completion, Draw
from familiar.daemon.oracle import Oracle

PROMPTS, GROUP, MAX_TOKENS = 96, 8, 90
ROWS = 96
"""Rows a step of the optimizer."""
CLIP_HIGH = 0.28


class Row:
    """One drawn reply: all its ids, where it begins, the drawn tokens' log-probabilities and its advantage."""

    def __init__(self, prompt_ids: list[int], drawn: Completion, advantage: float) -> None:
        self.ids = [*prompt_ids, *drawn.ids]
        self.start = len(prompt_ids)
        self.logps = drawn.logps
        self.advantage = advantage


def draw(model: Llama, tokenizer: Tokenizer, rng: random.Random, seed: int) -> tuple[list[Row], float]:
    """Return the replies to new tasks that say something, and the mean reward of all."""
    tasks = [sample_task(rng) for _ in range(PROMPTS)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        export_gguf.write(model, tokenizer, path, "")
        with Oracle.open(path) as oracle:
            prompts = [oracle.encode(task.messages, "")[0] for task in tasks]
            how = Draw(group=GROUP, max_tokens=MAX_TOKENS, seed=seed)
            replies = oracle.sample(None, [task.messages for task in tasks], how)
    rewards = torch.tensor(
        [[earned(task, reply) for reply in group] for task, group in zip(tasks, replies, strict=True)]
    )
    advantages = group_advantages(rewards.flatten(), GROUP).view(PROMPTS, GROUP)
    rows = [
        Row(ids, reply, float(advantage))
        for ids, group, earns in zip(prompts, replies, advantages, strict=True)
        for reply, advantage in zip(group, earns, strict=True)
        if advantage
    ]
    return rows, float(rewards.mean())


def earned(task: Task, reply: Completion) -> float:
    return task.reward(reply.text) if reply.finish_reason == "stop" else 0.0


def steps(rows: list[Row], rng: random.Random) -> Iterator[list[Row]]:
    rng.shuffle(rows)
    for first in range(0, len(rows) - ROWS // 2, ROWS):
        yield rows[first : first + ROWS]


def loss_of(model: Llama, rows: list[Row]) -> Tensor:
    """Return GRPO's loss on rows (B) of up to T tokens each."""
    T = max(len(row.ids) for row in rows) - 1
    ids_BT, mask_BT = torch.zeros(len(rows), T, dtype=torch.long), torch.zeros(len(rows), T, dtype=torch.bool)
    targets_BT, drawn_BT = torch.zeros_like(ids_BT), torch.zeros(len(rows), T)
    for b, row in enumerate(rows):
        n = len(row.ids) - 1
        ids_BT[b, :n], targets_BT[b, :n] = torch.tensor(row.ids[:-1]), torch.tensor(row.ids[1:])
        mask_BT[b, row.start - 1 : n] = True
        drawn_BT[b, row.start - 1 : n] = torch.tensor(row.logps)
    with torch.autocast("cpu", torch.bfloat16):
        states = model(ids_BT)
    logits = F.linear(states[mask_BT].float(), model.embed_tokens.weight)
    logps_BT = torch.zeros(len(rows), T).masked_scatter(
        mask_BT, -F.cross_entropy(logits, targets_BT[mask_BT], reduction="none")
    )
    advantages_B = torch.tensor([row.advantage for row in rows])
    return grpo_loss(logps_BT, drawn_BT, mask_BT, advantages_B, epsilon_high=CLIP_HIGH).loss


def train(run: Path, minutes: float, rate: float, seed: int) -> None:
    torch.manual_seed(seed)
    tokenizer = Tokenizer.from_file(str(run / "tokenizer.json"))
    state = torch.load(run / "tune.pt", weights_only=True)
    model = Llama(Config(**state["config"]))
    model.load_state_dict(state["model"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
    rng, started, number = random.Random(seed), time.monotonic(), 0
    while (share := (time.monotonic() - started) / (60 * minutes)) < 1:
        optimizer.param_groups[0]["lr"] = rate * (1 - 0.9 * share)
        rows, mean = draw(model, tokenizer, rng, number)
        for chosen in steps(rows, rng):
            optimizer.zero_grad()
            loss_of(model, chosen).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        number += 1
        print(
            json.dumps({"round": number, "reward": round(mean, 3), "rows": len(rows), "share": round(share, 2)}),
            flush=True,
        )
    save(run / "policy.pt", {"model": model.state_dict(), "config": state["config"], "tokens": state["tokens"]})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--rate", type=float, default=5e-5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    train(args.run, args.minutes, args.rate, args.seed)

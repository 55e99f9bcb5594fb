"""Train the built-in model: ``pretrain`` on dialogues and books, then ``tune`` on the curriculum and dialogues.

``python tools/base_model/train.py pretrain --data DIR --out RUN --tokens 6e6``
``python tools/base_model/train.py tune --data DIR --out RUN --tokens 20e6``
``python tools/base_model/train.py tune --data DIR --out RUN --tokens 20e6 --from familiar-base.gguf``

Muon (Jordan et al. 2024) moves the weight matrices and AdamW the rest; both work on float32 copies while the forward
and backward passes run in bfloat16. The rate is constant and then falls linearly to a tenth over the last part of the
stage (warmup-stable-decay), so a stage can be prolonged from a checkpoint taken before the decay. Stopped at any
moment it goes on from its last checkpoint, on the same batches. Another ``--tokens`` or ``--decay`` then takes effect
from there on, since the rate hangs on the share of the stage that is done and on nothing else. ``--minutes`` ends the
stage, decay done, by the clock, for a machine whose load is not known beforehand. ``--from`` starts from a released
file's weights with its tokenizer where there is no checkpoint yet.
"""

import argparse
import json
import math
import os
import random
import time
from pathlib import Path

import torch
from data import Encoder, Sampler, batches, load_books, load_dialogues
from import_gguf import read_model, read_tokenizer
from model import IGNORED, Config, Llama
from tokenizers import Tokenizer
from torch.optim import AdamW, Muon

PRETRAIN_SOURCES = {
    "self_dialogue_corpus": 0.34,
    "schema_guided_dialogue": 0.18,
    "topical_chat": 0.22,
    "taskmaster_4": 0.04,
    "gpteacher": 0.14,
    "gsm8k_train": 0.06,
    "self_instruct_seed": 0.02,
}
TUNE_SOURCES = {
    "self_dialogue_corpus": 0.45,
    "schema_guided_dialogue": 0.2,
    "topical_chat": 0.15,
    "taskmaster_4": 0.05,
    "gpteacher": 0.15,
}


def mixed(parts: list[tuple[float, Sampler]]) -> Sampler:
    """Return a sampler that draws from each part in proportion to its weight (weights are per example)."""
    weights = [weight for weight, _ in parts]
    samplers = [sampler for _, sampler in parts]
    return lambda rng: rng.choices(samplers, weights)[0](rng)


def stage_sampler(stage: str, data: Path) -> Sampler:
    """Return the stage's mix; see the README for why these shares."""
    if stage == "pretrain":
        return mixed([(0.88, load_dialogues(data, PRETRAIN_SOURCES)), (0.12, load_books(data))])
    from curriculum import sample_conversation

    return mixed([(0.95, sample_conversation), (0.05, load_dialogues(data, TUNE_SOURCES))])


def rate_at(done: float, warmup: float, decay: float) -> float:
    """Return the share of the peak rate after the share ``done`` of a stage."""
    if done < warmup:
        return done / warmup
    return 1.0 if done < 1 - decay else max(0.1, 0.1 + 0.9 * (1 - done) / decay)


def save(path: Path, state: dict[str, object]) -> None:
    """Write a checkpoint whole or not at all."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    path, tokenizer_path = out / f"{args.stage}.pt", out / "tokenizer.json"
    if args.start and not path.exists():
        read_tokenizer(args.start).save(str(tokenizer_path))
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    encoder = Encoder(tokenizer)
    config = Config(vocab=tokenizer.get_vocab_size())
    master = Llama(config).to(device)
    matrices = [p for name, p in master.named_parameters() if p.dim() == 2 and "embed" not in name]
    others = [p for name, p in master.named_parameters() if p.dim() != 2 or "embed" in name]
    optimizers = [
        Muon(matrices, lr=args.rate, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        AdamW(others, lr=args.rate, betas=(0.9, 0.97), weight_decay=0.0),
    ]
    step, tokens = 0, 0
    if path.exists():
        state = torch.load(path, map_location=device, weights_only=True)
        step, tokens = state["step"], state["tokens"]
        master.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        print(f"resumed at step {step}, {tokens / 1e6:.1f} M tokens", flush=True)
    elif args.start:
        master.load_state_dict(read_model(args.start).state_dict())
    elif args.stage == "tune":
        master.load_state_dict(torch.load(out / "pretrain.pt", map_location=device, weights_only=True)["model"])
    worker = Llama(config).to(device, torch.bfloat16)
    worker.load_state_dict(master.state_dict())
    pairs = list(zip(worker.parameters(), master.parameters(), strict=True))
    torch._dynamo.config.cache_size_limit = 32
    forward = torch.compile(worker, dynamic=False)

    stream = batches(
        encoder,
        stage_sampler(args.stage, args.data),
        batch_tokens=args.batch_tokens,
        every_turn=args.stage == "pretrain",
        seed=f"{args.seed}/{args.stage}",
        start=step,
    )
    started, mean_loss, last_save, session_tokens = time.monotonic(), 0.0, time.monotonic(), 0
    share = share_at_start = tokens / args.tokens
    with (out / f"{args.stage}.log").open("a", encoding="utf-8") as log:
        while share < 1:
            batch = next(stream)
            ids, targets, weights = (torch.from_numpy(a).to(device) for a in (batch.ids, batch.targets, batch.weights))
            loss = worker.loss(forward(ids), targets, weights)
            loss.backward()
            for small, full in pairs:
                full.grad = small.grad.float()
                small.grad = None
            torch.nn.utils.clip_grad_norm_(master.parameters(), 1.0)
            rate = rate_at(share, args.warmup, args.decay)
            for optimizer in optimizers:
                optimizer.param_groups[0]["lr"] = args.rate * rate
                optimizer.step()
            with torch.no_grad():
                for small, full in pairs:
                    small.copy_(full)
            step += 1
            tokens += ids.numel()
            session_tokens += ids.numel()
            elapsed_s = time.monotonic() - started
            by_clock = share_at_start + (1 - share_at_start) * elapsed_s / (60 * args.minutes)
            share = max(tokens / args.tokens, by_clock)
            mean_loss = loss.item() if not mean_loss else 0.97 * mean_loss + 0.03 * loss.item()
            if step % 10 == 0:
                record = {
                    "step": step,
                    "tokens": tokens,
                    "loss": round(mean_loss, 4),
                    "targets": round(float((batch.targets != IGNORED).mean()), 3),
                    "rate": round(rate, 3),
                    "tokens_per_s": round(session_tokens / elapsed_s),
                }
                print(json.dumps(record), file=log, flush=True)
                print(record, flush=True)
            if time.monotonic() - last_save > args.save_every_s or share >= 1:
                last_save = time.monotonic()
                save(
                    path,
                    {
                        "model": master.state_dict(),
                        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                        "step": step,
                        "tokens": tokens,
                        "config": config.to_dict(),
                    },
                )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["pretrain", "tune"])
    parser.add_argument("--data", type=Path, required=True, help="folder with dialogues.jsonl.gz and books.txt.gz")
    parser.add_argument("--out", type=Path, required=True, help="folder of tokenizer.json and the checkpoints")
    parser.add_argument("--from", dest="start", type=Path, metavar="GGUF", help="start from this file's weights")
    parser.add_argument("--tokens", type=float, required=True, help="length of the stage in tokens, padding included")
    parser.add_argument("--minutes", type=float, default=math.inf, help="end the stage by then, decay done")
    parser.add_argument("--batch-tokens", type=int, default=12288)
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--warmup", type=float, default=0.02, help="share of the stage")
    parser.add_argument("--decay", type=float, default=0.3, help="share of the stage")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--save-every-s", type=float, default=120)
    parser.add_argument("--seed", type=int, default=0)
    random.seed(0)
    train(parser.parse_args())

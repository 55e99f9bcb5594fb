"""Train the built-in model's byte-level BPE tokenizer.

``python tools/base_model/tokenizer.py --data DIR --out tokenizer.json``

Digits are single tokens, so that numbers are copied digit by digit; llama.cpp knows this pre-tokenizer as ``smollm``
(one regex for digits, then GPT-2's). Most of what it reads is dialogue, which is what the model
will write.
"""

import argparse
import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path

from format import SPECIAL_TOKENS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCAB_SIZE = 4096
PRE_TOKENIZER = "smollm"  # llama.cpp's name for the pre-tokenizer built below


def texts(data: Path, seed: int) -> Iterator[str]:
    """Yield dialogue turns and a tenth of the book paragraphs, in a seeded order."""
    rng = random.Random(seed)
    with gzip.open(data / "dialogues.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            if rng.random() < 0.5:
                yield from (message["content"] for message in json.loads(line)["messages"])
    with gzip.open(data / "books.txt.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            if rng.random() < 0.05:
                yield line


def untrained() -> Tokenizer:
    """Return a byte-level BPE tokenizer with an empty vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def train_tokenizer(data: Path, seed: int = 0) -> Tokenizer:
    """Return a byte-level BPE tokenizer of ``VOCAB_SIZE`` tokens, the special tokens first."""
    tokenizer = untrained()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
    )
    tokenizer.train_from_iterator(texts(data, seed), trainer)
    return tokenizer


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with dialogues.jsonl.gz and books.txt.gz")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    train_tokenizer(args.data).save(str(args.out))

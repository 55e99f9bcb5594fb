"""Endless, seeded batches for the base model's two stages.

A batch is a function of (seed, stage, chunk), so a resumed run sees what an unbroken one would have seen. Every row
holds one conversation, padded to one of a few lengths: nothing can be copied from a neighbour in the row, positions
start at 0 as they do when serving, and the compiler meets few shapes.
"""

import gzip
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from format import END, PAD, Message
from model import IGNORED
from numpy.typing import NDArray
from tokenizers import Tokenizer

Sampler = Callable[[random.Random], list[Message]]
LENGTHS = (64, 96, 128, 192, 288, 512, 1024)
CHUNK_BATCHES = 48
DECISIVE = 5.0
"""How many times a word that decides whether a reply is right counts: there are one or two among thirty of others."""


@dataclass(frozen=True)
class Batch:
    """``ids``, ``targets`` and ``weights`` are (B, T).

    A target is the next token's id, or IGNORED where there is no loss, and the weight is how much it counts.
    """

    ids: NDArray[np.int64]
    targets: NDArray[np.int64]
    weights: NDArray[np.float32]


class Encoder:
    """Turns conversations into ids and loss masks with the trained tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.role_ids = {role: tokenizer.token_to_id(f"<|{role}|>") for role in ("system", "user", "assistant")}
        self.end_id: int = tokenizer.token_to_id(END)
        self.pad_id: int = tokenizer.token_to_id(PAD)

    def encode(self, messages: Sequence[Message], every_turn: bool) -> tuple[list[int], list[float]]:
        """Return ids and how much each counts as a target: assistant tokens and their END 1, or all; others 0.

        What a message has under ``given`` is how its content begins, without being a target: words that nothing in
        the prompt foretells, behind which the reply is to go on as well as ever. The words under ``decides``, a line
        each, count DECISIVE times wherever they stand.
        """
        ids: list[int] = []
        weights: list[float] = []
        for message in messages:
            content = message["content"].strip()
            encoded = self.tokenizer.encode(content, add_special_tokens=False)
            counts = float(every_turn or message["role"] == "assistant")
            given = len(message.get("given", ""))
            spans = [span for words in message.get("decides", "").splitlines() for span in _places(words, content)]
            ids += [self.role_ids[message["role"]], *encoded.ids, self.end_id]
            weights.append(float(every_turn))
            for start, end in encoded.offsets:
                decides = any(start < last and end > first for first, last in spans)
                weights.append(0.0 if end <= given else counts * (DECISIVE if decides else 1.0))
            weights.append(counts)
        return ids, weights

    def row(self, ids: list[int], weights: list[float], length: int) -> tuple[list[int], list[int], list[float]]:
        """Return a row's ids, targets and weights, each ``length`` long."""
        inputs, weights = ids[: length + 1], weights[1 : length + 1]
        targets = [i if w else IGNORED for i, w in zip(inputs[1:], weights, strict=True)]
        inputs = inputs[: len(targets)]
        short = length - len(inputs)
        return inputs + [self.pad_id] * short, targets + [IGNORED] * short, weights + [0.0] * short


def _places(words: str, content: str) -> Iterator[tuple[int, int]]:
    return (found.span() for found in re.finditer(rf"(?<!\w){re.escape(words)}(?!\w)", content, re.IGNORECASE))


def load_dialogues(data: Path, weights: dict[str, float]) -> Sampler:
    """Return a sampler of dialogues, each source drawn in proportion to its weight."""
    by_source: dict[str, list[list[Message]]] = {}
    with gzip.open(data / "dialogues.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row["source"] in weights:
                by_source.setdefault(row["source"], []).append(row["messages"])
    sources = sorted(by_source)
    source_weights = [weights[source] for source in sources]
    return lambda rng: rng.choice(by_source[rng.choices(sources, source_weights)[0]])


def load_books(data: Path, passage_chars: int = 700) -> Sampler:
    """Return a sampler of book passages, each as one assistant turn with no prompt."""
    with gzip.open(data / "books.txt.gz", "rt", encoding="utf-8") as file:
        text = file.read()

    def sample(rng: random.Random) -> list[Message]:
        start = rng.randrange(len(text) - passage_chars)
        passage = text[start : start + passage_chars].split(" ", 1)[-1].rsplit(" ", 1)[0]
        return [{"role": "assistant", "content": passage.replace("<|endofbook|>", "")}]

    return sample


def batches(
    encoder: Encoder, sampler: Sampler, *, batch_tokens: int, every_turn: bool, seed: str, start: int = 0
) -> Iterator[Batch]:
    """Yield batches of about ``batch_tokens`` tokens for ever, from batch number ``start`` on."""
    chunk, skip = divmod(start, CHUNK_BATCHES)
    while True:
        made = _chunk(encoder, sampler, batch_tokens, every_turn, random.Random(f"{seed}/{chunk}"))
        yield from made[skip:]
        chunk, skip = chunk + 1, 0


def _chunk(encoder: Encoder, sampler: Sampler, batch_tokens: int, every_turn: bool, rng: random.Random) -> list[Batch]:
    rows: dict[int, list[tuple[list[int], list[int], list[float]]]] = {length: [] for length in LENGTHS}
    full = 0
    while full < CHUNK_BATCHES:
        ids, weights = encoder.encode(sampler(rng), every_turn)
        length = next((n for n in LENGTHS if len(ids) - 1 <= n), LENGTHS[-1])
        rows[length].append(encoder.row(ids, weights, length))
        full += len(rows[length]) % (batch_tokens // length) == 0
    made = []
    for length, bucket in rows.items():
        size = batch_tokens // length
        for first in range(0, len(bucket) - size + 1, size):
            ids_rows, target_rows, weight_rows = zip(*bucket[first : first + size], strict=True)
            made.append(Batch(np.array(ids_rows), np.array(target_rows), np.array(weight_rows, np.float32)))
    rng.shuffle(made)
    return made

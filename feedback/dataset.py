"""Parting examples into those that train and those that only judge. Pure; the same input gives the same parts."""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from familiar.feedback.pairs import Example
from familiar.memory.errors import NotEnoughSignals

MIN_TRAIN = 2
"""Fewer examples than this are no training set."""

MIN_HELD_OUT = 2
"""So many are held out where it can be, whatever the share: one alone would judge by chance."""

MAX_SHARE_FACTOR = 2.0
"""Chance may hold out this many times the share that was asked for, and no more: small stores need their examples."""


@dataclass(frozen=True)
class Dataset:
    """Both parts, each in the order of the examples given; ``fingerprint`` names exactly this content and parting."""

    train: tuple[Example, ...]
    held_out: tuple[Example, ...]
    fingerprint: str


def split(
    examples: Sequence[Example],
    *,
    held_out_share: float = 0.2,
    min_examples: int = 4,
    seed: int = 0,
) -> Dataset:
    """Hold out about ``held_out_share`` of the examples, whole groups at a time, and train on the rest.

    Each group has a fixed place between 0 and 1, hashed from its name and ``seed``, and is held out when that is under
    the share: so its side does not depend on what else there is, and as rows are added a group that was trained on
    is not held out later, where it would flatter the served version. Small sets bend this: up to ``MIN_HELD_OUT``
    examples the groups of lowest place are held out too (and go back to training as others come), and no more than
    twice the share is.

    Raises ``NotEnoughSignals`` below ``min_examples`` examples, or when no parting leaves at least one group held out
    and two examples to train on.
    """
    needed = max(min_examples, MIN_TRAIN + 1)
    if len(examples) < needed:
        hint = ", or lower learn.min_signals" if min_examples > MIN_TRAIN + 1 else ""
        raise NotEnoughSignals(
            f"Learning needs at least {needed} corrections but has {len(examples)}: correct more{hint}."
        )
    held = _held_out_groups(examples, held_out_share, seed)
    train = tuple(example for example in examples if example.group not in held)
    held_out = tuple(example for example in examples if example.group in held)
    return Dataset(train, held_out, _fingerprint(train, held_out))


def unsplit(examples: Sequence[Example]) -> Dataset:
    """All examples as training ones, for a run that is judged by something else."""
    return Dataset(tuple(examples), (), _fingerprint(examples, ()))


def _held_out_groups(examples: Sequence[Example], share: float, seed: int) -> set[str]:
    sizes: dict[str, int] = defaultdict(int)
    for example in examples:
        sizes[example.group] += 1
    most = min(len(examples) - MIN_TRAIN, max(MIN_HELD_OUT, math.ceil(MAX_SHARE_FACTOR * share * len(examples))))
    held: set[str] = set()
    count = 0
    for place, group in sorted((_place(group, seed), group) for group in sizes):
        if (place < share or count < MIN_HELD_OUT) and count + sizes[group] <= most:
            held.add(group)
            count += sizes[group]
    if held:
        return held
    # Every group is larger than what may be held out: the smallest one, if enough is left to train on.
    size, _, smallest = min((size, _place(group, seed), group) for group, size in sizes.items())
    if len(examples) - size < MIN_TRAIN:
        raise NotEnoughSignals(
            "Learning needs corrections of at least 2 different prompts, one to check by, but all "
            f"{len(examples)} are of one: correct the reply to another prompt."
        )
    return {smallest}


def _place(group: str, seed: int) -> float:
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def _fingerprint(train: Sequence[Example], held_out: Sequence[Example]) -> str:
    parts = [[asdict(example) for example in part] for part in (train, held_out)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

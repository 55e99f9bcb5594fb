"""Parting examples into those that train and those that only judge. Pure; the same input gives the same parts."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass

from familiar.feedback.pairs import Example
from familiar.memory.errors import NotEnoughSignals

MIN_TRAIN = 2
"""Fewer examples than this are no training set."""

MIN_HELD_OUT = 2
"""So many groups are held out where it can be, whatever the share: one alone would judge by chance."""

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
    trained: AbstractSet[str] = frozenset(),
    held_out_share: float = 0.2,
    min_examples: int = 4,
    seed: int = 0,
) -> Dataset:
    """Hold out about ``held_out_share`` of the examples, whole groups at a time, and train on the rest.

    ``trained`` are the groups that an earlier version was trained on. They stay on the training side: held out, they
    would flatter the version that is served. Each other group has a fixed place between 0 and 1, hashed from its name
    and ``seed``, and is held out when that is under the share: so its side does not depend on what else there is.
    Small sets bend this: up to ``MIN_HELD_OUT`` groups the ones of lowest place are held out too (and go to training
    as others come), and no more than twice the share is.

    Where fewer groups than that can be had so, the smallest ones are held out that leave enough to train on, and
    after all others even of ``trained``. That flatters the served version, and is accepted: it can only make the gate
    refuse what is better, until the next corrections are there to judge by, and a small store must not wait for them.

    Raises ``NotEnoughSignals`` below ``min_examples`` examples, or when no parting leaves at least one group held out
    and two examples to train on. Whether it does, does not depend on ``trained``.
    """
    needed = max(min_examples, MIN_TRAIN + 1)
    if len(examples) < needed:
        hint = ", or lower learn.min_signals" if min_examples > MIN_TRAIN + 1 else ""
        raise NotEnoughSignals(
            f"Learning needs at least {needed} corrections but has {len(examples)}: correct more{hint}."
        )
    held = _held_out_groups(examples, trained, held_out_share, seed)
    train = tuple(example for example in examples if example.group not in held)
    held_out = tuple(example for example in examples if example.group in held)
    return Dataset(train, held_out, _fingerprint(train, held_out))


def unsplit(examples: Sequence[Example]) -> Dataset:
    """All examples as training ones, for a run that is judged by something else."""
    return Dataset(tuple(examples), (), _fingerprint(examples, ()))


def _held_out_groups(examples: Sequence[Example], trained: AbstractSet[str], share: float, seed: int) -> set[str]:
    sizes = Counter(example.group for example in examples)
    places = {group: _place(group, seed) for group in sizes}
    spare = len(examples) - MIN_TRAIN
    most = min(spare, max(MIN_HELD_OUT, math.ceil(MAX_SHARE_FACTOR * share * len(examples))))
    held: set[str] = set()
    count = 0
    for group in sorted(sizes.keys() - trained, key=lambda group: (places[group], group)):
        if (places[group] < share or len(held) < MIN_HELD_OUT) and count + sizes[group] <= most:
            held.add(group)
            count += sizes[group]
    if len(held) >= MIN_HELD_OUT:
        return held
    # Too few are left, or they are too large: the smallest ones, so that as much as possible is left to train on.
    held, count = set(), 0
    for group in sorted(sizes, key=lambda group: (group in trained, sizes[group], places[group], group)):
        if len(held) < MIN_HELD_OUT and count + sizes[group] <= spare:
            held.add(group)
            count += sizes[group]
    if not held:
        raise NotEnoughSignals(
            "Learning needs corrections of at least 2 different prompts, one to check by, but all "
            f"{len(examples)} are of one: correct the reply to another prompt."
        )
    return held


def _place(group: str, seed: int) -> float:
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def _fingerprint(train: Sequence[Example], held_out: Sequence[Example]) -> str:
    parts = [[asdict(example) for example in part] for part in (train, held_out)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

"""What training reads, as token ids: one frozen type for each kind of signal, free of torch.

A prompt's ids end with the generation prompt, a reply's with the end-of-turn token, so only the reply's tokens are ever
learnt. Rows are equal only if they are the same object where they hold arrays.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from familiar.memory.errors import InvalidInput
from familiar.memory.types import Message

Ids = tuple[int, ...]

MIN_COMMON = 0.4
"""From this likeness of two replies on, 0 to 1, the one is an edit of the other and not another reply."""


@dataclass(frozen=True)
class Tree:
    """A prompt's ids and those of its completions. The last token of a completion is only ever a target."""

    prompt_ids: Ids
    completions: tuple[Ids, ...]

    def __post_init__(self) -> None:
        if not self.prompt_ids or not all(self.completions) or not self.completions:
            raise InvalidInput("A row has an empty prompt or reply, which cannot be learnt: leave it out.")

    @property
    def inputs(self) -> int:
        """How many tokens the model reads for it."""
        return len(self.prompt_ids) + sum(len(ids) - 1 for ids in self.completions)

    @property
    def targets(self) -> int:
        """How many tokens its completions have."""
        return sum(map(len, self.completions))

    @property
    def depth(self) -> int:
        """The longest context that a token of it has, with itself."""
        return len(self.prompt_ids) + max(map(len, self.completions))


@dataclass(frozen=True)
class Encoded:
    """A correction or preference: the reply that is wanted and, where there was one, the reply that is not."""

    id: str
    prompt_ids: Ids
    chosen_ids: Ids
    rejected_ids: Ids | None = None

    def __post_init__(self) -> None:
        if not self.prompt_ids or not self.chosen_ids or self.rejected_ids == ():
            raise InvalidInput(f"The row {self.id} has an empty prompt or reply, which cannot be learnt.")

    @property
    def tree(self) -> Tree:
        """The prompt with the reply, or with both."""
        rejected = (self.rejected_ids,) if self.rejected_ids else ()
        return Tree(self.prompt_ids, (self.chosen_ids, *rejected))

    @property
    def tokens(self) -> int:
        """The longest text that the model reads for it."""
        return self.tree.depth

    @cached_property
    def changed(self) -> tuple[bool, ...]:
        """For each chosen token whether it is what the user changed. Asked for in every step, and slow to tell.

        Where something was deleted it is the token that now follows. Without a rejected reply, or with one that is the
        same or has little in common with the chosen one, every token is.
        """
        matcher = SequenceMatcher(None, self.rejected_ids or (), self.chosen_ids, autojunk=False)
        if matcher.ratio() < MIN_COMMON:
            return (True,) * len(self.chosen_ids)
        marked: set[int] = set()
        for tag, _, _, start, end in matcher.get_opcodes():
            if tag != "equal":
                marked.update(range(start, max(end, start + 1)))
        found = tuple(place in marked for place in range(len(self.chosen_ids)))
        return found if any(found) else (True,) * len(self.chosen_ids)


@dataclass(frozen=True)
class Rated:
    """A reply that was rated, with nothing to compare it with."""

    id: str
    prompt_ids: Ids
    reply_ids: Ids
    desirable: bool

    @property
    def tree(self) -> Tree:
        """The prompt with the reply."""
        return Tree(self.prompt_ids, (self.reply_ids,))


@dataclass(frozen=True, eq=False)
class Distilled:
    """A reply with what a teacher would have said at each of its T tokens: its K likeliest tokens.

    ``sampled_by_student`` decides the direction of the divergence: on what the student says itself it is reverse.
    ``size`` is how many tokens it counts for, where a mean over tokens is taken: T where they all teach something.
    """

    prompt_ids: Ids
    reply_ids: Ids
    teacher_ids_TK: NDArray[np.int32]
    teacher_logps_TK: NDArray[np.float32]
    sampled_by_student: bool
    size: float

    @property
    def tree(self) -> Tree:
        """The prompt, without what the teacher was told, and the reply."""
        return Tree(self.prompt_ids, (self.reply_ids,))


@dataclass(frozen=True)
class Group:
    """Completions of one prompt with their rewards, and under which log-probabilities they were sampled."""

    prompt_ids: Ids
    completions: tuple[Ids, ...]
    behaviour_logps: tuple[tuple[float, ...], ...]
    rewards: tuple[float, ...]

    @property
    def tree(self) -> Tree:
        """The prompt with all completions."""
        return Tree(self.prompt_ids, self.completions)


@dataclass(frozen=True)
class Lesson:
    """A prompt, and the same with the memories in it that apply to it: what a student and a teacher are asked."""

    messages: tuple[Message, ...]
    told: tuple[Message, ...]


def kept_places(before: Sequence[int], after: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the places of the tokens that a rewriting left as they were, in the text before it and after it."""
    blocks = SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks()
    pairs = [(block.a + i, block.b + i) for block in blocks for i in range(block.size)]
    return [old for old, _ in pairs], [new for _, new in pairs]


def logps_key(prompt_ids: Sequence[int], completion_ids: Sequence[int]) -> str:
    """Return the name under which a completion's reference log-probability is cached: a hash of both lists of ids."""
    text = " ".join(map(str, prompt_ids)) + "|" + " ".join(map(str, completion_ids))
    return hashlib.sha256(text.encode()).hexdigest()


def reference_keys(rows: Sequence[Encoded | Rated]) -> list[str]:
    """Return the keys of every reference log-probability that training on ``rows`` looks up.

    A row without a rejected reply is only imitated, and needs none.
    """
    trees = [row.tree for row in rows if isinstance(row, Rated) or row.rejected_ids]
    return [logps_key(tree.prompt_ids, ids) for tree in trees for ids in tree.completions]

"""What there is to learn from a user: asked by the learner, and by whoever wants to know whether one would begin."""

import math
from dataclasses import dataclass, replace

from familiar.daemon import learner_lessons, learner_practice
from familiar.daemon.learner_lessons import Taught
from familiar.daemon.learner_practice import Prompt
from familiar.feedback import habits
from familiar.feedback.dataset import Dataset, split, unsplit
from familiar.feedback.habits import NO_MANNER, Manner
from familiar.feedback.pairs import Example, Rating, examples, group_of, groups, ratings
from familiar.memory.errors import NotEnoughSignals
from familiar.memory.store import Store


@dataclass(frozen=True)
class Signals:
    """All that a run would learn, few as it may be: corrections, ratings, and what memories teach.

    ``given_at`` is when each of these was given, in order. A rule that came with a correction is one with it.
    ``trained`` are the groups of corrections that a version of the user's was trained on.
    """

    corrections: tuple[Example, ...]
    ratings: tuple[Rating, ...]
    taught: Taught
    given_at: tuple[float, ...]
    trained: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Learnable:
    """Corrections, parted into those that teach and those that judge; ratings; and what memories teach.

    ``manner`` is what the user does to replies again and again, and ``own`` are prompts of theirs to practise it on.
    """

    dataset: Dataset
    ratings: tuple[Rating, ...]
    taught: Taught
    manner: Manner = NO_MANNER
    own: tuple[Prompt, ...] = ()


def signals(store: Store, user_id: int, until: float = math.inf) -> Signals:
    """Read a user's signals, and the prompts of chats ``until`` then (seconds since the epoch).

    Corrections whose example a newer wish has ended are left out: the user wants something else by now.
    """
    rows = store.feedback_rows(user_id)
    outdated = {memory.feedback_id for memory in store.memories(user_id, "example", states=("superseded",))}
    corrected = tuple(each for each in examples(rows) if each.id not in outdated)
    rated, taught = tuple(ratings(rows)), learner_lessons.taught(store, user_id, until)
    at = {feedback.id: feedback.created_at for feedback, _ in rows}
    given = {id: at[id] for id in [*(each.id for each in corrected), *(each.id for each in rated)]}
    memories = {memory.id: memory for memory in (*taught.always, *(each for _, shown in taught.own for each in shown))}
    stated = [memory.created_at for memory in memories.values() if memory.feedback_id not in given]
    learnt = {id for version in store.versions(user_id) for id in version.feedback_ids}
    return Signals(corrected, rated, taught, tuple(sorted([*given.values(), *stated])), groups(rows, learnt))


def parted(found: Signals, min_signals: int) -> Learnable:
    """Signals as a run takes them: what is asked by a held-out correction nothing else teaches.

    Raises NotEnoughSignals.
    """
    try:
        dataset = split(found.corrections, trained=found.trained, min_examples=min_signals)
    except NotEnoughSignals:
        # What memories say can be learnt, and judged by, without a single correction.
        count = len(found.corrections) + len(found.ratings) + found.taught.count
        if not found.taught or count < min_signals:
            raise
        dataset = unsplit(found.corrections)
    judging = {each.group for each in dataset.held_out}
    rated = tuple(each for each in found.ratings if group_of(each.messages) not in judging)
    return Learnable(dataset, rated, found.taught.asked_apart_from(judging))


def learnable(store: Store, user_id: int, min_signals: int, until: float = math.inf) -> Learnable:
    """Read a user's signals as a run takes them; ``until`` as in ``signals``. Raises NotEnoughSignals."""
    known = revised(signals(store, user_id, until), min_signals)
    return replace(known, own=learner_practice.own_prompts(store, user_id, known.dataset, until))


def revised(found: Signals, min_signals: int) -> Learnable:
    """Signals as the user would give them now, parted. Raises NotEnoughSignals."""
    manner = habits.find(found.corrections)
    outdated = {each.id for each in found.corrections if manner.is_outdated(each)}
    now = replace(found, corrections=habits.revised(found.corrections, manner), taught=found.taught.without(outdated))
    try:
        known = parted(now, min_signals)
    except NotEnoughSignals:
        known = parted(found, min_signals)  # what was given up is better than nothing
    return replace(known, manner=manner)

"""What there is to learn from a user: asked by the learner, and by whoever wants to know whether one would begin."""

from dataclasses import dataclass, replace

from familiar.daemon import learner_lessons, learner_practice
from familiar.daemon.learner_lessons import Taught
from familiar.daemon.learner_practice import Prompt
from familiar.feedback import habits
from familiar.feedback.dataset import Dataset, split, unsplit
from familiar.feedback.habits import NO_MANNER, Manner
from familiar.feedback.pairs import Example, Rating, examples, ratings
from familiar.memory.errors import NotEnoughSignals
from familiar.memory.store import Store


@dataclass(frozen=True)
class Signals:
    """All that a run would learn, few as it may be: corrections, ratings, and what memories teach.

    ``given_at`` is when each of these was given, in order. A rule that came with a correction is one with it.
    """

    corrections: tuple[Example, ...]
    ratings: tuple[Rating, ...]
    taught: Taught
    given_at: tuple[float, ...]


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


def signals(store: Store, user_id: int) -> Signals:
    """Read a user's signals.

    Corrections whose example a newer wish has ended are left out: the user wants something else by now.
    """
    rows = store.feedback_rows(user_id)
    outdated = {memory.feedback_id for memory in store.memories(user_id, "example", states=("superseded",))}
    corrected = tuple(each for each in examples(rows) if each.id not in outdated)
    rated, taught = tuple(ratings(rows)), learner_lessons.taught(store, user_id)
    at = {feedback.id: feedback.created_at for feedback, _ in rows}
    given = {id: at[id] for id in [*(each.id for each in corrected), *(each.id for each in rated)]}
    memories = {memory.id: memory for memory in (*taught.always, *(each for _, shown in taught.own for each in shown))}
    stated = [memory.created_at for memory in memories.values() if memory.feedback_id not in given]
    return Signals(corrected, rated, taught, tuple(sorted([*given.values(), *stated])))


def parted(found: Signals, min_signals: int) -> Learnable:
    """Signals as a run takes them. Raises NotEnoughSignals."""
    try:
        dataset = split(found.corrections, min_examples=min_signals)
    except NotEnoughSignals:
        # What memories say can be learnt, and judged by, without a single correction.
        count = len(found.corrections) + len(found.ratings) + found.taught.count
        if not found.taught or count < min_signals:
            raise
        dataset = unsplit(found.corrections)
    return Learnable(dataset, found.ratings, found.taught)


def learnable(store: Store, user_id: int, min_signals: int) -> Learnable:
    """Read a user's signals as a run takes them. Raises NotEnoughSignals."""
    known = revised(signals(store, user_id), min_signals)
    return replace(known, own=learner_practice.own_prompts(store, user_id, known.dataset))


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

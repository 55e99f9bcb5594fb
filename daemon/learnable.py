"""What there is to learn from a user: asked by the learner, and by whoever wants to know whether one would begin."""

from dataclasses import dataclass

from familiar.daemon import learner_lessons
from familiar.daemon.learner_lessons import Taught
from familiar.feedback.dataset import Dataset, split, unsplit
from familiar.feedback.pairs import Rating, examples, ratings
from familiar.memory.errors import NotEnoughSignals
from familiar.memory.store import Store


@dataclass(frozen=True)
class Learnable:
    """Corrections, parted into those that teach and those that judge; ratings; and what memories teach."""

    dataset: Dataset
    ratings: tuple[Rating, ...]
    taught: Taught


def learnable(store: Store, user_id: int, min_signals: int) -> Learnable:
    """Read a user's signals. Raises NotEnoughSignals.

    Corrections whose example a newer wish has ended are left out: the user wants something else by now.
    """
    signals = store.feedback_rows(user_id)
    outdated = {memory.feedback_id for memory in store.memories(user_id, "example", states=("superseded",))}
    found = [each for each in examples(signals) if each.id not in outdated]
    rated, taught = tuple(ratings(signals)), learner_lessons.taught(store, user_id)
    try:
        dataset = split(found, min_examples=min_signals)
    except NotEnoughSignals:
        # What memories say can be learnt, and judged by, without a single correction.
        if not taught or len(found) + len(rated) + taught.count < min_signals:
            raise
        dataset = unsplit(found)
    return Learnable(dataset, rated, taught)

"""What a learning run trains on and is judged by, as token ids: what was given, what is practised, what is kept.

Rows too long for the model are left out. torch is not imported here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from familiar.adapters.probes import AnchorPrompt, load_probes
from familiar.adapters.protocols import ProgressCallback, greedy
from familiar.adapters.rows import Distilled, Encoded, Rated
from familiar.daemon import learner_lessons
from familiar.daemon.learner_lessons import NO_LESSONS, Lessons
from familiar.daemon.learner_plan import Plan
from familiar.daemon.learner_practice import Prompt, Said, as_rows, practice
from familiar.daemon.oracle import Oracle
from familiar.feedback.dataset import Dataset, split, unsplit
from familiar.feedback.habits import Manner
from familiar.feedback.pairs import LESSON, Example, group_of
from familiar.memory.errors import NotEnoughSignals

ANCHOR_TOKENS = 48
"""The longest reply of the base model that training is held to."""

ANCHOR_VALUES = 64_000_000
"""How many of the base model's log-probabilities, tokens x vocabulary, are kept for that: 256 MB of float32."""

TEXT_TURNS = 2
"""How often each plain text is among the anchors: no user wants a manner of it, so nothing in it fights the lesson."""

EVERY_UNTAUGHT = 10
"""Each so many-th everyday request is one that nothing is taught on, to see what the adapter does untold."""

MIN_TAUGHT = 8
"""Replies with memories in the prompt that judge a run, beside few corrections: chance decides among fewer."""


@dataclass(frozen=True)
class Rows:
    """The signals as token ids, with the prompts that memories are taught on.

    ``judged`` are the examples of ``held_out``, one for one. ``anchors`` are what the base model says, which is kept.
    ``untaught`` are prompts that are in none of these.
    """

    train: tuple[Encoded, ...]
    practised: tuple[Distilled, ...]
    ratings: tuple[Rated, ...]
    held_out: tuple[Encoded, ...]
    judged: tuple[Example, ...]
    anchors: tuple[Encoded, ...]
    lessons: Lessons
    untaught: tuple[Prompt, ...] = ()

    @property
    def feedback_ids(self) -> list[str]:
        """The signals that are trained on."""
        return [*(row.id for row in self.train), *(row.id for row in self.ratings)]


def gather(planned: Plan, oracle: Oracle, progress: ProgressCallback) -> Rows:
    """Ask the base model what it says where that is needed, and make rows of everything.

    Raises NotEnoughSignals where too few corrections fit into the model's context.
    """
    probes, limit = load_probes(), oracle.scorer.context_tokens
    planned = replace(planned, dataset=_fitting(planned.dataset, oracle, limit))
    recipe = planned.recipe
    on_policy = bool(recipe.distillation.rounds or recipe.policy.rounds)
    asks_more = planned.manner or (planned.taught.always and on_policy)
    judging = {each.group for each in planned.dataset.held_out}
    everyday = learner_lessons.everyday(oracle, recipe.seed, progress) if asks_more else []
    everyday = [messages for messages in everyday if group_of(messages) not in judging]
    untaught = everyday[::EVERY_UNTAUGHT]
    everyday = [messages for messages in everyday if messages not in untaught]
    lessons = _lessons(planned, everyday, oracle, limit) if planned.taught and on_policy else NO_LESSONS
    kept = _kept(probes.anchors, oracle, progress)
    practised = _practised(planned, everyday, kept, lessons, oracle, limit, progress) if planned.manner else []
    judged = [*planned.dataset.held_out, *_taught_replies(planned, lessons, oracle, progress)]
    distilled = {group_of(lesson.messages) for lesson in lessons.train}
    fresh = [each for each in practised if group_of(each.messages) not in distilled]
    spare = fresh[: max(0, MIN_TAUGHT - len(judged))]
    judged += spare
    held_out = [(example, _encoded(oracle, example)) for example in judged]
    fitting = [(example, row) for example, row in held_out if row.tree.depth <= limit]
    train = [_encoded(oracle, example) for example in planned.dataset.train]
    practised = [each for each in practised if each not in spare]
    practice_rows = as_rows(practised, oracle, recipe.distillation.top_k, progress)
    ratings = []
    for rating in planned.ratings:
        prompt_ids, reply_ids = oracle.encode(rating.messages, rating.reply)
        ratings.append(Rated(rating.id, tuple(prompt_ids), tuple(reply_ids), rating.desirable))
    anchors = _mixed(_anchors(kept, planned.manner, oracle), TEXT_TURNS * _texts(probes.texts, oracle))
    return Rows(
        train=tuple(row for row in train if row.tree.depth <= limit),
        practised=tuple(row for row in practice_rows if row.tree.depth <= limit),
        ratings=tuple(row for row in ratings if row.tree.depth <= limit),
        held_out=tuple(row for _, row in fitting),
        judged=tuple(example for example, _ in fitting),
        anchors=_within(anchors, ANCHOR_VALUES // oracle.scorer.model.vocab.size),
        lessons=lessons,
        untaught=tuple(untaught),
    )


def _fitting(dataset: Dataset, oracle: Oracle, limit: int) -> Dataset:
    """The corrections that the model has room for; where one has to go, they are parted anew, as far as it takes."""
    given = (*dataset.train, *dataset.held_out)
    fitting = [each for each in given if _encoded(oracle, each).tree.depth <= limit]
    if len(fitting) == len(given):
        return dataset
    if not dataset.held_out:
        return unsplit(fitting)
    try:
        return split(fitting, trained={each.group for each in dataset.train}, min_examples=0)
    except NotEnoughSignals as error:
        left_out = f"{len(given) - len(fitting)} of {len(given)} corrections are longer than the model's {limit} tokens"
        raise NotEnoughSignals(f"{left_out} and teach nothing. {error}") from None


def _lessons(planned: Plan, everyday: Sequence[Prompt], oracle: Oracle, limit: int) -> Lessons:
    """The prompts that memories are taught on."""
    recipe = planned.recipe
    most = limit - max(recipe.distillation.max_tokens, recipe.policy.max_tokens)
    return learner_lessons.make(planned.taught, everyday, oracle, seed=recipe.seed, most_tokens=most)


def _kept(anchors: Sequence[AnchorPrompt], oracle: Oracle, progress: ProgressCallback) -> list[Said]:
    """The anchors' prompts with what the base model replies, where the anchor itself has no reply."""
    asked = [anchor.messages for anchor in anchors if not anchor.reply]
    drawn = iter(oracle.sample(None, asked, greedy(ANCHOR_TOKENS), progress))
    return [(anchor.messages, anchor.reply or next(drawn)[0].text) for anchor in anchors]


def _practised(
    planned: Plan,
    everyday: Sequence[Prompt],
    kept: Sequence[Said],
    lessons: Lessons,
    oracle: Oracle,
    limit: int,
    progress: ProgressCallback,
) -> list[Example]:
    """The manner on prompts that are not to judge what is taught of memories."""
    most = planned.recipe.distillation.max_tokens
    judging = {group_of(lesson.messages) for lesson in lessons.held_out}
    everyday = [messages for messages in everyday if group_of(messages) not in judging]
    own = [messages for messages in planned.own if group_of(messages) not in judging]
    own = [messages for messages in own if len(oracle.encode(messages, "")[0]) + most <= limit]
    return practice(planned.manner, own, everyday, kept, oracle, max_tokens=most, progress=progress)


def _taught_replies(planned: Plan, lessons: Lessons, oracle: Oracle, progress: ProgressCallback) -> list[Example]:
    """What the model says with the memories in its prompt, to judge by what it says without them.

    Corrections have the first word: beside them, as many as there are held out of those, or ``MIN_TAUGHT``.
    """
    chosen = lessons.held_out[: max(MIN_TAUGHT, len(planned.dataset.held_out))]
    how = greedy(planned.recipe.distillation.max_tokens)
    replies = oracle.sample(None, [lesson.told for lesson in chosen], how, progress)
    return [
        Example(f"lesson-{number}", lesson.messages, reply.text, None, LESSON)
        for number, (lesson, (reply,)) in enumerate(zip(chosen, replies, strict=True))
        if reply.finish_reason == "stop" and reply.text.strip()
    ]


def _anchors(kept: Sequence[Said], manner: Manner, oracle: Oracle) -> list[Encoded]:
    """What is kept, in the user's manner; the reply as the base model has it is then the rejected one."""
    anchors = []
    for number, (messages, reply) in enumerate(kept):
        rewritten = manner(reply)
        plain = None if rewritten == reply else reply
        anchors.append(_encoded(oracle, Example(f"anchor-{number}", messages, rewritten, plain, "anchor")))
    return anchors


def _texts(texts: Sequence[str], oracle: Oracle) -> list[Encoded]:
    """Plain texts without a template, closed as a turn is: training wants rows that end alike."""
    end = oracle.scorer.model.vocab.end_of_turn
    encoded = [(*oracle.scorer.encode_text(text), end) for text in texts]
    return [Encoded(f"text-{number}", ids[:1], ids[1:]) for number, ids in enumerate(encoded)]


def _encoded(oracle: Oracle, example: Example) -> Encoded:
    prompt_ids, chosen_ids = oracle.encode(example.messages, example.chosen)
    rejected_ids = None if example.rejected is None else tuple(oracle.encode(example.messages, example.rejected)[1])
    return Encoded(example.id, tuple(prompt_ids), tuple(chosen_ids), rejected_ids)


def _mixed(rows: Sequence[Encoded], others: Sequence[Encoded]) -> tuple[Encoded, ...]:
    """Both kinds in their order, the fewer spread evenly over the more."""
    placed = [((number + 0.5) / len(part), row) for part in (rows, others) for number, row in enumerate(part)]
    return tuple(row for _, row in sorted(placed, key=lambda each: each[0]))


def _within(anchors: Sequence[Encoded], tokens: int) -> tuple[Encoded, ...]:
    """As many of the anchors, in turn, as have no more than ``tokens`` reply tokens together."""
    sizes = accumulate(len(row.chosen_ids) for row in anchors)
    return tuple(row for row, total in zip(anchors, sizes, strict=True) if total <= tokens)

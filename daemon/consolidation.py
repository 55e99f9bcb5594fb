"""Which memories an adapter follows untold, so that its prompts need not hold them (design, decision 4).

What tells is a place: a run of a reply's tokens that the base model finds likelier by far once it is told the memory,
such as a sign-off that it asks for. All other words say nothing of the memory, and would drown what does. A reply
follows the memory when its places are worth about as many nats as those of the user's corrections that were not trained
on or, without such, of what the base model says told. The adapter must follow untold as often as told, and as often as
the base model told. Where it does so less often, the corrections may still speak for it: it must then say their places
as surely as when it is told. So a rule can be learnt that the models, when they are told, just repeat.

A rule that is ignored either way has no places. But where corrections show a habit (``habits``) and nothing else, and
the adapter has it untold in nearly every reply, it has learnt what they say, and the rules that were noted with them;
so too where it has it in some replies and telling, to it or to the base model, hardly makes them more.
A grader of a rule decides in place of all this. Examples are judged as one. Means decide, not bounds: of two ways to
answer one has to be taken, and where that was wrong, corrections undo it (``familiar.memory.consolidated``). What is
left out: memories that apply to some requests only, which too few rows tell of.
"""

import itertools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median

import numpy as np
from numpy.typing import NDArray

from familiar.adapters.protocols import Completion, ProgressCallback, greedy, silent
from familiar.daemon import learner_lessons
from familiar.daemon.oracle import Oracle
from familiar.daemon.prompt import line_counter, with_memories
from familiar.feedback import graders
from familiar.feedback.grader_parse import parse
from familiar.feedback.habits import NO_MANNER, Manner
from familiar.feedback.pairs import Example
from familiar.feedback.signals import last_user_message
from familiar.memory.recall import MAX_EXAMPLES, Recaller, is_relevant
from familiar.memory.store import Store
from familiar.memory.types import Exchange, Feedback, Memory, Message
from familiar.memory.words import same_text_key

MIN_ROWS, MOST_ROWS, MOST_IN_MANNER = 4, 16, 32
"""So many replies, or corrections with a place, tell of a memory, and so many at most of a habit, for which shares are
compared; fewer are left to chance."""
MOST_MEMORIES = 16
"""The newest ones that are measured: more would hardly be told at once."""
TOKEN_NATS, PLACE_NATS = 0.5, 5.0
"""By how much telling must make each token of a place likelier, and all of them together."""
SAID_NATS = math.log(0.5)
"""A token that is as likely as this, or likelier, is said."""
OF_WANTED, OF_TOLD = 0.75, 0.6
"""How much of what the places of a correction are worth makes a reply one that follows: half a greeting does not. Of
what the base model says told it is less, since that is what is likeliest then, and so worth more."""
MIN_FOLLOWED, MIN_REWARD = 0.5, 0.9
"""The least share of replies that follow, and of a grader's reward: what is not followed is not learnt."""
MOST_BEHIND = 0.1
"""The share of replies by which the adapter untold may follow less: one reply, that is, of ten or more."""
IN_MANNER, MIN_IN_MANNER, BASE_IN_MANNER = 0.9, 0.25, 0.5
"""The share of the adapter's replies with the user's habit that speaks for itself, the least that counts where telling
makes it no more, and the most of the base model's: what that does anyway tells nothing."""

Prompt = Sequence[Message]
_Logps = NDArray[np.float32]
"""Of the tokens of one reply."""


@dataclass(frozen=True)
class HeldOut:
    """What a run did not train on, to measure by: corrections, and prompts; and which signals it ``trained`` on.

    ``explained`` are the corrections that show the user's ``manner`` and nothing else.
    """

    corrections: Sequence[Example]
    prompts: Sequence[Prompt]
    trained: Collection[str]
    manner: Manner = NO_MANNER
    explained: Collection[str] = ()


@dataclass(frozen=True)
class Models:
    """The base model and the adapter that is measured.

    Prompt and reply have ``limit`` tokens, the reply ``reply``, and the memories in a prompt ``budget``.
    """

    oracle: Oracle
    adapter: Path
    limit: int
    reply: int
    budget: int
    progress: ProgressCallback = silent
    known: dict[str, _Logps] = field(default_factory=dict, repr=False)
    """Log-probabilities by what they are of: memories are compared with the same untold."""
    drawn: dict[str, list[Completion]] = field(default_factory=dict, repr=False)

    def draw(self, adapter: Path | None, prompts: Sequence[Prompt]) -> list[Completion]:
        """Greedy replies."""
        key = repr((adapter, prompts))
        if key not in self.drawn:
            drawn = self.oracle.sample(adapter, prompts, greedy(self.reply), self.progress)
            self.drawn[key] = [reply for (reply,) in drawn]
        return self.drawn[key]

    def logps(self, adapter: Path | None, prompts: Sequence[Prompt], replies: Sequence[Sequence[int]]) -> list[_Logps]:
        """The log-probability of each token of each reply."""
        rows = list(zip(prompts, replies, strict=True))
        new = {key: row for row in rows if (key := repr((adapter, row))) not in self.known}
        found = self.oracle.top_logps(adapter, list(new.values()), 1, self.progress)
        self.known.update((key, top.picked_T) for key, top in zip(new, found, strict=True))
        return [self.known[repr((adapter, row))] for row in rows]

    def fits(self, prompt: Prompt, reply: str = "") -> bool:
        """Whether a prompt leaves room for a reply, and for the given one."""
        prompt_ids, reply_ids = self.oracle.encode(prompt, reply)
        return len(prompt_ids) + max(len(reply_ids), self.reply) <= self.limit

    def is_followed(
        self, prompts: Sequence[Prompt], told: Sequence[Prompt], corrections: Sequence[tuple[Example, Prompt]]
    ) -> bool:
        """Whether the adapter follows untold what is told in ``told``, and beside the prompts of ``corrections``."""
        if not self.tells(told):
            return False

        def worth(drawn: Sequence[Completion]) -> list[float]:
            return self._worth(prompts, told, [reply.ids for reply in drawn])

        own = worth(self.draw(self.adapter, prompts))
        if _share(own, PLACE_NATS) < MIN_FOLLOWED:
            return False  # most end here, before anything is drawn for them
        fitting = [(row, prompt) for row, prompt in corrections if self.fits(prompt, row.chosen)][-MOST_ROWS:]
        by_base = worth(self.draw(None, told))
        by_corrections = self._worth(*self._wanted(fitting))
        rated = ((OF_WANTED, list(filter(None, by_corrections))), (OF_TOLD, list(filter(None, by_base))))
        enough = next((share * median(found) for share, found in rated if len(found) >= MIN_ROWS), math.inf)
        if _share(own, enough) < MIN_FOLLOWED:
            return False
        if self._is_ready(fitting):
            return True
        models_told = worth(self.draw(self.adapter, told)), by_base
        return _share(own, enough) >= max(_share(each, enough) for each in models_told) - MOST_BEHIND

    def tells(self, told: Sequence[Prompt]) -> bool:
        """Whether there are prompts enough, with room for replies."""
        return len(told) >= MIN_ROWS and all(map(self.fits, told))

    def _is_ready(self, corrections: Sequence[tuple[Example, Prompt]]) -> bool:
        """Whether the adapter untold says the places of corrections as surely as itself, or the base model, told."""
        prompts, told, replies = self._wanted(corrections)
        found = self._places(prompts, told, replies)
        if sum(map(bool, found)) < MIN_ROWS:
            return False

        def said(adapter: Path | None, prompts: Sequence[Prompt]) -> float:
            """The share of places that is said, over the replies that have any."""
            rows = zip(self.logps(adapter, prompts, replies), found, strict=True)
            return fmean(fmean((logps[at] >= SAID_NATS).all() for at in spans) for logps, spans in rows if spans)

        return said(self.adapter, prompts) >= max(said(self.adapter, told), said(None, told), MIN_FOLLOWED)

    def _wanted(
        self, corrections: Sequence[tuple[Example, Prompt]]
    ) -> tuple[list[Prompt], list[Prompt], list[list[int]]]:
        """The prompts of corrections, untold and told, and the wanted replies as tokens."""
        replies = [self.oracle.encode(row.messages, row.chosen)[1] for row, _ in corrections]
        return [row.messages for row, _ in corrections], [told for _, told in corrections], replies

    def _worth(
        self, prompts: Sequence[Prompt], told: Sequence[Prompt], replies: Sequence[Sequence[int]]
    ) -> list[float]:
        """What the places of each reply are worth together, in nats."""
        gains = self._gains(prompts, told, replies)
        return [float(sum(each[at].sum() for at in places(each))) for each in gains]

    def _places(
        self, prompts: Sequence[Prompt], told: Sequence[Prompt], replies: Sequence[Sequence[int]]
    ) -> list[list[slice]]:
        return [places(each) for each in self._gains(prompts, told, replies)]

    def _gains(
        self, prompts: Sequence[Prompt], told: Sequence[Prompt], replies: Sequence[Sequence[int]]
    ) -> list[_Logps]:
        """By how much telling makes each token of each reply likelier to the base model."""
        rows = zip(self.logps(None, prompts, replies), self.logps(None, told, replies), strict=True)
        return [after - before for before, after in rows]


def carried(models: Models, store: Store, user_id: int, held: HeldOut) -> list[Memory]:
    """The user's active memories that the adapter follows untold.

    Raises as the models do, and whatever their ``progress`` raises to stop it.
    """
    prompts, said, kept = _mixed(held, MOST_ROWS), store.feedback_rows(user_id), store.graders(user_id)
    active = [memory for memory in store.memories(user_id) if not memory.pinned]
    found = []
    graded = {each.memory_id for each in kept}
    shown_so = [each for each in active if each.feedback_id in held.explained and each.id not in graded]
    if shown_so and _has_manner(models, store, user_id, held):
        found = [memory for memory in shown_so if memory.scope != "conversation"]
        active = [memory for memory in active if memory not in shown_so]
    standing = [memory for memory in active if memory.scope == "always" and memory.kind != "example"]
    for memory in standing[-MOST_MEMORIES:]:
        told = [with_memories(messages, [memory]) for messages in prompts]
        checks = [parse(each.definition) for each in kept if each.memory_id == memory.id]
        checks = [each for each in checks if not graders.needs_embedder(each)]
        rows = [(row, with_memories(row.messages, [memory])) for row in _applying(memory, held.corrections, said)]
        if _is_graded_well(models, prompts, told, checks) if checks else models.is_followed(prompts, told, rows):
            found.append(memory)
    examples = [each for each in active if each.kind == "example" and each.feedback_id in held.trained]
    related = _related(store, user_id, held.corrections, examples)[-MOST_ROWS:]
    if models.is_followed([row.messages for row, _ in related], [told for _, told in related], related):
        found += [memory for memory in examples if memory.scope != "conversation"]
    return found


def _has_manner(models: Models, store: Store, user_id: int, held: HeldOut) -> bool:
    """Whether the adapter, told nothing, replies in the user's manner, where the base model does not.

    It does in nearly every reply; or in some, and in hardly fewer than with memories in the prompt as they would be
    served, be it the adapter or the base model that is shown them.
    """
    recaller, manner = Recaller(store), held.manner
    line_tokens = line_counter(lambda text: len(models.oracle.scorer.encode_text(text)))

    def served(messages: Prompt) -> Prompt:
        found = recaller.recall(user_id, messages, budget_tokens=models.budget, count_tokens=line_tokens)
        return with_memories(messages, found.memories)

    ways = [(messages, served(messages)) for messages in _mixed(held, MOST_IN_MANNER)]
    fitting = [(untold, told) for untold, told in ways if models.fits(told)]
    if not manner or len(fitting) < MIN_ROWS:
        return False
    untold, told = map(list, zip(*fitting, strict=True))

    def share(adapter: Path | None, prompts: Sequence[Prompt]) -> float:
        replies = [reply.text.strip() for reply in models.draw(adapter, prompts)]
        return fmean(manner(text) == text for text in replies)

    own = share(models.adapter, untold)
    if own < MIN_IN_MANNER or share(None, untold) > BASE_IN_MANNER:
        return False
    return own >= IN_MANNER or own >= max(share(models.adapter, told), share(None, told)) - MOST_BEHIND


def _share(worth: Sequence[float], enough: float) -> float:
    return fmean(each >= enough for each in worth)


def places(gains: _Logps) -> list[slice]:
    """Where telling makes the tokens of a reply much likelier, by the nats that each of them gains."""
    found = []
    for gained, run in itertools.groupby(range(len(gains)), key=lambda at: gains[at] > TOKEN_NATS):
        span = list(run)
        if gained and gains[span].sum() >= PLACE_NATS:
            found.append(slice(span[0], span[-1] + 1))
    return found


def _is_graded_well(
    models: Models, prompts: Sequence[Prompt], told: Sequence[Prompt], checks: Sequence[graders.Grader]
) -> bool:
    """Whether what the adapter says untold is worth nearly all, and no less than what it says told.

    A grader that gives anything beyond 0 to 1 does not say how much is nearly all: then it is not.
    """
    if not models.tells(told):
        return False

    def worth(asked: Sequence[Prompt]) -> list[float]:
        texts = [reply.text for reply in models.draw(models.adapter, asked)]
        grades = [(check, learner_lessons.grade(check, texts, models.oracle.answer, failed)) for check in checks]
        return [graders.share(check, each) for check, given in grades for each in given]

    failed: set[int] = set()
    untold, by_told = worth(prompts), worth(told)
    return all(map(graders.is_share, [*untold, *by_told])) and fmean(untold) >= max(MIN_REWARD, fmean(by_told))


def _mixed(held: HeldOut, most: int) -> list[Prompt]:
    """Prompts of corrections and others in turn, each once."""
    mixed: dict[str, Prompt] = {}
    for pair in itertools.zip_longest([each.messages for each in held.corrections], held.prompts):
        mixed.update((repr(messages), messages) for messages in pair if messages is not None)
    return list(mixed.values())[:most]


def _applying(
    memory: Memory, corrections: Sequence[Example], said: Sequence[tuple[Feedback, Exchange | None]]
) -> list[Example]:
    """The corrections made with a memory in mind: since it was first said, or of a reply that it applied to."""
    says = same_text_key(memory.text)
    stated = [feedback.created_at for feedback, _ in said if says in map(same_text_key, _statements(feedback))]
    since = min([memory.created_at, *stated])
    about = {
        feedback.id
        for feedback, exchange in said
        if feedback.created_at >= since or (exchange and memory.id in (used.memory_id for used in exchange.used))
    }
    return [each for each in corrections if each.id in about]


def _statements(feedback: Feedback) -> list[str]:
    return [text for text in (feedback.note, feedback.text if feedback.kind == "rule" else None) if text]


def _related(
    store: Store, user_id: int, corrections: Sequence[Example], examples: Sequence[Memory]
) -> list[tuple[Example, Prompt]]:
    """The corrections to which examples would be shown if there were no others; searched by words alone."""
    recaller, ids = Recaller(store), {memory.id for memory in examples}
    rows: list[tuple[Example, Prompt]] = []
    for row in corrections:
        found = recaller.search(user_id, last_user_message(row.messages))
        shown = [match.memory for match in found if match.memory.id in ids and is_relevant(match)]
        if shown:
            rows.append((row, with_memories(row.messages, shown[:MAX_EXAMPLES])))
    return rows

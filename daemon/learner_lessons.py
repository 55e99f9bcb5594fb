"""What a run learns from memories: prompts to which they apply, with and without them, and the graders of rules.

A memory's own prompts are those to which it was shown; to one that applies always all of the user's belong. Where these
are few it is taught on everyday requests too, of which the model is given those that it has something to say to: taught
on what it knows nothing of, it would learn to say so. Corrected examples are left out, since training imitates them as
they are; and so are memories that the model does not follow though it is told, as the user's corrections show: from its
own replies it would learn the contrary of what those teach.
"""

import hashlib
import logging
import math
import random
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from familiar.adapters.probes import load_probes
from familiar.adapters.protocols import Completion, ProgressCallback, greedy
from familiar.adapters.rows import Lesson
from familiar.daemon.oracle import Oracle
from familiar.daemon.prompt import with_memories
from familiar.feedback import graders
from familiar.feedback.grader_parse import parse
from familiar.feedback.pairs import group_of, used_tools
from familiar.memory.meaning import everyday_requests
from familiar.memory.store import Store
from familiar.memory.types import Memory, Message, asked

log = logging.getLogger("familiar")

OWN_PROMPTS = 200
"""The newest exchanges that are looked through for prompts."""
CANDIDATES = 160
"""Everyday requests that the model is tried on."""
ENOUGH = 48
"""Prompts that a memory is taught on at least: where the user's own are fewer, everyday ones fill up."""
MOST_CORRECTED = 0.25
"""A memory is taught unless more than this share of the replies that it was shown for had to be corrected."""
TRIAL_TOKENS = 40
HELD_OUT_SHARE = 0.2


@dataclass(frozen=True)
class Taught:
    """The memories that a run teaches, with their graders' definitions, and the prompts to which each was shown."""

    always: tuple[Memory, ...]
    own: tuple[tuple[tuple[Message, ...], tuple[Memory, ...]], ...]
    graders: Mapping[str, tuple[Mapping[str, Any], ...]]

    def __bool__(self) -> bool:
        return bool(self.always or self.own)

    def without(self, feedback_ids: Container[str]) -> "Taught":
        """The same, but for what was said with these signals."""

        def left(memories: Sequence[Memory]) -> tuple[Memory, ...]:
            return tuple(each for each in memories if each.feedback_id is None or each.feedback_id not in feedback_ids)

        own = [(messages, left(shown)) for messages, shown in self.own]
        return Taught(left(self.always), tuple(each for each in own if each[1]), self.graders)

    def asked_apart_from(self, groups: Container[str]) -> "Taught":
        """The same, but on no prompt that asks what one of these groups does."""
        return replace(self, own=tuple(each for each in self.own if group_of(each[0]) not in groups))

    @property
    def count(self) -> int:
        """How many memories are taught."""
        return len({memory.id for memory in (*self.always, *(m for _, shown in self.own for m in shown))})

    def to_json(self) -> list[object]:
        """All that a run's result depends on."""
        own = [[list(messages), [memory.text for memory in shown]] for messages, shown in self.own]
        return [[memory.text for memory in self.always], own, {id: list(each) for id, each in self.graders.items()}]


@dataclass(frozen=True)
class Graded:
    """A prompt and the graders that apply to replies to it."""

    messages: tuple[Message, ...]
    graders: tuple[graders.Grader, ...]


@dataclass(frozen=True)
class Lessons:
    """Prompts to teach memories on, and some that only judge; graded ones are of the same prompts."""

    train: tuple[Lesson, ...]
    held_out: tuple[Lesson, ...]
    graded: tuple[Graded, ...]
    graded_held_out: tuple[Graded, ...]


NO_LESSONS = Lessons((), (), (), ())


def taught(store: Store, user_id: int, until: float = math.inf) -> Taught:
    """Read what there is to teach a user's adapter from memories, and the prompts asked ``until`` then (seconds)."""
    disliked = _disliked(store, user_id)
    exchanges = store.exchanges(user_id, limit=OWN_PROMPTS, until=until)
    shown_in: Counter[str] = Counter()
    corrected: Counter[str] = Counter()
    for exchange in exchanges:
        shown_in.update(exchange.memory_ids)
        corrected.update(exchange.memory_ids if exchange.id in disliked else ())
    active = {
        memory.id: memory
        for memory in store.memories(user_id)
        if memory.kind != "example"
        and memory.scope != "conversation"  # said for that one alone
        and corrected[memory.id] <= MOST_CORRECTED * shown_in[memory.id]
    }
    always = tuple(memory for memory in active.values() if memory.scope == "always")
    own: dict[str, tuple[tuple[Message, ...], tuple[Memory, ...]]] = {}
    for exchange in exchanges:
        used = (active[id] for id in exchange.memory_ids if id in active)
        shown = (*always, *(memory for memory in used if memory not in always))
        if shown and exchange.id not in disliked and not used_tools(exchange.messages):
            own.setdefault(_text(exchange.messages), (exchange.messages, shown))
    found: dict[str, list[Mapping[str, Any]]] = {}
    for grader in store.graders(user_id):
        if grader.memory_id in active:
            found.setdefault(grader.memory_id, []).append(grader.definition)
    return Taught(always, tuple(own.values()), {id: tuple(each) for id, each in found.items()})


def make(
    given: Taught, everyday: Sequence[tuple[Message, ...]], oracle: Oracle, *, seed: int, most_tokens: int
) -> Lessons:
    """Choose the prompts and part them; ``most_tokens`` is how long a prompt may be."""
    pairs = [*given.own]
    if given.always:
        pairs += [(messages, given.always) for messages in everyday[: max(0, ENOUGH - len(pairs))]]
    parsed = {id: [parse(each) for each in definitions] for id, definitions in given.graders.items()}
    train: list[tuple[Lesson, Graded]] = []
    held_out: list[tuple[Lesson, Graded]] = []
    for messages, memories in pairs:
        lesson = Lesson(tuple(messages), tuple(with_memories(messages, memories)))
        if len(oracle.encode(lesson.told, "")[0]) > most_tokens:
            continue
        applying = [each for memory in memories for each in parsed.get(memory.id, ())]
        pair = (lesson, Graded(lesson.messages, tuple(each for each in applying if not graders.needs_embedder(each))))
        (held_out if _place(messages, seed) < HELD_OUT_SHARE else train).append(pair)
    if not held_out and len(train) > 1:
        held_out.append(train.pop())
    return Lessons(
        tuple(lesson for lesson, _ in train),
        tuple(lesson for lesson, _ in held_out),
        tuple(graded for _, graded in train if graded.graders),
        tuple(graded for _, graded in held_out if graded.graders),
    )


def rewards(
    prompts: Sequence[Graded], score: graders.ScoreModel
) -> Callable[[Sequence[tuple[int, Completion]]], list[float]]:
    """What the graders of a prompt give to its completions, made comparable: their mean, 0 to 1.

    That a grader fails is logged once.
    """
    told: set[int] = set()

    def graded(completions: Sequence[tuple[int, Completion]]) -> list[float]:
        given: list[list[float]] = [[] for _ in completions]
        for grader in {id(each): each for prompt in prompts for each in prompt.graders}.values():
            at = [
                i
                for i, (number, _) in enumerate(completions)
                if any(each is grader for each in prompts[number].graders)
            ]
            grades = grade(grader, [completions[i][1].text for i in at], score, told)
            for i, reward in zip(at, _comparable(grader, [completions[i][0] for i in at], grades), strict=True):
                given[i].append(reward)
        return [math.fsum(each) / len(each) if each else 0.0 for each in given]

    return graded


def grade(
    grader: graders.Grader, texts: Sequence[str], score: graders.ScoreModel, told: set[int]
) -> list[graders.Grade]:
    """Grade replies; log that the grader fails unless it is one of ``told``, by identity, and add it there."""
    grades = graders.run_many(grader, [(text, {}) for text in texts], score=score)
    if id(grader) not in told and (failures := graders.failures(grades)):
        told.add(id(grader))
        log.warning("The grader %r %s", grader.name, failures)
    return grades


def _comparable(grader: graders.Grader, numbers: Sequence[int], grades: Sequence[graders.Grade]) -> list[float]:
    """The rewards of replies to the prompts of these numbers, from 0 to 1, so that no grader outweighs another.

    A reward beyond that has a scale that nobody knows. Replies to one prompt are then placed between the worst and the
    best of them, which is all that is learnt from in a group; a reply alone is worth 0 or 1. A failure is worth 0.
    """
    shares = [graders.share(grader, each) for each in grades]
    spans: dict[int, list[float]] = {}
    for number, reward, each in zip(numbers, shares, grades, strict=True):
        if not each.errors:
            spans.setdefault(number, []).append(reward)

    def placed(number: int, reward: float) -> float:
        least, most = min(spans[number]), max(spans[number])
        if least == most or all(map(graders.is_share, spans[number])):
            return min(1.0, max(0.0, reward))
        return (reward - least) / (most - least)

    rows = zip(numbers, shares, grades, strict=True)
    return [0.0 if each.errors else placed(number, reward) for number, reward, each in rows]


def _disliked(store: Store, user_id: int) -> set[str]:
    """The exchanges whose reply was corrected, bettered or called bad."""
    return {
        exchange.id
        for feedback, exchange in store.feedback_rows(user_id)
        if exchange and (feedback.kind in ("correction", "preference") or (feedback.rating or 0) < 0)
    }


def everyday(oracle: Oracle, seed: int, progress: ProgressCallback) -> list[tuple[Message, ...]]:
    """Everyday requests, but for the gate's own; first those that the base model answers with the likeliest words."""
    probed = {group_of(probe.messages) for probe in load_probes().neutral}
    known = [prompt for text in everyday_requests() if group_of(prompt := asked(text)) not in probed]
    prompts = random.Random(f"{seed}/everyday").sample(known, CANDIDATES)
    replies = oracle.sample(None, prompts, greedy(TRIAL_TOKENS), progress)
    rows = [(prompt, reply.ids) for prompt, (reply,) in zip(prompts, replies, strict=True)]
    likelihood = [math.fsum(top.picked_T) / len(top.picked_T) for top in oracle.top_logps(None, rows, 1, progress)]
    return [prompts[i] for i in sorted(range(len(prompts)), key=lambda i: -likelihood[i])]


def _text(messages: Sequence[Message]) -> str:
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _place(messages: Sequence[Message], seed: int) -> float:
    """A fixed place from 0 to 1 for what is asked, so that it is on the same side in every run."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{group_of(messages)}".encode()).digest()[:8]) / 2**64

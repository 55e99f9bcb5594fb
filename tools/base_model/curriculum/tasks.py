"""Requests whose replies code can judge: the last stage's practice, on the model's own words.

A reply earns a reward only if it does what is asked and is about what was asked for as well, since a wish is most
easily followed by saying nothing else. What is left out: anything that no checker can tell.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from .claims import about_fact, asked, of_common_knowledge, verdict
from .content import Draft, Style, Topic, write
from .dialogs import EMPHASIS, Message, ask, styled, system_prompt, user
from .facts import MAKERS, capital, question, sample_facts
from .preferences import KINDS, Preference, sample

LONG_WORD = re.compile(r"[a-z]{4,}")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n")
ON_TOPIC = 0.75
UNASKED = {"units", "spelling", "clock", "date", "numbers", "tone", "hedge", "case", "layout"}
"""Groups of preferences that nobody follows by chance: a reply that does unasked is wrong."""


@dataclass(frozen=True)
class Task:
    """A conversation that ends with the user, and what a reply to it earns, from 0 to 1."""

    messages: list[Message]
    reward: Callable[[str], float]


def sample_task(rng: random.Random) -> Task:
    return rng.choices((wished, known, claimed), (0.6, 0.25, 0.15))[0](rng)


def wished(rng: random.Random) -> Task:
    """An everyday question under one to three wishes, or under none."""
    while True:
        preferences = sample(rng, "train", rng.choices((0, 1, 2, 3), (0.35, 0.3, 0.2, 0.15))[0], emphasis=EMPHASIS)
        topic, draft, style = styled(rng, preferences)
        if all(p.follows(write(draft, style)) for p in preferences):
            break
    turns = [*system_prompt(rng, [p.text for p in preferences]), user(ask(rng, topic, "train"))]
    asked = {p.kind for p in preferences}
    others = [kind.make(rng, "train") for kind in KINDS if kind.group in UNASKED and kind.name not in asked]
    unasked = [p for p in others if not p.follows(write(draft, style))]
    words = _words(topic, style) | {word for p in preferences for word in LONG_WORD.findall(p.text.lower())}

    def reward(reply: str) -> float:
        parrots = any(turn["content"].lower() in reply.lower() for turn in turns)
        strays = any(p.follows(reply) for p in unasked)
        return float(_is_about(reply, words) and not parrots and not strays) * _share_followed(preferences, reply)

    return Task(turns, reward)


def _share_followed(preferences: list[Preference], reply: str) -> float:
    return sum(p.follows(reply) for p in preferences) / len(preferences) if preferences else 1.0


def _words(topic: Topic, style: Style) -> set[str]:
    """Return the longer words that a reply on a topic may well have, written in a style."""
    whole = Draft((*topic.short, *topic.more), topic.items)
    written = [write(whole, each) for each in (Style(), style)]
    told = " ".join((*written, *topic.items, topic.because)).lower()
    return set(LONG_WORD.findall(told))


def _is_about(reply: str, words: set[str]) -> bool:
    """Whether most longer words are of the topic, and nothing is said twice."""
    said = LONG_WORD.findall(reply.lower())
    sentences = [part for part in SENTENCE_END.split(reply.strip()) if part]
    about = sum(word in words for word in said) >= ON_TOPIC * len(said)
    return bool(said) and about and len(set(sentences)) == len(sentences)


def known(rng: random.Random) -> Task:
    """A question about one of several facts, or about one that is not there."""
    makers = MAKERS if rng.random() < 0.65 else [rng.choice(MAKERS)]
    *facts, missing = sample_facts(rng, "train", rng.choice((2, 3, 4, 5)), makers)
    fact = missing if rng.random() < 0.35 else rng.choice(facts)
    turns = [*system_prompt(rng, [capital(f.text) for f in facts]), user(question(rng, fact, "train"))]

    def reward(reply: str) -> float:
        unknown = "do not know" in reply.lower()
        return float(unknown if fact is missing else not unknown and fact.value.lower() in reply.lower())

    return Task(turns, reward)


def claimed(rng: random.Random) -> Task:
    """A claim to be confirmed or denied, about a fact in the prompt or what everybody knows."""
    facts = sample_facts(rng, "train", rng.choice((1, 2, 3)))
    if rng.random() < 0.7:
        claim = about_fact(rng, rng.choice(facts))
    else:
        facts, claim = facts[:1], of_common_knowledge(rng)
    turns = [*system_prompt(rng, [capital(f.text) for f in facts]), user(asked(rng, claim, "train"))]

    def reward(reply: str) -> float:
        return float(verdict(reply) is claim.is_true and claim.truth.rstrip(".").lower() in reply.lower())

    return Task(turns, reward)

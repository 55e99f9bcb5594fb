"""Everyday topics and how a reply about one is written out in a given style.

A draft is a few sentences (or list items) with slots for quantities; ``write`` turns it into text under a ``Style``, so
that the same content can follow any combination of preferences and a checker in code can tell whether it does.
"""

import json
import random
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

TOPICS = Path(__file__).parent.parent / "topics"
UNITS = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
         "seventeen eighteen nineteen").split()  # fmt: skip
TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()
MONTHS = ("January February March April May June July August September October November December").split()
BRITISH = {
    "color": "colour", "favorite": "favourite", "neighbor": "neighbour", "flavor": "flavour", "gray": "grey",
    "center": "centre", "organize": "organise", "realize": "realise", "traveler": "traveller", "theater": "theatre",
    "apologize": "apologise", "cozy": "cosy", "favor": "favour", "honor": "honour", "humor": "humour",
    "fiber": "fibre", "meter": "metre", "liter": "litre",
}  # fmt: skip
CONTRACTIONS = {
    "do not": "don't", "does not": "doesn't", "is not": "isn't", "are not": "aren't", "it is": "it's",
    "you are": "you're", "you will": "you'll", "cannot": "can't", "can not": "can't", "that is": "that's",
    "i am": "I'm", "will not": "won't", "did not": "didn't", "has not": "hasn't",
}  # fmt: skip
SLOT = re.compile(r"\{(\w+):([^}]*)\}")
BRITISH_WORD = re.compile(r"\b\w*(?:" + "|".join(BRITISH.values()) + r")\w*", re.IGNORECASE)
AMERICAN_WORD = re.compile(r"\b\w*(?:" + "|".join(BRITISH) + r")\w*", re.IGNORECASE)
LONG_FORM = re.compile(r"\b(?:" + "|".join(CONTRACTIONS) + r")\b", re.IGNORECASE)
Layout = Literal["prose", "bullets", "numbered"]


@dataclass(frozen=True)
class Topic:
    """One everyday subject: ways to ask about it and the pieces of an answer."""

    topic: str
    ask: tuple[str, ...]
    short: tuple[str, ...]
    more: tuple[str, ...]
    items: tuple[str, ...]
    because: str


@dataclass(frozen=True)
class Draft:
    """What to say: whole sentences, and the same as short items, slots not yet filled."""

    sentences: tuple[str, ...]
    items: tuple[str, ...] = ()

    def raw(self) -> str:
        return " ".join(self.sentences)


@dataclass(frozen=True)
class Style:
    """How to say it. The defaults are the model's manner when nobody has stated a preference."""

    layout: Layout = "prose"
    bullet: str = "-"
    metric: bool = False
    british: bool = False
    clock24: bool = False
    date: Literal["us", "iso", "dmy"] = "us"
    number_words: bool = False
    contractions: bool = False
    ending: Literal[".", "!"] = "."
    case: Literal["as is", "lower", "upper"] = "as is"
    hedge: bool = False
    label: str = ""
    opener: str = ""
    address: str = ""
    closer: str = ""
    closer_on_own_line: bool = False
    question: str = ""
    wrap: tuple[str, str] = ("", "")


@cache
def load_topics() -> tuple[Topic, ...]:
    """Return all topics, in file order."""
    topics = []
    for path in sorted(TOPICS.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            topics.append(Topic(**{k: v if isinstance(v, str) else tuple(v) for k, v in row.items()}))
    return tuple(topics)


def number_words(n: int) -> str:
    """Spell a whole number from 0 to 9,999."""
    if n < 20:
        return UNITS[n]
    if n < 100:
        return TENS[n // 10] + (f"-{UNITS[n % 10]}" if n % 10 else "")
    if n < 1000:
        return f"{UNITS[n // 100]} hundred" + (f" {number_words(n % 100)}" if n % 100 else "")
    return f"{number_words(n // 1000)} thousand" + (f" {number_words(n % 1000)}" if n % 1000 else "")


def _count(value: float, one: str, style: Style) -> str:
    n = max(1, round(value))
    many = one if one.endswith(("Celsius", "Fahrenheit")) else "feet" if one == "foot" else one + "s"
    return f"{number_words(n) if style.number_words else n} {one if n == 1 else many}"


def fill(kind: str, value: str, style: Style) -> str:
    """Write the quantity of one slot in a style, unit words included."""
    if kind == "time":
        hour, minute = (int(part) for part in value.split(":"))
        if style.clock24:
            return f"{hour:02d}:{minute:02d}"
        return f"{hour % 12 or 12}:{minute:02d} {'am' if hour < 12 else 'pm'}"
    if kind == "date":
        year, month, day = (int(part) for part in value.split("-"))
        if style.date == "iso":
            return value
        if style.date == "dmy":
            return f"{day} {MONTHS[month - 1]} {year}"
        return f"{MONTHS[month - 1]} {day}, {year}"
    x = float(value)
    if kind == "usd":
        return f"{number_words(round(x))} dollars" if style.number_words else f"${round(x)}"
    if kind == "n":
        return number_words(round(x)) if style.number_words else str(round(x))
    metric = {"km": "kilometer", "m": "meter", "kg": "kilogram", "g": "gram", "l": "liter", "c": "degree Celsius"}
    us = {
        "km": (0.621, 0, "mile"), "m": (3.28, 0, "foot"), "kg": (2.2, 0, "pound"), "g": (0.0353, 0, "ounce"),
        "l": (1.06, 0, "quart"), "c": (1.8, 32, "degree Fahrenheit"),
    }  # fmt: skip
    if kind in metric:
        if style.metric:
            return _count(x, metric[kind].replace("degree ", "degrees "), style)
        scale, offset, unit = us[kind]
        value_us = x * scale + offset
        return _count(5 * round(value_us / 5) if kind == "c" else value_us, unit.replace("degree ", "degrees "), style)
    return _count(x, {"min": "minute", "hour": "hour"}[kind], style)


def _swap(text: str, pattern: re.Pattern[str], table: dict[str, str]) -> str:
    def replace(match: re.Match[str]) -> str:
        new = table[match[0].lower()]
        return new[0].upper() + new[1:] if match[0][0].isupper() else new

    return pattern.sub(replace, text)


_AMERICAN_STEM = re.compile("|".join(BRITISH), re.IGNORECASE)


def sentence(text: str, style: Style) -> str:
    """Write one sentence or item: quantities, spelling, contractions, final mark."""
    text = SLOT.sub(lambda m: fill(m[1], m[2], style), text)
    if style.british:
        text = _swap(text, _AMERICAN_STEM, BRITISH)
    if style.contractions:
        text = _swap(text, LONG_FORM, CONTRACTIONS)
    text = text[0].upper() + text[1:]
    return text[:-1] + style.ending if text.endswith(".") else text


def write(draft: Draft, style: Style) -> str:
    """Return the reply that says ``draft`` in ``style``."""
    if style.layout == "prose":
        sentences = [sentence(s, style) for s in draft.sentences]
        if style.hedge:
            sentences[0] = "I think " + lower_first(sentences[0])
        if style.address:
            sentences[0] = f"{style.address}, {lower_first(sentences[0])}"
        body = " ".join(sentences)
    else:
        items = [sentence(item, style) for item in draft.items]
        marks = [f"{i + 1}." if style.layout == "numbered" else style.bullet for i in range(len(items))]
        body = "\n".join(f"{mark} {item}" for mark, item in zip(marks, items, strict=True))
        if style.address:
            body = f"{style.address}:\n{body}"
    gap = "\n" if style.layout != "prose" else " "
    if style.question:
        body += gap + style.question
    if style.opener:
        body = style.opener + gap + body
    if style.label:
        body = style.label + gap + body
    if style.closer:
        body += ("\n" if style.closer_on_own_line else gap) + style.closer
    body = style.wrap[0] + body + style.wrap[1]
    if style.case == "lower":
        return body.lower()
    return body.upper() if style.case == "upper" else body


def lower_first(text: str) -> str:
    """Lower the first letter unless the word is a name of one letter (I)."""
    return text if text.startswith(("I ", "I'")) else text[0].lower() + text[1:]


def draft_of(topic: Topic, rng: random.Random, length: int) -> Draft:
    """Choose ``length`` sentences and the items for a reply on ``topic``."""
    more = rng.sample(topic.more, min(len(topic.more), max(0, length - 1)))
    return Draft((rng.choice(topic.short), *more), topic.items)

"""Opposite styles of reply: British or American, short or long, with emojis or without. Pure.

Two instructions on one axis exclude each other where they name different poles and say otherwise the same: "Use metric
units in recipes" and "Use imperial units for travel" are about different things. Left out: styles that are not in the
table, and other languages than English.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from familiar.memory.scope import is_of_replies
from familiar.memory.statement import root, said_in


@dataclass(frozen=True)
class Style:
    """One pole of an axis, asked for or, where ``denied``, not; ``rest`` is what else is said, the condition say."""

    pole: str
    denied: bool
    rest: frozenset[str]

    def excludes(self, other: "Style") -> bool:
        """Whether both cannot be had together."""
        if self.rest != other.rest:
            return False
        if self.pole == other.pole:
            return self.denied != other.denied
        return not self.denied and not other.denied


def styles_of(said: str) -> Mapping[str, Style]:
    """The styles that a ``tidied`` text asks for, by axis; of an axis with two poles named, none."""
    text = said.casefold()
    if not is_of_replies(text):
        return {}
    # "Metric, not imperial" asks for the first.
    asked = _OTHERWISE.sub("", text)
    denied = asked == text and said_in(text).denials % 2 == 1
    found = {}
    for axis, poles in _AXES.items():
        named = [pole for pole, pattern in poles.items() if pattern.search(asked)]
        if len(named) == 1:
            others = frozenset(said_in(poles[named[0]].sub(" ", asked)).words)
            found[axis] = Style(named[0], denied, others - _COMMON - _NOUNS.get(axis, frozenset()))
    return found


def words_of(axis: str) -> tuple[str, ...]:
    """Words of which a text that takes a side on the axis has one."""
    return _WORDS[axis]


def _pole(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w/])(?:{pattern})(?![\w/])")


_LANGUAGES = (
    "english french german spanish italian portuguese dutch polish swedish norwegian danish finnish czech greek "
    "turkish russian ukrainian arabic hebrew hindi chinese japanese korean latin romanian hungarian catalan vietnamese "
    "indonesian thai bengali urdu persian mandarin cantonese welsh irish"
).split()

_AXES: Mapping[str, Mapping[str, re.Pattern[str]]] = {
    axis: {pole: _pole(pattern) for pole, pattern in poles.items()}
    for axis, poles in {
        "spelling": {"british": "british|uk|u\\.k\\.", "american": "american|u\\.s\\."},
        "units": {"metric": "metric|si", "imperial": "imperial|us customary"},
        "temperature": {"celsius": "celsius|centigrade", "fahrenheit": "fahrenheit", "kelvin": "kelvin"},
        "distance": {"kilometres": "km|kilomet(?:re|er)s?", "miles": "miles?"},
        "weight": {"kilograms": "kg|kilos?|kilograms?", "pounds": "lbs?|pounds?"},
        "length": {
            "short": "short(?:er|ly)?|brief(?:er|ly)?|concise(?:ly)?|terse(?:ly)?|succinct(?:ly)?",
            "long": "long(?:er)?|detail(?:s|ed)?|verbose|elaborate|thorough(?:ly)?|in[- ]depth|comprehensive",
        },
        "tone": {"formal": "formal(?:ly)?", "informal": "informal(?:ly)?|casual(?:ly)?|colloquial(?:ly)?|relaxed"},
        "layout": {
            "lists": "bullets?|bullet[- ]?(?:points?|lists?)|bulleted(?: lists?)?|lists?|numbered lists?",
            "prose": "prose|paragraphs?|running text|flowing text",
        },
        "emojis": {"emojis": "emojis?|emoticons?|smileys?"},
        "clock": {
            "12": "12[- ]?h(?:ours?)?|twelve[- ]hour|am/pm|a\\.m\\./p\\.m\\.",
            "24": "24[- ]?h(?:ours?)?|twenty[- ]four[- ]hour|military time",
        },
        "indent": {"tabs": "tabs?", "spaces": "spaces"},
        "markup": {"markdown": "markdown", "plain": "plain[- ]?text"},
        "date": {
            "day first": "dd/mm(?:/yy(?:yy)?)?|day[- ]first",
            "month first": "mm/dd(?:/yy(?:yy)?)?|month[- ]first",
            "iso": "iso(?: 8601)?|yyyy-mm-dd",
        },
        "currency": {
            "euro": "euros?|eur|€",
            "dollar": "dollars?|usd|\\$",
            "sterling": "sterling|gbp|£",
            "yen": "yen|jpy",
        },
        "language": {name: f"(?:in|use|using|speak) (?:only |plain |simple )?{name}" for name in _LANGUAGES},
    }.items()
}

_WORDS: Mapping[str, tuple[str, ...]] = {
    "spelling": ("british", "uk", "american"),
    "units": ("metric", "si", "imperial", "customary"),
    "temperature": ("celsius", "centigrade", "fahrenheit", "kelvin"),
    "distance": ("km", "kilometre", "kilometer", "mile"),
    "weight": ("kg", "kilo", "kilogram", "lb", "pound"),
    "length": (
        "short",
        "shorter",
        "shortly",
        "brief",
        "briefer",
        "briefly",
        "concise",
        "concisely",
        "terse",
        "tersely",
        "succinct",
        "succinctly",
        "long",
        "longer",
        "detail",
        "detailed",
        "verbose",
        "elaborate",
        "thorough",
        "thoroughly",
        "depth",
        "comprehensive",
    ),
    "tone": ("formal", "formally", "informal", "informally", "casual", "casually", "colloquial", "relaxed"),
    "layout": ("bullet", "bulleted", "list", "prose", "paragraph", "running", "flowing"),
    "emojis": ("emoji", "emoticon", "smiley"),
    "clock": ("12", "24", "12h", "24h", "twelve", "am", "military", "twenty"),
    "indent": ("tab", "space"),
    "markup": ("markdown", "plain", "plaintext"),
    "date": ("dd", "mm", "day", "month", "iso", "yyyy"),
    "currency": ("euro", "eur", "dollar", "usd", "sterling", "gbp", "yen", "jpy"),
    "language": tuple(_LANGUAGES),
}

_COMMON = frozenset(
    root(word)
    for word in """
    use write keep give make be prefer want like i you your my answer answers reply replies response responses respond
    output text messages tone style spelling units measurements system format in with as of it them sentences language
    instead to me all every everything should must would english speak talk communicate for and explain explanations
    points things is are can have put them say convert express measure provide very only numbers
    """.split()
)
"""What is said with any of the styles and is no condition."""

_NOUNS: Mapping[str, frozenset[str]] = {
    axis: frozenset(root(word) for word in nouns.split())
    for axis, nouns in {
        "temperature": "temperature temperatures",
        "distance": "distance distances",
        "weight": "weight weights",
        "clock": "time times clock",
        "date": "date dates",
        "currency": "price prices amount amounts currency",
    }.items()
}
"""What an axis is of, which may be named or not."""

_OTHERWISE = re.compile(r",? (?:and )?(?:not|instead of|rather than|over|as opposed to|never) .*$")

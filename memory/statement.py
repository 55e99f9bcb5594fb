"""The words of a statement, made comparable: its contractions written out, its fillers and denials told apart. Pure.

Left out: other languages than English, whose words are compared as they are written.
"""

import re
from dataclasses import dataclass

from familiar.memory.scope import without_courtesies

Words = tuple[str, ...]


@dataclass(frozen=True)
class Said:
    """A statement's ``words`` without fillers and denials, of which there are ``denials``."""

    words: Words
    denials: int


def tidied(text: str) -> str:
    """``text`` without courtesies, contractions and words that only say that it holds now; the case is kept."""
    said = without_courtesies(text)
    for pattern, full in _CONTRACTIONS:
        said = pattern.sub(full, said)
    said = _TAIL.sub("", " ".join(_ADVERBS.sub(" ", said).split()))
    return said.strip(" .!?;,") or said


def said_in(text: str) -> Said:
    """What a ``tidied`` text says."""
    return _undenied(_tokens(text))


def liked_in(text: str) -> Said:
    """The same with love and hate taken as liking and not liking."""
    return _undenied(_tokens(_LIKING.sub("like", _LOATHING.sub("not like", text))))


def roots(text: str) -> Words:
    """The words of ``text`` without fillers, by their ``root``."""
    return tuple(root(token) for token in _tokens(text) if token.casefold() not in _FILLERS)


def root(token: str) -> str:
    """A word without the ending of a plural or of "-ing", unless it is a name.

    "-ed" stays: what was is not what is.
    """
    word = _SPELLINGS.get(token.casefold(), token.casefold())
    if len(word) <= 3 or not word.isalpha() or token[:1].isupper():
        return word
    for ending in ("ing", "s"):
        rest = word.removesuffix(ending)
        if rest != word and len(rest) >= 3 and not rest.endswith("s") and re.search("[aeiouy]", rest):
            word = rest[:-1] if ending == "ing" and rest[-1] == rest[-2] else rest
            break
    return word.removesuffix("e") if len(word) > 3 else word


def _tokens(text: str) -> list[str]:
    # "C++" keeps its signs, and a sign that stands alone is a word.
    parts = re.sub(r"(?<=\w)'s?(?!\w)", " 's", text).split()
    tokens = [part if part == "'s" else part.strip(_PUNCTUATION) or part for part in parts]
    # A first word has a capital whether it is a name or not.
    return [tokens[0][:1].lower() + tokens[0][1:], *tokens[1:]] if tokens else []


def _undenied(tokens: list[str]) -> Said:
    kept: list[str] = []
    denials = 0
    for token in tokens:
        word = token.casefold()
        if word in _DENIALS:
            denials += 1
            if word == "without":
                kept.append("with")
        elif word not in _FILLERS and word not in _IDLE and not (word == "longer" and denials):
            kept.append(root(token))
    return Said(tuple(kept), denials)


_PUNCTUATION = ".,;:!?\"'\u201c\u201d()[]"
_FILLERS = frozenset("a an the please always ever any so also that".split())
_IDLE = frozenset("use using do does".split())
"""What a denial brings along or takes away: "No emojis", "Do not use emojis"."""
_DENIALS = frozenset("not no never without avoid avoiding stop stopped stopping quit".split())
_SPELLINGS = {"favorite": "favourite", "favorites": "favourites", "color": "colour", "colors": "colours"}

_CONTRACTIONS = tuple(
    (re.compile(pattern, re.IGNORECASE), full)
    for pattern, full in (
        (r"\bcan(?:'t|not)\b", "can not"),
        (r"\bwon't\b", "will not"),
        (r"n't\b", " not"),
        (r"(?<=\w)'m\b", " am"),
        (r"(?<=\w)'re\b", " are"),
        (r"(?<=\w)'ve\b", " have"),
        (r"(?<=\w)'ll\b", " will"),
        (r"\b(my name|it|that|there|he|she|who|what)'s\b", r"\1 is"),
        (r"'s (?=called\b|named\b)", " is "),
    )
)
_ADVERBS = re.compile(
    r"\b(?:now|currently|recently|just|actually|really|definitely|officially|already|still|finally|kindly)\b", re.I
)
_TAIL = re.compile(
    r"(?:[\s,;]+(?:please|thanks|thank you|from now on|instead|these days|nowadays|at the moment|for now|"
    r"going forward|in (?:the )?future|any ?more|ok|okay))+[\s.!?]*$",
    re.I,
)
_LIKING = re.compile(r"\b(?:love|loves|enjoy|enjoys|adore|adores|likes|am fond of|am a (?:big |huge )?fan of)\b", re.I)
_LOATHING = re.compile(
    r"\b(?:hate|hates|dislike|dislikes|detest|detests|loathe|loathes|can not (?:stand|bear))\b", re.I
)

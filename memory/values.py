"""The value that a claim gives ("My name is VALUE"), and whether two values exclude each other. Pure."""

import re
from dataclasses import dataclass
from typing import Literal

Sort = Literal["date", "number", "name", "thing", "plain"]


@dataclass(frozen=True)
class Value:
    """``sort`` is what it looks like: a thing has an article, a name a capital letter.

    Of a ``known`` claim any two values of a sort exclude each other; of another only names do, and numbers of a unit.
    """

    words: tuple[str, ...]
    sort: Sort
    known: bool = False
    place: bool = False


def value_of(text: str, *, known: bool = False, place: bool = False) -> Value | None:
    """The value that ``text`` is, or None where it is rather a remark: "too long", "a secret", "spelt with two Ns"."""
    words = tuple(re.findall(r"[^\s,;()\"\u201c\u201d]+", text.casefold().strip(" .!?")))
    if len(words) > 1 and words[0] in ("on", "in") and _sort(text.strip(), words[1:]) == "date":
        words = words[1:]
    if not words or len(words) > _MOST_WORDS or words[0] in _REMARKS:
        return None
    if place and (words[0] in _NO_PLACE or "and" in words):
        return None
    return Value(words, _sort(text.strip(), words), known, place)


def excludes(newer: Value, older: Value) -> bool:
    """Whether what has the newer value cannot have the older one. A value that only says less excludes nothing."""
    if newer.words == older.words or set(newer.words) < set(older.words):
        return False
    if newer.sort == older.sort == "date":
        return _dates_clash(newer.words, older.words)
    if newer.place and (_is_wide(newer) != _is_wide(older)):
        return False
    if newer.known and older.known:
        return _coarse(newer.sort) == _coarse(older.sort)
    if newer.sort == older.sort == "number":
        return _unit(newer) == _unit(older)
    return newer.sort == older.sort == "name"


def _sort(text: str, words: tuple[str, ...]) -> Sort:
    if any(word[:3] in _MONTHS and _MONTH.fullmatch(word) for word in words) or _YEAR.fullmatch(words[-1]):
        return "date"
    if re.search(r"\d", text) or words[0] in _NUMBERS:
        return "number"
    if words[0] in ("a", "an", "the", "my", "our", "his", "her", "their", "some"):
        return "thing"
    if text[0].isupper() and not (len(words) == 1 and _ORIGIN.search(words[0])):
        return "name"
    return "plain"


def _coarse(sort: Sort) -> str:
    return "name" if sort == "plain" else "number" if sort == "date" else sort


def _unit(value: Value) -> tuple[str, ...]:
    return tuple(word for word in value.words if not re.search(r"\d", word) and word not in _NUMBERS)


def _is_wide(value: Value) -> bool:
    return " ".join(value.words) in _COUNTRIES


def _dates_clash(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    parts = [_date(words) for words in (one, other)]
    return any(parts[0][name] != parts[1][name] for name in parts[0].keys() & parts[1].keys())


def _date(words: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for word in words:
        if _YEAR.fullmatch(word):
            found["year"] = word
        elif _MONTH.fullmatch(word):
            found["month"] = word[:3]
        elif day := re.fullmatch(r"(\d{1,2})(?:st|nd|rd|th)?\.?", word):
            found["day"] = day[1]
    return found


_MOST_WORDS = 12
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = re.compile(
    r"jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|"
    r"nov(?:ember)?|dec(?:ember)?"
)
_YEAR = re.compile(r"(?:19|20)\d\d")
_NUMBERS = frozenset(
    """
    one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
    nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred
    """.split()
)
_ORIGIN = re.compile(r"(?:an|ish|ese|ic|ch|im|ew|ek|man)$")
""""Ann" and "Catholic" do not exclude each other, but "Ann" and "Tom" do, where both are said to be my sister."""

_REMARKS = frozenset(
    """
    about again already also always and around at back bad based beautiful because being boring broken by changing
    coming common confidential correct different difficult done due easy fine for from fun getting going gone good
    great hard how if important in interesting later like long lost near never new nice night nights none not of
    often ok okay old on once out over private pronounced quite rare rather ready really right safe secret short
    similar so sometimes soon spelled spelt still stressful such that then this to today tomorrow tonight too ugly
    uncommon unknown unusual up usually very weekends what whatever when where which who why with without worth
    wrong
    """.split()
)
"""What begins a remark on a thing rather than its value."""
_NO_PLACE = frozenset(
    """
    a an the my our his her their your some linux windows mac macos android ios iphone vim emacs python rust java tears
    bed home peace fear hope
    """.split()
)
_COUNTRIES = frozenset(
    """
    africa america argentina asia australia austria bangladesh belgium brazil britain bulgaria canada chile china
    colombia croatia cuba cyprus czechia denmark egypt england estonia ethiopia europe finland france georgia germany
    ghana greece hungary iceland india indonesia iran iraq ireland israel italy japan jordan kenya korea latvia lebanon
    lithuania luxembourg malaysia malta mexico morocco nepal netherlands nigeria norway oceania pakistan peru
    philippines poland portugal romania russia scandinavia scotland serbia singapore slovakia slovenia spain sweden
    switzerland taiwan thailand tunisia turkey uk ukraine uruguay us usa venezuela vietnam wales california texas
    florida bavaria
    """.split()
) | {"new zealand", "south africa", "south korea", "saudi arabia", "united kingdom", "united states", "costa rica"}
"""Who lives in Paris lives in France: a place of this list and one that is not on it may both hold."""

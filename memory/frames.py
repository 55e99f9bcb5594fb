"""Claims of one value: "My name is Ann", "I live in Rome", "Call me Al". Of two about the same only one holds. Pure.

The table is made to miss rather than to mistake: a claim of an unknown form has no frame. What a person may have
several of (likes, friends, languages spoken, things owned) is in none. Left out: other languages than English,
statements of several sentences, and hedged or conditional ones.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from familiar.memory.statement import Words, root, roots
from familiar.memory.values import Value, excludes, value_of
from familiar.memory.words import words


@dataclass(frozen=True)
class Frame:
    """``about`` is the same for claims that exclude each other, unless their values agree.

    ``exact`` ones are instructions: any other value excludes the older. ``lookups`` are the groups of words by which
    other claims about the same are found; such a claim has all words of one group.
    """

    about: Words
    value: Value
    lookups: tuple[Words, ...]
    exact: bool = False

    def ends(self, older: "Frame") -> bool:
        """Whether the older claim does not hold beside this one."""
        if self.about != older.about:
            return False
        return self.value.words != older.value.words if self.exact else excludes(self.value, older.value)


def frame_of(said: str) -> Frame | None:
    """The claim that a ``tidied`` text without a denial makes, if it makes one of one value."""
    if _SEVERAL.search(said):
        return None
    for pattern, make in _FRAMES:
        found = pattern.fullmatch(said)
        if found:
            return make(found)
    return None


def _attribute(found: re.Match[str]) -> Frame | None:
    subject = roots(found["subject"])
    head = (roots(found["subject"].split(" of ")[0]) or ("",))[-1]
    if not _is_known(subject) or head in _MANY:
        return None
    named = _NAMED.fullmatch(found["subject"])
    if named and not _MANY.isdisjoint(roots(named["whose"])[-1:]):
        return None
    known = head in _ATTRIBUTES or not _TASTES.isdisjoint(subject)
    if not known and found["thing"]:
        return None
    value = value_of(found["value"], known=known)
    lookups = _called_by(named["whose"]) if named else _either_spelling(found["subject"])
    return Frame(subject, value, lookups) if value else None


def _called(found: re.Match[str]) -> Frame | None:
    subject = roots(found["subject"])
    if not _is_known(subject) or subject[-1] in _MANY:
        return None
    value = value_of(found["value"], known=True)
    return Frame((*subject, "'s", root("name")), value, _called_by(found["subject"])) if value else None


def _doing(what: str, sought: str, *, known: bool = False, place: bool = False) -> "_Make":
    """``what`` the subject does, whose other wordings have a word of ``sought``."""

    def make(found: re.Match[str]) -> Frame | None:
        subject = roots(found["subject"])
        if not _is_known(subject):
            return None
        value = value_of(found["value"], known=known, place=place)
        whose = _sought(found["subject"])
        # "Is" alone would find every other statement.
        by = [word for word in sought.split() if whose or word != "is"]
        return Frame((*subject, what), value, tuple((*whose, word) for word in by)) if value else None

    return make


def _born(found: re.Match[str]) -> Frame | None:
    when = bool(re.search(r"\d", found["value"]))
    return _doing("born when" if when else "born where", "born", known=not when, place=not when)(found)


def _address(found: re.Match[str]) -> Frame | None:
    value = value_of(re.sub(r"^by ", "", found["value"]), known=True)
    lookups = (("call", "me"), ("address", "me"), ("refer", "me"), ("go", "by"), ("called",), ("addressed",))
    return Frame(("address me",), value, lookups, exact=True) if value else None


def _wording(found: re.Match[str]) -> Frame | None:
    subject = tuple(word for word in roots(found["subject"]) if word not in _EACH)
    value = value_of(found["value"], known=True)
    return Frame((*subject, found["by"].casefold()), value, (_sought(found["subject"]),), exact=True) if value else None


def _choice(found: re.Match[str]) -> Frame | None:
    one, other = roots(found["one"]), roots(found["other"])
    value = value_of(found["one"], known=True)
    if one == other:
        return None
    about = tuple(sorted((" ".join(one), " ".join(other))))
    sought = ("prefer", *_sought(found["one"]), *_sought(found["other"]))
    return Frame(("prefer", *about), value, (sought,), exact=True) if value else None


def _is_known(subject: Words) -> bool:
    return bool(subject) and subject[0] not in _PRONOUNS


def _sought(text: str) -> Words:
    # As they are written: the index has stems of its own.
    return tuple(word for word in words(text) if word not in _EVERYWHERE)


def _called_by(whose: str) -> tuple[Words, ...]:
    return tuple((*_sought(whose), word) for word in ("called", "named", "name"))


def _either_spelling(subject: str) -> tuple[Words, ...]:
    return (_sought(subject),) if _sought(subject) else (("favourite",), ("favorite",))


def _roots(words: str) -> frozenset[str]:
    return frozenset(root(word) for word in words.split())


_PRONOUNS = frozenset("he she it they this that these those there his her their its what who which you your".split())
_EVERYWHERE = frozenset("my our i we s the a an of every each all your favourite favorite colour color".split())
"""What is too common to find anything by, or is spelt in two ways."""
_EACH = _roots("every each all your my reply replies answer answers response responses message messages")
_TASTES = _roots("favourite preferred")
_MANY = _roots(
    """
    friend friends colleague coworker cousin neighbour neighbor uncle aunt student client customer teammate kid child
    children hobby hobbies book film movie pet goal problem issue question idea point allergy allergies
    """
)
"""Of these a person may have several, and tell of one after the other."""
_ATTRIBUTES = _roots(
    """
    name nickname surname birthday birthdate age height weight size phone number mobile email e-mail address password
    passcode passphrase pin username login language tongue nationality religion capital currency pronouns title job
    profession occupation employer postcode zip timezone zone hometown birthplace sign salary budget deadline
    anniversary population
    """
)
"""What anybody has one of: any other value of these excludes the value."""

_SEVERAL = re.compile(
    r"[.;!?]\s|\b(?:but|because|when|whenever|if|unless|except|although|though|or|maybe|perhaps|probably|might|used to|"
    r"sometimes|usually|often)\b",
    re.I,
)
"""More than one plain claim, or one that does not hold throughout."""

_SUBJECT = r"(?P<subject>[^,.;:?!]{1,40}?)"
_VALUE = r"(?P<value>.{1,80}?)"
_ASIDE = r"(?:,? (?:(?:in|since) (?:19|20)\d\d|(?:last|this) \w+|(?:with|for|as|because of|together with) .+))?"
_TENS = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
_AGE = rf"(?P<value>\d{{1,3}}|(?:{_TENS})(?:[- ]\w+)?|\w+teen|ten|eleven|twelve)"
_OWN = (
    r"(?P<subject>(?:(?:my|our) |[^,.;:?!]{1,60}?'s? )[^,.;:?!]{1,40}?|the [^,.;:?!]{1,40}? of [^,.;:?!]{1,60}?|"
    r"(?P<thing>the [^,.;:?!]{1,40}?))"
)

_NAMED = re.compile(r"(?P<whose>.+)'s? name", re.IGNORECASE)

_Make = Callable[[re.Match[str]], Frame | None]
_TABLE: tuple[tuple[str, _Make], ...] = (
    (rf"(?:(?:call|name) me|address me as|refer to me as|i go by) {_VALUE}", _address),
    (rf"i (?:would )?(?:prefer|like|want) to be (?:called|addressed as) {_VALUE}", _address),
    (
        rf"(?P<subject>(?:sign|start|begin|end|finish|close|greet)\b[^,;:]{{0,40}}?) (?P<by>with|as|by) {_VALUE}",
        _wording,
    ),
    (r"i (?:would )?prefer (?P<one>.{1,40}?) (?:over|to|rather than|instead of|than) (?P<other>.{1,40})", _choice),
    (rf"{_SUBJECT} (?:am|is|are) (?:called|named) {_VALUE}", _called),
    (
        rf"{_SUBJECT} (?:lives? in|(?:have |has )?moved to|(?:am|is|are) (?:living|based|residing) in|resides? in)"
        rf" {_VALUE}{_ASIDE}",
        _doing("lives in", "live moved based residing", known=True, place=True),
    ),
    (rf"{_SUBJECT} (?:am|is|are|comes?) from {_VALUE}", _doing("is from", "from", known=True, place=True)),
    (rf"{_SUBJECT} (?:is|are) located in {_VALUE}", _doing("located in", "located", known=True, place=True)),
    (
        rf"{_SUBJECT} (?:works?|(?:am|is) working) (?:at|for) {_VALUE}(?:,? (?:as|in|since|on) .+)?",
        _doing("works at", "work", known=True),
    ),
    (rf"{_SUBJECT} (?:works?|(?:am|is) working) as {_VALUE}{_ASIDE}", _doing("works as", "work", known=True)),
    (
        rf"{_SUBJECT} (?:am|is|(?:have |has )?turned) {_AGE}(?: years? old| years? of age)?",
        _doing("age", "years old am m is turned", known=True),
    ),
    (rf"{_SUBJECT} (?:was|were) born (?:in|on|at) {_VALUE}", _born),
    (rf"{_SUBJECT} (?:am|is) (?:married|engaged) to {_VALUE}", _doing("married to", "married engaged", known=True)),
    (rf"{_SUBJECT} weighs? {_VALUE}", _doing("weighs", "weigh")),
    (rf"{_OWN} (?:is|are) {_VALUE}", _attribute),
)
_FRAMES = tuple((re.compile(pattern, re.IGNORECASE), make) for pattern, make in _TABLE)

"""Whether two memories say the same, or cannot both hold. Pure, and without a model.

Made to miss rather than to mistake: what is wrongly ended hides what the user said, while of two that contradict each
other the model sees the newer one too. The forms that are known are in ``frames`` (one value) and ``styles``.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cached_property

from familiar.memory.frames import Frame, frame_of
from familiar.memory.quoted import quoted_value
from familiar.memory.scope import is_of_replies
from familiar.memory.statement import Said, Words, liked_in, said_in, tidied
from familiar.memory.styles import Style, styles_of, words_of
from familiar.memory.types import Memory
from familiar.memory.words import same_text_key, words

MAX_CHARS = 500
"""Longer texts are not taken apart."""


def contradicted(newer: Memory, others: Iterable[Memory]) -> list[Memory]:
    """Those of ``others`` that no longer hold when the newer one does.

    Examples end one another for one prompt; rules and facts by a frame, a style, a number, a quoted value or a denial.
    What is said for one conversation is measured against the same conversation only.
    """
    if newer.kind == "example":
        return [each for each in others if _comparable(newer, each) and _another_reply(newer, each)]
    statement = _Statement(newer.text)
    return [each for each in others if _comparable(newer, each) and statement.ends(_Statement(each.text))]


def says_the_same(newer: Memory, older: Memory) -> bool:
    """Whether two rules or facts differ in fillers, plurals and courtesies only. Examples are never taken as one."""
    if newer.kind == "example" or not _comparable(newer, older):
        return False
    return _Statement(newer.text).repeats(_Statement(older.text))


def lookups(memory: Memory) -> tuple[Words, ...]:
    """Groups of words: a rule or fact that this one may say again or contradict has all words of one of them."""
    return _Statement(memory.text).lookups


class _Statement:
    """A rule's or fact's text, taken apart as far as a comparison needs."""

    def __init__(self, text: str) -> None:
        self._given = text if len(text) <= MAX_CHARS else ""
        # What is longer is a document rather than a claim, and is told from others by its whole text alone.
        self._text = tidied(text) if len(text) <= MAX_CHARS else ""

    @cached_property
    def _said(self) -> Said:
        return said_in(self._text)

    @cached_property
    def _liked(self) -> Said:
        return liked_in(self._text)

    @cached_property
    def _frame(self) -> Frame | None:
        return None if self._said.denials else frame_of(self._text)

    @cached_property
    def _quoted(self) -> tuple[Words, str] | None:
        return quoted_value(self._given)

    @cached_property
    def _styles(self) -> Mapping[str, Style]:
        return styles_of(self._text)

    @cached_property
    def _counted(self) -> tuple[Words, str] | None:
        """The words but one, and that one, which is a number: "Answer in 3 sentences"."""
        numbers = [word for word in self._said.words if _NUMBER.fullmatch(word)]
        if (
            len(numbers) != 1
            or self._said.denials
            or not _MEASURED.match(self._text)
            or not is_of_replies(self._text.casefold())
        ):
            return None
        return tuple("#" if word == numbers[0] else word for word in self._said.words), numbers[0]

    def repeats(self, older: "_Statement") -> bool:
        """Whether both have the same words but for fillers."""
        return bool(self._said.words) and self._said == older._said

    def ends(self, older: "_Statement") -> bool:
        """Whether the older statement no longer holds when this one does."""
        if self._denies(older) or older._denies(self):
            return True
        if self._frame and older._frame and self._frame.ends(older._frame):
            return True
        if self._quoted and older._quoted and self._quoted[0] == older._quoted[0]:
            return self._quoted[1] != older._quoted[1]
        if self._counted and older._counted and self._counted[0] == older._counted[0]:
            return self._counted[1] != older._counted[1]
        return any(style.excludes(older._styles[axis]) for axis, style in self._styles.items() if axis in older._styles)

    def _denies(self, other: "_Statement") -> bool:
        """Whether this says the same of the same with exactly one denial, and the other with none."""
        words = self._liked.words
        if not words or words[0] in _UNNAMED:
            return False
        return words == other._liked.words and self._liked.denials == 1 and other._liked.denials == 0

    @property
    def lookups(self) -> tuple[Words, ...]:
        """See the function of this name."""
        own = tuple(word for word in words(self._text) if word not in _EVERYWHERE)[:_MOST_WORDS]
        groups = [own or tuple(words(self._text))[:_MOST_WORDS]]
        if self._counted:
            groups.append(tuple(word for word in own if not _NUMBER.fullmatch(word)))
        if self._quoted:
            value = words(self._quoted[1])
            groups.append(tuple(word for word in own if word not in value))
        if self._frame:
            groups.extend(self._frame.lookups)
        for axis in self._styles:
            groups.extend((word,) for word in words_of(axis))
        return tuple(group for group in dict.fromkeys(groups) if group)


def _comparable(newer: Memory, older: Memory) -> bool:
    if (newer.kind == "example") != (older.kind == "example") or newer.id == older.id:
        return False
    if newer.scope == "conversation" or older.scope == "conversation":
        return newer.scope == older.scope and newer.conversation_id == older.conversation_id
    return True


def _another_reply(newer: Memory, older: Memory) -> bool:
    prompts = [same_text_key(memory.prompt or "") for memory in (newer, older)]
    return bool(prompts[0]) and prompts[0] == prompts[1] and same_text_key(newer.text) != same_text_key(older.text)


_MOST_WORDS = 32
_EVERYWHERE = frozenset(
    """
    i am is are my our we with without to of in s like likes love loves enjoy enjoys adore hate hates dislike dislikes
    detest loathe not no never avoid avoiding stop stopped stopping quit longer can stand bear a an the please always
    ever any so also that use using do does fan fond big huge
    """.split()
)
"""What two statements that deny each other, or say the same, need not have in common; and what is too common."""
_UNNAMED = frozenset("he she it they this that these those there".split())
"""Of whom a statement with these speaks is not known."""
_NUMBER = re.compile(r"\d+|one|two|three|four|five|six|seven|eight|nine|ten|twelve|fifteen|twenty|thirty|fifty|hundred")
_MEASURED = re.compile(
    r"(?:use|answer|reply|respond|keep|limit|write|give|round|indent|wrap|explain|summari[sz]e|be)\b", re.I
)
"""What is done to one measure: "Use 2 spaces" ends "Use 4 spaces", while one may be reminded at 5 and at 6."""

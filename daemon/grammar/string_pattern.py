"""Regular expressions as JSON Schema writes them (ECMA-262), read into a tree. Pure.

Known: literals, escapes, classes, groups, alternatives, greedy and lazy repetition, anchors, and lookaheads directly
after a leading ``^`` (``^(?!\\.)…``, as zod writes them). What is left out, and refused: back references, other
lookarounds, word boundaries, Unicode properties, inline flags.
"""

import re
from dataclasses import dataclass

from familiar.daemon.grammar import char_set
from familiar.daemon.grammar.char_set import EVERY, CharSet

MAX_NESTING = 50


class BadPattern(Exception):
    """The pattern cannot be read or used; the text says why, as the end of a sentence."""


@dataclass(frozen=True, slots=True)
class Char:
    """One character of a set."""

    chars: CharSet


@dataclass(frozen=True, slots=True)
class Chain:
    """Parts one after the other."""

    parts: "tuple[Regex, ...]"


@dataclass(frozen=True, slots=True)
class Choice:
    """Any one of the options."""

    options: "tuple[Regex, ...]"


@dataclass(frozen=True, slots=True)
class Repeat:
    """A part ``least`` to ``most`` times; None is any number."""

    part: "Regex"
    least: int
    most: int | None


@dataclass(frozen=True, slots=True)
class Anchor:
    """``^`` or ``$``."""

    at_end: bool


@dataclass(frozen=True, slots=True)
class Look:
    """A lookahead: what follows must, or must not, begin with ``part``."""

    part: "Regex"
    wanted: bool


Regex = Char | Chain | Choice | Repeat | Anchor | Look

_DIGIT = char_set.of(("0", "9"))
_WORD = char_set.of(("0", "9"), ("A", "Z"), ("a", "z"), "_")
_SPACE = char_set.of(
    "\t\n\v\f\r \xa0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff", ("\u2000", "\u200a")
)  # ECMA-262, CharacterClassEscape :: s
_DOT = char_set.negate(char_set.of("\n\r\u2028\u2029"))
_CLASSES = {"d": _DIGIT, "w": _WORD, "s": _SPACE}
_CLASSES |= {name.upper(): char_set.negate(chars) for name, chars in _CLASSES.items()}
_CONTROLS = {"t": "\t", "n": "\n", "v": "\v", "f": "\f", "r": "\r", "0": "\0"}
_HEX = re.compile(r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]{1,6})\}")
_COUNT = re.compile(r"\{(\d{1,6})(?:(,)(\d{1,6})?)?\}")
_GROUP = re.compile(r"\((?:\?:|\?P?<[A-Za-z_]\w*>)?")


def parse(pattern: str) -> Regex:
    """Return a pattern as a tree; raise BadPattern when it is no pattern or uses what cannot be followed."""
    reader = _Reader(pattern)
    tree = reader.choice(0)
    if reader.at < len(pattern):
        raise BadPattern("it has a ) without its (")
    return tree


class _Reader:
    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.at = 0

    def _next(self, text: str) -> bool:
        if self.pattern.startswith(text, self.at):
            self.at += len(text)
            return True
        return False

    def choice(self, depth: int) -> Regex:
        if depth > MAX_NESTING:
            raise BadPattern(f"its groups are nested deeper than {MAX_NESTING}")
        options = [self._chain(depth)]
        while self._next("|"):
            options.append(self._chain(depth))
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def _chain(self, depth: int) -> Regex:
        parts: list[Regex] = []
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            parts.append(self._repeated(self._part(depth)))
        return parts[0] if len(parts) == 1 else Chain(tuple(parts))

    def _part(self, depth: int) -> Regex:
        if self._next("^"):
            return Anchor(at_end=False)
        if self._next("$"):
            return Anchor(at_end=True)
        if self._next("."):
            return Char(_DOT)
        if self._next("["):
            return Char(self._class())
        if self.pattern[self.at] == "(":
            return self._group(depth)
        if self._next("\\"):
            return Char(self._escape(in_class=False))
        if self.pattern[self.at] in "*+?" or _COUNT.match(self.pattern, self.at):
            raise BadPattern("it repeats nothing")
        self.at += 1
        return Char(_single(self.pattern[self.at - 1]))

    def _group(self, depth: int) -> Regex:
        look = None
        if self._next("(?=") or self._next("(?!"):
            look = self.pattern[self.at - 1] == "="
        else:
            found = _GROUP.match(self.pattern, self.at)
            self.at = found.end() if found else self.at
            if self.pattern.startswith("?", self.at):
                raise BadPattern("a group of this kind (lookbehind, flags) cannot be followed")
        inner = self.choice(depth + 1)
        if not self._next(")"):
            raise BadPattern("it has a ( without its )")
        return inner if look is None else Look(inner, look)

    def _repeated(self, part: Regex) -> Regex:
        count = _COUNT.match(self.pattern, self.at)
        if self._next("*"):
            least, most = 0, None
        elif self._next("+"):
            least, most = 1, None
        elif self._next("?"):
            least, most = 0, 1
        elif count:
            self.at = count.end()
            least = int(count[1])
            most = int(count[3]) if count[3] else None if count[2] else least
            if most is not None and most < least:
                raise BadPattern(f"the numbers of {count[0]} are out of order")
        else:
            return part
        if isinstance(part, Anchor | Look):
            raise BadPattern("it repeats an anchor or a lookahead")
        self._next("?")  # lazy or greedy, the same texts match
        if self.pattern[self.at : self.at + 1] in ("*", "+", "?") or _COUNT.match(self.pattern, self.at):
            raise BadPattern("it repeats a repetition")
        return Repeat(part, least, most)

    def _class(self) -> CharSet:
        negated = self._next("^")
        ranges: list[tuple[int, int]] = []
        while not self._next("]"):
            low = self._class_part()
            if self.pattern.startswith("-", self.at) and not self.pattern.startswith("-]", self.at):
                self.at += 1
                high = self._class_part()
                if not _is_one(low) or not _is_one(high) or high[0][0] < low[0][0]:
                    raise BadPattern("a range in a [class] is out of order or not between characters")
                ranges += char_set.union([(low[0][0], high[0][0])])
            else:
                ranges += low
        chars = char_set.union(ranges)
        return char_set.negate(chars) if negated else chars

    def _class_part(self) -> CharSet:
        if self.at >= len(self.pattern):
            raise BadPattern("it has a [ without its ]")
        if self._next("\\"):
            return self._escape(in_class=True)
        self.at += 1
        return _single(self.pattern[self.at - 1])

    def _escape(self, *, in_class: bool) -> CharSet:
        found = _HEX.match(self.pattern, self.at)
        if found:
            self.at = found.end()
            code = int(found[1] or found[2] or found[3], 16)
            if not char_set.common(((code, code),), EVERY):
                raise BadPattern(f"\\{found[0]} is no character (write one beyond U+FFFF itself)")
            return ((code, code),)
        name = self.pattern[self.at : self.at + 1]
        self.at += 1
        if name in _CLASSES:
            return _CLASSES[name]
        if name == "b" and in_class:
            return _single("\b")
        if name in _CONTROLS and not self.pattern[self.at : self.at + 1].isdigit():
            return _single(_CONTROLS[name])
        if not name or (name.isascii() and name.isalnum()):
            raise BadPattern(f"the escape \\{name} cannot be followed")
        return _single(name)


def _single(char: str) -> CharSet:
    if not char_set.contains(EVERY, char):
        raise BadPattern("half of a surrogate pair is no character")
    return ((ord(char), ord(char)),)


def _is_one(chars: CharSet) -> bool:
    return len(chars) == 1 and chars[0][0] == chars[0][1]

"""llama.cpp's grammar notation (GBNF) as data: rules are built, checked and only then written as text.

llama.cpp prints a grammar that it cannot read to standard error, and loops or dies on some that it can (a rule that
begins with itself, a rule that never ends). So nothing reaches it that has not passed ``Grammar.text``: every rule is
defined and can end, none begins with itself, and the whole is of bounded size. Repetitions are written out as rules of
our own, since the ``{m,n}`` of llama.cpp quietly drops an upper bound above a limit (``src/llama-grammar.cpp``,
``MAX_REPETITION_THRESHOLD``). What is left out: token rules and comments.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from familiar.daemon.grammar.char_set import CharSet

MAX_SYMBOLS = 100_000
"""Most symbols in one grammar: about 2 MB of text, which llama.cpp reads in a fraction of a second."""


@dataclass(frozen=True, slots=True)
class Text:
    """Exactly this text."""

    text: str


@dataclass(frozen=True, slots=True)
class Chars:
    """One character of a set."""

    chars: CharSet


@dataclass(frozen=True, slots=True)
class Rule:
    """Whatever a rule of this name allows."""

    name: str


Symbol = Text | Chars | Rule
Alternative = tuple[Symbol, ...]
EMPTY: Alternative = ()


class TooLarge(Exception):
    """The grammar would have more than ``MAX_SYMBOLS`` symbols."""


class NeverEnds(Exception):
    """Nothing finite fits the root rule."""


class Grammar:
    """Rules in the making. ``declare`` names a rule that ``define`` fills in later, for recursion."""

    def __init__(self) -> None:
        self._rules: dict[str, tuple[Alternative, ...]] = {}
        self._declared = 0
        self._same: dict[tuple[str, tuple[Alternative, ...]], Rule] = {}
        self._endless: dict[Alternative, Rule] = {}
        self._symbols = 0

    def declare(self, hint: str) -> Rule:
        """Return a new rule with a name made from ``hint``."""
        self._declared += 1
        return Rule(f"{re.sub('[^a-z]+', '-', hint.lower()).strip('-')[:24] or 'rule'}-{self._declared}")

    def define(self, rule: Rule, alternatives: Iterable[Alternative]) -> Rule:
        """Say what a declared rule allows; raise TooLarge when the grammar outgrows its limit."""
        self._rules[rule.name] = tuple(alternatives)
        self.spend(sum(len(alternative) + 1 for alternative in self._rules[rule.name]))
        return rule

    def spend(self, symbols: int) -> None:
        """Count symbols, or work of that order, towards the limit; raise TooLarge when it is reached."""
        self._symbols += symbols
        if self._symbols > MAX_SYMBOLS:
            raise TooLarge

    def rule(self, hint: str, alternatives: Iterable[Alternative]) -> Rule:
        """Return a rule that allows any of ``alternatives``; asked again for the same, return the same."""
        wanted = tuple(alternatives)
        if (hint, wanted) not in self._same:
            self._same[hint, wanted] = self.define(self.declare(hint), wanted)
        return self._same[hint, wanted]

    def repeat(
        self, hint: str, item: Alternative, least: int, most: int | None, *, nested: bool = False
    ) -> Alternative:
        """Return ``item`` from ``least`` to ``most`` times (None: any number).

        Counting takes rules in the order of the square root of the count: whole blocks, then the rest one by one. That
        keeps two ways open, which would double at every level where items lie in items: not so where ``nested``.
        """
        if most is None:
            if item not in self._endless:
                self._endless[item] = again = self.declare(hint)
                self.define(again, [(*item, again), EMPTY])
            return (*self._exactly(hint, item, least), self._endless[item])
        at_most = self._up_to if nested else self._at_most
        return (*self._exactly(hint, item, least), *at_most(hint, item, most - least))

    def _exactly(self, hint: str, item: Alternative, count: int) -> Alternative:
        if count <= 8:
            return item * count
        size = math.isqrt(count)
        block = self.rule(f"{hint}-x", [item * size])
        return (block,) * (count // size) + item * (count % size)

    def _at_most(self, hint: str, item: Alternative, count: int) -> Alternative:
        """Return fewer items than a block has, or a block and at most what is then left: two live paths at most."""
        if count <= 64:
            return self._up_to(hint, item, count)
        size = math.isqrt(count)
        few = self._up_to(hint, item, size - 1)
        block = self._exactly(hint, item, size)
        rest = self._up_to(hint, item, count % size)
        for _ in range(count // size):
            rest = (self.rule(f"{hint}-b", [few, (*block, *rest)]),)
        return rest

    def _up_to(self, hint: str, item: Alternative, count: int) -> Alternative:
        rest: Alternative = EMPTY
        for _ in range(count):
            rest = (self.rule(f"{hint}-u", [(*item, *rest), EMPTY]),)
        return rest

    def text(self, root: Rule) -> str:
        """Return the grammar as GBNF whose root rule is called ``root``, without what it has no use for.

        Raises NeverEnds when no finite text fits, and RecursionError when a rule begins with itself.
        """
        ending = self._rules_that_end()
        if root.name not in ending:
            raise NeverEnds
        kept = {
            name: [each for each in alternatives if all(not isinstance(s, Rule) or s.name in ending for s in each)]
            for name, alternatives in self._rules.items()
            if name in ending
        }
        self._check_no_rule_begins_with_itself(kept)
        reached = [root.name]
        seen = set(reached)
        for name in reached:
            for symbol in (symbol for each in kept[name] for symbol in each):
                if isinstance(symbol, Rule) and symbol.name not in seen:
                    seen.add(symbol.name)
                    reached.append(symbol.name)
        lines = [f"{name} ::= {' | '.join(map(_write, kept[name]))}" for name in reached]
        return "\n".join([f"root ::= {root.name}", *lines]) + "\n"

    def _rules_that_end(self) -> set[str]:
        return self._closed(lambda symbol, found: not isinstance(symbol, Rule) or symbol.name in found)

    def _closed(self, fits: Callable[[Symbol, set[str]], bool]) -> set[str]:
        """Return the rules with an alternative all of whose symbols fit, given the rules found so far; to the end."""
        users: dict[str, list[str]] = {name: [] for name in self._rules}
        for name, alternatives in self._rules.items():
            for symbol in (symbol for each in alternatives for symbol in each):
                if isinstance(symbol, Rule):
                    users[symbol.name].append(name)
        found: set[str] = set()
        todo = list(self._rules)
        while todo:
            name = todo.pop()
            if name in found:
                continue
            if any(all(fits(symbol, found) for symbol in each) for each in self._rules[name]):
                found.add(name)
                todo += users[name]
        return found

    def _check_no_rule_begins_with_itself(self, rules: dict[str, list[Alternative]]) -> None:
        nullable = self._closed(
            lambda symbol, found: (
                symbol.name in found if isinstance(symbol, Rule) else isinstance(symbol, Text) and not symbol.text
            )
        )

        def starts(name: str) -> list[str]:
            found = []
            for each in rules[name]:
                for symbol in each:
                    if isinstance(symbol, Rule):
                        found.append(symbol.name)
                    if not isinstance(symbol, Rule) or symbol.name not in nullable:
                        break
            return found

        done: set[str] = set()
        for first in rules:
            path, ways = [first], [iter(starts(first))]
            open_rules = {first}
            while path and first not in done:
                follow = next(ways[-1], None)
                if follow is None:
                    ways.pop()
                    open_rules.discard(path[-1])
                    done.add(path.pop())
                elif follow in open_rules:
                    raise RecursionError(follow)
                elif follow not in done:
                    path.append(follow)
                    open_rules.add(follow)
                    ways.append(iter(starts(follow)))


def one_of(grammar: Grammar, hint: str, texts: Iterable[str]) -> Alternative:
    """Return a choice between texts, shared beginnings first: one live path however many texts there are."""

    def branch(group: Sequence[str], at: int) -> Alternative:
        start = at
        while len(group) > 1 and group[0][at : at + 1] and group[0][at] == group[-1][at : at + 1]:
            at += 1  # the group is sorted: what its first and last share, all share
        if len(group) == 1:
            at = len(group[0])
        head = (Text(group[0][start:at]),) if at > start else EMPTY
        if len(group) == 1:
            return head
        branches: list[Alternative] = []
        rest = list(group)
        if len(rest[0]) == at:
            branches.append(EMPTY)
            rest = rest[1:]
        while rest:
            same = [text for text in rest if text[at] == rest[0][at]]
            branches.append(branch(same, at))
            rest = rest[len(same) :]
        return (*head, grammar.rule(hint, branches))

    return branch(sorted(set(texts)), 0)


def _write(alternative: Alternative) -> str:
    # An empty alternative is written out: llama.cpp reads on into the next line after a bar.
    return " ".join(map(_write_symbol, alternative)) or '""'


def _write_symbol(symbol: Symbol) -> str:
    match symbol:
        case Rule(name):
            return name
        case Text(text):
            return '"' + "".join(map(_write_char, text)) + '"'
        case Chars(chars):
            ranges = (_write_char(chr(a)) + (f"-{_write_char(chr(b))}" if b > a else "") for a, b in chars)
            return "[" + "".join(ranges) + "]"


def _write_char(char: str) -> str:
    """Return a character in printable ASCII; a hyphen, brackets and a caret mean something between brackets."""
    code = ord(char)
    if 0x20 <= code < 0x7F and char not in '"\\[]-^':
        return char
    if code <= 0xFF:
        return f"\\x{code:02X}"
    return f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"

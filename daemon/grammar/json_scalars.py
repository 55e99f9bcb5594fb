"""JSON texts and numbers to grammar rules. Pure.

A text without a pattern or format may be spelled in every way that JSON has. One that follows an automaton, and the
name of a property, is spelled plainly: an escape only where JSON needs one, so that no name hides behind another
spelling.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

from familiar.daemon.grammar import char_set
from familiar.daemon.grammar.automaton import Both, Counter, Machine, Table, TableMachine, explore, words
from familiar.daemon.grammar.char_set import EVERY, CharSet
from familiar.daemon.grammar.gbnf import EMPTY, Alternative, Chars, Grammar, Rule, Text, one_of
from familiar.daemon.grammar.json_nodes import Number, String
from familiar.daemon.grammar.number_range import FRACTION_DIGITS, MAX_DIGITS, NumberMachine
from familiar.daemon.grammar.pattern_automaton import compile_pattern

QUOTE = Text('"')
_SPECIAL = char_set.of('"\\', ("\0", "\x1f"))
_PLAIN = char_set.common(EVERY, char_set.negate(_SPECIAL))
_SHORT = {'"': '"', "\\": "\\", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}
_HEX = Chars(char_set.of(("0", "9"), ("a", "f"), ("A", "F")))
_DIGIT = Chars(char_set.of(("0", "9")))


def json_text(value: Any) -> str:
    """Return a value as JSON on one line, with every character that needs no escape as itself."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


class Scalars:
    """Adds rules for texts and numbers to a grammar; one rule per kind that is the same."""

    def __init__(self, grammar: Grammar) -> None:
        self._grammar = grammar
        self._strings: dict[String, Alternative | None] = {}
        self._numbers: dict[Number, Alternative | None] = {}

    def literals(self, values: Sequence[Any]) -> Alternative:
        """Return a choice between JSON values."""
        return one_of(self._grammar, "literal", map(json_text, values))

    def string(self, node: String) -> Alternative | None:
        """Return a text within its limits, None when there is none.

        Raises TooManyStates when the limits are too much to follow.
        """
        if node not in self._strings:
            self._strings[node] = self.table_string(string_table(node)) if node.patterns else self.free_string(node)
        return self._strings[node]

    def free_string(self, node: String) -> Alternative:
        """Return a text whose length alone is limited, in any spelling."""
        characters = self._grammar.repeat("chars", (self._character(),), node.least, node.most)
        return (self._grammar.rule("string", [(QUOTE, *characters, QUOTE)]),)

    def table_string(self, table: Table) -> Alternative | None:
        """Return the words of an automaton as JSON texts, None when it has none."""
        text = self._follow("text", table, self._spelled, (QUOTE,))
        return text and (QUOTE, *text)

    def number(self, node: Number) -> Alternative | None:
        """Return a number within its limits, None when there is none that can be written."""
        if node not in self._numbers:
            if node.low or node.high or node.multiple > 1:
                table = explore(NumberMachine(node.low, node.high, whole=node.whole, multiple=node.multiple))
                self._numbers[node] = self._follow("number", table, lambda chars: (Chars(chars),), EMPTY)
            else:
                self._numbers[node] = (self._integer() if node.whole else self.free_number(),)
        return self._numbers[node]

    def _integer(self) -> Rule:
        return self._grammar.rule("integer", [(Text("0"),), (self._minus(), *self._without_leading_zeros())])

    def free_number(self) -> Rule:
        """Return any number that a double can hold."""
        rule, repeat = self._grammar.rule, self._grammar.repeat
        whole = rule("whole", [(Text("0"),), self._without_leading_zeros()])
        fraction = rule("fraction", [EMPTY, (Text("."), *repeat("digits", (_DIGIT,), 1, FRACTION_DIGITS))])
        sign = rule("sign", [EMPTY, (Chars(char_set.of("+-")),)])
        power = (Chars(char_set.of("eE")), sign, *repeat("digits", (_DIGIT,), 1, 2))
        return rule("number", [(self._minus(), whole, fraction, rule("exponent", [EMPTY, power]))])

    def _minus(self) -> Rule:
        return self._grammar.rule("minus", [EMPTY, (Text("-"),)])

    def _without_leading_zeros(self) -> Alternative:
        more = self._grammar.repeat("digits", (_DIGIT,), 0, MAX_DIGITS - 1)
        return (Chars(char_set.of(("1", "9"))), *more)

    def _character(self) -> Rule:
        """Return one character of a text in any spelling; two escapes together where UTF-16 needs a pair."""
        rule = self._grammar.rule
        d, other = Chars(char_set.of("dD")), Chars(char_set.of(("0", "9"), "abcefABCEF"))
        low, high = Chars(char_set.of("cdefCDEF")), Chars(char_set.of("89abAB"))
        pair = (d, high, _HEX, _HEX, Text("\\u"), d, low, _HEX, _HEX)
        below = (d, Chars(char_set.of(("0", "7"))), _HEX, _HEX)
        unicode = rule("unicode", [(other, _HEX, _HEX, _HEX), below, pair])
        escape = rule("escape", [(Chars(char_set.of('"\\/bfnrt')),), (Text("u"), unicode)])
        return rule("char", [(Chars(_PLAIN),), (Text("\\"), escape)])

    def _spelled(self, chars: CharSet) -> Alternative:
        """Return a character of a set, escaped only where JSON needs it."""
        plain, special = char_set.common(chars, _PLAIN), char_set.common(chars, _SPECIAL)
        if not special:
            return (Chars(plain),)
        found = [chr(code) for low, high in special for code in range(low, high + 1)]
        options: list[Alternative] = [(Chars(plain),)] if plain else []
        if short := "".join(_SHORT[char] for char in found if char in _SHORT):
            options.append((Text("\\"), Chars(char_set.of(short))))
        for high in (0, 1):
            if low := "".join(
                f"{ord(char) % 16:x}" for char in found if char not in _SHORT and ord(char) // 16 == high
            ):
                options.append((Text(f"\\u00{high}"), Chars(char_set.of(low))))
        return (self._grammar.rule("spelled", options),)

    def _follow(
        self, hint: str, table: Table, spell: Callable[[CharSet], Alternative], end: Alternative
    ) -> Alternative | None:
        """Return an automaton's words, a rule per state, each followed by ``end``; None when it has none."""
        self._grammar.spend(table.visited)
        if not table.moves:
            return None
        rules = [self._grammar.declare(hint) for _ in table.moves]
        for rule, moves, is_end in zip(rules, table.moves, table.ends, strict=True):
            ways: list[Alternative] = []
            for chars, to in moves:
                follow = (rules[to],) if table.moves[to] else end  # the last state needs no rule
                ways.append((*spell(chars), *follow))
            self._grammar.define(rule, [*ways, end] if is_end else ways)
        return (rules[0],)


def string_table(node: String | None, without: Sequence[str] = ()) -> Table:
    """Return the texts that fit a node (None: all) and are none of ``without``."""
    node = node or String()
    machines: list[Machine[Any]] = [TableMachine(compile_pattern(pattern)) for pattern in sorted(node.patterns)]
    table = explore(Both(machines)) if len(machines) > 1 else compile_pattern(*node.patterns) if machines else None
    if table is None:
        machines = [Counter(node.least, node.most)]
    else:
        # Counting multiplies the states: it is left out where the pattern keeps within the lengths by itself.
        longest = table.longest() if table.moves else 0
        fits = table.moves and table.shortest() >= node.least
        fits = fits and (node.most is None or (longest is not None and longest <= node.most))
        machines = [TableMachine(table)] if fits else [TableMachine(table), Counter(node.least, node.most)]
    return explore(Both(machines, [TableMachine(words(without))] if without else []))

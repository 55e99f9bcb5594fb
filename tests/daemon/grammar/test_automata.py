"""What grammars are made from: patterns against Python's re, number ranges against arithmetic, rules by counting."""

import re
from collections.abc import Callable
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from familiar.daemon.grammar import char_set
from familiar.daemon.grammar.automaton import Both, Counter, Table, TableMachine, TooManyStates, explore, words
from familiar.daemon.grammar.gbnf import EMPTY, Alternative, Grammar, NeverEnds, Rule, Text, TooLarge, one_of
from familiar.daemon.grammar.number_range import Bound, NumberMachine
from familiar.daemon.grammar.pattern_automaton import compile_pattern
from familiar.daemon.grammar.string_pattern import BadPattern

Accepts = Callable[[str, str], bool]

ATOMS = st.sampled_from(
    ["a", "b", "-", ".", "[ab]", "[^a]", "[a-c-]", "\\d", "\\w", "\\S", "\\.", "\\x61", "\\u0062", "é"]
)
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner, max_size=3).map("".join)
        | st.tuples(inner, inner).map("|".join)
        | st.tuples(
            inner.map("(?:{})".format), st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "{2,}", "*?", "{0,1}?"])
        ).map("".join)
        | inner.map("({})".format)
    ),
    max_leaves=6,
)
HELD = st.tuples(st.sampled_from(["", "^", "^(?!b)", "^(?=.*a)"]), PATTERNS, st.sampled_from(["", "$"]))


@given(parts=HELD, text=st.text(st.sampled_from("abc-.1é _"), max_size=6))
def test_patterns_match_what_pythons_do(parts: tuple[str, str, str], text: str) -> None:
    start, middle, end = parts
    pattern = f"{start}(?:{middle}){end}"
    assert compile_pattern(pattern).accepts(text) == bool(re.search(pattern, text, re.ASCII))


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("^a|b$", ["ax", "xb"], ["xax"]),
        ("^$", [""], ["a"]),
        ("", ["", "x"], []),
        ("^{x}$", ["{x}"], ["x"]),
        ("^[]$", [], ["", "a"]),
        ("^[^]$", ["a", "\n"], [""]),
        ("^[^\\]\\-a]+$", ["bcé😀"], ["a", "]", "-"]),
        ("^\\u{1F600}$", ["😀"], ["x"]),
        ("^.$", ["x", "😀"], ["\n", "\r", "\u2028", ""]),
        ("^(?=.*\\d)(?=.*[a-z]).{4,6}$", ["a123", "12345z"], ["abcd", "1234", "a12", "a123456"]),
        ("^(a*)*$", ["", "aaa"], ["b"]),
        ("^(?<y>\\d{4})-(?P<m>\\d\\d)$", ["2024-12"], ["2024-1"]),
        ("^\\$\\d+\\.\\d{2}$", ["$3.20"], ["3.20", "$3.2"]),
    ],
)
def test_patterns_are_read_as_ecma_262_has_them(pattern: str, good: list[str], bad: list[str]) -> None:
    table = compile_pattern(pattern)
    assert all(map(table.accepts, good))
    assert not any(map(table.accepts, bad))


@pytest.mark.parametrize(
    "pattern",
    [
        *("(", ")", "a)", "[", "[a", "[b-a]", "[\\d-z]", "\\", "(" * 60 + ")" * 60),
        *("*", "a**", "a{2}{3}", "^*", "a{3,2}", "(?=x)*"),
        *("(?i)a", "(?<!a)b", "(?>a)", "x(?=y)", "\\1", "\\k<a>", "\\b", "\\cA", "\\ud83d"),
    ],
)
def test_what_is_no_pattern_or_cannot_be_followed_is_refused(pattern: str) -> None:
    with pytest.raises(BadPattern):
        compile_pattern(pattern)


@pytest.mark.parametrize("pattern", ["(a|b)*a(a|b){20}", "^x{1,99999}$", "(((a{99}){99}){99}){99}"])
def test_a_pattern_that_explodes_is_stopped(pattern: str) -> None:
    with pytest.raises(TooManyStates):
        compile_pattern(pattern)


def test_tables_know_the_lengths_of_their_words() -> None:
    for pattern, shortest, longest in (("^a{2,5}$", 2, 5), ("^(a|bcd)$", 1, 3), ("^a+b?$", 1, None), ("^$", 0, 0)):
        table = compile_pattern(pattern)
        assert (table.shortest(), table.longest()) == (shortest, longest)


@given(listed=st.lists(st.text("ab", max_size=4), max_size=6), least=st.integers(0, 3), text=st.text("abc", max_size=5))
def test_words_and_counts_combine(listed: list[str], least: int, text: str) -> None:
    machine = TableMachine(words(listed))
    assert explore(Both([machine, Counter(least, 3)])).accepts(text) == (text in listed and least <= len(text) <= 3)
    assert explore(Both([Counter(least, None)], [machine])).accepts(text) == (text not in listed and least <= len(text))


@given(a=st.text(max_size=5), b=st.text(max_size=5), char=st.characters(exclude_categories=["Cs"]))
def test_character_sets_are_sets(a: str, b: str, char: str) -> None:
    one, two = char_set.of(a), char_set.of(b)
    assert char_set.contains(char_set.union([*one, *two]), char) == (char in a or char in b)
    assert char_set.contains(char_set.common(one, two), char) == (char in a and char in b)
    assert char_set.contains(char_set.negate(one), char) == (char not in a)
    assert char_set.negate(char_set.negate(one)) == one


def _bounds(places: int) -> st.SearchStrategy[Bound | None]:
    value = st.integers(-2500, 2500) | st.integers(-12, 12)
    return st.none() | st.builds(Bound, value.map(lambda n: Decimal(n).scaleb(-places)), st.booleans())


def _within(value: Decimal, low: Bound | None, high: Bound | None) -> bool:
    above = low is None or value > low.value or (value == low.value and not low.open)
    return above and (high is None or value < high.value or (value == high.value and not high.open))


def _table(low: Bound | None, high: Bound | None, *, whole: bool, multiple: int = 1) -> Table:
    return explore(NumberMachine(low, high, whole=whole, multiple=multiple))


@given(low=_bounds(0), high=_bounds(0), multiple=st.sampled_from([1, 1, 2, 7, 10]), data=st.data())
def test_whole_numbers_within_bounds(low: Bound | None, high: Bound | None, multiple: int, data: st.DataObject) -> None:
    table = _table(low, high, whole=True, multiple=multiple)
    near = [int(bound.value) + step for bound in (low, high) if bound for step in (-1, 0, 1)]
    for value in [*near, *data.draw(st.lists(st.integers(-3000, 3000), min_size=20, max_size=20))]:
        assert table.accepts(str(value)) == (_within(Decimal(value), low, high) and value % multiple == 0), value
    assert not any(map(table.accepts, ["", "-", "-0", "01", "1.0", "1e1", "+1"]))


@given(low=_bounds(2), high=_bounds(2), data=st.data())
def test_decimal_numbers_within_bounds(low: Bound | None, high: Bound | None, data: st.DataObject) -> None:
    table = _table(low, high, whole=False)
    steps = [Decimal(step) for step in ("-0.0001", "0", "0.00000001", "0.1")]
    drawn = data.draw(st.lists(st.decimals(-30, 30, places=3), min_size=20, max_size=20))
    for value in [*(bound.value + step for bound in (low, high) if bound for step in steps), *drawn]:
        if value or not value.is_signed():
            text = f"{value:f}"
            assert table.accepts(text) == _within(value, low, high), text
            assert table.accepts(text + ("0" if "." in text else ".0")) == _within(value, low, high), text
    assert not any(map(table.accepts, ["", "-", "-0", "-0.0", "01.5", ".5", "1.", "1e1"]))


def test_numbers_have_a_length() -> None:
    assert _table(None, None, whole=True).longest() == 21
    assert _table(Bound(Decimal("1e-30")), None, whole=False).accepts("0." + "0" * 29 + "1")


@given(least=st.integers(0, 40), more=st.integers(0, 300), count=st.integers(0, 350), endless=st.booleans())
def test_repetitions_are_counted(accepts: Accepts, least: int, more: int, count: int, endless: bool) -> None:
    grammar = Grammar()
    item: Alternative = (Text("ab"),)
    root = grammar.rule("r", [grammar.repeat("i", item, least, None if endless else least + more)])
    assert accepts(grammar.text(root), "ab" * count) == (least <= count and (endless or count <= least + more))


@given(texts=st.lists(st.text('abé\n"\\', max_size=4), min_size=1, max_size=8), text=st.text('abé\n"\\', max_size=4))
def test_a_choice_of_texts_is_just_these(accepts: Accepts, texts: list[str], text: str) -> None:
    grammar = Grammar()
    gbnf = grammar.text(grammar.rule("r", [one_of(grammar, "o", texts)]))
    assert accepts(gbnf, text) == (text in texts)
    assert all(accepts(gbnf, each) for each in texts)


def test_every_character_is_written_so_that_llama_cpp_reads_it(accepts: Accepts) -> None:
    odd = "".join(map(chr, range(1, 256))) + '\u2028\ufffd😀\U0010fffe]^-\\"[\n'
    grammar = Grammar()
    assert accepts(grammar.text(grammar.rule("r", [(Text(odd),)])), odd)


def _rules(**rules: list[Alternative]) -> str:
    grammar = Grammar()
    declared = {name: grammar.declare(name) for name in rules}
    for name, alternatives in rules.items():
        swapped = [tuple(declared[s.name] if isinstance(s, Rule) else s for s in each) for each in alternatives]
        grammar.define(declared[name], swapped)
    return grammar.text(declared["root"])


def test_what_would_stop_or_loop_llama_cpp_never_reaches_it(accepts: Accepts) -> None:
    a, b, root, x = Rule("a"), Rule("b"), Rule("root"), Text("x")
    with pytest.raises(NeverEnds):
        _rules(root=[(x, root)])
    with pytest.raises(NeverEnds):
        _rules(root=[(a,)], a=[])
    with pytest.raises(RecursionError):
        _rules(root=[(root, x), (x,)])
    with pytest.raises(RecursionError):  # llama.cpp sees no way for a to be empty here, and never returns
        _rules(root=[(a, root, x), (x,)], a=[(b,)], b=[EMPTY, (x, b)])
    assert accepts(_rules(root=[(x, a), (x, root)], a=[EMPTY], b=[(b,)]), "xx")  # what never ends is left out
    with pytest.raises(TooLarge):
        _rules(root=[(x,)] * 60_000)

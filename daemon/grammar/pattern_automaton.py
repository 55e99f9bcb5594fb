"""A regular expression's tree to the automaton of the texts that it matches. Pure.

Thompson's construction, then sets of its states (Hopcroft et al., *Introduction to Automata Theory*, §2.3 and §3.2).
As in JSON Schema a pattern may match anywhere in the text unless its anchors hold it.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache

from familiar.daemon.grammar import char_set
from familiar.daemon.grammar.automaton import Both, Machine, Table, TooManyStates, explore
from familiar.daemon.grammar.char_set import EVERY, CharSet
from familiar.daemon.grammar.string_pattern import Anchor, BadPattern, Chain, Char, Choice, Look, Regex, Repeat, parse

MAX_NFA_STATES = 20_000
MAX_WORK = 1_000_000
"""Most states of the first automaton looked at while the second is made: a second or two."""

NfaState = frozenset[int]


@lru_cache(maxsize=64)
def compile_pattern(pattern: str) -> Table:
    """Return the texts that match a pattern.

    Raises BadPattern when the pattern is none or cannot be followed, and TooManyStates when it is too large.
    """
    tree = parse(pattern)
    parts = tree.parts if isinstance(tree, Chain) else (tree,)
    looks = []
    if parts and parts[0] == Anchor(at_end=False):
        rest = parts[1:]
        while rest and isinstance(rest[0], Look):
            looks.append(rest[0])
            rest = rest[1:]
        tree = Chain((parts[0], *rest))
    machines: dict[bool, list[Machine[NfaState]]] = {True: [_Nfa(tree)], False: []}
    for look in looks:
        machines[look.wanted].append(_Nfa(Chain((Anchor(at_end=False), look.part))))
    if not looks:
        return explore(machines[True][0])
    return explore(Both(machines[True], machines[False]))


class _Nfa:
    """A tree as a machine whose states are sets of Thompson's states."""

    def __init__(self, tree: Regex) -> None:
        self._free: list[list[int]] = []  # where each state leads without a character
        self._at_end: list[list[int]] = []  # … and where it leads if the text ends here
        self._by_char: list[tuple[CharSet, int] | None] = []
        self._first: dict[int, list[int]] = {}  # … and where it leads if the text begins here
        self._work = 0
        start, self._final = self._state(), self._state()
        inner = start
        if not _held(tree, at_end=False):
            inner = self._state()
            self._free[start].append(inner)
            self._by_char[start] = (EVERY, start)
        end = self._add(tree, inner)
        self._free[end].append(self._final)
        if not _held(tree, at_end=True):
            self._by_char[self._final] = (EVERY, self._final)
        self.start: NfaState = self._closure([start], first=True)

    def _state(self) -> int:
        if len(self._free) == MAX_NFA_STATES:
            raise TooManyStates
        self._free.append([])
        self._at_end.append([])
        self._by_char.append(None)
        return len(self._free) - 1

    def _add(self, tree: Regex, start: int) -> int:
        """Lay a tree from a state on; return the state that it ends in."""
        match tree:
            case Char(chars):
                end = self._state()
                middle = self._state()  # a state has one way by character: this one is the character's own
                self._free[start].append(middle)
                self._by_char[middle] = (chars, end)
                return end
            case Chain(parts):
                for part in parts:
                    start = self._add(part, start)
                return start
            case Choice(options):
                end = self._state()
                for option in options:
                    self._free[self._add(option, self._fork(start))].append(end)
                return end
            case Repeat(part, least, most):
                return self._repeat(part, least, most, start)
            case Anchor(at_end):
                end = self._state()
                (self._at_end[start] if at_end else self._first.setdefault(start, [])).append(end)
                return end
            case Look():
                raise BadPattern("a lookahead can only be followed directly after a leading ^")

    def _fork(self, start: int) -> int:
        state = self._state()
        self._free[start].append(state)
        return state

    def _repeat(self, part: Regex, least: int, most: int | None, start: int) -> int:
        for _ in range(least):
            start = self._add(part, self._fork(start))
        end = self._state()
        if most is None:
            again = self._fork(start)
            self._free[self._add(part, self._fork(again))].append(again)
            self._free[again].append(end)
            return end
        for _ in range(most - least):
            self._free[start].append(end)
            start = self._add(part, self._fork(start))
        self._free[start].append(end)
        return end

    def _closure(self, states: Iterable[int], *, first: bool = False, last: bool = False) -> NfaState:
        seen = set(states)
        todo = list(seen)
        while todo:
            state = todo.pop()
            ways = list(self._free[state])
            if first:
                ways += self._first.get(state, ())
            if last:
                ways += self._at_end[state]
            for to in ways:
                if to not in seen:
                    seen.add(to)
                    todo.append(to)
        self._work += len(seen)
        if self._work > MAX_WORK:
            raise TooManyStates
        if last:
            return frozenset(seen)
        return frozenset(s for s in seen if self._by_char[s] or self._at_end[s] or s == self._final)

    def moves(self, state: NfaState) -> Sequence[tuple[CharSet, NfaState]]:
        ways = [way for s in state if (way := self._by_char[s])]
        edges: dict[int, list[tuple[int, int]]] = {}  # at a code point, which targets begin (+1) and end (-1)
        for chars, to in ways:
            for low, high in chars:
                edges.setdefault(low, []).append((to, 1))
                edges.setdefault(high + 1, []).append((to, -1))
        cells: dict[frozenset[int], list[tuple[int, int]]] = {}
        active: dict[int, int] = {}
        points = sorted(edges)
        for point, after in zip(points, [*points[1:], 0], strict=False):  # after the last edge nothing is live
            for to, step in edges[point]:
                active[to] = active.get(to, 0) + step
            live = frozenset(to for to, count in active.items() if count)
            if live:
                cells.setdefault(live, []).append((point, after - 1))
        return [(char_set.union(ranges), self._closure(live)) for live, ranges in cells.items()]

    def accepts(self, state: NfaState) -> bool:
        return self._final in self._closure(state, last=True)


def _held(tree: Regex, *, at_end: bool) -> bool:
    """Say whether every way through a tree begins (or ends) with its anchor: no text can come before (after) it."""
    match tree:
        case Anchor():
            return tree.at_end == at_end
        case Chain(parts):
            return bool(parts) and _held(parts[-1 if at_end else 0], at_end=at_end)
        case Choice(options):
            return all(_held(option, at_end=at_end) for option in options)
        case _:
            return False

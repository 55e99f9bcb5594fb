"""Finite automata over characters, explored state by state: products, complements, and how long their words can be.

A ``Machine`` is given by its start, its moves and its ends; ``explore`` turns it into a table of the states that lie
on some way from the start to an end. Pure.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from familiar.daemon.grammar import char_set
from familiar.daemon.grammar.char_set import CharSet

State = TypeVar("State", bound=Hashable)

MAX_STATES = 8_000


class TooManyStates(Exception):
    """The automaton has more states than ``MAX_STATES``."""


class Machine(Protocol[State]):
    """A deterministic automaton; a character in none of a state's moves leads nowhere."""

    @property
    def start(self) -> State:
        """The first state."""

    def moves(self, state: State) -> Sequence[tuple[CharSet, State]]:
        """Return where each character leads; no character is in two of the sets."""

    def accepts(self, state: State) -> bool:
        """Say whether a word may end here."""


@dataclass(frozen=True)
class Table:
    """An automaton written out: state 0 is the start, and every state leads to an end. No states: no words.

    ``visited`` is how many states there were before those that lead nowhere were left out: what it cost.
    """

    moves: tuple[tuple[tuple[CharSet, int], ...], ...]
    ends: tuple[bool, ...]
    visited: int = 0

    def accepts(self, word: str) -> bool:
        """Say whether ``word`` is one of its words."""
        state = 0 if self.moves else None
        for char in word:
            if state is None:
                return False
            state = next((to for chars, to in self.moves[state] if char_set.contains(chars, char)), None)
        return state is not None and self.ends[state]

    def shortest(self) -> int:
        """Return the length of the shortest word; there must be one."""
        depth, layer, seen = 0, {0}, {0}
        while not any(self.ends[state] for state in layer):
            layer = {to for state in layer for _, to in self.moves[state]} - seen
            seen |= layer
            depth += 1
        return depth

    def longest(self) -> int | None:
        """Return the length of the longest word, None when there is no longest; there must be a word."""
        waiting = [0] * len(self.moves)
        for moves in self.moves:
            for _, to in moves:
                waiting[to] += 1
        depth, ready, done = [0] * len(self.moves), [0] if not waiting[0] else [], 0
        while ready:
            state = ready.pop()
            done += 1
            for _, to in self.moves[state]:
                depth[to] = max(depth[to], depth[state] + 1)
                waiting[to] -= 1
                if not waiting[to]:
                    ready.append(to)
        return max(depth) if done == len(self.moves) else None


def explore(machine: Machine[State]) -> Table:
    """Return the machine as a table; raise TooManyStates when it is too large."""
    number = {machine.start: 0}
    states = [machine.start]
    moves: list[list[tuple[CharSet, int]]] = []
    for state in states:
        by_target: dict[int, list[tuple[int, int]]] = {}
        for chars, to in machine.moves(state):
            if to not in number:
                if len(states) == MAX_STATES:
                    raise TooManyStates
                number[to] = len(states)
                states.append(to)
            by_target.setdefault(number[to], []).extend(chars)
        moves.append([(char_set.union(chars), to) for to, chars in by_target.items()])
    ends = [machine.accepts(state) for state in states]
    return _trim(moves, ends)


def _trim(moves: list[list[tuple[CharSet, int]]], ends: list[bool]) -> Table:
    """Leave out the states from which no end can be reached."""
    sources: list[list[int]] = [[] for _ in moves]
    for state, ways in enumerate(moves):
        for _, to in ways:
            sources[to].append(state)
    useful = {state for state, end in enumerate(ends) if end}
    todo = list(useful)
    while todo:
        for source in sources[todo.pop()]:
            if source not in useful:
                useful.add(source)
                todo.append(source)
    if 0 not in useful:
        return Table((), (), len(moves))
    kept = sorted(useful)
    number = {state: index for index, state in enumerate(kept)}
    return Table(
        tuple(tuple((chars, number[to]) for chars, to in moves[state] if to in number) for state in kept),
        tuple(ends[state] for state in kept),
        len(moves),
    )


@dataclass(frozen=True)
class TableMachine:
    """A table as a machine, to combine it with others."""

    table: Table
    start: int = 0

    def moves(self, state: int) -> Sequence[tuple[CharSet, int]]:
        return self.table.moves[state] if self.table.moves else ()

    def accepts(self, state: int) -> bool:
        return bool(self.table.ends) and self.table.ends[state]


@dataclass(frozen=True)
class Counter:
    """Words of ``least`` to ``most`` characters; counting stops where it no longer matters."""

    least: int
    most: int | None
    start: int = 0

    def moves(self, state: int) -> Sequence[tuple[CharSet, int]]:
        if self.most is None:
            return ((char_set.EVERY, min(state + 1, self.least)),)
        return ((char_set.EVERY, state + 1),) if state < self.most else ()

    def accepts(self, state: int) -> bool:
        return state >= self.least


class Both:
    """Words of every machine in ``wanted`` and of none in ``unwanted``."""

    def __init__(self, wanted: Sequence[Machine[Any]], unwanted: Sequence[Machine[Any]] = ()) -> None:
        self._machines = [*wanted, *unwanted]
        self._wanted = len(wanted)
        self.start: tuple[Hashable, ...] = tuple(machine.start for machine in self._machines)

    def moves(self, state: tuple[Hashable, ...]) -> Sequence[tuple[CharSet, tuple[Hashable, ...]]]:
        cells: list[tuple[CharSet, tuple[Hashable, ...]]] = [(char_set.EVERY, ())]
        for index, (machine, at) in enumerate(zip(self._machines, state, strict=True)):
            ways: list[tuple[CharSet, Hashable]] = [] if at is None else list(machine.moves(at))
            if index >= self._wanted:  # an unwanted machine may be left behind: None
                ways.append((char_set.negate(char_set.union(r for chars, _ in ways for r in chars)), None))
            cells = [
                (both, (*passed, to))
                for cell, passed in cells
                for chars, to in ways
                if (both := char_set.common(cell, chars))
            ]
        return cells

    def accepts(self, state: tuple[Hashable, ...]) -> bool:
        return all(
            (at is not None and machine.accepts(at)) == (index < self._wanted)
            for index, (machine, at) in enumerate(zip(self._machines, state, strict=True))
        )


def words(texts: Iterable[str]) -> Table:
    """Return the automaton of these words and no others."""
    numbers = {"": 0}
    listed = sorted(set(texts))
    for text in listed:
        for end in range(1, len(text) + 1):
            numbers.setdefault(text[:end], len(numbers))
    moves: list[list[tuple[CharSet, int]]] = [[] for _ in numbers]
    for start, number in numbers.items():
        if start:
            moves[numbers[start[:-1]]].append((char_set.of(start[-1]), number))
    ends = set(listed)
    return Table(tuple(map(tuple, moves)), tuple(start in ends for start in numbers)) if listed else Table((), ())

"""Schemas as sets of values: what two of them have in common, whether one admits a value, whether two exclude another.

This is how ``allOf``, the siblings of ``$ref`` and ``oneOf`` are made into one tree. Pure.
"""

from decimal import Decimal
from functools import reduce
from typing import Any

from familiar.daemon.grammar.json_nodes import (
    MAX_DEPTH,
    NOTHING,
    Anything,
    Array,
    Literals,
    Node,
    Number,
    Object,
    Ref,
    Resolve,
    String,
    TooComplex,
    Union,
    same,
    union,
)
from familiar.daemon.grammar.number_range import Bound
from familiar.daemon.grammar.pattern_automaton import compile_pattern

MAX_WORK = 200_000
"""Most steps for one document: about a second."""


class Algebra:
    """The operations, over one document's references."""

    def __init__(self, resolve: Resolve) -> None:
        self.resolve = resolve
        self._spent = 0

    def spend(self, work: int) -> None:
        """Count work done for the document; raise TooComplex beyond ``MAX_WORK``."""
        self._spent += work
        if self._spent > MAX_WORK:
            raise TooComplex("takes too long to work out")

    def common(self, *nodes: Node) -> Node:
        """Return what every node allows, NOTHING when they contradict; raise TooComplex when it does not end."""
        found: Node = Anything()
        for node in nodes:
            found = self._common(found, node, 0)
        return found

    def _common(self, a: Node, b: Node, depth: int) -> Node:
        self._go_on(depth)
        if isinstance(a, Anything) or (isinstance(a, Ref) and a == b):
            return b
        if isinstance(b, Anything):
            return a
        if isinstance(a, Ref) or isinstance(b, Ref):
            return self._common(self.seen_through(a), self.seen_through(b), depth + 1)
        if isinstance(a, Union):
            return union(*(found for each in a.options if (found := self._common(each, b, depth + 1)) != NOTHING))
        if isinstance(b, Union):
            return union(*(found for each in b.options if (found := self._common(a, each, depth + 1)) != NOTHING))
        if isinstance(a, Literals):
            kept = tuple(value for value in a.values if self._admits(b, value, depth))
            return Literals(kept) if kept else NOTHING
        if isinstance(b, Literals):
            return self._common(b, a, depth)
        match a, b:
            case (String(), String()):
                least, most = max(a.least, b.least), _least(a.most, b.most)
                return NOTHING if most is not None and most < least else String(least, most, a.patterns | b.patterns)
            case (Number(), Number()):
                return _common_numbers(a, b)
            case (Object(), Object()):
                return self._common_objects(a, b, depth + 1)
            case (Array(), Array()):
                return self._common_arrays(a, b, depth + 1)
        return NOTHING

    def _go_on(self, depth: int) -> None:
        self.spend(1)
        if depth > MAX_DEPTH:
            raise TooComplex("combines schemas that contain themselves, without an end")

    def seen_through(self, node: Node) -> Node:
        """Return what a reference leads to, any other node as it is."""
        for _ in range(MAX_DEPTH):
            if not isinstance(node, Ref):
                return node
            node = self.resolve(node)
        raise TooComplex("has a $ref that only leads back to itself")

    def _common_objects(self, a: Object, b: Object, depth: int) -> Node:
        properties: dict[str, Node] = {}
        for name in [*a.properties, *(name for name in b.properties if name not in a.properties)]:
            sides = [each.properties.get(name, each.additional or Anything()) for each in (a, b)]
            properties[name] = self._common(sides[0], sides[1], depth)
        stated = [each for each in (a.additional, b.additional) if each is not None]
        names = [each for each in (a.names, b.names) if each is not None]
        return Object(
            properties,
            tuple(dict.fromkeys([*a.required, *b.required])),
            reduce(lambda x, y: self._common(x, y, depth), stated) if stated else None,
            reduce(lambda x, y: self._common(x, y, depth), names) if names else None,
            max(a.least, b.least),
            _least(a.most, b.most),
            a.listed or b.listed,
        )

    def _common_arrays(self, a: Array, b: Array, depth: int) -> Node:
        prefix = []
        for index in range(max(len(a.prefix), len(b.prefix))):
            sides = [each.prefix[index] if index < len(each.prefix) else each.items or Anything() for each in (a, b)]
            prefix.append(self._common(sides[0], sides[1], depth))
        stated = [each for each in (a.items, b.items) if each is not None]
        items = reduce(lambda x, y: self._common(x, y, depth), stated) if stated else None
        least = max((each.least for each in (a, b) if each.least is not None), default=None)
        return Array(tuple(prefix), items, least, _least(a.most, b.most))

    def admits(self, node: Node, value: Any) -> bool:
        """Say whether a node allows a value."""
        return self._admits(node, value, 0)

    def _admits(self, node: Node, value: Any, depth: int) -> bool:
        self._go_on(depth)
        node = self.seen_through(node)
        match node:
            case Union(options):
                return any(self._admits(each, value, depth + 1) for each in options)
            case Literals(values):
                self.spend(len(values))
                return any(same(value, each) for each in values)
            case String():
                return isinstance(value, str) and (
                    node.least <= len(value) <= (len(value) if node.most is None else node.most)
                    and all(compile_pattern(pattern).accepts(value) for pattern in node.patterns)
                )
            case Number():
                return isinstance(value, int | float) and not isinstance(value, bool) and _is_within(node, value)
            case Object():
                return isinstance(value, dict) and self._admits_object(node, value, depth + 1)
            case Array():
                return isinstance(value, list) and self._admits_array(node, value, depth + 1)
        return True

    def _admits_object(self, node: Object, value: dict[str, Any], depth: int) -> bool:
        return (
            all(name in value for name in node.required)
            and node.least <= len(value) <= (len(value) if node.most is None else node.most)
            and all(
                self._admits(node.properties.get(name, node.additional or Anything()), each, depth)
                and (node.names is None or self._admits(node.names, name, depth))
                for name, each in value.items()
            )
        )

    def _admits_array(self, node: Array, value: list[Any], depth: int) -> bool:
        rest = [node.items or Anything()] * (len(value) - len(node.prefix))
        return (node.least or 0) <= len(value) <= (len(value) if node.most is None else node.most) and all(
            self._admits(each, item, depth) for each, item in zip([*node.prefix, *rest], value, strict=False)
        )

    def exclude(self, a: Node, b: Node, depth: int = 0) -> bool:
        """Say whether it is certain that no value fits both."""
        self.spend(1)
        if depth > 8:
            return False
        a, b = self.seen_through(a), self.seen_through(b)
        if isinstance(b, Union):
            return all(self.exclude(a, each, depth + 1) for each in b.options)
        if isinstance(a, Union) or isinstance(b, Literals):
            a, b = b, a
        match a:
            case Union(options):
                return all(self.exclude(each, b, depth + 1) for each in options)
            case Literals(values):
                return not any(self.admits(b, value) for value in values)
        if isinstance(a, Anything) or isinstance(b, Anything):
            return False
        match a, b:
            case (Number(), Number()):
                return _common_numbers(a, b) == NOTHING
            case (Object(), Object()):
                return self._exclude_objects(a, b, depth + 1) or self._exclude_objects(b, a, depth + 1)
        return type(a) is not type(b)

    def _exclude_objects(self, a: Object, b: Object, depth: int) -> bool:
        """Say whether a property that one needs is one that the other forbids, or gives other values."""
        return any(
            self.exclude(a.properties.get(name, a.additional or Anything()), other, depth)
            for name in a.required
            if (other := b.properties.get(name, b.additional or Anything())) == NOTHING or name in b.required
        )


def _least(a: int | None, b: int | None) -> int | None:
    return min((each for each in (a, b) if each is not None), default=None)


def _common_numbers(a: Number, b: Number) -> Node:
    low = max((each for each in (a.low, b.low) if each), key=lambda x: (x.value, x.open), default=None)
    high = min((each for each in (a.high, b.high) if each), key=lambda x: (x.value, not x.open), default=None)
    if low and high and (low.value > high.value or (low.value == high.value and (low.open or high.open))):
        return NOTHING
    if a.multiple % b.multiple and b.multiple % a.multiple:
        raise TooComplex("combines two multipleOf of which neither divides the other")
    return Number(low, high, a.whole or b.whole, max(a.multiple, b.multiple))


def _is_within(node: Number, value: int | float) -> bool:
    exact = Decimal(value) if isinstance(value, int) else Decimal(repr(value))
    if node.whole and (not float(value).is_integer() or int(value) % node.multiple):
        return False
    return _is_past(exact, node.low, 1) and _is_past(exact, node.high, -1)


def _is_past(value: Decimal, bound: Bound | None, direction: int) -> bool:
    return bound is None or (value - bound.value) * direction > 0 or (value == bound.value and not bound.open)

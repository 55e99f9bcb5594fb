"""How many ways of reading a reply a schema keeps open at once. Pure.

llama.cpp follows every way on its own. Where two options begin alike (``{"left": …``) and hold the schema again before
what tells them apart, each level doubles the ways: twenty levels end the process, and a token may open several. So a
schema whose ways multiply is refused before it becomes a grammar.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from familiar.daemon.grammar.json_algebra import Algebra
from familiar.daemon.grammar.json_nodes import (
    NOTHING,
    Anything,
    Array,
    Literals,
    Node,
    Number,
    Object,
    Ref,
    String,
    Union,
)

MAX_WAYS = 512

MAX_LEVELS = 32
"""Levels that are counted where each only adds a way, as beside an object of any kind."""

_EVERY_KIND = frozenset({"object", "array", "string", "number", "True", "False", "None"})
_ANYTHING = Anything()
_MAX_LOOK = 8
"""Deepest choice within a choice whose options are compared."""


class Ways:
    """Counts the ways that are open inside the values of a document's nodes: none in a value that holds no other."""

    def __init__(self, algebra: Algebra) -> None:
        self._algebra = algebra

    def too_many(self, root: Ref) -> Ref | None:
        """Return where the ways multiply without an end, or are more than ``MAX_WAYS``, as the nearest reference.

        None where they nowhere are. Raises TooComplex when that takes too long to find out.
        """
        nodes, near = self._reached(root)
        groups: dict[int, list[list[Node]]] = {}
        for key, node in nodes.items():
            if isinstance(node, Union):
                groups[key] = self._alike(node.options)
                if any(sum(self._leads(option, key) for option in group) > 1 for group in groups[key]):
                    return near[key]
        flat = {key for key, node in nodes.items() if self._is_flat(node, 0)}
        ways = dict.fromkeys(nodes, 0)
        for _ in range(MAX_LEVELS):
            before = dict(ways)
            for key, node in nodes.items():
                self._algebra.spend(1)
                match node:
                    case Union():
                        ways[key] = max((sum(ways[id(each)] for each in group) for group in groups[key]), default=0)
                    case Ref():
                        ways[key] = ways[id(self._algebra.resolve(node))]
                    case Object() | Array():
                        inner = (max(1, ways[id(each)]) for each in self._parts(node) if id(each) not in flat)
                        ways[key] = max(inner, default=0)
                    case _:
                        ways[key] = 0 if key in flat else 1
                if ways[key] > MAX_WAYS:
                    return near[key]
            if ways == before:
                break
        return None

    def _reached(self, root: Ref) -> tuple[dict[int, Node], dict[int, Ref]]:
        """Return every node by its id, what it holds before it, and the reference through which each was found."""
        near: dict[int, Ref] = {id(root): root}
        nodes: dict[int, Node] = {}
        open_nodes: list[tuple[Node, Iterator[Node]]] = [(root, iter(self._parts(root)))]
        while open_nodes:
            node, rest = open_nodes[-1]
            part = next(rest, None)
            if part is None:
                nodes[id(node)] = node
                open_nodes.pop()
            elif id(part) not in near:
                near[id(part)] = node if isinstance(node, Ref) else near[id(node)]
                open_nodes.append((part, iter(self._parts(part))))
        return nodes, near

    def _leads(self, option: Node, key: int) -> bool:
        """Say whether a choice can come again inside one of its options."""
        seen, todo = {id(option)}, [option]
        while todo:
            for part in self._parts(todo.pop()):
                self._algebra.spend(1)
                if id(part) == key:
                    return True
                if id(part) not in seen:
                    seen.add(id(part))
                    todo.append(part)
        return False

    def _parts(self, node: Node) -> Sequence[Node]:
        match node:
            case Ref():
                return [self._algebra.resolve(node)]
            case Union(options):
                return options
            case Object():
                others = _ANYTHING if node.additional is None and not node.listed else node.additional
                return [*node.properties.values(), *([others] if others else [])]
            case Array():
                items = _ANYTHING if node.items is None and not node.prefix else node.items
                return [*node.prefix, *([items] if items else [])]
        return []

    def _alike(self, options: Sequence[Node]) -> list[list[Node]]:
        """Return the options in groups: those of different groups are told apart before either holds another value."""
        groups: list[list[Node]] = []
        for option in options:
            same = [group for group in groups if not all(self._apart(option, other, 0) for other in group)]
            groups = [group for group in groups if group not in same] + [[option, *(o for g in same for o in g)]]
        return groups

    def _apart(self, a: Node, b: Node, depth: int) -> bool:
        """Say whether two options are told apart by what comes before any value inside them."""
        self._algebra.spend(1)
        a, b = self._algebra.seen_through(a), self._algebra.seen_through(b)
        if not self._kinds(a, 0) & self._kinds(b, 0):
            return True
        if depth == _MAX_LOOK:
            return False
        if isinstance(a, Union) or isinstance(b, Union):
            return all(
                self._apart(one, two, depth + 1)
                for one in (a.options if isinstance(a, Union) else [a])
                for two in (b.options if isinstance(b, Union) else [b])
            )
        match a, b:
            case (Object(), Object()):
                return self._lines_apart(_places(a), _places(b))
            case (Array(), Array()):
                return self._lines_apart(
                    [{"item": each} for each in a.prefix[: a.least]], [{"item": each} for each in b.prefix[: b.least]]
                )
        return False

    def _lines_apart(self, a: Sequence["_Place"], b: Sequence["_Place"]) -> bool:
        """Compare what comes first, second and so on, for as long as nothing in it can hold another value."""
        for one, two in zip(a, b, strict=False):
            if None in one or None in two:
                return False
            if not one.keys() & two.keys():
                return True
            if len(one) > 1 or len(two) > 1:
                return False
            [first], [second] = one.values(), two.values()
            if not self._is_flat(first, 0) or not self._is_flat(second, 0):
                return False
            if self._algebra.exclude(first, second):
                return True
        return False

    def _is_flat(self, node: Node, depth: int) -> bool:
        """Say whether no value is inside another."""
        node = self._algebra.seen_through(node)
        if isinstance(node, Union):
            return depth < _MAX_LOOK and all(self._is_flat(each, depth + 1) for each in node.options)
        return not self._kinds(node, depth) & {"object", "array"}

    def _kinds(self, node: Node, depth: int) -> frozenset[str]:
        """Return the kinds of values, by how each begins."""
        node = self._algebra.seen_through(node)
        match node:
            case Union(options):
                if depth == _MAX_LOOK:
                    return _EVERY_KIND
                return frozenset[str]().union(*(self._kinds(each, depth + 1) for each in options))
            case Literals(values):
                return frozenset(map(_kind, values))
            case String():
                return frozenset({"string"})
            case Number():
                return frozenset({"number"})
            case Object():
                return frozenset({"object"})
            case Array():
                return frozenset({"array"})
        return _EVERY_KIND


_Place = Mapping[str | None, Node]
"""The properties that may come next, by name; None where any other may, nothing where there is none left."""


def _places(node: Object) -> Sequence[_Place]:
    """Return what may come first in an object, second, and so on, up to where that is no longer certain."""
    places: list[_Place] = []
    open_names: dict[str | None, Node] = {}
    for name in [*node.properties, *(name for name in node.required if name not in node.properties)]:
        value = node.properties.get(name, node.additional or Anything())
        if value == NOTHING:
            continue
        open_names[name] = value
        if name not in node.required:
            continue
        places.append(open_names)
        if len(open_names) > 1:
            return places
        open_names = {}
    closed = node.additional == NOTHING or (node.additional is None and node.listed)
    return [*places, open_names if closed else {None: Anything()}]


def _kind(value: Any) -> str:
    match value:
        case True | False | None:
            return str(value)
        case str():
            return "string"
        case dict():
            return "object"
        case list():
            return "array"
    return "number"

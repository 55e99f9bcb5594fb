"""What a JSON schema allows, as a tree of values: each kind of JSON value with its limits, choices, and references.

Booleans and null are literals. A reference stays one, so that a schema may contain itself; ``resolve`` looks it up.
Pure.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from familiar.daemon.grammar.number_range import Bound

MAX_OPTIONS = 256
"""Most options of one choice after ``allOf`` has been multiplied out, and most properties that may be left out.

llama.cpp follows all that may come at once: each takes its time at every token."""
MAX_DEPTH = 64


class TooComplex(Exception):
    """A schema whose parts multiply, or contain one another, without an end; the text says which."""


@dataclass(frozen=True)
class Anything:
    """Any JSON value."""


@dataclass(frozen=True)
class Literals:
    """One of these values."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class String:
    """A text of ``least`` to ``most`` characters that matches every pattern."""

    least: int = 0
    most: int | None = None
    patterns: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Number:
    """A number within bounds; ``whole`` is an integer, ``multiple`` needs one."""

    low: Bound | None = None
    high: Bound | None = None
    whole: bool = False
    multiple: int = 1


@dataclass(frozen=True)
class Object:
    """An object. ``additional`` is what properties without an entry may hold, None where the schema does not say.

    ``names`` is what the name of every property must be; ``listed`` says that the schema lists properties, maybe none.
    """

    properties: Mapping[str, "Node"] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    additional: "Node | None" = None
    names: "Node | None" = None
    least: int = 0
    most: int | None = None
    listed: bool = False


@dataclass(frozen=True)
class Array:
    """An array: its first items by place, then any of ``items`` (None where the schema does not say)."""

    prefix: "tuple[Node, ...]" = ()
    items: "Node | None" = None
    least: int | None = None
    most: int | None = None


@dataclass(frozen=True)
class Union:
    """Any one of the options; without options, nothing."""

    options: "tuple[Node, ...]"


@dataclass(frozen=True)
class Ref:
    """Whatever the schema at this place of the document allows."""

    pointer: str


Node = Anything | Literals | String | Number | Object | Array | Union | Ref
Resolve = Callable[[Ref], Node]
NOTHING = Union(())


def union(*options: Node) -> Node:
    """Return a choice, flat; raise TooComplex when it has too many options."""
    flat: list[Node] = []
    for option in options:
        flat += option.options if isinstance(option, Union) else (option,)
    if len(flat) > MAX_OPTIONS:
        raise TooComplex(f"has more than {MAX_OPTIONS} combinations of its options")
    return flat[0] if len(flat) == 1 else Union(tuple(flat))


def same(a: Any, b: Any) -> bool:
    """Say whether two JSON values are equal as JSON Schema has it: 1 is 1.0, but true is not 1."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)

"""The keywords of a JSON schema that say what a text, a number, an object or an array must be: each kind to its node.

A keyword of one kind says nothing about values of another, as in JSON Schema.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NoReturn, Protocol

from familiar.daemon.grammar.json_algebra import Algebra
from familiar.daemon.grammar.json_nodes import Array, Literals, Node, Number, Object, String
from familiar.daemon.grammar.number_range import Bound
from familiar.daemon.grammar.pattern_automaton import compile_pattern
from familiar.daemon.grammar.string_formats import FORMATS, SAYS_NOTHING, format_pattern
from familiar.daemon.grammar.string_pattern import BadPattern

MAX_MULTIPLE = 100

_INT_FORMATS = {"int32": (-(2**31), 2**31 - 1), "uint32": (0, 2**32 - 1), "int64": (-(2**63), 2**63 - 1)}
_NUMBER_FORMATS = frozenset({*_INT_FORMATS, "float", "double"})


class Reader(Protocol):
    """Who reads the schemas inside a schema, and refuses what cannot be followed."""

    algebra: Algebra

    def read(self, schema: object, path: str) -> Node:
        """Return the node of a schema at a place in the document."""

    def refuse(self, path: str, problem: str) -> NoReturn:
        """Raise the error for a place in the document."""


@dataclass(frozen=True)
class Place:
    """A schema, where it is in its document, and who reads it."""

    schema: Mapping[str, Any]
    path: str
    reader: Reader

    def __contains__(self, name: str) -> bool:
        return name in self.schema

    def refuse(self, problem: str, *steps: str) -> NoReturn:
        """Raise the error for this place, or one below it."""
        self.reader.refuse(self._below(steps), problem)

    def read(self, schema: object, *steps: str) -> Node:
        """Return the node of a schema below this one."""
        return self.reader.read(schema, self._below(steps))

    def _below(self, steps: tuple[str, ...]) -> str:
        return "".join([self.path, *("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)])

    def listed(self, name: str) -> list[Any]:
        """Return a keyword's list, empty where there is none."""
        value = self.schema.get(name, [])
        if not isinstance(value, list):
            self.refuse(f"must be a list but is {shown(value)}", name)
        return value

    def check_text(self, value: object, *steps: str) -> None:
        """Refuse a value that cannot be written as UTF-8 JSON: not-a-number, half a surrogate pair."""
        try:
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        except (ValueError, TypeError, RecursionError) as error:
            self.refuse(f"has a value that is no JSON text ({error})", *steps)


def shown(value: object) -> str:
    """Return a value for an error, cut to a length that fits."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def read_string(place: Place) -> Node:
    """Return the texts that length, pattern and format allow."""
    patterns = []
    if "pattern" in place:
        patterns.append(_pattern(place.schema["pattern"], place))
    least, most = _limits(place, "minLength", "maxLength")
    form = place.schema.get("format")
    if form in FORMATS:
        if (pattern := format_pattern(form, most)) is None:
            place.refuse(f"has maxLength {most}, in which the format {form} does not fit")
        patterns.append(pattern)
    elif form is not None and form not in SAYS_NOTHING:
        known = ", ".join(FORMATS)
        place.refuse(f"has the format {shown(form)}, but the formats of text that can be followed are {known}")
    return String(least or 0, most, frozenset(patterns))


def _pattern(pattern: object, place: Place) -> str:
    if not isinstance(pattern, str):
        place.refuse(f"has the pattern {shown(pattern)}: write a regular expression as text")
    try:
        table = compile_pattern(pattern)
    except BadPattern as error:
        place.refuse(f"has a pattern that cannot be followed, since {error}: {pattern}")
    place.reader.algebra.spend(4 * table.visited)
    if not table.moves:
        place.refuse(f"has a pattern that no text matches: {pattern}")
    return pattern


def read_number(place: Place, *, whole: bool) -> Node:
    """Return the numbers that the bounds allow."""
    form = place.schema.get("format")
    if form is not None and form not in _NUMBER_FORMATS and form not in FORMATS:
        place.refuse(f"has the format {shown(form)}, but those of numbers are {', '.join(sorted(_NUMBER_FORMATS))}")
    multiple = 1
    if "multipleOf" in place:
        value = _decimal(place, "multipleOf")
        if value <= 0 or value > MAX_MULTIPLE or value != value.to_integral_value():
            only = f"only whole numbers up to {MAX_MULTIPLE} can be followed: leave it out, and round afterwards"
            place.refuse(f"has multipleOf {shown(place.schema['multipleOf'])}, but {only}")
        whole, multiple = True, int(value)
    nodes: list[Node] = [Number(whole=whole, multiple=multiple)]
    if form in _INT_FORMATS:
        low, high = _INT_FORMATS[form]
        nodes.append(Number(Bound(Decimal(low)), Bound(Decimal(high)), whole=True))
    for name in ("minimum", "exclusiveMinimum"):
        if name in place:
            nodes.append(Number(low=Bound(_decimal(place, name), open=name != "minimum")))
    for name in ("maximum", "exclusiveMaximum"):
        if name in place:
            nodes.append(Number(high=Bound(_decimal(place, name), open=name != "maximum")))
    return place.reader.algebra.common(*nodes)


def _decimal(place: Place, name: str) -> Decimal:
    value = place.schema[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        place.refuse(f"has {name} {shown(value)}: write a number")
    return Decimal(value) if isinstance(value, int) else Decimal(repr(value))


def read_object(place: Place) -> Node:
    """Return the objects that the properties allow."""
    properties, required = _mapping(place, "properties"), place.listed("required")
    if not all(isinstance(name, str) for name in required):
        place.refuse("must be a list of names", "required")
    place.check_text([*properties, *required])
    names = additional = None
    if "propertyNames" in place:
        names = place.read(place.schema["propertyNames"], "propertyNames")
        names = place.reader.algebra.common(String(), names)
    if "additionalProperties" in place:
        additional = place.read(place.schema["additionalProperties"], "additionalProperties")
    if "patternProperties" in place:
        names, additional = _named_by_pattern(place)
    least, most = _limits(place, "minProperties", "maxProperties")
    nodes = {name: place.read(each, "properties", name) for name, each in properties.items()}
    return Object(
        nodes, tuple(dict.fromkeys(required)), additional, names, least or 0, most, listed="properties" in place
    )


def _named_by_pattern(place: Place) -> tuple[Node, Node]:
    """Return one pattern's names and what they hold, as pydantic writes a dict whose keys are constrained.

    No other names come out, though without ``additionalProperties`` the schema would allow them.
    """
    patterns = _mapping(place, "patternProperties")
    if len(patterns) != 1 or "propertyNames" in place or place.schema.get("properties"):
        place.refuse("can only be followed with one pattern, and no properties beside it", "patternProperties")
    [(pattern, schema)] = patterns.items()
    return String(patterns=frozenset({_pattern(pattern, place)})), place.read(schema, "patternProperties", pattern)


def read_array(place: Place) -> Node:
    """Return the arrays that the items allow."""
    where, rest = (
        ("items", "additionalItems") if isinstance(place.schema.get("items"), list) else ("prefixItems", "items")
    )
    prefix = [place.read(each, where, str(index)) for index, each in enumerate(place.listed(where))]
    items = place.read(place.schema[rest], rest) if rest in place else None
    return Array(tuple(prefix), items, *_limits(place, "minItems", "maxItems"))


def _limits(place: Place, least: str, most: str) -> tuple[int | None, int | None]:
    low, high = _count(place, least), _count(place, most)
    if low is not None and high is not None and low > high:
        place.refuse(f"has {least} {low} above {most} {high}: no value can satisfy it")
    return low, high


def _count(place: Place, name: str) -> int | None:
    value = place.schema.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        place.refuse(f"has {name} {shown(value)}: write a whole number from 0")
    return value


def _mapping(place: Place, name: str) -> Mapping[str, Any]:
    value = place.schema.get(name, {})
    if not isinstance(value, Mapping):
        place.refuse(f"must be an object but is {shown(value)}", name)
    return value


KINDS: dict[str, tuple[Callable[[Place], Node], tuple[str, ...]]] = {
    "string": (read_string, ("minLength", "maxLength", "pattern", "format")),
    "number": (
        lambda place: read_number(place, whole=False),
        ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    ),
    "object": (
        read_object,
        (
            "properties",
            "required",
            "additionalProperties",
            "patternProperties",
            "propertyNames",
            "minProperties",
            "maxProperties",
        ),
    ),
    "array": (read_array, ("items", "prefixItems", "additionalItems", "minItems", "maxItems")),
}
"""By type: who reads it, and the keywords that are about it alone."""

TYPES: dict[str, Callable[[Place], Node]] = {
    **{name: read for name, (read, _) in KINDS.items()},
    "integer": lambda place: read_number(place, whole=True),
    "boolean": lambda _: Literals((True, False)),
    "null": lambda _: Literals((None,)),
}

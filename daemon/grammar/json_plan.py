"""An object's or array's limits brought into the one form that rules are made from. Pure.

Where a schema leaves open what else there may be, the reading is the narrow one: with ``properties`` no others, with
``prefixItems`` no items after them. Every value still satisfies the schema, and a small model does not ramble.
"""

from dataclasses import dataclass, field, replace

from familiar.daemon.grammar.json_algebra import Algebra
from familiar.daemon.grammar.json_nodes import (
    MAX_OPTIONS,
    NOTHING,
    Anything,
    Array,
    Literals,
    Node,
    Object,
    String,
    TooComplex,
    Union,
)


class Contradiction(Exception):
    """No value can satisfy the schema; the text says why, as the end of a sentence about it."""


@dataclass(frozen=True)
class Field:
    """A property that has a name of its own."""

    name: str
    node: Node
    required: bool


@dataclass(frozen=True)
class ObjectPlan:
    """The fields in their order, then any other properties: names that fit ``names`` and are not ``taken``.

    ``extra`` is what those may hold, None where there are none. ``least`` is 0 or 1 where there are fields; ``least``
    and ``most`` count the others where there are none.
    """

    fields: tuple[Field, ...]
    extra: Node | None = None
    names: String = field(default_factory=String)
    taken: tuple[str, ...] = ()
    least: int = 0
    most: int | None = None


@dataclass(frozen=True)
class ArrayPlan:
    """The first items by place, then ``items`` (None: no more); ``least`` to ``most`` in all."""

    prefix: tuple[Node, ...]
    items: Node | None
    least: int
    most: int | None


def plan_object(node: Object, algebra: Algebra) -> ObjectPlan:
    """Return an object's plan; raise Contradiction, or TooComplex for counts that would need memory."""
    others = node.additional or Anything()
    extra = NOTHING if node.additional is None and node.listed else others
    properties = dict(node.properties)
    names, listed = _names(node.names)
    for name in (*listed, *node.required):
        properties.setdefault(name, others)
    if node.names is not None:
        fitting = {name for name in properties if algebra.admits(node.names, name)}
        properties = {name: each if name in fitting else NOTHING for name, each in properties.items()}
    for name in node.required:
        if properties[name] == NOTHING:
            raise Contradiction(f"requires the property {name!r} but does not allow it")
    fields = [Field(name, each, name in node.required) for name, each in properties.items() if each != NOTHING]
    if sum(not each.required for each in fields) > MAX_OPTIONS:
        raise TooComplex(f"has more than {MAX_OPTIONS} properties that are not required")
    free = None if extra == NOTHING or names is None else extra
    return _counted(ObjectPlan(tuple(fields), free, names or String(), tuple(properties), node.least, node.most))


def _names(names: Node | None) -> tuple[String | None, tuple[str, ...]]:
    """Return what free names must be (None: there can be none) and the names that are listed one by one."""
    match names:
        case None:
            return String(), ()
        case String():
            return names, ()
        case Literals(values):
            return None, values
        case Union(options) if not options:
            return None, ()
    raise TooComplex("has propertyNames other than a string with limits, or an enum")


def _counted(plan: ObjectPlan) -> ObjectPlan:
    """Work minProperties and maxProperties into the fields."""
    fields, extra, least, most = plan.fields, plan.extra, plan.least, plan.most
    needed = sum(each.required for each in fields)
    if most is not None and most < needed:
        raise Contradiction(f"requires {needed} properties but allows {most}")
    if extra is None and least > len(fields):
        raise Contradiction(f"wants at least {least} properties but has {len(fields)}")
    if not fields:
        if least > 1:
            raise TooComplex("has minProperties above 1 for names that it does not list")
        return plan
    if most == needed:
        fields, extra = tuple(each for each in fields if each.required), None
    elif most is not None and (extra is not None or most < len(fields)):
        raise TooComplex("has a maxProperties that leaves a choice between properties")
    if extra is None and least == len(fields):
        fields = tuple(replace(each, required=True) for each in fields)
    elif least > max(needed, 1):
        raise TooComplex("has a minProperties that leaves a choice between properties")
    return replace(plan, fields=fields, extra=extra, least=min(least, 1), most=None)


def plan_array(node: Array) -> ArrayPlan:
    """Return an array's plan; raise Contradiction when it cannot be long enough."""
    items = node.items if node.items is not None else NOTHING if node.prefix else Anything()
    prefix = node.prefix
    least = node.least
    if least is None:
        least = len(prefix) if node.most is None else min(len(prefix), node.most)
    for index, each in enumerate(prefix):
        if each == NOTHING:
            prefix, items = prefix[:index], NOTHING
            break
    most = node.most
    if items == NOTHING:
        most = len(prefix) if most is None else min(most, len(prefix))
    if most is not None and least > most:
        raise Contradiction(f"wants at least {least} items but allows {most}")
    return ArrayPlan(prefix if most is None else prefix[:most], None if items == NOTHING else items, least, most)

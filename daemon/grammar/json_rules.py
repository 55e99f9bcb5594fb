"""A schema's tree of values to grammar rules: objects, arrays, choices and references.

An object is a line of rules, a pair of them per property in the schema's order: ``more`` is what may come after a
property, ``field`` what may come where one has to. Arrays likewise.
"""

from collections.abc import Sequence
from typing import Any

from familiar.daemon.grammar import char_set
from familiar.daemon.grammar.automaton import TooManyStates
from familiar.daemon.grammar.gbnf import EMPTY, Alternative, Chars, Grammar, Rule, Text
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
    TooComplex,
    Union,
)
from familiar.daemon.grammar.json_paths import Ways
from familiar.daemon.grammar.json_plan import Contradiction, ObjectPlan, plan_array, plan_object
from familiar.daemon.grammar.json_scalars import Scalars, string_table
from familiar.daemon.grammar.json_schema import Schema

INDENT = 20
"""Most blanks at the start of a line. White space has to be bounded: a small model would go on for ever."""

_COMMA, _COLON = Text(","), Text(":")


class JsonRules:
    """Adds rules for JSON to a grammar. Values that are the same share their rules."""

    def __init__(self, grammar: Grammar) -> None:
        self.grammar = grammar
        self.scalars = Scalars(grammar)
        indent = grammar.repeat("indent", (Chars(char_set.of(" \t")),), 0, INDENT)
        self.space = grammar.rule("space", [EMPTY, (Text(" "),), (Text("\n"), *indent)])
        self._anything: Rule | None = None
        self._any_object: Rule | None = None

    def any_object(self) -> Rule:
        """Return a rule for any JSON object."""
        if self._any_object is None:
            self._any_object = self.grammar.declare("object")
            pair = (*self.scalars.free_string(String()), _COLON, self.space, self.anything())
            self.grammar.define(self._any_object, self.many("{", pair, 0, None, "}"))
        return self._any_object

    def anything(self) -> Rule:
        """Return a rule for any JSON value."""
        if self._anything is None:
            self._anything = self.grammar.declare("value")
            options: list[Alternative] = [
                (self.any_object(),),
                *self.many("[", (self._anything,), 0, None, "]"),
                self.scalars.free_string(String()),
                (self.scalars.free_number(),),
                self.scalars.literals([True, False, None]),
            ]
            self.grammar.define(self._anything, options)
        return self._anything

    def schema(self, schema: Schema) -> Rule:
        """Return a rule for what a schema allows; raise InvalidInput for what contradicts itself or cannot be held."""
        return _SchemaRules(self, schema).root()

    def many(
        self, opening: str, item: Alternative, least: int, most: int | None, closing: str, *, nested: bool = True
    ) -> list[Alternative]:
        """Return ``least`` to ``most`` items in brackets, with commas between them; an empty ``item`` is none."""
        options: list[Alternative] = [(Text(opening), self.space, Text(closing))] if least == 0 else []
        if item and most != 0:
            rest = self.rest(item, max(least, 1) - 1, None if most is None else most - 1, nested=nested)
            options.append((Text(opening), self.space, *item, *rest, self.space, Text(closing)))
        return options

    def rest(self, item: Alternative, least: int, most: int | None, *, nested: bool) -> Alternative:
        """Return items with a comma before each."""
        return self.grammar.repeat("items", (_COMMA, self.space, *item), least, most, nested=nested)


class _SchemaRules:
    """One schema's rules. References are rules of their own, made one after the other: a schema may contain itself."""

    def __init__(self, rules: JsonRules, schema: Schema) -> None:
        self._rules = rules
        self._grammar = rules.grammar
        self._space = rules.space
        self._schema = schema
        self._refs: dict[str, Rule] = {}
        self._todo: list[Ref] = []

    def root(self) -> Rule:
        self._check_ways()
        root = self._ref(Ref(""))
        while self._todo:
            ref = self._todo.pop()
            self._grammar.define(self._refs[ref.pointer], [self._value(self._schema.resolve(ref), ref.pointer)])
        return root

    def _check_ways(self) -> None:
        try:
            crowded = Ways(self._schema.algebra).too_many(Ref(""))
        except TooComplex as error:
            self._schema.refuse("", f"{error}: make it simpler")
        if crowded:
            problem = "has options that begin alike, and hold so much again that the ways to read them multiply"
            self._schema.refuse(crowded.pointer, f"{problem}: give each a first property with its own const")

    def _ref(self, ref: Ref) -> Rule:
        if ref.pointer not in self._refs:
            self._refs[ref.pointer] = self._grammar.declare(ref.pointer.rpartition("/")[2] or "schema")
            self._todo.append(ref)
        return self._refs[ref.pointer]

    def _value(self, node: Node, path: str) -> Alternative:
        """Return what a node allows; ``path`` is its place in the schema, for errors."""
        scalars = self._rules.scalars
        try:
            match node:
                case Anything():
                    return (self._rules.anything(),)
                case Literals(values):
                    return self._literals(values, path)
                case String():
                    return self._possible(scalars.string(node), path)
                case Number():
                    return self._possible(scalars.number(node), path)
                case Object():
                    return (self._grammar.rule("object", self._object(node, path)),)
                case Array():
                    return (self._grammar.rule("array", self._array(node, path)),)
                case Union(options):
                    return (self._grammar.rule("choice", [self._value(option, path) for option in options]),)
                case Ref():
                    return (self._ref(node),)
        except TooManyStates:
            self._schema.refuse(path, "is too large to follow: make its pattern simpler, or its lengths smaller")
        except TooComplex as error:
            self._schema.refuse(path, f"{error}, which cannot be followed: leave it out, and check for it afterwards")
        except Contradiction as error:
            self._schema.refuse(path, f"{error}: no value can satisfy it")

    def _literals(self, values: Sequence[Any], path: str) -> Alternative:
        simple = [value for value in values if not isinstance(value, dict | list)]
        options = [self._rules.scalars.literals(simple)] if simple else []
        options += [self._value(_taken_apart(value), path) for value in values if isinstance(value, dict | list)]
        return options[0] if len(options) == 1 else (self._grammar.rule("choice", options),)

    def _possible(self, found: Alternative | None, path: str) -> Alternative:
        if found is None:
            self._schema.refuse(path, "contradicts itself: no value can satisfy it")
        return found

    def _object(self, node: Object, path: str) -> list[Alternative]:
        plan = plan_object(node, self._schema.algebra)
        extra = self._extra(plan, path)
        if not plan.fields:
            return self._rules.many("{", extra, plan.least, plan.most, "}")
        end: Alternative = (self._space, Text("}"))
        fields: list[Alternative] = []  # what may come where a property has to
        more: Alternative = end
        if extra:
            again = self._grammar.declare("more")
            self._grammar.define(again, [(_COMMA, self._space, *extra, again), end])
            fields, more = [(*extra, again)], (again,)
        may_end = True
        for field in reversed(plan.fields):
            value = self._value(field.node, f"{path}/properties/{field.name}")
            name = self._rules.scalars.literals([field.name])
            fields = [(*name, _COLON, self._space, *value, *more), *([] if field.required else fields)]
            fields = [(self._grammar.rule("field", fields),)]
            may_end = may_end and not field.required
            ways: list[Alternative] = [(_COMMA, self._space, *fields[0])]
            more = (self._grammar.rule("more", [*ways, end] if may_end else ways),)
        empty: list[Alternative] = [(Text("{"), *end)] if may_end and not plan.least else []
        return [*empty, (Text("{"), self._space, *fields[0])]

    def _extra(self, plan: ObjectPlan, path: str) -> Alternative:
        """Return a property without an entry of its own; nothing where there can be none."""
        if plan.extra is None:
            return EMPTY
        names = self._rules.scalars.string(plan.names)
        if plan.taken or plan.names.patterns:
            names = self._rules.scalars.table_string(string_table(plan.names, plan.taken))
        value = self._value(plan.extra, f"{path}/additionalProperties")
        return (*names, _COLON, self._space, *value) if names else EMPTY

    def _array(self, node: Array, path: str) -> list[Alternative]:
        plan = plan_array(node)
        items = self._value(plan.items, f"{path}/items") if plan.items is not None else EMPTY
        nested = not isinstance(plan.items, String | Number | Literals)
        if not plan.prefix:
            return self._rules.many("[", items, plan.least, plan.most, "]", nested=nested)
        end: Alternative = (self._space, Text("]"))
        count = len(plan.prefix)
        more: Alternative = end
        if items and (plan.most is None or plan.most > count):
            most = None if plan.most is None else plan.most - count
            more = (*self._rules.rest(items, max(plan.least - count, 0), most, nested=nested), *end)
        for index in reversed(range(count)):
            value = self._value(plan.prefix[index], f"{path}/prefixItems/{index}")
            ways = [(_COMMA if index else Text("["), self._space, *value, *more)]
            if plan.least <= index:
                ways.append(end if index else (Text("["), *end))
            more = (self._grammar.rule("more", ways),)
        return [more]


def _taken_apart(value: dict[str, Any] | list[Any]) -> Node:
    """Return the node of exactly this value, so that its white space is as free as any other's."""
    if isinstance(value, list):
        return Array(tuple(Literals((each,)) for each in value), NOTHING, len(value), len(value))
    return Object({name: Literals((each,)) for name, each in value.items()}, tuple(value), NOTHING)

"""A JSON schema, as clients send it, read into a tree of values; whatever the tree cannot hold is an error.

Draft 2020-12, with what draft 7, OpenAI, pydantic and zod write otherwise (``definitions``, ``items`` as a list,
``discriminator``). A keyword is followed exactly, is an annotation and ignored, or is refused by name: none is dropped
quietly. What is left out, and refused: conditions, ``not``, ``uniqueItems``, ``contains``, dependent and unevaluated
keywords, references out of the document, and ``oneOf`` whose options are not certain to exclude one another.
"""

from collections.abc import Mapping
from typing import Any, NoReturn
from urllib.parse import unquote

from familiar.daemon.grammar.automaton import TooManyStates
from familiar.daemon.grammar.json_algebra import Algebra
from familiar.daemon.grammar.json_kinds import KINDS, TYPES, Place, shown
from familiar.daemon.grammar.json_nodes import NOTHING, Anything, Literals, Node, Object, Ref, TooComplex, union
from familiar.memory.errors import InvalidInput

MAX_SUBSCHEMAS = 10_000
MAX_NESTING = 32
"""Deepest object in an object: reading one takes several calls inside one another."""

ANNOTATIONS = frozenset(
    "title description default example examples deprecated readOnly writeOnly $schema $id id $comment $vocabulary "
    "$anchor $defs definitions contentEncoding contentMediaType contentSchema discriminator externalDocs xml "
    "markdownDescription enumNames".split()
)
"""What says nothing about the values, or is read where something else refers to it."""

_KNOWN = ANNOTATIONS.union(
    ("type", "enum", "const", "$ref", "allOf", "anyOf", "oneOf"), *(keywords for _, keywords in KINDS.values())
)
_INSTEAD = {
    "not": "list what is allowed with enum or anyOf",
    "uniqueItems": "take a list (in pydantic list, not set), and drop what comes twice yourself",
    "nullable": 'write "type": ["string", "null"], or whichever type it is',
    "unevaluatedProperties": "use additionalProperties",
    "unevaluatedItems": "use items",
    "$dynamicRef": "use $ref",
    "$recursiveRef": "use $ref",
    **dict.fromkeys(
        ("if", "then", "else", "dependentRequired", "dependentSchemas", "dependencies"), "write the cases as anyOf"
    ),
}


class Schema:
    """A schema document; ``resolve`` gives the tree of a place in it, ``Ref("")`` being the whole.

    Raises InvalidInput for ``param``, with the place in the schema, for what cannot be followed.
    """

    def __init__(self, document: object, param: str) -> None:
        self._document = document
        self._param = param
        self._count = 0
        self._known: dict[str, Node] = {}
        self._open: set[str] = set()
        self.algebra = Algebra(self.resolve)

    def refuse(self, path: str, problem: str) -> NoReturn:
        """Raise InvalidInput for a place in the schema."""
        raise InvalidInput(f"The JSON schema at #{path} {problem}.", self._param)

    def resolve(self, ref: Ref) -> Node:
        """Return the tree of the schema that a reference points to."""
        if ref.pointer not in self._known:
            if ref.pointer in self._open:
                self.refuse(ref.pointer, "is combined with itself by $ref beside other keywords: use $ref alone there")
            self._open.add(ref.pointer)
            self._known[ref.pointer] = self.read(self._at(ref.pointer), ref.pointer)
            self._open.discard(ref.pointer)
        return self._known[ref.pointer]

    def _at(self, pointer: str) -> object:
        """Return what a JSON pointer (RFC 6901) points to."""
        found: Any = self._document
        for step in pointer.split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, Mapping) and name in found:
                found = found[name]
            elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            else:
                self.refuse(pointer, "is what a $ref points to, but there is nothing")
        return found

    def read(self, schema: object, path: str) -> Node:
        """Return the tree of a schema at a place in the document."""
        self._count += 1
        if self._count > MAX_SUBSCHEMAS:
            self.refuse("", f"has more than {MAX_SUBSCHEMAS} subschemas: make it smaller")
        if path.count("/") > 2 * MAX_NESTING or len(self._open) > MAX_NESTING:
            self.refuse("", f"is nested deeper than {MAX_NESTING} levels: make it flatter")
        if isinstance(schema, bool):
            return Anything() if schema else NOTHING
        if not isinstance(schema, Mapping):
            self.refuse(path, f"must be an object, true or false but is {shown(schema)}")
        for name, value in schema.items():
            if name not in _KNOWN and not name.startswith("x-") and (name, value) != ("uniqueItems", False):
                instead = _INSTEAD.get(name, "leave it out, and check for it afterwards")
                self.refuse(path, f"uses {name}, which this service cannot make the model follow: {instead}")
        try:
            node = self.algebra.common(*self._parts(Place(schema, path, self)))
        except TooComplex as error:
            self.refuse(path, f"{error}: make it simpler")
        except TooManyStates:
            self.refuse(path, "is too large to follow: make its pattern simpler, or its lengths smaller")
        if node == NOTHING:
            self.refuse(path, "contradicts itself: no value can satisfy it")
        return node

    def _parts(self, place: Place) -> list[Node]:
        """Return one node per keyword that combines; all of them must hold."""
        parts = [self._typed(place)]
        if "$ref" in place:
            parts.append(self._reference(place))
        for name in ("allOf", "anyOf", "oneOf"):
            if name in place:
                nodes = [place.read(each, name, str(index)) for index, each in enumerate(place.listed(name))]
                if not nodes:
                    place.refuse("must have at least one schema but is empty", name)
                if name == "oneOf":
                    nodes = self._exclusive(place, nodes)
                parts += nodes if name == "allOf" else [union(*nodes)]
        if "const" in place:
            place.check_text(place.schema["const"], "const")
            parts.append(Literals((place.schema["const"],)))
        if "enum" in place:
            values = place.listed("enum")
            if not values:
                place.refuse("must have at least one value but is empty", "enum")
            place.check_text(values, "enum")
            parts.append(Literals(tuple(values)))
        return parts

    def _reference(self, place: Place) -> Node:
        ref = place.schema["$ref"]
        if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
            wanted = 'only places in this same document ("#/$defs/name") can be followed: put the schema under $defs'
            place.refuse(f"has the $ref {shown(ref)}, but {wanted}")
        pointer = unquote(ref[1:])
        self._at(pointer)
        return Ref(pointer)

    def _exclusive(self, place: Place, nodes: list[Node]) -> list[Node]:
        """Check that no value fits two options of a oneOf; with a discriminator each option needs that property."""
        discriminator = place.schema.get("discriminator")
        if isinstance(discriminator, Mapping) and isinstance(name := discriminator.get("propertyName"), str):
            nodes = [self.algebra.common(node, Object(required=(name,))) for node in nodes]
        for second, b in enumerate(nodes):
            for first, a in enumerate(nodes[:second]):
                if not self.algebra.exclude(a, b):
                    instead = "use anyOf, or give each a required property with its own const"
                    place.refuse(
                        f"has the options {first} and {second}, which some value may both satisfy: {instead}", "oneOf"
                    )
        return nodes

    def _typed(self, place: Place) -> Node:
        """Return what ``type`` and the keywords of single types allow.

        Without ``type``, keywords of one type mean that type: every value still satisfies the schema.
        """
        stated = place.schema.get("type")
        if stated is None:
            kinds = [name for name, (_, keywords) in KINDS.items() if any(keyword in place for keyword in keywords)]
            return union(*(TYPES[name](place) for name in kinds)) if kinds else Anything()
        names = [stated] if isinstance(stated, str) else list(place.listed("type"))
        if not names or any(not isinstance(name, str) or name not in TYPES for name in names):
            place.refuse(f"has the type {shown(stated)}: write one of {', '.join(TYPES)}, or a list of them")
        if "number" in names and "integer" in names:
            names.remove("integer")
        return union(*(TYPES[name](place) for name in dict.fromkeys(names)))

"""What of JSON Schema is followed, keyword by keyword, and what is refused, with its place and the way out."""

import ipaddress
import json
import re
import time
import urllib.parse
import uuid
from collections.abc import Callable
from datetime import date, datetime
from datetime import time as clock
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from jsonschema import Draft7Validator, Draft202012Validator
from pydantic import BaseModel, Field, HttpUrl, StringConstraints

from familiar.daemon.grammar.json_grammar import json_schema_grammar
from familiar.daemon.grammar.string_formats import FORMATS
from familiar.memory.errors import InvalidInput

Accepts = Callable[[str, str], bool]
Wander = Callable[[str, int], str | None]
Schema = dict[str, Any]


def grammar(schema: object) -> str:
    return json_schema_grammar(schema, param="response_format")  # type: ignore[arg-type]


TREE = {
    "$defs": {"tree": {"type": "object", "properties": {"v": {"type": "integer"}, "kids": {"$ref": "#/$defs/trees"}}}},
    "$ref": "#/$defs/tree",
}
TREE["$defs"]["trees"] = {"type": "array", "items": {"$ref": "#/$defs/tree"}}  # type: ignore[index]
TAGGED = {
    "oneOf": [
        {"type": "object", "properties": {"k": {"const": "a"}, "x": {"type": "integer"}}, "required": ["k"]},
        {"type": "object", "properties": {"k": {"const": "b"}, "y": {"type": "string"}}, "required": ["k"]},
    ]
}
OPEN_TAGS = {
    "discriminator": {"propertyName": "k"},
    "oneOf": [{"properties": {"k": {"const": "a"}}}, {"properties": {"k": {"const": "b"}}}],
}
MERGED = {
    "allOf": [
        {"properties": {"a": {"type": "integer", "minimum": 0}}, "required": ["a"]},
        {"properties": {"a": {"maximum": 9}, "b": {"type": "string"}}},
    ]
}

FOLLOWED: list[tuple[Schema, list[Any], list[Any]]] = [
    ({}, [None, 1, "a", [], {}], []),
    ({"type": ["string", "null"]}, ["a", None], [1, [], {}]),
    ({"type": ["number", "integer"]}, [1, 1.5], ["1"]),
    ({"minimum": 3}, [3], [2]),
    ({"type": "integer", "minimum": -9007199254740991, "maximum": 9007199254740991}, [0, 9007199254740991], [1.5]),
    ({"type": "integer", "exclusiveMinimum": 0, "multipleOf": 5}, [5, 100], [0, 7, -5]),
    ({"type": "integer", "format": "int32"}, [2147483647, -2147483648], [2147483648]),
    ({"type": "number", "minimum": 0, "maximum": 1}, [0, 0.5, 1, 1.0], [-0.1, 1.0001, 2]),
    ({"type": "number", "exclusiveMinimum": -0.5, "exclusiveMaximum": 0.25}, [-0.4999, 0, 0.2], [-0.5, 0.25, 1]),
    ({"type": "string", "enum": ["a", "b", 3]}, ["a", "b"], [3, "c"]),
    ({"enum": [1, True, None, [1, {"y": 2}], {"a": {}}]}, [1, True, None, [1, {"y": 2}], {"a": {}}], [0, False, {}]),
    ({"const": {"a": [1, "é"]}}, [{"a": [1, "é"]}], [{"a": [1, "e"]}, {"a": [1]}]),
    ({"enum": ["a", "b", "c"], "pattern": "^[bc]", "maxLength": 1}, ["b", "c"], ["a"]),
    ({"type": "string", "pattern": "b+"}, ["abbc", "b"], ["ac", ""]),
    ({"type": "string", "pattern": "^a*$", "minLength": 2, "maxLength": 3}, ["aa", "aaa"], ["a", "aaaa", "ab"]),
    ({"type": "string", "format": "date", "pattern": "^2024"}, ["2024-02-29"], ["2023-01-01", "2024-02-30"]),
    ({"type": "array"}, [[], [1, [], {}]], [{}]),
    ({"type": "array", "items": {"type": "integer"}, "minItems": 1}, [[1], [1, 2]], [[], ["a"]]),
    ({"type": "array", "items": {}, "maxItems": 0}, [[]], [[1]]),
    ({"prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False}, [[1, "a"]], [["a", 1], [1, "a", 2]]),
    ({"prefixItems": [{"const": 1}], "items": {"const": 2}, "maxItems": 3}, [[1], [1, 2, 2]], [[1, 1], [1, 2, 2, 2]]),
    ({"prefixItems": [{"const": 1}, {"const": 2}], "minItems": 0, "items": False}, [[], [1], [1, 2]], [[2]]),
    ({"items": [{"const": 1}], "additionalItems": {"const": 2}}, [[1], [1, 2, 2]], [[2], [1, 1]]),
    ({"type": "object"}, [{}, {"a": {"b": [1]}}], [[]]),
    ({"type": "object", "properties": {}}, [{}], []),
    ({"properties": {"a": {}}, "additionalProperties": True}, [{}, {"a": 1}, {"b": 2}, {"a": 1, "b": 2}], [1]),
    ({"properties": {"a": False, "b": {}}, "additionalProperties": {}}, [{"b": 1, "c": 2}], [{"a": 1}]),
    ({"required": ["b"]}, [{"b": 1}, {"b": 1, "c": 2}], [{}, {"c": 1}]),
    ({"properties": {"a": {"const": 1}}, "required": ["a", "z"]}, [{"a": 1, "z": []}], [{"a": 1}, {"z": 1}]),
    (
        {"additionalProperties": {"type": "integer"}, "maxProperties": 2},
        [{}, {"a": 1, "b": 2}], [{"a": "x"}, {"a": 1, "b": 1, "c": 1}],
    ),
    ({"additionalProperties": {"type": "integer"}, "minProperties": 1}, [{"a": 1}], [{}]),
    ({"properties": {"a": {}, "b": {}}, "minProperties": 1, "additionalProperties": False}, [{"a": 1}, {"b": 1}], [{}]),
    (
        {"properties": {"a": {}, "b": {}}, "minProperties": 2, "additionalProperties": False},
        [{"a": 1, "b": 1}], [{"a": 1}],
    ),
    ({"properties": {"a": {}, "b": {}}, "required": ["b"], "maxProperties": 1}, [{"b": 1}], [{"a": 1, "b": 1}]),
    (
        {"propertyNames": {"pattern": "^[a-z]+$"}, "additionalProperties": {"type": "null"}},
        [{}, {"ab": None}], [{"A": None}],
    ),
    ({"propertyNames": {"enum": ["a", "b"]}, "additionalProperties": {"type": "null"}}, [{"a": None}], [{"c": None}]),
    (
        {"patternProperties": {"^x_": {"type": "integer"}}, "additionalProperties": False},
        [{}, {"x_a": 1}], [{"y": 1}, {"x_": "1"}],
    ),
    ({"anyOf": [{"type": "string"}, {"type": "array", "items": {"$ref": "#"}}]}, ["a", ["a", ["b"], []]], [1, [1]]),
    (
        {"type": "object", "properties": {"a": {}, "b": {}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        [{"a": 1}, {"b": 1}, {"a": 1, "b": 2}], [{}],
    ),
    (
        {"oneOf": [{"type": "integer", "maximum": 4}, {"type": "integer", "minimum": 5}, {"type": "null"}]},
        [4, 5, None], ["a"],
    ),
    (TAGGED, [{"k": "a", "x": 1}, {"k": "b", "y": "z"}], [{"k": "a", "y": "z"}, {"k": "c"}, {}]),
    (OPEN_TAGS, [{"k": "a"}, {"k": "b"}], [{"k": "c"}, {}]),
    (MERGED, [{"a": 5, "b": "x"}, {"a": 0}], [{"a": 10}, {"a": -1}, {"b": "x"}]),
    ({"allOf": [{"$ref": "#/$defs/n"}], "title": "N", "$defs": {"n": {"type": "null"}}}, [None], [1]),
    ({"$ref": "#/$defs/a~1b%25", "$defs": {"a/b%": {"const": 1}}}, [1], [2]),
    (
        {"$ref": "#/$defs/o", "required": ["a"], "$defs": {"o": {"properties": {"a": {}, "b": {}}}}},
        [{"a": 1}], [{"b": 1}],
    ),
    (TREE, [{"v": 1, "kids": [{"v": 2}, {"kids": []}]}, {}], [{"v": 1, "kids": {}}, {"kids": [1]}]),
    ({"type": "string", "x-hint": 1, "title": "T", "default": 3, "examples": [1], "uniqueItems": False}, ["a"], [1]),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "good", "bad"), FOLLOWED, ids=lambda value: json.dumps(value)[:60])
def test_what_is_followed(accepts: Accepts, wander: Wander, schema: Schema, good: list[Any], bad: list[Any]) -> None:
    draft = Draft7Validator if isinstance(schema.get("items"), list) else Draft202012Validator
    gbnf, validator = grammar(schema), draft(schema)
    for value in good:
        assert validator.is_valid(value), value
        assert accepts(gbnf, json.dumps(value, ensure_ascii=False)), value
    for value in bad:
        assert not accepts(gbnf, json.dumps(value, ensure_ascii=False)), value
    for seed in range(3):
        text = wander(gbnf, seed)
        if text is not None:
            assert validator.is_valid(json.loads(text)), text


def test_properties_keep_their_order_and_their_names_their_spelling(accepts: Accepts) -> None:
    gbnf = grammar({"properties": {"b": {}, "a": {}}, "additionalProperties": {}})
    assert accepts(gbnf, '{"b": 1, "a": 2, "c": 3}')
    assert not accepts(gbnf, '{"a": 1, "b": 2}')
    assert not accepts(gbnf, '{"\\u0061": 1}')  # a second spelling of a name would slip past what it stands for


def test_lengths_count_characters_and_not_escapes(accepts: Accepts) -> None:
    gbnf = grammar({"type": "string", "minLength": 2, "maxLength": 2})
    for text in ('"éé"', '"😀x"', '"\\ud83d\\ude00\\n"', '"\\u0041\\\\"'):
        assert accepts(gbnf, text), text
    for text in ('"é"', '"\\u0041"', '"abc"', '"\\ud83d\\ude00"'):
        assert not accepts(gbnf, text), text


@pytest.mark.parametrize("most", [0, 1, 64, 65, 66, 130, 1000, 2500])
def test_counts_are_exact_however_high(accepts: Accepts, most: int) -> None:
    gbnf = grammar({"type": "array", "items": {"const": 1}, "minItems": most // 2, "maxItems": most})
    for count, fits in ((most, True), (most + 1, False), (most // 2, True), (most // 2 - 1, False)):
        if count >= 0:
            assert accepts(gbnf, json.dumps([1] * count)) == fits, count


LEVELS: dict[str, Any] = {"type": "string"}
for _ in range(40):
    LEVELS = {"type": "object", "properties": {"a": LEVELS}}
CHAIN = {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}, {"type": "object"}]} for i in range(200)}
LOOPS = {
    "$defs": {name: {"properties": {"x": {"$ref": f"#/$defs/{name}"}}} for name in "bc"},
    "allOf": [{"$ref": "#/$defs/b"}, {"$ref": "#/$defs/c"}],
}


def closed(**properties: Any) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def recursive(*options: Schema) -> Schema:
    return {"$defs": {"e": {"anyOf": [{"type": "null"}, *options]}}, "$ref": "#/$defs/e"}


E = {"$ref": "#/$defs/e"}
LADDER = {
    f"l{i}": {"anyOf": [closed(x={"$ref": f"#/$defs/l{i + 1}"}, k={"const": n}) for n in (1, 2)]} for i in range(12)
}
"""Each level's two options are told apart only after the levels inside it."""

REFUSED: list[tuple[object, str]] = [
    ({"properties": {"a": {"not": {}}}}, r"#/properties/a uses not.*: list what is allowed"),
    ({"items": {"if": {}}}, "#/items uses if.*anyOf"),
    ({"uniqueItems": True}, "uniqueItems.*list"),
    ({"type": "string", "nullable": True}, 'nullable.*"null"'),
    ({"minLenght": 3}, "uses minLenght"),
    ({"patternProperties": {"a": {}, "b": {}}}, "one pattern"),
    ({"contains": {}}, "contains"),
    ({"dependentRequired": {}}, "dependentRequired"),
    ({"unevaluatedProperties": False}, "additionalProperties"),
    ({"multipleOf": 0.01}, "multipleOf 0.01"),
    ({"type": "strin"}, "'strin': write one of string"),
    ({"type": 5}, "must be a list"),
    ({"type": []}, "write one of"),
    ({"type": [["a"]]}, "write one of"),
    (5, "must be an object"),
    ({"properties": []}, "#/properties must be an object"),
    ({"properties": {"a/b~": 5}}, "#/properties/a~1b~0 must be an object"),
    ({"required": "a"}, "#/required must be a list"),
    ({"required": [1]}, "#/required must be a list of names"),
    ({"enum": "a"}, "#/enum must be a list"),
    ({"enum": []}, "at least one value"),
    ({"anyOf": []}, "at least one schema"),
    ({"minLength": -1}, "minLength -1"),
    ({"maxItems": 1.5}, "maxItems 1.5"),
    ({"minimum": "3"}, "minimum '3'"),
    ({"enum": [float("nan")]}, "no JSON text"),
    ({"const": "\ud800"}, "no JSON text"),
    ({"properties": {"\ud800": {}}}, "no JSON text"),
    ({"$ref": "https://example.com/s.json"}, "same document"),
    ({"$ref": "#foo"}, "same document"),
    ({"$ref": "#/$defs/x"}, "there is nothing"),
    ({"$ref": "#"}, "only leads back to itself"),
    ({"anyOf": [{"$ref": "#"}, {"type": "null"}]}, "leads back to itself"),
    ({"allOf": [{"$ref": "#"}, {"type": "object"}]}, "combined with itself"),
    ({"properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "no finite value"),
    ({"type": "string", "pattern": "("}, "without its \\)"),
    ({"type": "string", "pattern": "(?<=a)b"}, "lookbehind"),
    ({"type": "string", "pattern": "a(?!b)"}, "lookahead"),
    ({"type": "string", "pattern": "(a)\\1"}, "escape"),
    ({"type": "string", "pattern": "\\bx"}, "escape"),
    ({"type": "string", "pattern": "\\p{L}"}, "escape"),
    ({"type": "string", "pattern": "^(?=a)b$"}, "no text matches"),
    ({"type": "string", "pattern": "(a|b)*a(a|b){30}"}, "too large"),
    ({"type": "string", "pattern": 5}, "regular expression"),
    ({"type": "string", "format": "iri"}, "'iri', but .* uuid"),
    ({"type": "string", "format": "int32"}, "'int32', but"),
    ({"type": "integer", "format": "big"}, "'big', but"),
    ({"type": "string", "format": "email", "maxLength": 5}, "maxLength 5"),
    ({"type": "string", "minLength": 5, "maxLength": 3}, "minLength 5 above maxLength 3"),
    ({"type": "string", "pattern": "^a$", "minLength": 2}, "contradicts itself"),
    ({"type": "string", "enum": [1]}, "contradicts itself"),
    ({"type": "integer", "minimum": 5, "maximum": 3}, "contradicts itself"),
    ({"type": "integer", "minimum": 10**30}, "contradicts itself"),
    ({"required": ["a"], "additionalProperties": False}, "requires the property 'a'"),
    ({**MERGED, "additionalProperties": False}, "requires the property 'a'"),  # it does not see into allOf
    ({"properties": {"a": {}}, "required": ["a"], "maxProperties": 0}, "requires 1 properties but allows 0"),
    ({"properties": {"a": {}, "b": {}, "c": {}}, "minProperties": 2}, "minProperties"),
    ({"prefixItems": [{}], "items": False, "minItems": 2}, "at least 2 items"),
    ({"oneOf": [{"type": "string"}, {"maxLength": 3}]}, "#/oneOf has the options 0 and 1.*anyOf"),
    ({"oneOf": [{"properties": {"k": {"const": 1}}}, {"properties": {"k": {"const": 2}}}]}, "required property"),
    (
        recursive(closed(left=E, op={"const": "+"}), closed(left=E, op={"const": "*"})),
        "#/\\$defs/e has options that begin",
    ),
    (recursive({"items": E}, {"items": E, "minItems": 1}), "begin alike"),
    (recursive({"prefixItems": [E, {"const": 1}]}, {"prefixItems": [E, {"const": 2}]}), "begin alike"),
    ({"$defs": {**LADDER, "l12": {"type": "null"}}, "$ref": "#/$defs/l0"}, "begin alike"),
    (LEVELS, "nested deeper"),
    ({"$defs": CHAIN, "$ref": "#/$defs/a0"}, "nested deeper"),
    (LOOPS, "contain themselves"),
    ({"type": "string", "maxLength": 10**9}, "too large"),
    ({"properties": {f"p{i}": {} for i in range(500)}}, "256 properties"),
    ({"anyOf": [{"const": i} for i in range(500)]}, "256"),
    ({"allOf": [{"anyOf": [{"minLength": i + j} for i in range(10)]} for j in range(4)]}, "256"),
    ({"items": [{"type": "string"}] * 11_000}, "subschemas"),
    ({"oneOf": [{"const": i} for i in range(5000)]}, "too long"),
    ({"allOf": [{"enum": [f"v{i}" for i in range(2000)]}] * 20}, "too long"),
]


TOLD_APART: list[tuple[Schema, str]] = [
    (recursive(closed(op={"const": "+"}, left=E), closed(op={"const": "*"}, left=E)), '{"op": "*", "left": '),
    (recursive(*(closed(id={"type": "integer"}, k={"const": k}, x=E) for k in (1, 2))), '{"id": 3, "k": 2, "x": '),
    (recursive(closed(**{"and": E}), closed(**{"or": E})), '{"or": '),
    (recursive(closed(v={"type": "integer"}), closed(v={"type": "integer"}, left=E)), '{"v": 1, "left": '),
    (recursive({"items": E}, {"additionalProperties": E}), '[{"a": '),
    (recursive({"prefixItems": [{"const": "a"}, E]}, {"prefixItems": [{"const": "b"}, E]}), '["b", '),
    ({"type": "array", "items": {"$ref": "#"}, "maxItems": 1000}, "[[], "),
    (recursive({"type": "object"}, {"type": "array"}, closed(a=E), {"items": E}), '[{"a": '),
]


@pytest.mark.parametrize(("schema", "level"), TOLD_APART)
def test_what_holds_itself_takes_no_longer_for_being_deep(begins: Accepts, schema: Schema, level: str) -> None:
    started = time.process_time()
    assert begins(grammar(schema), level * 60)
    assert time.process_time() - started < 20, "the ways to read it multiply with every level"


@pytest.mark.parametrize(("schema", "words"), REFUSED, ids=lambda value: str(value)[:50])
def test_what_cannot_be_followed_is_refused_by_name(schema: object, words: str) -> None:
    started = time.process_time()
    with pytest.raises(InvalidInput, match=words) as caught:
        grammar(schema)
    assert caught.value.param == "response_format"
    assert len(str(caught.value)) < 400
    assert time.process_time() - started < 20, "a refusal took as long as an attack"


def _is_date(text: str) -> bool:
    return date.fromisoformat(text).isoformat() == text


def _is_email(text: str) -> bool:
    return bool(re.fullmatch(r"[^@\s.]+(\.[^@\s.]+)*@([a-zA-Z0-9-]+\.)+[a-zA-Z]+", text))


def _is_uri(text: str) -> bool:
    return bool(HttpUrl(re.sub("^[a-z]+", "http", text))) and bool(urllib.parse.urlsplit(text).netloc)


def _of_version(version: int) -> Callable[[str], object]:
    return lambda text: uuid.UUID(text).version == version


JUDGES: dict[str, Callable[[str], object]] = {
    "date": _is_date,
    "time": lambda text: clock.fromisoformat(text).tzinfo,
    "date-time": lambda text: datetime.fromisoformat(text).tzinfo,
    "duration": lambda text: re.fullmatch(r"P(?=.)(\d+W|(\d+Y)?(\d+M)?(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+S)?)?)", text),
    "email": _is_email,
    "hostname": lambda text: re.fullmatch(r"(?!-)[a-zA-Z0-9-]{1,63}(?<!-)(\.(?!-)[a-zA-Z0-9-]{1,63}(?<!-))*", text),
    "ipv4": lambda text: str(ipaddress.IPv4Address(text)) == text,
    "ipv6": ipaddress.IPv6Address,
    "uri": _is_uri,
    "uuid": uuid.UUID,
    **{f"uuid{version}": _of_version(version) for version in range(1, 9)},
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("most", [None, 40])
def test_every_text_of_a_format_is_of_that_format(wander: Wander, form: str, most: int | None) -> None:
    schema: Schema = {"type": "string", "format": form} | ({"maxLength": most} if most else {})
    gbnf, found = grammar(schema), 0
    for seed in range(10):
        if (text := wander(gbnf, seed)) is not None:
            value = json.loads(text)
            assert JUDGES[form](value), value
            assert most is None or len(value) <= most
            found += 1
    assert found > 3


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("date", "2000-02-29"),
        ("time", "23:59:59.123Z"),
        ("date-time", "2024-12-31T00:00:00+05:30"),
        ("duration", "P1DT12H"),
        ("email", "jane.doe+x@mail.example.org"),
        ("hostname", "www.example.org"),
        ("ipv4", "192.168.0.255"),
        ("ipv6", "fe80::1:2"),
        ("uri", "https://example.org:8080/a/b?c=d&e#f"),
        ("uuid", "123e4567-e89b-12d3-a456-426614174000"),
    ],
)
def test_formats_have_their_everyday_texts(accepts: Accepts, form: str, text: str) -> None:
    assert accepts(grammar({"type": "string", "format": form}), json.dumps(text))


class Colour(Enum):
    RED = "red"
    GREEN = "green"


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = Field(ge=0, le=9)


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    good: bool = True


class Part(BaseModel):
    name: str
    parts: list["Part"] = []


class Everything(BaseModel):
    name: str = Field(min_length=1, max_length=80, description="as it is said")
    age: int | None = Field(None, gt=0, lt=150)
    score: float = Field(ge=0, le=1)
    colour: Colour
    pet: Cat | Dog = Field(discriminator="kind")
    at: datetime
    id: uuid.UUID
    site: HttpUrl
    mail: str = Field(pattern=r"^\S+@\S+\.\w+$")
    counts: dict[str, int]
    keyed: dict[Annotated[str, StringConstraints(pattern="^[a-z]+$")], float] = Field(max_length=2)
    pair: tuple[int, str]
    tree: Part
    price: Decimal
    tags: list[str] = Field(default_factory=list, max_length=3)


def test_what_pydantic_writes_is_followed(accepts: Accepts, wander: Wander) -> None:
    gbnf = grammar(Everything.model_json_schema())
    value = Everything(
        name="Ann",
        age=None,
        score=0.5,
        colour=Colour.RED,
        pet=Dog(),
        at=datetime.fromisoformat("2024-01-01T00:00:00Z"),
        id=uuid.uuid4(),
        site=HttpUrl("https://example.org/"),
        mail="a@b.cd",
        counts={"x": 1},
        keyed={"k": 0.5},
        pair=(1, "a"),
        tree=Part(name="p", parts=[Part(name="q")]),
        price=Decimal("1.50"),
        tags=["t"],
    )
    assert accepts(gbnf, value.model_dump_json())
    assert not accepts(gbnf, value.model_dump_json().replace("0.5", "1.5", 1))
    Cat.model_validate_json(
        next(text for seed in range(20) if (text := wander(grammar(Cat.model_json_schema()), seed)))
    )


ZOD_EMAIL = r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$"


def test_what_zod_writes_is_followed(accepts: Accepts) -> None:
    gbnf = grammar(
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "email": {"type": "string", "format": "email", "pattern": ZOD_EMAIL},
                "n": {"type": "integer", "minimum": -9007199254740991, "maximum": 9007199254740991},
                "r": {
                    "type": "object",
                    "propertyNames": {"type": "string", "enum": ["a", "b"]},
                    "additionalProperties": {"type": "number"},
                    "required": ["a", "b"],
                },
            },
            "required": ["email", "n", "r"],
            "additionalProperties": False,
        }
    )
    assert accepts(gbnf, '{"email": "a.b@c.de", "n": 3, "r": {"a": 1, "b": 2.5}}')
    assert not accepts(gbnf, '{"email": "a..b@c.de", "n": 3, "r": {"a": 1, "b": 2.5}}')
    assert not accepts(gbnf, '{"email": "a.b@c.de", "n": 3, "r": {"a": 1}}')

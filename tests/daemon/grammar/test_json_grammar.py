"""JSON schemas as grammars, at random: what comes out satisfies the schema, what satisfies it can come out, no more."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from familiar.daemon.engine import Engine
from familiar.daemon.grammar.json_grammar import json_object_grammar, json_schema_grammar
from familiar.daemon.sampling import Sampling
from familiar.memory.types import Message

Accepts = Callable[[str, str], bool]
Wander = Callable[[str, int], str | None]
Schema = dict[str, Any]

few = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
many = settings(max_examples=2500, deadline=None, suppress_health_check=list(HealthCheck))


def grammar(schema: Schema) -> str:
    return json_schema_grammar(schema, param="response_format")


def satisfies(value: object, schema: Schema) -> bool:
    return bool(Draft202012Validator(schema).is_valid(value))


@dataclass(frozen=True)
class Case:
    """A schema, and values that satisfy it in the order of its properties."""

    schema: Schema
    values: st.SearchStrategy[Any]


NAMES = st.sampled_from(["a", "ab", "b", "name", 'q"uote', "back\\slash", "é", "😀", "", "$ref", "a b", "]^-", "\n"])
CHARS = st.characters(exclude_categories=["Cs"])
PATTERNS = ["^[a-c]{1,3}$", "^x*é?$", '^("|\\\\|\\n)+$', "^(?!b).{0,4}$", "^\\d+(\\.\\d+)?$", "x", "^(a|bc){2,}$"]


@st.composite
def strings(draw: st.DrawFn) -> Case:
    if draw(st.booleans()):
        pattern = draw(st.sampled_from(PATTERNS))
        return Case({"type": "string", "pattern": pattern}, st.from_regex(re.compile(pattern, re.ASCII)).filter(_plain))
    least = draw(st.integers(0, 4))
    most = least + draw(st.integers(0, 70))
    schema = {"type": "string"} | ({"minLength": least, "maxLength": most} if draw(st.booleans()) else {})
    return Case(schema, st.text(CHARS, min_size=least, max_size=most))


def _plain(text: str) -> bool:
    """Whether Python reads ``$`` and ``.`` as ECMA-262 does here, and the text can be sent at all."""
    return not re.search("[\n\r\u2028\u2029\ud800-\udfff]", text)


@st.composite
def numbers(draw: st.DrawFn) -> Case:
    low, high = sorted(draw(st.tuples(st.integers(-2000, 2000), st.integers(-2000, 2000))))
    has_low, has_high, whole = draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
    scale = 1 if whole else 100
    schema: Schema = {"type": "integer" if whole else "number"}
    schema |= {"minimum": low / scale} if has_low else {}
    schema |= {"exclusiveMaximum": (high + 1) / scale} if has_high else {}
    values = st.integers(low if has_low else -(10**6), high if has_high else 10**6)
    return Case(schema, values.map(lambda n: n if whole else n / scale))


@st.composite
def literals(draw: st.DrawFn) -> Case:
    some = st.text(CHARS, max_size=5) | st.integers(-20, 20) | st.none() | st.booleans() | st.just([1, {"a": "b"}])
    listed = draw(st.lists(some, min_size=1, max_size=6))
    schema = {"enum": listed} if len(listed) > 1 else {"const": listed[0]}
    return Case(schema, st.sampled_from(listed))


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[Case]) -> Case:
    fields: dict[str, Case] = draw(st.dictionaries(NAMES, inner, max_size=4))
    required = [name for name in fields if draw(st.booleans())]
    schema: Schema = {"type": "object", "properties": {name: case.schema for name, case in fields.items()}}
    schema |= {"required": required}
    extra = draw(st.none() | inner)
    if extra or fields or draw(st.booleans()):
        schema["additionalProperties"] = extra.schema if extra else False

    @st.composite
    def values(draw: st.DrawFn) -> dict[str, Any]:
        value = {name: draw(case.values) for name, case in fields.items() if name in required or draw(st.booleans())}
        if extra:
            value |= draw(st.dictionaries(NAMES.filter(lambda name: name not in fields), extra.values, max_size=2))
        return value

    return Case(schema, values())


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[Case]) -> Case:
    case, least = draw(inner), draw(st.integers(0, 2))
    most = least + draw(st.integers(0, 3))
    schema = {"type": "array", "items": case.schema, "minItems": least, "maxItems": most}
    return Case(schema, st.lists(case.values, min_size=least, max_size=most))


@st.composite
def tuples(draw: st.DrawFn, inner: st.SearchStrategy[Case]) -> Case:
    cases = draw(st.lists(inner, min_size=1, max_size=3))
    schema = {"type": "array", "prefixItems": [case.schema for case in cases], "items": False, "minItems": len(cases)}
    return Case(schema, st.tuples(*(case.values for case in cases)).map(list))


@st.composite
def choices(draw: st.DrawFn, inner: st.SearchStrategy[Case]) -> Case:
    cases = draw(st.lists(inner, min_size=1, max_size=3))
    return Case({"anyOf": [case.schema for case in cases]}, st.one_of(*(case.values for case in cases)))


def _grown(inner: st.SearchStrategy[Case]) -> st.SearchStrategy[Case]:
    return objects(inner) | objects(inner) | arrays(inner) | tuples(inner) | choices(inner)


CASES = st.recursive(strings() | numbers() | literals(), _grown, max_leaves=6)
STYLES: list[dict[str, Any]] = [{}, {"separators": (",", ":")}, {"indent": 2}, {"indent": "\t"}]


def spoiled(value: Any) -> Any:
    """Change a value a little, mostly so that it no longer fits."""
    if isinstance(value, dict):
        return dict(list(value.items())[1:]) if len(value) % 2 else {"spoiled": 1, **value}
    if isinstance(value, list):
        return [*value, value[-1] if value else 0]
    if isinstance(value, str):
        return value + "xx"
    return value + 1 if isinstance(value, int | float) and not isinstance(value, bool) else 0


def _check_what_comes_out(wander: Wander, case: Case, seed: int) -> None:
    text = wander(grammar(case.schema), seed)
    if text is not None:
        assert satisfies(json.loads(text), case.schema), text


def _check_what_is_accepted(accepts: Accepts, case: Case, other: Case, style: Schema, data: st.DataObject) -> None:
    gbnf, value = grammar(case.schema), data.draw(case.values)
    assert satisfies(value, case.schema)
    assert accepts(gbnf, json.dumps(value, ensure_ascii=False, **style))
    for wrong in (spoiled(value), data.draw(other.values)):
        if not satisfies(wrong, case.schema):
            assert not accepts(gbnf, json.dumps(wrong, ensure_ascii=False, **style)), wrong


@few
@given(case=CASES, seed=st.integers(0, 1000))
def test_what_comes_out_satisfies_the_schema(wander: Wander, case: Case, seed: int) -> None:
    _check_what_comes_out(wander, case, seed)


@few
@given(case=CASES, other=CASES, style=st.sampled_from(STYLES), data=st.data())
def test_exactly_what_satisfies_the_schema_can_come_out(
    accepts: Accepts, case: Case, other: Case, style: Schema, data: st.DataObject
) -> None:
    _check_what_is_accepted(accepts, case, other, style, data)


@pytest.mark.slow
@many
@given(case=CASES, seed=st.integers(0, 1000))
def test_what_comes_out_satisfies_thousands_of_schemas(wander: Wander, case: Case, seed: int) -> None:
    _check_what_comes_out(wander, case, seed)


@pytest.mark.slow
@many
@given(case=CASES, other=CASES, style=st.sampled_from(STYLES), data=st.data())
def test_exactly_what_satisfies_thousands_of_schemas_can_come_out(
    accepts: Accepts, case: Case, other: Case, style: Schema, data: st.DataObject
) -> None:
    _check_what_is_accepted(accepts, case, other, style, data)


def _check_what_the_model_writes(engine: Engine, case: Case, seed: int) -> None:
    prompt = engine.encode_prompt([Message(role="user", content="Say something as JSON.")])
    sampling = Sampling(seed=seed, temperature=1.5, max_tokens=150, grammar=grammar(case.schema))
    reply = engine.generate(prompt, sampling)
    text = reply.text()
    if reply.finish_reason == "stop":
        assert satisfies(json.loads(text), case.schema), text


@settings(few, max_examples=25)
@given(case=CASES, seed=st.integers(0, 1000))
def test_what_a_real_model_writes_satisfies_the_schema(engine: Engine, case: Case, seed: int) -> None:
    _check_what_the_model_writes(engine, case, seed)


@pytest.mark.slow
@settings(many, max_examples=500)
@given(case=CASES, seed=st.integers(0, 1000))
def test_what_a_real_model_writes_satisfies_hundreds_of_schemas(engine: Engine, case: Case, seed: int) -> None:
    _check_what_the_model_writes(engine, case, seed)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.text(CHARS, max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(CHARS, max_size=4), inner, max_size=3),
    max_leaves=8,
)


@few
@given(value=st.dictionaries(st.text(CHARS, max_size=4), JSON, max_size=3), escaped=st.booleans())
def test_any_json_object_can_come_out(accepts: Accepts, value: Schema, escaped: bool) -> None:
    assert accepts(json_object_grammar(), json.dumps(value, ensure_ascii=escaped, indent=2 if escaped else None))


@pytest.mark.parametrize("seed", range(40))
def test_any_object_that_comes_out_is_json(wander: Wander, seed: int) -> None:
    text = wander(json_object_grammar(), seed)
    assert text is None or isinstance(json.loads(text), dict)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        " {}",
        "{}\n",
        '{"a":01}',
        '{"a":.5}',
        '{"a":+1}',
        '{"a":1.}',
        '{"a" 1}',
        '{"a":1,}',
        "{a:1}",
        '{"a":NaN}',
        '{"a":"\n"}',
        '{"a":"\t"}',
        '{"a":"\x01"}',
        '{"a":"\\x41"}',
        '{"a":"\\ud83d"}',
        '{"a":"\\ude00"}',
        '{"a":"\\ud83d\\u0041"}',
        '{"a":1}' + " " * 3,
        '{"a":' + " " * 2 + "1}",
        '{"a":\n' + " " * 21 + "1}",
        '{"a":1}{}',
    ],
)
def test_what_is_no_json_object_or_never_ends_cannot_come_out(accepts: Accepts, text: str) -> None:
    assert not accepts(json_object_grammar(), text)


@pytest.mark.parametrize(
    "text",
    ['{"a":"\\u00e9\\ud83d\\ude00\\/\\b"}', '{"a":"é😀\x7f\u2028"}', '{"a":-0.5e-10}', '{"a":1E+9}', "{ }", "{\n}"],
)
def test_json_is_accepted_in_every_spelling(accepts: Accepts, text: str) -> None:
    json.loads(text)
    assert accepts(json_object_grammar(), text)

"""The ready graders: what each likes better, and that each is a grader in OpenAI's form."""

import json
import random
from typing import Any

import jsonschema
import pytest

from familiar.feedback import ready_checks
from familiar.feedback.graders import parse, run_many
from familiar.feedback.ready_graders import READY, from_text, ready
from familiar.memory.errors import InvalidInput, NotFound

CASES: dict[str, tuple[list[str], list[str]]] = {
    "max_words=4": (["One two three four.", "Don't over-think this."], ["One two three four five."]),
    "min_words=3": (["One two three."], ["One two."]),
    "max_sentences=1": (["It is 3.5 km, e.g. uphill.", "Ask Dr. Smith!"], ["Yes. No."]),
    "min_sentences=2": (["Yes. No."], ["Yes"]),
    "metric_units": (
        ["Run 5 km at 20 °C.", "Feet first.", "No measure."],
        ["Run 3 miles (5 km).", "a few pounds", "70°F"],
    ),
    "imperial_units": (["Run three miles."], ["Run 5 kilometres.", "250 g"]),
    "british_spelling": (["The colour of the theatre.", "Her laboratory."], ["My favorite color.", "Organize it."]),
    "american_spelling": (["The color of the theater."], ["My favourite colour.", "I realised it."]),
    "bullets": (["- a\n- b", "Some:\n* a\n* b"], ["a and b", "- a"]),
    "no_bullets": (["a and b", "1. a"], ["- a\n- b"]),
    "numbered_list": (["1. a\n2. b", "1) a\n2) b\n3) c"], ["a, b", "- a", "1. a\n1. b", "1. a"]),
    "plain_text": (["a * b * c", "Just text.\n\nMore, 2_000_000."], ["**a**", "# a", "[a](b)", "`a`", "```\na\n```"]),
    "table": (["| a | b |\n|---|:-:|\n| 1 | 2 |", "a | b\n--- | ---\n1 | 2"], ["| a | b |", "text"]),
    "must_contain=Grüße": (["Viele grüße, A."], ["Bye."]),
    "never_contain=cat": (["Category."], ["A cat.", "CAT"]),
    "begins_with=Hello": (["Hello there", "**hello**"], ["Oh, hello"]),
    "ends_with=Cheers, Ann": (["Bye.\nCheers, Ann.", "cheers, ann"], ["Cheers, Ann, bye"]),
    "no_emoji": (["Fine :)", "→ © ½"], ["Fine 🙂", "✅ done", "❤️"]),
    "no_question_at_end": (["Why? Because.", "Ok"], ["Ok. Anything else?", 'He asked "why?"']),
    "no_apologies": (["Sorrow is not it."], ["I'm sorry, no.", "We apologize.", "Tut mir leid!"]),
    "lower_case": (["all small, 3!"], ["All small"]),
    "upper_case": (["ALL BIG, 3!"], ["ALL big"]),
    "formal_you=german": (["Können Sie mir helfen?", "Hallo."], ["Kannst du mir helfen?"]),
    "informal_you=spanish": (["Tú sabes.", "Hola."], ["Usted sabe."]),
    'json_schema={"type": "object", "required": ["a"]}': (['{"a": 1}'], ["a", "{}", "[1]"]),
}


@pytest.mark.parametrize("said", CASES)
def test_each_prefers_what_keeps_the_rule(said: str) -> None:
    good, bad = CASES[said]
    definition = from_text(said)
    assert json.loads(json.dumps(definition)) == definition
    found = run_many(parse(definition), [(text, {}) for text in (*good, *bad, "", "  \n")])
    assert [each.errors for each in found] == [{}] * len(found)
    rewards = [each.reward for each in found]
    assert rewards[: len(good)] == [1.0] * len(good)
    assert all(0.0 <= reward < 1.0 for reward in rewards[len(good) :])
    assert rewards[-2:] == [0.0, 0.0], "an empty reply keeps no rule"


def test_every_one_has_a_case_and_its_words() -> None:
    assert {said.partition("=")[0] for said in CASES} == set(READY)
    assert ready("max_words", words=50)["name"] == "max_words=50"
    assert len(ready("never_contain", words="x" * 500)["name"]) == 60
    assert from_text("no-emoji") == ready("no_emoji")
    quoted = ready("never_contain", words="a'b\"\\c\n{}")
    assert run_many(parse(quoted), [("say a'b\"\\c\n{} now", {})])[0].reward == 0.0


def test_less_wrong_is_better() -> None:
    lengths = [ready_checks.max_words("word " * count, 50) for count in (50, 60, 200)]
    assert lengths == [1.0, 50 / 60, 0.25]
    grader = parse(ready("metric_units"))
    found = run_many(grader, [("5 km and 3 miles", {}), ("3 miles and 2 feet", {})])
    assert [each.reward for each in found] == [0.5, 0.0]


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("nothing", NotFound),
        ("", NotFound),
        ("max_words", InvalidInput),
        ("max_words=", InvalidInput),
        ("max_words=many", InvalidInput),
        ("max_words=0", InvalidInput),
        ("no_emoji=1", InvalidInput),
        ("must_contain", InvalidInput),
        ("must_contain=  ", InvalidInput),
        ("must_contain={{item.x}}", InvalidInput),
        ("formal_you=latin", InvalidInput),
        ("json_schema=no", InvalidInput),
        ("json_schema=[]", InvalidInput),
        ('json_schema={"$ref": "#"}', InvalidInput),
        ('json_schema={"type": "thing"}', InvalidInput),
        ('json_schema={"pattern": "("}', InvalidInput),
        ('json_schema={"properties": [1]}', InvalidInput),
        ('json_schema={"anyOf": [3]}', InvalidInput),
        ('json_schema={"type": 3}', InvalidInput),
        ('json_schema={"enum": 3}', InvalidInput),
        ('json_schema={"required": "name"}', InvalidInput),
        ('json_schema={"minimum": "1"}', InvalidInput),
        ('json_schema={"maxItems": -1}', InvalidInput),
        ('json_schema={"minLength": true}', InvalidInput),
        ('json_schema={"oneOf": []}', InvalidInput),
        ('json_schema={"items": null}', InvalidInput),
        ('json_schema={"const": NaN}', InvalidInput),
        ("json_schema=" + '{"items": ' * 2000 + "{}" + "}" * 2000, InvalidInput),
    ],
)
def test_what_cannot_be_meant_is_refused(said: str, error: type[Exception]) -> None:
    with pytest.raises(error) as refused:
        from_text(said)
    assert str(refused.value).endswith(".")
    with pytest.raises(InvalidInput):
        ready("max_words", sentences=3)
    with pytest.raises(InvalidInput):
        ready("max_words", words=True)


def test_schemas_are_followed_as_by_jsonschema() -> None:
    rng = random.Random(3)
    schemas: list[Any] = [
        {"type": "integer", "minimum": 0, "exclusiveMaximum": 3},
        {"type": ["string", "null"], "minLength": 2, "pattern": "a"},
        {"enum": [1, "a", [True], None]},
        {"const": {"a": 1}},
        {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": 2},
        {"type": "object", "properties": {"a": {"type": "boolean"}}, "additionalProperties": False},
        {"type": "object", "required": ["a"], "additionalProperties": {"type": "string"}},
        {"anyOf": [{"type": "string"}, {"type": "number", "maximum": 1}]},
        {"oneOf": [{"type": "number"}, {"type": "integer"}]},
        {"allOf": [{"minimum": 1}, {"maximum": 2}]},
        {"exclusiveMinimum": 0},
        {"type": "number"},
        True,
        False,
    ]

    def value(depth: int = 2) -> Any:
        kinds: list[Any] = [0, 1, 2.0, 2.5, 1e17, -1, True, False, None, "", "a", "ab"]
        if depth and rng.random() < 0.5:
            return [value(depth - 1) for _ in range(rng.randrange(3))]
        if depth and rng.random() < 0.5:
            return {name: value(depth - 1) for name in rng.sample("ab", rng.randrange(3))}
        return rng.choice(kinds)

    for schema in schemas:
        validator = jsonschema.Draft202012Validator(schema)
        for each in (value() for _ in range(200)):
            if schema == {"enum": [1, "a", [True], None]} and each == 1.0 and not isinstance(each, int):
                continue
            assert ready_checks.schema_fits(each, schema) == validator.is_valid(each), (schema, each)

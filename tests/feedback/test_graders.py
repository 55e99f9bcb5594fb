"""Graders as OpenAI has them: definitions that are refused, templates, formulas, models that answer, combinations."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from familiar.feedback import grader_formula
from familiar.feedback.graders import Grade, needs_embedder, needs_model, parse, run, run_many
from familiar.memory.errors import Busy, InvalidInput
from familiar.memory.types import Message


def check(operation: str = "eq", **fields: Any) -> dict[str, Any]:
    texts = {"input": "{{sample.output_text}}", "reference": "{{item.answer}}"}
    return {"type": "string_check", "name": "check", "operation": operation, **texts, **fields}


def scoring(**fields: Any) -> dict[str, Any]:
    turns = [
        {"role": "developer", "content": "Score from 0 to 1."},
        {"role": "user", "content": "{{ sample.output_text }}"},
    ]
    return {"type": "score_model", "name": "judge", "model": "gpt-x", "input": turns, **fields}


def python(body: str) -> dict[str, Any]:
    return {"type": "python", "name": "code", "source": f"def grade(sample, item):\n    {body}\n"}


def multi(formula: str, **graders: Any) -> dict[str, Any]:
    return {"type": "multi", "name": "all", "graders": graders, "calculate_output": formula}


def nested(levels: int) -> dict[str, Any]:
    """A multigrader in a multigrader in a multigrader."""
    found = check()
    for _ in range(levels):
        found = multi("a", a=found)
    return found


def reward(definition: Mapping[str, Any], text: str, item: Mapping[str, Any] | None = None, **more: Any) -> float:
    grade = run(parse(definition), sample=text, item=item, **more)
    assert not grade.errors, grade.errors
    return grade.reward


def flags(grade: Grade) -> set[str]:
    assert grade.reward == 0.0
    return {name for name, value in grade.errors.items() if value is True}


@pytest.mark.parametrize(
    ("operation", "text", "wanted"),
    [
        ("eq", "Paris", 1.0),
        ("eq", "paris", 0.0),
        ("ne", "paris", 1.0),
        ("ne", "Paris", 0.0),
        ("like", "It is Paris.", 1.0),
        ("like", "It is paris.", 0.0),
        ("ilike", "It is pARIS.", 1.0),
        ("ilike", "Par", 0.0),
    ],
)
def test_string_checks(operation: str, text: str, wanted: float) -> None:
    assert reward(check(operation), text, {"answer": "Paris"}) == wanted


def test_templates_follow_paths_into_item_and_sample() -> None:
    item = {"a": {"b-c": ["x", {"d": "deep"}]}, "n": 3, "yes": True, "text": "{{item.n}}"}
    for reference, wanted in (
        ("{{item.a.b-c[1].d}}", "deep"),
        ("{{ item.a.b-c.0 }}", "x"),
        ("{{item.n}}{{item.yes}}", "3true"),
        ("{{item.a.b-c[1]}}", '{"d": "deep"}'),
        ("{{item.text}}", "{{item.n}}"),
        ("none", "none"),
    ):
        assert reward(check(reference=reference), wanted, item) == 1.0
    by_json = check(input="{{sample.output_json.city.name}}", reference="Rome")
    assert reward(by_json, '{"city": {"name": "Rome"}}') == 1.0
    tools = check(input="{{sample.output_tools[0].function.name}}", reference="weather")
    sample = {"output_text": "", "output_tools": [{"function": {"name": "weather"}}]}
    assert run(parse(tools), sample=sample).reward == 1.0


def test_what_a_row_lacks_is_an_error_of_that_row() -> None:
    lacking = run(parse(check()), sample="x", item={"other": 1})
    assert flags(lacking) == {"invalid_variable_error"}
    assert "item.answer" in lacking.errors["invalid_variable_error_details"]
    by_json = parse(check(input="{{sample.output_json.a}}", reference=""))
    assert flags(run(by_json, sample="no JSON")) == {"sample_parse_error"}
    assert flags(run(by_json, sample='{"b": 1}')) == {"invalid_variable_error"}
    assert flags(run(parse(check(reference="x")), sample="x" * 300_000)) == {"truncated_observation_error"}


def test_text_similarity() -> None:
    similar = {**check(), "type": "text_similarity", "evaluation_metric": "rouge_1"}
    del similar["operation"]
    assert reward(similar, "the cat", {"answer": "the dog"}) == 0.5
    cosine = {**similar, "evaluation_metric": "cosine"}
    grader = parse(cosine)
    assert needs_embedder(grader)
    assert needs_embedder(parse(multi("a", a=cosine)))
    assert not needs_embedder(parse(similar))
    assert flags(run(grader, sample="a", item={"answer": "b"})) == {"other_error"}

    def embed(texts: Sequence[str], /) -> list[NDArray[np.float32]]:
        return [np.array([0.6, 0.8] if text == "a" else [1.0, 0.0], dtype=np.float32) for text in texts]

    assert reward(cosine, "a", {"answer": "b"}, embed=embed) == pytest.approx(0.6)
    assert reward(cosine, "", {"answer": "b"}, embed=embed) == 0.0


def answering(*replies: str) -> tuple[Any, list[Any]]:
    """A model that gives these replies, and what it was asked."""
    asked: list[Any] = []
    queue = list(replies)

    def score(messages: Sequence[Message], sampling: Mapping[str, Any], /) -> str:
        asked.append((list(messages), dict(sampling)))
        return queue.pop(0)

    return score, asked


def test_a_score_model_is_asked_with_the_messages_and_its_number_read() -> None:
    score, asked = answering("0.25", '{"result": 0.75, "why": "x"}', " 1 ", '{"result": "0.5"}')
    grader = parse(scoring(sampling_params={"temperature": 1, "max_completions_tokens": 9, "reasoning_effort": "low"}))
    assert needs_model(grader)
    found = run_many(grader, [("one", {}), ("two", {}), ("three", {}), ("four", {})], score=score)
    assert [each.reward for each in found] == [0.25, 0.75, 1.0, 0.5]
    messages, sampling = asked[0]
    assert messages == [{"role": "system", "content": "Score from 0 to 1."}, {"role": "user", "content": "one"}]
    form = sampling.pop("response_format")
    assert sampling == {"temperature": 1, "max_completions_tokens": 9}
    assert form["json_schema"]["schema"]["properties"] == {"result": {"type": "number"}}


def test_what_a_model_may_answer_wrongly() -> None:
    for reply in (
        "good",
        "",
        '{"score": 1}',
        "[1]",
        "true",
        '{"result": 1e999}',
        "NaN",
        "7",
        "-0.1",
        '{"result": null}',
    ):
        score, _ = answering(reply)
        assert flags(run(parse(scoring()), sample="x", score=score)) == {"model_grader_parse_error"}, reply
    score, _ = answering("7")
    assert run(parse(scoring(range=[1, 7])), sample="x", score=score).reward == 7.0
    assert flags(run(parse(scoring()), sample="x")) == {"model_grader_server_error"}

    def busy(messages: Sequence[Message], sampling: Mapping[str, Any], /) -> str:
        raise Busy("Try again soon.")

    grade = run(parse(scoring()), sample="x", score=busy)
    assert flags(grade) == {"model_grader_server_error"}
    assert grade.errors["model_grader_server_error_details"] == "Try again soon."


def test_a_label_model_passes_by_its_label() -> None:
    labelling = {**scoring(), "type": "label_model", "labels": ["kind", "rude"], "passing_labels": ["kind"]}
    for reply, wanted in (('{"result": "kind"}', 1.0), ("rude", 0.0), (" kind\n", 1.0)):
        score, asked = answering(reply)
        assert reward(labelling, "x", score=score) == wanted
        form = asked[0][1]["response_format"]
        assert form["json_schema"]["schema"]["properties"] == {"result": {"enum": ["kind", "rude"]}}
    score, _ = answering("nice")
    assert flags(run(parse(labelling), sample="x", score=score)) == {"model_grader_parse_error"}


def test_python_in_a_batch_and_its_errors() -> None:
    grader = parse(python("return 1 / len(sample['output_text'])"))
    found = run_many(grader, [("ab", {}), ("", {}), ("abcd", {})])
    assert [each.reward for each in found] == [0.5, 0.0, 0.25]
    assert flags(found[1]) == {"python_grader_runtime_error"}
    assert "ZeroDivisionError" in found[1].errors["python_grader_runtime_error_details"]
    stopped = run(parse(python("import os; os._exit(1)")), sample="x")
    assert flags(stopped) == {"python_grader_server_error"}
    assert (
        run(parse(python("return sample['output_json']['a'] + item['b']")), sample='{"a": 1}', item={"b": 2}).reward
        == 3
    )


def test_a_multigrader_combines_by_its_formula() -> None:
    both = multi("0.75 * same + 0.25 * near", same=check(), near=python("return 0.5"))
    grade = run(parse(both), sample="Paris", item={"answer": "Paris"})
    assert grade.reward == pytest.approx(0.875)
    assert grade.sub_rewards == {"same": 1.0, "near": 0.5}
    broken = run(
        parse(multi("1 - code + same", same=check(), code=python("return 1 / 0"))), sample="a", item={"answer": "a"}
    )
    assert flags(broken) == {"python_grader_runtime_error"}, "a part that fails is no reason for a reward"
    assert broken.sub_rewards == {"same": 1.0, "code": 0.0}
    assert flags(run(parse(multi("1 / same", same=check())), sample="a", item={"answer": "b"})) == {
        "formula_parse_error"
    }
    alone = {"type": "multi", "name": "one", "graders": check(), "calculate_output": "check"}
    assert reward(alone, "a", {"answer": "a"}) == 1.0


@pytest.mark.parametrize(
    ("formula", "wanted"),
    [
        ("a + b * 2", 4.5),
        ("(a + b) * 2", 5.0),
        ("2 ^ 3 ^ 2", 512.0),
        ("-a ^ 2", -0.25),
        ("a ** 2 / b", 0.125),
        ("min(a, b, 9) + max(a)", 1.0),
        ("abs(-b) + floor(2.7) + ceil(2.1)", 7.0),
        ("exp(log(b)) + sqrt(4)", 4.0),
        ("1e3 * a - .5", 499.5),
        ("+a", 0.5),
    ],
)
def test_formulas(formula: str, wanted: float) -> None:
    formula = formula if "a" in formula.replace("max", "") else f"{formula} + 0 * a"
    grader_formula.check(formula, frozenset("ab"), "f")
    assert grader_formula.value(formula, {"a": 0.5, "b": 2.0}) == pytest.approx(wanted)


@pytest.mark.parametrize(
    "formula",
    [
        "__import__('os').system('x')",
        "a.real",
        "a if b else 1",
        "a and b",
        "a < b",
        "[a][0]",
        "lambda: a",
        "(a := 1)",
        "a @ b",
        "a % b",
        "a // b",
        "~a",
        "'a'",
        "a + True",
        "a + 1j",
        "f'{a}'",
        "c",
        "pow(a, b)",
        "min()",
        "sqrt(a, b)",
        "min(*a)",
        "min(a, key=b)",
        "a +",
        "",
        "a; b",
        "1 + 1",
        "(" * 500 + "a" + ")" * 500,
        "-" * 1900 + "a",
        "a + " * 1000 + "a",
        "\0",
    ],
)
def test_no_formula(formula: str) -> None:
    with pytest.raises(InvalidInput):
        parse(multi(formula, a=check(), b=check()))


@pytest.mark.parametrize(
    "formula", ["1 / a", "log(a)", "sqrt(a - 1)", "(a - 1) ^ 0.5", "exp(b)", "10 ^ 10 ^ 10 + a", "a ^ -1"]
)
def test_formulas_without_a_value(formula: str) -> None:
    with pytest.raises(grader_formula.Uncomputable):
        grader_formula.value(formula, {"a": 0.0, "b": 1000.0})
    with pytest.raises(grader_formula.Uncomputable):
        grader_formula.value("max(a, 1)", {"a": math.inf})


@pytest.mark.parametrize(
    ("definition", "param"),
    [
        ({}, "grader.type"),
        ({"type": "other"}, "grader.type"),
        ({"type": ["multi"]}, "grader.type"),
        (check(name=""), "grader.name"),
        (check(operation="neq"), "grader.operation"),
        (check(input=3), "grader.input"),
        (check(input="{{other.a}}"), "grader.input"),
        (check(input="{{item}}"), "grader.input"),
        (check(input="{{sample.text}}"), "grader.input"),
        (check(input="{{item.a b}}"), "grader.input"),
        (check(extra=1), "grader.extra"),
        ({**check(), "type": "text_similarity"}, "grader.evaluation_metric"),
        ({**check(), "type": "text_similarity", "evaluation_metric": "rouge_6"}, "grader.evaluation_metric"),
        ({"type": "python", "name": "a"}, "grader.source"),
        ({"type": "python", "name": "a", "source": "def grade("}, "grader.source"),
        ({"type": "python", "name": "a", "source": "x\0"}, "grader.source"),
        ({"type": "python", "name": "a", "source": "#" * 300_000}, "grader.source"),
        (scoring(model=None), "grader.model"),
        (scoring(input=[]), "grader.input"),
        (scoring(input="text"), "grader.input"),
        (scoring(input=[{"role": "tool", "content": "x"}]), "grader.input[0].role"),
        (scoring(input=[{"role": "user"}]), "grader.input[0].content"),
        (scoring(input=[{"role": "user", "content": "{{a.b}}"}]), "grader.input[0].content"),
        (
            scoring(input=[{"role": "user", "content": {"type": "input_image", "image_url": "x"}}]),
            "grader.input[0].content",
        ),
        (scoring(range=[1]), "grader.range"),
        (scoring(range=[1, 0]), "grader.range"),
        (scoring(range=[0, math.inf]), "grader.range"),
        (scoring(range=[0, 10**400]), "grader.range"),
        (scoring(sampling_params={"temperature": 3}), "grader.sampling_params.temperature"),
        (scoring(sampling_params={"temperature": "1"}), "grader.sampling_params.temperature"),
        (scoring(sampling_params={"max_completions_tokens": 0}), "grader.sampling_params.max_completions_tokens"),
        (scoring(sampling_params={"seed": 1.5}), "grader.sampling_params.seed"),
        (scoring(sampling_params={"other": 1}), "grader.sampling_params.other"),
        ({**scoring(), "type": "label_model", "labels": ["a"], "passing_labels": ["b"]}, "grader.passing_labels"),
        ({**scoring(), "type": "label_model", "labels": []}, "grader.labels"),
        (multi("a"), "grader.graders"),
        (multi("a", a=multi("b", b=check())), "grader.graders.a"),
        (nested(2000), "grader"),
        (multi("a", a={}), "grader.graders.a.type"),
        (multi("b", a=check()), "grader.calculate_output"),
        ({**multi("a"), "graders": {"a-b": check()}}, "grader.graders"),
        ({**multi("a"), "graders": {f"a{n}": check() for n in range(99)}}, "grader.graders"),
    ],
)
def test_definitions_that_are_refused_name_the_field(definition: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse(definition)
    assert refused.value.param == param
    assert param in str(refused.value)


def test_what_openai_has_beside_is_accepted() -> None:
    parse({**python("return 1"), "image_tag": "2025-05-08"})
    parse(check(pass_threshold=0.5))
    parts = [
        {"type": "input_text", "text": "Grade "},
        "this: ",
        {"type": "output_text", "text": "{{sample.output_text}}"},
    ]
    score, asked = answering("1")
    definition = scoring(input=[{"role": "user", "type": "message", "content": parts}])
    assert json.loads(json.dumps(definition)) == definition
    assert reward(definition, "that", score=score) == 1.0
    assert asked[0][0] == [{"role": "user", "content": "Grade this: that"}]

"""Grade replies by OpenAI's kinds of graders: JSON in (``parse``), a number out (``run``, ``run_many``).

A grader never raises for what it is given: whatever goes wrong is a reward of 0.0, and an error under OpenAI's name for
it. What a grader needs from above, a model that it may ask and a model that embeds, is an argument.
"""

import json
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from familiar.feedback import grader_formula, grader_python, grader_template
from familiar.feedback.grader_parse import parse
from familiar.feedback.grader_types import (
    Embed,
    Grade,
    Grader,
    LabelModelGrader,
    MultiGrader,
    PythonGrader,
    ScoreModel,
    ScoreModelGrader,
    Simple,
    StringCheck,
    TextSimilarity,
)
from familiar.feedback.text_metrics import METRICS
from familiar.memory.errors import FamiliarError
from familiar.memory.types import Message

__all__ = [
    "Embed",
    "Grade",
    "Grader",
    "Pair",
    "ScoreModel",
    "failures",
    "is_share",
    "needs_embedder",
    "needs_model",
    "parse",
    "run",
    "run_many",
    "share",
]

Pair = tuple[Mapping[str, Any] | str, Mapping[str, Any]]
"""What is graded: a sample (its text, or its fields) and the item that it answers."""

_Filled = tuple[Mapping[str, Any], Mapping[str, Any]]
_ROUNDING = 1e-6
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def run(
    grader: Grader,
    *,
    sample: Mapping[str, Any] | str,
    item: Mapping[str, Any] | None = None,
    score: ScoreModel | None = None,
    embed: Embed | None = None,
) -> Grade:
    """Grade one sample. ``score`` asks a model, ``embed`` gives vectors; without it a grader that needs it gives 0."""
    return run_many(grader, [(sample, item or {})], score=score, embed=embed)[0]


def run_many(
    grader: Grader, samples: Sequence[Pair], *, score: ScoreModel | None = None, embed: Embed | None = None
) -> list[Grade]:
    """Grade each sample with its item, in order. ``python`` graders share a process, as ``grader_python`` says."""
    pairs: list[_Filled] = [(grader_template.sample_of(sample), item) for sample, item in samples]
    models = _Models(score, embed)
    if not isinstance(grader, MultiGrader):
        return _simple(grader, pairs, models)
    parts = {name: _simple(each, pairs, models) for name, each in grader.graders.items()}
    return [_combined(grader.formula, {name: grades[at] for name, grades in parts.items()}) for at in range(len(pairs))]


def needs_model(grader: Grader) -> bool:
    """Whether it asks a model."""
    return any(isinstance(each, ScoreModelGrader | LabelModelGrader) for each in _parts(grader))


def needs_embedder(grader: Grader) -> bool:
    """Whether it compares vectors."""
    return any(isinstance(each, TextSimilarity) and each.metric == "cosine" for each in _parts(grader))


def share(grader: Grader, grade: Grade) -> float:
    """A reward as learning takes it: a model's score by where it is in its range, any other as it is."""
    if not isinstance(grader, ScoreModelGrader) or grade.errors:
        return grade.reward
    least, most = grader.range
    return (grade.reward - least) / (most - least)


def is_share(reward: float) -> bool:
    """Whether it is from 0 to 1, so that it says how good a reply is, and not only that another one is better."""
    return -_ROUNDING <= reward <= 1 + _ROUNDING


def failures(grades: Sequence[Grade]) -> str:
    """How many failed, and why the first of them did: what is said of the grader, in one line; empty where none did."""
    failed = [grade for grade in grades if grade.errors]
    if not failed:
        return ""
    said = [" ".join(str(value).split()) for name, value in failed[0].errors.items() if name.endswith("_details")]
    return f"failed on {len(failed)} of {len(grades)} replies, which got 0: {'; '.join(said)}"


def _parts(grader: Grader) -> Sequence[Simple]:
    return list(grader.graders.values()) if isinstance(grader, MultiGrader) else [grader]


@dataclass(frozen=True)
class _Models:
    """What the graders that ask a model may ask."""

    score: ScoreModel | None
    embed: Embed | None


class _Failed(Exception):
    """No reward: OpenAI's name for the error, and what happened."""

    def __init__(self, flag: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.errors = {flag: True, f"{flag}_details": message, **more}


def _simple(grader: Simple, pairs: Sequence[_Filled], models: _Models) -> list[Grade]:
    if isinstance(grader, PythonGrader):
        return _python(grader, pairs)
    return [_timed(partial(_reward, grader, sample, item, models)) for sample, item in pairs]


def _timed(reward: Callable[[], float]) -> Grade:
    begun = time.perf_counter()
    found, errors = 0.0, {}
    try:
        found = reward()
    except _Failed as failed:
        errors = failed.errors
    except grader_template.UnreadableSample as error:
        errors = _Failed("sample_parse_error", str(error)).errors
    except grader_template.TooLong as error:
        errors = _Failed("truncated_observation_error", str(error)).errors
    except grader_template.MissingVariable as error:
        errors = _Failed("invalid_variable_error", str(error)).errors
    return Grade(found, errors=errors, seconds=time.perf_counter() - begun)


def _reward(
    grader: StringCheck | TextSimilarity | ScoreModelGrader | LabelModelGrader,
    sample: Mapping[str, Any],
    item: Mapping[str, Any],
    models: _Models,
) -> float:
    match grader:
        case StringCheck() | TextSimilarity():
            text, reference = (grader_template.render(each, sample, item) for each in (grader.input, grader.reference))
            if isinstance(grader, StringCheck):
                return float(_OPERATIONS[grader.operation](text, reference))
            if grader.metric == "cosine":
                return _cosine(text, reference, models)
            return METRICS[grader.metric](text, reference)
        case ScoreModelGrader():
            return _score(grader, _answer(grader, sample, item, models))
        case LabelModelGrader():
            return _label(grader, _answer(grader, sample, item, models))


_OPERATIONS: Mapping[str, Callable[[str, str], bool]] = {
    "eq": lambda text, reference: text == reference,
    "ne": lambda text, reference: text != reference,
    "like": lambda text, reference: reference in text,
    "ilike": lambda text, reference: reference.casefold() in text.casefold(),
}


def _cosine(text: str, reference: str, models: _Models) -> float:
    if models.embed is None:
        raise _Failed("other_error", "cosine compares sentence vectors, and there is no sentence model here")
    if not text.strip() or not reference.strip():
        return float(text.strip() == reference.strip())  # nothing has no vector
    try:
        first, second = models.embed([text, reference])
    except FamiliarError as error:
        raise _Failed("other_error", str(error)) from error
    return float(np.clip(np.dot(first, second), -1.0, 1.0))


# Graders that ask a model


def _answer(
    grader: ScoreModelGrader | LabelModelGrader, sample: Mapping[str, Any], item: Mapping[str, Any], models: _Models
) -> str:
    messages = [
        Message(role=turn["role"], content=grader_template.render(turn["content"], sample, item))
        for turn in grader.input
    ]
    if models.score is None:
        raise _Failed("model_grader_server_error", "this grader asks a model, and there is none here")
    result = {"type": "number"} if isinstance(grader, ScoreModelGrader) else {"enum": list(grader.labels)}
    schema = {"type": "object", "properties": {"result": result}, "required": ["result"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "result", "schema": schema}}
    try:
        return models.score(messages, {**grader.sampling, "response_format": form})
    except FamiliarError as error:
        raise _Failed("model_grader_server_error", str(error)) from error


def _score(grader: ScoreModelGrader, reply: str) -> float:
    """The number of a reply: alone, or as ``result`` of a JSON object."""
    found = _result(reply)
    if isinstance(found, str) and _NUMBER.fullmatch(found.strip()):
        found = float(found)
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise _Failed("model_grader_parse_error", f"the model gave no number: {_short(reply)}")
    least, most = grader.range
    if not least <= found <= most:
        raise _Failed("model_grader_parse_error", f"the model gave {found:g}, which is not in {least:g} to {most:g}")
    return float(found)


def _label(grader: LabelModelGrader, reply: str) -> float:
    found = _result(reply)
    label = found.strip() if isinstance(found, str) else None
    if label not in grader.labels:
        raise _Failed("model_grader_parse_error", f"the model gave none of the labels: {_short(reply)}")
    return float(label in grader.passing)


def _result(reply: str) -> object:
    try:
        found = json.loads(reply)
    except (ValueError, RecursionError):
        return reply
    return found.get("result") if isinstance(found, dict) else found


def _short(text: str) -> str:
    return repr(text if len(text) <= 200 else text[:199] + "…")


# Python, and formulas


def _python(grader: PythonGrader, pairs: Sequence[_Filled]) -> list[Grade]:
    begun = time.perf_counter()
    results = grader_python.run_many(grader.source, pairs).results
    seconds = (time.perf_counter() - begun) / max(1, len(pairs))
    return [_of_python(each, seconds) for each in results]


def _of_python(result: float | grader_python.Failure, seconds: float) -> Grade:
    if not isinstance(result, grader_python.Failure):
        return Grade(result, seconds=seconds)
    if result.kind == "raised":
        errors = _Failed("python_grader_runtime_error", result.message).errors
    else:
        errors = _Failed("python_grader_server_error", result.message, python_grader_server_error_type="stopped").errors
    return Grade(0.0, errors=errors, seconds=seconds)


def _combined(formula: str, parts: Mapping[str, Grade]) -> Grade:
    """A multigrader's grade: the formula's value, or 0 where it has none or a part failed."""
    rewards = {name: part.reward for name, part in parts.items()}
    errors = {key: value for part in parts.values() for key, value in part.errors.items()}
    whole = Grade(0.0, rewards, errors, sum(part.seconds for part in parts.values()))
    if errors:
        return whole
    try:
        return replace(whole, reward=grader_formula.value(formula, rewards))
    except grader_formula.Uncomputable as error:
        return replace(whole, errors=_Failed("formula_parse_error", str(error)).errors)

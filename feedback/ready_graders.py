"""Graders for everyday preferences, by name: ``ready("max_words", words=50)`` is one in OpenAI's form.

Each is plain JSON of the type ``python`` or ``string_check``, which any service that runs OpenAI's graders can run. The
code is in ``ready_checks``. An empty reply has 0 from all of them: it would keep most rules, and be no use.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from familiar.feedback import ready_checks, ready_schema
from familiar.memory.errors import InvalidInput, NotFound

MAX_TEXT = 1000
_NAME_CHARACTERS = 60
_MOST = 1_000_000

Kind = Literal["count", "text", "language", "schema"]
LANGUAGES = ("german", "french", "spanish")


@dataclass(frozen=True)
class Ready:
    """One of them: what it checks, in a line, and its parameters with their kinds.

    ``check`` is called with the text, the parameters, and what is ``fixed``; ``helpers`` are the functions that it
    uses. None is no code of ours, but a ``string_check`` of the parameter.
    """

    name: str
    says: str
    check: Callable[..., float] | None
    parameters: Mapping[str, Kind] = field(default_factory=dict)
    fixed: Mapping[str, str] = field(default_factory=dict)
    helpers: tuple[Callable[..., Any], ...] = ()


_COUNTED: Mapping[str, Kind] = {"words": "count"}
_SENTENCES: Mapping[str, Kind] = {"sentences": "count"}
_WORDS: Mapping[str, Kind] = {"words": "text"}
_LANGUAGE: Mapping[str, Kind] = {"language": "language"}

READY: Mapping[str, Ready] = {
    each.name: each
    for each in (
        Ready("max_words", "at most so many words", ready_checks.max_words, _COUNTED, {}, (ready_checks.count_words,)),
        Ready("min_words", "at least so many words", ready_checks.min_words, _COUNTED, {}, (ready_checks.count_words,)),
        Ready(
            "max_sentences",
            "at most so many sentences",
            ready_checks.max_sentences,
            _SENTENCES,
            {},
            (ready_checks.count_sentences,),
        ),
        Ready(
            "min_sentences",
            "at least so many sentences",
            ready_checks.min_sentences,
            _SENTENCES,
            {},
            (ready_checks.count_sentences,),
        ),
        Ready("metric_units", "measures in metric units", ready_checks.units, {}, {"system": "metric"}),
        Ready("imperial_units", "measures in imperial units", ready_checks.units, {}, {"system": "imperial"}),
        Ready("british_spelling", "English as in Britain", ready_checks.spelling, {}, {"variety": "british"}),
        Ready("american_spelling", "English as in America", ready_checks.spelling, {}, {"variety": "american"}),
        Ready("bullets", "a list with bullets", ready_checks.bullets),
        Ready("no_bullets", "no bullets", ready_checks.no_bullets),
        Ready("numbered_list", "a list numbered from 1", ready_checks.numbered_list),
        Ready("plain_text", "no Markdown", ready_checks.plain_text),
        Ready("table", "a Markdown table", ready_checks.table),
        Ready("must_contain", "holds these words, whatever their case", None, _WORDS),
        Ready("never_contain", "does not hold these words", ready_checks.never_contain, _WORDS),
        Ready("begins_with", "begins with these words: a greeting, say", ready_checks.begins_with, _WORDS),
        Ready("ends_with", "ends with these words: a sign-off, say", ready_checks.ends_with, _WORDS),
        Ready("no_emoji", "no emoji", ready_checks.no_emoji),
        Ready("no_question_at_end", "does not end with a question", ready_checks.no_question_at_end),
        Ready("no_apologies", "no apologies", ready_checks.no_apologies),
        Ready("lower_case", "small letters only", ready_checks.letter_case, {}, {"case": "lower"}),
        Ready("upper_case", "capital letters only", ready_checks.letter_case, {}, {"case": "upper"}),
        Ready(
            "formal_you",
            "addresses the reader formally: Sie, vous, usted",
            ready_checks.address,
            _LANGUAGE,
            {"form": "formal"},
        ),
        Ready(
            "informal_you",
            "addresses the reader informally: du, tu, tú",
            ready_checks.address,
            _LANGUAGE,
            {"form": "informal"},
        ),
        Ready(
            "json_schema",
            "JSON as a schema describes it",
            ready_checks.json_schema,
            {"schema": "schema"},
            {},
            (ready_checks.schema_fits,),
        ),
    )
}
"""By name."""

_HEAD = "import json\nimport re\nfrom typing import Any\n"


def ready(name: str, **parameters: Any) -> dict[str, Any]:
    """The definition of a ready grader. Raises ``NotFound`` (param ``ready``), ``InvalidInput`` for a parameter."""
    found = READY.get(name)
    if found is None:
        raise NotFound(f'There is no ready grader "{name}": there are {", ".join(READY)}.', "ready")
    for each in parameters:
        if each not in found.parameters:
            has = f"has {', '.join(found.parameters)}" if found.parameters else "takes none"
            raise InvalidInput(f'The ready grader "{name}" {has}, not {each}.', each)
    values = {each: _checked(name, each, kind, parameters.get(each)) for each, kind in found.parameters.items()}
    title = _title(name, values)
    if found.check is None:
        text = "{{sample.output_text}}"
        return {
            "type": "string_check",
            "name": title,
            "input": text,
            "reference": values["words"],
            "operation": "ilike",
        }
    return {"type": "python", "name": title, "source": _source(found.check, found.helpers, {**values, **found.fixed})}


def from_text(text: str) -> dict[str, Any]:
    """The definition that ``NAME`` or ``NAME=VALUE`` means, as people type it: ``max_words=50``.

    Raises as ``ready`` does. A schema's value is JSON.
    """
    name, equals, value = text.partition("=")
    name = name.strip().replace("-", "_")
    found = READY.get(name)
    if found is None or not (found.parameters or equals):
        return ready(name)
    if not found.parameters:
        raise InvalidInput(f'The ready grader "{name}" takes no value: leave "={value}" out.', "ready")
    parameter, kind = next(iter(found.parameters.items()))
    return ready(name, **{parameter: _read(name, parameter, kind, value)} if equals else {})


def _read(name: str, parameter: str, kind: Kind, value: str) -> object:
    try:
        return int(value) if kind == "count" else json.loads(value) if kind == "schema" else value
    except (ValueError, RecursionError):
        wanted = "a whole number" if kind == "count" else "a schema in JSON"
        raise InvalidInput(f'The ready grader "{name}" takes {wanted}, not "{value[:MAX_TEXT]}".', parameter) from None


def _checked(name: str, parameter: str, kind: Kind, value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if kind == "count" and not (whole and 1 <= value <= _MOST):
        wanted = f"a number from 1: {name}=50"
    elif kind == "text" and not (
        isinstance(value, str) and value.strip() and len(value) <= MAX_TEXT and "{{" not in value
    ):
        wanted = f"some words: {name}=…"
    elif kind == "language" and value not in LANGUAGES:
        wanted = f"one of {', '.join(LANGUAGES)}: {name}={LANGUAGES[0]}"
    elif kind == "schema":
        ready_schema.check(value, parameter)
        return value
    else:
        return value.strip() if kind == "text" else value
    raise InvalidInput(f'The ready grader "{name}" takes {parameter}, {wanted}.', parameter)


def _title(name: str, values: Mapping[str, Any]) -> str:
    said = ", ".join(str(value) for value in values.values() if not isinstance(value, dict | bool))
    title = f"{name}={' '.join(said.split())}" if said else name
    return title if len(title) <= _NAME_CHARACTERS else title[: _NAME_CHARACTERS - 1] + "…"


def _source(check: Callable[..., float], helpers: tuple[Callable[..., Any], ...], values: Mapping[str, Any]) -> str:
    functions = "\n\n".join(inspect.getsource(each) for each in (*helpers, check))
    given = "".join(f", {name}={value!r}" for name, value in values.items())
    grade = (
        'def grade(sample, item):\n    text = sample.get("output_text") or ""\n'
        f"    return {check.__name__}(text{given}) if text.strip() else 0.0\n"
    )
    return f"{_HEAD}\n\n{functions}\n\n{grade}"

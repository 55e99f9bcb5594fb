"""From the JSON of a grader, in OpenAI's form, to a ``Grader``; refuses what cannot be run, naming the field. Pure.

The fields are OpenAI's, and an unknown one is an error. Accepted without effect: ``model`` of the graders that ask one,
since the local model answers, ``image_tag``, and ``pass_threshold``, which evals have. What is left out: images and
audio in the messages of a model grader.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, get_args

from familiar.feedback import grader_formula, grader_template
from familiar.feedback.grader_python import MAX_SOURCE_BYTES
from familiar.feedback.grader_types import (
    Grader,
    LabelModelGrader,
    Metric,
    MultiGrader,
    Operation,
    PythonGrader,
    ScoreModelGrader,
    Simple,
    StringCheck,
    TextSimilarity,
)
from familiar.memory.errors import InvalidInput
from familiar.memory.types import Message

MAX_GRADERS = 32
"""In one multigrader."""
MAX_CHARACTERS = 100_000
"""Of a text in a definition."""

_ROLES = ("user", "assistant", "system", "developer")
_TEXT_PARTS = ("input_text", "output_text", "text")
_IGNORED = frozenset({"pass_threshold"})
_SAMPLING = ("max_completions_tokens", "temperature", "top_p", "seed", "reasoning_effort")


def parse(definition: Mapping[str, Any]) -> Grader:
    """Read a definition. Raises ``InvalidInput``, whose ``param`` is the field's place: ``grader.graders.a.input``."""
    try:
        return _parse(definition, "grader")
    except RecursionError:
        raise InvalidInput("grader is nested too deeply: write it with fewer levels.", "grader") from None


def _parse(given: object, at: str) -> Grader:
    fields = _Fields(given, at)
    kind = fields.one_of("type", ("string_check", "text_similarity", "python", "score_model", "label_model", "multi"))
    if kind == "multi":
        return _multi(fields)
    return _simple(fields, kind)


def _simple(fields: "_Fields", kind: str) -> Simple:
    name = fields.text("name")
    found: Simple
    match kind:
        case "string_check":
            texts = fields.template("input"), fields.template("reference")
            found = StringCheck(name, *texts, fields.one_of("operation", get_args(Operation)))
        case "text_similarity":
            texts = fields.template("input"), fields.template("reference")
            found = TextSimilarity(name, *texts, fields.one_of("evaluation_metric", get_args(Metric)))
        case "python":
            fields.optional("image_tag")
            found = PythonGrader(name, _source(fields))
        case "score_model":
            fields.text("model")
            found = ScoreModelGrader(name, _messages(fields), _range(fields), _sampling(fields))
        case _:
            fields.text("model")
            labels, passing = fields.texts("labels"), fields.texts("passing_labels")
            if not set(passing) <= set(labels):
                fields.refuse("passing_labels", "has a label that labels lacks")
            found = LabelModelGrader(name, _messages(fields), labels, frozenset(passing), _sampling(fields))
    fields.finish()
    return found


def _multi(fields: "_Fields") -> MultiGrader:
    name, given = fields.text("name"), fields.required("graders")
    if not isinstance(given, Mapping) or not given:
        fields.refuse("graders", "is not an object of graders by name")
    if isinstance(given.get("type"), str):
        # One grader alone, as the types of OpenAI's clients have it.
        given = {str(given.get("name")): given}
    if len(given) > MAX_GRADERS:
        fields.refuse("graders", f"has {len(given)} graders but {MAX_GRADERS} is the most")
    graders: dict[str, Simple] = {}
    for key, each in given.items():
        at = f"{fields.at}.graders.{key}"
        if not str(key).isidentifier():
            fields.refuse("graders", f'has the name "{key}", which a formula cannot: use letters, digits and _')
        grader = _parse(each, at)
        if isinstance(grader, MultiGrader):
            raise InvalidInput(f"{at} is a multigrader within one: put its graders into the outer one.", at)
        graders[str(key)] = grader
    formula = fields.text("calculate_output")
    grader_formula.check(formula, frozenset(graders), f"{fields.at}.calculate_output")
    fields.finish()
    return MultiGrader(name, graders, formula)


def _source(fields: "_Fields") -> str:
    source = fields.required("source")
    if not isinstance(source, str) or not source.strip():
        fields.refuse("source", "is not the text of a Python module with grade(sample, item)")
    size = len(source.encode("utf-8", "surrogatepass"))
    if size > MAX_SOURCE_BYTES:
        fields.refuse("source", f"is {size:,} bytes but {MAX_SOURCE_BYTES:,} is the most")
    try:
        # Compiled, not run; a module that does compile may still define no grade, which only running it would say.
        compile(source, "grader.py", "exec", dont_inherit=True)
    except SyntaxError as error:
        fields.refuse("source", f"does not compile: {error.msg} (line {error.lineno})")
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        fields.refuse("source", f"does not compile: {str(error) or 'it is nested too deeply'}")
    return source


def _messages(fields: "_Fields") -> tuple[Message, ...]:
    given = fields.required("input")
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        fields.refuse("input", "is not a list of messages")
    messages = []
    for index, each in enumerate(given):
        turn = _Fields(each, f"{fields.at}.input[{index}]")
        turn.optional("type")
        role = turn.one_of("role", _ROLES)
        text = "".join(_parts(turn, turn.required("content")))
        grader_template.check(text, f"{turn.at}.content")
        turn.finish()
        messages.append(Message(role="system" if role == "developer" else role, content=text))
    return tuple(messages)


def _parts(turn: "_Fields", content: object) -> list[str]:
    if isinstance(content, str):
        return [content]
    if isinstance(content, Mapping):
        if content.get("type") in _TEXT_PARTS and isinstance(content.get("text"), str):
            return [str(content["text"])]
        turn.refuse("content", f'has a part of type "{content.get("type")}": only text can be graded here')
    if isinstance(content, Sequence) and content:
        return [text for part in content for text in _parts(turn, part)]
    turn.refuse("content", "is neither text nor a list of text parts")


def _range(fields: "_Fields") -> tuple[float, float]:
    given = fields.optional("range")
    if given is None:
        return 0.0, 1.0
    if not (isinstance(given, Sequence) and len(given) == 2 and all(map(_is_number, given)) and given[0] < given[1]):
        fields.refuse("range", "is not two numbers, the least and the greatest score")
    return float(given[0]), float(given[1])


def _sampling(fields: "_Fields") -> dict[str, Any]:
    given = fields.optional("sampling_params")
    if given is None:
        return {}
    inner = _Fields(given, f"{fields.at}.sampling_params")
    found = {name: value for name in _SAMPLING if (value := inner.optional(name)) is not None}
    inner.finish()
    found.pop("reasoning_effort", None)
    for name, least, most in (("temperature", 0, 2), ("top_p", 0, 1), ("max_completions_tokens", 1, sys.maxsize)):
        value = found.get(name, least)
        whole = name == "max_completions_tokens"
        if not _is_number(value) or not least <= value <= most or (whole and not isinstance(value, int)):
            inner.refuse(name, f"is not a number from {least} to {most}")
    if not isinstance(found.get("seed", 0), int):
        inner.refuse("seed", "is not a whole number")
    return found


def _is_number(value: object) -> bool:
    """Whether it is a finite number; a whole one may be too great to be a float."""
    most = sys.float_info.max
    return isinstance(value, int | float) and not isinstance(value, bool) and -most <= value <= most


class _Fields:
    """An object's fields, each to be asked for by its name; ``at`` is its place in the definition."""

    def __init__(self, given: object, at: str) -> None:
        if not isinstance(given, Mapping):
            raise InvalidInput(f"{at} is not a JSON object.", at)
        self.at = at
        self._given = given
        self._asked: set[str] = set()

    def refuse(self, name: str, why: str) -> NoReturn:
        raise InvalidInput(f"{self.at}.{name} {why}.", f"{self.at}.{name}")

    def optional(self, name: str) -> Any:
        self._asked.add(name)
        return self._given.get(name)

    def required(self, name: str) -> Any:
        value = self.optional(name)
        if value is None:
            raise InvalidInput(f"Missing required parameter: {self.at}.{name}.", f"{self.at}.{name}")
        return value

    def text(self, name: str) -> str:
        value = self.required(name)
        if not isinstance(value, str) or not value or len(value) > MAX_CHARACTERS:
            self.refuse(name, f"is not a text of 1 to {MAX_CHARACTERS:,} characters")
        return value

    def template(self, name: str) -> str:
        value = self.required(name)
        if not isinstance(value, str) or len(value) > MAX_CHARACTERS:
            self.refuse(name, f"is not a text of at most {MAX_CHARACTERS:,} characters")
        return grader_template.check(value, f"{self.at}.{name}")

    def texts(self, name: str) -> tuple[str, ...]:
        value = self.required(name)
        if not isinstance(value, list) or not value or not all(isinstance(each, str) and each for each in value):
            self.refuse(name, "is not a list of texts")
        return tuple(value)

    def one_of(self, name: str, values: Sequence[str]) -> Any:
        value = self.required(name)
        if value not in values:
            self.refuse(name, f"is {value!r} but must be one of {', '.join(values)}")
        return value

    def finish(self) -> None:
        """Raise ``InvalidInput`` for a field that nobody asked for."""
        for name in self._given:
            if name not in self._asked | _IGNORED:
                raise InvalidInput(f"Unknown parameter: {self.at}.{name}. Leave it out.", f"{self.at}.{name}")

"""Whether a JSON schema is one that the ready grader ``json_schema`` can follow. Pure.

What is left out: references (``$ref``), and keywords that say little about a reply.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from familiar.memory.errors import InvalidInput

_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
_CHOICES = ("anyOf", "oneOf", "allOf")


def check(schema: Any, param: str) -> None:
    """Raise ``InvalidInput`` (``param``) for a schema that ``ready_checks.schema_fits`` cannot follow."""
    try:
        json.dumps(schema, allow_nan=False)
        _check(schema, param)
    except RecursionError:
        raise InvalidInput("The schema is nested too deeply: write it with fewer levels.", param) from None
    except ValueError as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput("The schema has a number that JSON lacks: leave it out.", param) from None


def _check(schema: Any, param: str) -> None:
    if not _is_schema(schema):
        raise InvalidInput("A JSON schema is an object, or true or false.", param)
    if isinstance(schema, bool):
        return
    for keyword, value in schema.items():
        if keyword not in _KEYWORDS:
            raise InvalidInput(f'The schema has "{keyword}", which this grader cannot check: leave it out.', param)
        fits, wanted = _KEYWORDS[keyword]
        if not fits(value):
            raise InvalidInput(f"The schema has {keyword} {json.dumps(value)}, which is not {wanted}.", param)
    inner = [each for keyword in _CHOICES for each in schema.get(keyword, [])]
    inner += schema.get("properties", {}).values()
    for each in [*inner, schema.get("items", True), schema.get("additionalProperties", True)]:
        _check(each, param)


def _is_type(value: Any) -> bool:
    return _are(value, lambda each: each in _TYPES) if isinstance(value, list) else value in _TYPES


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_number(value) and isinstance(value, int) and value >= 0


def _is_pattern(value: Any) -> bool:
    try:
        re.compile(value)
    except (re.error, TypeError, OverflowError):
        return False
    return True


def _is_schema(value: Any) -> bool:
    return isinstance(value, bool | Mapping)


def _are(values: Iterable[Any], fits: Callable[[Any], bool]) -> bool:
    return all(fits(each) for each in values)


_Check = tuple[Callable[[Any], bool], str]
_LIST: _Check = (lambda value: isinstance(value, list), "a list")
_NAMES: _Check = (
    lambda value: isinstance(value, list) and _are(value, lambda each: isinstance(each, str)),
    "a list of names",
)
_NUMBER: _Check = (_is_number, "a number")
_COUNT: _Check = (_is_count, "a number from 0")
_SCHEMA: _Check = (_is_schema, "a schema")
_SCHEMAS: _Check = (
    lambda value: isinstance(value, list) and bool(value) and _are(value, _is_schema),
    "a list of schemas",
)
_BY_NAME: _Check = (lambda value: isinstance(value, Mapping) and _are(value.values(), _is_schema), "schemas by name")
_ANYTHING: _Check = (lambda value: True, "")

_KEYWORDS: Mapping[str, _Check] = {
    "type": (_is_type, f"of {', '.join(_TYPES)}"),
    "enum": _LIST,
    "pattern": (_is_pattern, "a regular expression"),
    "required": _NAMES,
    "properties": _BY_NAME,
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _NUMBER),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), _COUNT),
    **dict.fromkeys(("items", "additionalProperties"), _SCHEMA),
    **dict.fromkeys(_CHOICES, _SCHEMAS),
    **dict.fromkeys(("const", "title", "description", "default", "examples"), _ANYTHING),
    **dict.fromkeys(("format", "$schema", "$id", "$comment"), _ANYTHING),
}
"""What a schema may have, and what its value must be."""

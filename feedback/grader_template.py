"""The templates of graders: ``{{item.answers[0].text}}``, ``{{ sample.output_text }}``. Pure.

Two namespaces: ``item`` is the row that the sample answers, ``sample`` what was answered. A value that is no text is
put in as JSON. Text that was put in is not looked at again, so a reply cannot name variables.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from familiar.memory.errors import InvalidInput

_PLACE = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_PATH = re.compile(r"(item|sample)((?:\.\w[\w-]*|\[\d+\])*)")
_STEP = re.compile(r"\.(\w[\w-]*)|\[(\d+)\]")
SAMPLE_FIELDS = frozenset({"output_text", "output_json", "output_tools", "output_audio", "choices"})


MAX_CHARACTERS = 200_000
"""Of a text with its variables' values: some measures take the square of a text's length."""


class TooLong(ValueError):
    """A text that its variables make longer than ``MAX_CHARACTERS``."""


class MissingVariable(LookupError):
    """A variable that the item or the sample at hand does not have."""


class UnreadableSample(LookupError):
    """A variable of ``sample.output_json`` where the sample is no JSON."""


def check(text: str, param: str) -> str:
    """``text``, where every template in it can be a variable. Raises ``InvalidInput`` naming it and ``param``."""
    for place in _PLACE.finditer(text):
        name = place[1].strip()
        path = _PATH.fullmatch(name)
        if path is None or not path[2]:
            raise InvalidInput(
                f"{param} names {{{{{name}}}}}: a variable begins with item. or sample., as {{{{item.answer}}}} does.",
                param,
            )
        first = _STEP.match(path[2])
        if path[1] == "sample" and first is not None and first[1] not in SAMPLE_FIELDS:
            raise InvalidInput(
                f"{param} names {{{{{name}}}}}, but a sample has {', '.join(sorted(SAMPLE_FIELDS))}.", param
            )
    return text


def sample_of(sample: Mapping[str, Any] | str) -> dict[str, Any]:
    """A sample with all its fields: ``output_json`` is read from ``output_text`` where it is JSON, else None."""
    given: dict[str, Any] = {"output_text": sample} if isinstance(sample, str) else dict(sample)
    if "output_json" not in given:
        try:
            given["output_json"] = json.loads(given.get("output_text") or "")
        except (ValueError, RecursionError):
            given["output_json"] = None
    return {"output_text": "", "output_tools": [], "choices": [], **given}


def render(text: str, sample: Mapping[str, Any], item: Mapping[str, Any]) -> str:
    """``text`` with its variables' values. Raises ``MissingVariable``, ``UnreadableSample`` or ``TooLong``."""
    whole = _PLACE.sub(lambda place: _text(_value(place[1].strip(), sample, item)), text)
    if len(whole) > MAX_CHARACTERS:
        raise TooLong(f"the text has {len(whole):,} characters but {MAX_CHARACTERS:,} is the most")
    return whole


def _value(name: str, sample: Mapping[str, Any], item: Mapping[str, Any]) -> object:
    namespace, steps = name[:4] == "item", list(_STEP.finditer(name))
    value: object = item if namespace else sample
    for step in steps:
        if isinstance(value, Mapping) and step[1] is not None and step[1] in value:
            value = value[step[1]]
        elif isinstance(value, list) and (step[2] or step[1]).isdigit() and int(step[2] or step[1]) < len(value):
            value = value[int(step[2] or step[1])]
        elif name.startswith("sample.output_json") and sample["output_json"] is None:
            raise UnreadableSample(f"{name}: the sample is not JSON")
        else:
            raise MissingVariable(f"{name} is not in the {'item' if namespace else 'sample'}")
    return value


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

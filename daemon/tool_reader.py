"""What stands where a model may have begun a tool call: a call, none, or the beginning of one. Pure.

Models are not exact, so this reads more spellings than the grammar writes: any white space in the JSON, any order of
its keys, ``arguments`` or ``parameters``, either also as JSON in a string, line breaks inside a text, a missing end.
"""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from familiar.daemon.tool_formats import HERMES, LLAMA, ToolFormat


@dataclass(frozen=True, slots=True)
class Call:
    """A whole call; ``arguments`` is the JSON text of an object."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Found:
    """The first ``length`` characters are these calls, or without calls, content."""

    length: int
    calls: tuple[Call, ...] = ()


_JSON_PART = re.compile(r'"(?:[^"\\]++|\\.)*+"|[{}\[\]]|[\s\w.,:+-]+', re.DOTALL)
_FIRST_KEY = re.compile(r'\{\s*(?:"([^"]*)"|[^\s"])')
_NAME = re.compile(r"\s*([a-zA-Z0-9_-]{1,64})")
_ID = "[CALL_ID]"
_ARGUMENTS = "[ARGS]"
_KEYS = ("name", "arguments", "parameters", "type", "function", "id")


class _NoCall(Exception):
    """What stands there is no call."""


def read_calls(spelling: ToolFormat, text: str, names: Collection[str], *, ended: bool) -> Found | None:
    """Read a text that begins with a trigger of the format; None says that more of it is needed.

    Only functions in ``names`` can be called. ``ended`` says that no more will come: then it is never None.
    """
    trigger = next(each for each in spelling.triggers if text.startswith(each))
    read = {HERMES.name: _hermes, LLAMA.name: _llama}.get(spelling.name, _mistral)
    try:
        found = read(text, names, ended)
    except _NoCall:
        return Found(len(trigger))
    return found or (Found(len(trigger)) if ended else None)


def _hermes(text: str, names: Collection[str], ended: bool) -> Found | None:
    start, end = HERMES.markers
    object_at = _skip_space(text, len(start))
    _check_first_key(text, object_at)
    if (object_end := _json_end(text, object_at, "{")) is None:
        return None
    calls = (_call(_loaded(text[object_at:object_end]), names),)
    rest = text[(after := _skip_space(text, object_end)) :]
    if rest.startswith(end):
        return Found(after + len(end), calls)
    if end.startswith(rest):  # cut short: at the end of the reply the call counts all the same
        return Found(len(text), calls) if ended else None
    if rest.startswith(start):
        return Found(object_end, calls)
    if start.startswith(rest) and not ended:
        return None
    raise _NoCall


def _llama(text: str, names: Collection[str], ended: bool) -> Found | None:
    tag = LLAMA.markers[0]
    object_at = _skip_space(text, len(tag) if text.startswith(tag) else 0)
    _check_first_key(text, object_at)
    object_end = _json_end(text, object_at, "{")
    return Found(object_end, (_call(_loaded(text[object_at:object_end]), names),)) if object_end else None


def _mistral(text: str, names: Collection[str], ended: bool) -> Found | None:
    at = _skip_space(text, len("[TOOL_CALLS]"))
    if text.startswith("[", at):
        if (list_end := _json_end(text, at, "[")) is None:
            return None
        calls = tuple(_call(each, names) for each in _loaded(text[at:list_end]))
        if not calls:
            raise _NoCall
        return Found(list_end, calls)
    if at == len(text):
        return None
    if (named := _NAME.match(text, at)) is None:
        raise _NoCall
    if (object_at := _arguments_at(text, named.end())) is None:
        return None
    if named[1] not in names:
        raise _NoCall
    object_at = _skip_space(text, object_at)
    if (object_end := _json_end(text, object_at, "{")) is None:
        return None
    return Found(object_end, (Call(named[1], _written(_loaded(text[object_at:object_end]))),))


def _arguments_at(text: str, at: int) -> int | None:
    """Return where the arguments begin after a name; None when that is not yet there."""
    if text.startswith(_ID, at):
        own_id = text[at + len(_ID) : at + len(_ID) + 9]
        if own_id and not (own_id.isascii() and own_id.isalnum()):
            raise _NoCall
        if len(own_id) < 9:
            return None
        at += len(_ID) + 9
    elif _ID.startswith(text[at:]):
        return None
    if text.startswith(_ARGUMENTS, at):
        return at + len(_ARGUMENTS)
    if _ARGUMENTS.startswith(text[at:]):
        return None
    raise _NoCall


def _skip_space(text: str, at: int) -> int:
    return len(text) - len(text[at:].lstrip())


def _json_end(text: str, at: int, opening: str) -> int | None:
    """Return where a JSON object or array ends, None when it goes on; what cannot be one raises _NoCall early."""
    if at == len(text):
        return None
    if text[at] != opening:
        raise _NoCall
    depth = 0
    while at < len(text):
        part = _JSON_PART.match(text, at)
        if part is None:
            if text[at] == '"':
                return None
            raise _NoCall
        at = part.end()
        depth += (part[0] in ("{", "[")) - (part[0] in ("}", "]"))
        if depth == 0:
            return at
    return None


def _check_first_key(text: str, at: int) -> None:
    """Raise _NoCall as soon as an object cannot be a call, so that other JSON is not held back to its end."""
    first = _FIRST_KEY.match(text, at)
    if first and first[1] not in _KEYS:
        raise _NoCall


def _loaded(text: str) -> Any:
    try:
        return json.loads(text, strict=False, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise _NoCall from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _call(value: Any, names: Collection[str]) -> Call:
    if not isinstance(value, dict) or not isinstance(name := value.get("name"), str) or name not in names:
        raise _NoCall
    arguments = value.get("arguments", value.get("parameters", {}))
    return Call(name, _written(_loaded(arguments) if isinstance(arguments, str) else arguments))


def _written(arguments: object) -> str:
    """Return arguments as JSON text; half a surrogate pair, which UTF-8 cannot hold, stays an escape."""
    if not isinstance(arguments, dict):
        raise _NoCall
    text = json.dumps(arguments, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(arguments)
    return text

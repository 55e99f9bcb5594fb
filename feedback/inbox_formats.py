"""What a file dropped into the inbox says: bytes to rows of feedback, or problems with their places. Pure.

A file of feedback is JSONL (an object per line) or one JSON array; each object is a row as ``POST /v1/feedback`` takes
it, a row that brings its own conversation, a preference pair, or an item of an Open WebUI export (``open_webui``). What
is left out: whether the values fit, which the API's own schema says when a row is stored.
"""

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from familiar.feedback import open_webui
from familiar.feedback.inbox_row import Row
from familiar.feedback.own_words import share_taken
from familiar.memory.errors import BadFile, InvalidInput
from familiar.memory.types import Trust
from familiar.memory.whole_text import whole_json

MAX_BYTES = 32 * 2**20
"""The largest file that is read: far beyond what a person corrects, and little enough to parse in memory."""

UNTRUSTED_SOURCES = frozenset({"untrusted", "tool", "web", "document", "retrieval", "model"})
"""What a row may name as its source when its text is not the user's."""

_QUOTED = 0.5
"""A text with this share of its words taken from a tool's output is that output rather than the user's."""

_CUT_NUMBER = re.compile(r"\.|[eE][+-]?")
"""What is left where a number was cut within its fraction or its exponent."""


class Unfinished(BadFile):
    """A file that ends too early: it is still being written, or was cut off."""


@dataclass(frozen=True)
class Problem:
    """Why a part of a file cannot be used; ``place`` is such as "line 4"."""

    place: str
    reason: str


@dataclass(frozen=True)
class Parsed:
    """The rows of a file, oldest first, and what could not be read."""

    rows: tuple[Row, ...]
    problems: tuple[Problem, ...]


def decode(data: bytes) -> str:
    """The text of a file: UTF-8, with a byte order mark or without, or UTF-16 with one.

    Raises ``BadFile`` for anything else, and ``Unfinished`` where the last character is cut.
    """
    utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        if error.end == len(data) and error.reason in ("unexpected end of data", "truncated data"):
            raise Unfinished("it ends in the middle of a character: save it again if it is complete") from error
        raise BadFile("it is not text in UTF-8: save it in that encoding") from error
    if "\0" in text:
        raise BadFile("it is not a text file: drop JSONL, an Open WebUI export or an edited draft")
    return text


def parse(text: str) -> Parsed:
    """The rows in a file of feedback.

    Raises ``Unfinished`` when it may still be being written, ``BadFile`` when nothing in it can be told apart.
    """
    rows: list[Row] = []
    problems: list[Problem] = []
    people: set[str] = set()
    for place, item in _items(text):
        if isinstance(item, Problem):
            problems.append(item)
            continue
        try:
            found = [replace(row, place=place) for row in _rows(item)]
        except InvalidInput as error:
            problems.append(Problem(place, str(error)))
            continue
        rows += found
        people |= {row.person for row in found if row.person is not None}
    if len(people) > 1:
        raise BadFile(
            f"it holds feedback of {len(people)} people (user_id {', '.join(sorted(people))}): one file is one "
            f"person's, so keep the items of one of them"
        )
    # An export lists the newest first; what was said last must be stored last.
    return Parsed(tuple(sorted(rows, key=lambda row: row.said_at or float("inf"))), tuple(problems))


def _items(text: str) -> Iterator[tuple[str, Any]]:
    """Each JSON value with its place; a line that is not JSON is a ``Problem``."""
    if not text.strip():
        raise Unfinished("it is empty: write feedback into it")
    lines = text.split("\n")  # not splitlines: U+2028 is a character like any other within JSON
    if text.lstrip().startswith("[") or not _is_json(next(line for line in lines if line.strip())):
        try:
            whole = _load(text)
        except (ValueError, RecursionError) as error:
            if text.lstrip().startswith("["):
                if is_cut(text, error):
                    raise Unfinished("its JSON ends too early: save it again if it is complete") from error
                raise BadFile(f"it is {_not_json(error)}: export it again, or correct it") from error
        else:
            listed = whole if isinstance(whole, list) else [whole]
            yield from ((f"item {number}", item) for number, item in enumerate(listed, 1))
            return
    last = max(number for number, line in enumerate(lines, 1) if line.strip())
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            yield place, _load(line)
        except (ValueError, RecursionError) as error:
            if number == last and not text.endswith("\n") and is_cut(line, error):
                raise Unfinished(f"{place} ends too early: save it again if it is complete") from error
            yield place, Problem(place, f"It is {_not_json(error)}: write one JSON object on the line.")


def is_cut(text: str, error: Exception) -> bool:
    """Whether ``text``, which gave ``error`` when read as JSON, may be the beginning of some JSON."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    rest = error.doc[error.pos :].strip()
    if not rest or error.msg.startswith("Unterminated string"):
        return True
    if error.msg.startswith("Invalid \\"):
        return len(rest) <= len("u0000")
    if error.msg == "Expecting value":
        return any(word.startswith(rest) for word in ("true", "false", "null", "-"))
    return _CUT_NUMBER.fullmatch(rest) is not None


def _is_json(line: str) -> bool:
    try:
        _load(line)
    except (ValueError, RecursionError):
        return False
    return True


def _load(text: str) -> Any:
    return whole_json(json.loads(text, parse_constant=_refuse_constant))


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _not_json(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        where = f"line {error.lineno}, character {error.colno}" if error.lineno > 1 else f"character {error.colno}"
        return f"not JSON ({error.msg} at {where})"
    return "not JSON (nested too deeply)" if isinstance(error, RecursionError) else f"not JSON ({error})"


def _rows(item: object) -> list[Row]:
    """What one object says; its place is filled in later. Raises ``InvalidInput``."""
    if not isinstance(item, Mapping):
        raise InvalidInput("It is not a JSON object: write the fields of POST /v1/feedback in braces.")
    if open_webui.is_feedback(item):
        return open_webui.feedback_rows(item)
    if open_webui.is_chat(item):
        return open_webui.chat_rows(item)
    row = _own(item)
    return [replace(row, trust="untrusted") if _quotes_a_tool(row) else row]


def _own(item: Mapping[str, Any]) -> Row:
    """A row in our own form, or a preference pair as training sets have them."""
    trust = _trust(item)
    rest = {name: value for name, value in item.items() if name not in ("trust", "source")}
    if "chosen" in rest or "rejected" in rest:
        messages = _prompt(rest)
        fields = {"preferred": _reply(rest, "chosen"), "note": rest.get("note")}
        return Row(fields, messages, _reply(rest, "rejected"), trust)
    if not {"messages", "prompt", "completion"} & rest.keys():
        return Row(rest, trust=trust)
    if rest.get("completion_id") is not None:
        raise InvalidInput("It has a completion_id and a conversation of its own: send one of them.")
    messages, completion = _prompt(rest), _reply(rest, "completion")
    fields = {name: value for name, value in rest.items() if name not in ("messages", "prompt", "completion")}
    return Row(fields, messages, completion, trust)


def _trust(item: Mapping[str, Any]) -> Trust:
    trust, source = item.get("trust"), item.get("source")
    if trust not in (None, "stated", "inferred", "untrusted"):
        raise InvalidInput(f"Its trust is {trust!r}, but stated, inferred or untrusted is expected.")
    if source is not None and not isinstance(source, str):
        raise InvalidInput(f"Its source is {source!r}, but text is expected.")
    if trust == "untrusted" or (source or "").strip().lower() in UNTRUSTED_SOURCES:
        return "untrusted"
    return "inferred" if trust == "inferred" else "stated"


def _prompt(item: Mapping[str, Any]) -> list[Any]:
    """The conversation before the reply: ``messages``, or ``prompt`` as text or as messages."""
    given = [name for name in ("messages", "prompt") if item.get(name) is not None]
    if len(given) != 1:
        have = "both" if given else "neither"
        raise InvalidInput(f"A reply of its own needs messages or a prompt, but this has {have}: send one.")
    value = item[given[0]]
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list):
        raise InvalidInput(f"Its {given[0]} is no list of messages: send [{{'role': 'user', 'content': '…'}}].")
    return value


def _reply(item: Mapping[str, Any], name: str) -> str:
    """A reply as text, or as the one message that some preference sets have."""
    value = item.get(name)
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], Mapping):
        value = value[0].get("content")
    if not isinstance(value, str):
        raise InvalidInput(f"It needs {name}, the text of a reply: add it.")
    return value


def _quotes_a_tool(row: Row) -> bool:
    """Whether the text is what a tool put out in the row's own conversation, and so not the user's words."""
    text = next((row.fields[kind] for kind in ("correction", "preferred") if row.fields.get(kind)), None)
    if not isinstance(text, str):
        return False
    turns = [turn for turn in row.messages or () if isinstance(turn, Mapping) and turn.get("role") == "tool"]
    return share_taken(text, [turn["content"] for turn in turns if isinstance(turn.get("content"), str)]) >= _QUOTED

"""A conversation as chat templates expect it, where that is not what OpenAI's clients send. Pure.

Clients send the arguments of a tool call as JSON text, templates take the object; clients name only the call that a
tool's message answers, some templates want the function's name; and Mistral's take no ids but those of nine letters
and digits.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from familiar.memory.errors import InvalidInput
from familiar.memory.types import Message


def template_messages(messages: Sequence[Message], *, short_ids: bool = False) -> list[dict[str, Any]]:
    """Return the messages for a template; ``short_ids`` gives every call an id of nine characters.

    Raises InvalidInput, naming the field, for arguments that are not a JSON object.
    """
    names: dict[str, str] = {}
    found = []
    for index, message in enumerate(messages):
        ready: dict[str, Any] = {**message, "content": message["content"] or ""}
        ready.pop("tool_calls", None)
        if calls := message.get("tool_calls"):
            ready["tool_calls"] = [
                _call(call, f"messages[{index}].tool_calls[{number}]", short_ids=short_ids)
                for number, call in enumerate(calls)
            ]
            names |= {call["id"]: call["function"]["name"] for call in calls}
        if (answered := message.get("tool_call_id")) is not None:
            ready["tool_call_id"] = _short(answered) if short_ids else answered
            if answered in names:
                ready.setdefault("name", names[answered])
        found.append(ready)
    return found


def _call(call: dict[str, Any], field: str, *, short_ids: bool) -> dict[str, Any]:
    function = call["function"]
    arguments = _arguments(function["arguments"], f"{field}.function.arguments")
    call_id = _short(call["id"]) if short_ids else call["id"]
    return {"id": call_id, "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _arguments(text: str, field: str) -> dict[str, Any]:
    try:
        arguments = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{field} is not JSON ({error}): send back what the call had.", field) from None
    if not isinstance(arguments, dict):
        raise InvalidInput(f"{field} must be a JSON object, as text.", field)
    return arguments


def _short(call_id: str) -> str:
    """Return nine letters and digits for an id: the same for the same, so that call and answer still fit."""
    return hashlib.sha256(call_id.encode("utf-8", "replace")).hexdigest()[:9]

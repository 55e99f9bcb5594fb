"""Ollama's messages, and the messages of ours that they become. Pure.

Its calls have no ids, or need not; the results of tools say which tool they are of, and which call only to its newer
clients. What is left out: images.
"""

import json
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import model_validator

from familiar.daemon.schemas import Wire, sorted_out


class Function(Wire):
    """What was called, with its arguments as an object."""

    name: str
    arguments: dict[str, Any] | None = None
    index: int | None = None


class ToolCall(Wire):
    """One call in an assistant's message."""

    function: Function
    id: str | None = None
    type: Literal["function"] | None = None


class Message(Wire):
    """One message. ``thinking`` is ignored; ``tool_name`` says which tool's result it is."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _sort_out(cls, raw: Any) -> Any:
        return sorted_out(raw, {"images": ([],)}, ("thinking",))


def as_openai(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages as ``ChatRequest`` takes them: calls get ids, and a result the id of the call that it answers."""
    turned: list[dict[str, Any]] = []
    calls = 0
    waiting: list[tuple[str, str]] = []
    for message in messages:
        new: dict[str, Any] = {"role": message.role, "content": message.content or ""}
        if message.tool_calls:
            waiting = []
            new["tool_calls"] = []
            for call in message.tool_calls:
                calls += 1
                id = call.id or f"call_{calls}"
                waiting.append((id, call.function.name))
                arguments = json.dumps(call.function.arguments or {}, ensure_ascii=False)
                new["tool_calls"].append({"id": id, "function": {"name": call.function.name, "arguments": arguments}})
        if message.role == "tool":
            new["tool_call_id"], new["name"] = _answered(message, waiting)
        turned.append({name: value for name, value in new.items() if value is not None})
    return turned


def _answered(message: Message, waiting: list[tuple[str, str]]) -> tuple[str, str | None]:
    """The id and the name of the call that a result is of: by id, else by name, else the first that has none yet."""
    by_id = [call for call in waiting if call[0] == message.tool_call_id]
    by_name = [call for call in waiting if call[1] == message.tool_name]
    found = next(iter(by_id or by_name or waiting), None)
    if found is not None:
        waiting.remove(found)
    id, name = found or ("call_0", None)
    return message.tool_call_id or id, message.tool_name or name

"""Calls of tools in Ollama's shape, to and from OpenAI's. The built-in model has none: its part is played here."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

from familiar.daemon import ollama_replies
from familiar.daemon.chat_service import Ended
from familiar.daemon.ollama_messages import Message, as_openai
from familiar.daemon.reply import Finished, Text, Timings, Totals
from familiar.daemon.schemas_chat import ChatRequest
from familiar.daemon.structured import structure_of
from familiar.daemon.tool_formats import HERMES

HI: list[Any] = [{"role": "user", "content": "Hello there, how are you?"}]


def test_calls_and_results_become_openais() -> None:
    call = {"function": {"name": "add", "arguments": {"a": 1}}}
    sent = [
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": "", "tool_calls": [call, {"function": {"name": "sub", "arguments": {}}}]},
        {"role": "tool", "content": "0", "tool_name": "sub"},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "tool_calls": [{"id": "mine", "function": {"name": "add"}}]},
        {"role": "tool", "content": "3", "tool_call_id": "mine"},
    ]
    turned = as_openai([Message.model_validate(each) for each in sent])
    assert turned[1]["tool_calls"] == [
        {"id": "call_1", "function": {"name": "add", "arguments": '{"a": 1}'}},
        {"id": "call_2", "function": {"name": "sub", "arguments": "{}"}},
    ]
    results = [(each["tool_call_id"], each["name"]) for each in turned if each["role"] == "tool"]
    assert results == [("call_2", "sub"), ("call_1", "add"), ("mine", "add")]
    ChatRequest.model_validate({"model": "familiar", "messages": turned})


def _replying(*texts: str, finish_reason: str = "stop") -> tuple[Any, ChatRequest]:
    """A reply of a model that calls tools as Hermes does, which the built-in model cannot."""
    tools = [{"type": "function", "function": {"name": name}} for name in ("add", "sub")]
    chat = ChatRequest.model_validate({"model": "familiar", "messages": HI, "tools": tools})
    plan = SimpleNamespace(structure=structure_of(chat, HERMES, supports_tools=True))

    async def events() -> Any:
        for text in texts:
            yield [Text(0, text)]
        yield [Finished(0, finish_reason)]
        yield Ended(Totals(1, 2, 0, Timings(0.0, 0.5, 1.0)))

    started = SimpleNamespace(id="chatcmpl-1", plan=plan, extension={"memories": []})
    return SimpleNamespace(started=started, events=events), chat


FORM = ollama_replies.Form("familiar", ollama_replies.message, lambda: 0.0)
CALLS = (
    'Let me see.\n<tool_call>\n{"name": "add", "argu',
    'ments": {"a": [1, 2]}}\n</tool_call>\n<tool_call>\n{"name": "sub", "arguments": {}}\n</tool_call>',
)


def test_calls_are_answered_with_their_arguments_as_objects() -> None:
    reply, chat = _replying(*CALLS)
    whole: Any = asyncio.run(ollama_replies.whole(ollama_replies.chat_parts(reply, chat), FORM))
    functions = [call["function"] for call in whole["message"]["tool_calls"]]
    assert functions == [
        {"index": 0, "name": "add", "arguments": {"a": [1, 2]}},
        {"index": 1, "name": "sub", "arguments": {}},
    ]
    assert whole["message"]["content"].strip() == "Let me see."
    assert (whole["done_reason"], whole["eval_count"], whole["eval_duration"]) == ("stop", 2, 1_000_000)
    assert whole["created_at"] == "1970-01-01T00:00:00Z"
    Message.model_validate(whole["message"])  # so it can be sent back

    async def read() -> list[Any]:
        reply, chat = _replying(*CALLS)
        stream = ollama_replies.lines(ollama_replies.chat_parts(reply, chat), FORM, "x")
        return [json.loads(line) for block in [part async for part in stream] for line in block.splitlines()]

    *parts, last = asyncio.run(read())
    (calls,) = [part["message"]["tool_calls"] for part in parts if "tool_calls" in part["message"]]
    assert [call["function"] for call in calls] == functions
    assert "tool_calls" not in last["message"]


def test_a_call_that_was_cut_short_is_left_out() -> None:
    reply, chat = _replying('<tool_call>\n{"name": "add", "arguments": {"a": [1,', finish_reason="length")
    whole: Any = asyncio.run(ollama_replies.whole(ollama_replies.chat_parts(reply, chat), FORM))
    assert whole["done_reason"] == "length"
    assert "tool_calls" not in whole["message"]

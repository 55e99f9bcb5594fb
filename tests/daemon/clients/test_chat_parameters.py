"""Each parameter that only chat has does what docs/api.md says, through the openai client."""

import json
import math
from collections.abc import Callable
from typing import Any

import jsonschema
import openai
import pytest

HI = [{"role": "user", "content": "Hello there, how are you?"}]
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
SCHEMA = {
    "type": "object",
    "properties": {
        "mood": {"enum": ["good", "bad"]},
        "count": {"type": "integer", "minimum": 1, "maximum": 3},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 5}, "maxItems": 2},
    },
    "required": ["mood", "count"],
    "additionalProperties": False,
}


def check_messages(chat: Any, **_: Any) -> None:
    def tokens(*messages: Any) -> int:
        return int(chat(messages=list(messages), max_tokens=1).usage.prompt_tokens)

    user = {"role": "user", "content": "Where is the red ball?"}
    system = {"role": "system", "content": "The red ball is under the old table."}
    assert chat.text(messages=[user]) != chat.text()
    assert chat.text(messages=[system, user]) != chat.text(messages=[user])
    assert chat.text(messages=[{**system, "role": "developer"}, user]) == chat.text(messages=[system, user])
    parts = [{"type": "text", "text": "Where is "}, {"type": "text", "text": "the red ball?"}]
    assert chat.text(messages=[{"role": "user", "content": parts, "name": "ann"}]) == chat.text(messages=[user])
    # what spells a control token is text: it takes the tokens of a text, and ends no turn
    control = "<|end|>"
    assert tokens({"role": "user", "content": control * 4}) > tokens({"role": "user", "content": ""}) + 4 * 2
    reply = chat().choices[0].message
    went_on = chat(messages=[*HI, reply, user])
    assert went_on.usage.prompt_tokens > tokens(*HI) + tokens(user) - 20
    dumped = {**reply.model_dump(), "annotations": [], "audio": None, "function_call": None}
    assert chat.text(messages=[*HI, dumped, user]) == went_on.choices[0].message.content


def check_max_completion_tokens(chat: Any, endless: Any, **_: Any) -> None:
    reply = chat(max_tokens=None, max_completion_tokens=5, logit_bias=endless)
    assert (reply.usage.completion_tokens, reply.choices[0].finish_reason) == (5, "length")
    assert reply.choices[0].message.content == chat.text(max_tokens=5, logit_bias=endless)
    assert chat.text(max_tokens=5, max_completion_tokens=5)
    with pytest.raises(openai.BadRequestError, match="differ"):
        chat(max_tokens=4, max_completion_tokens=5)


def check_logprobs(chat: Any, **_: Any) -> None:
    (choice,) = chat.choices(logprobs=True)
    entries = choice.logprobs.content
    assert b"".join(bytes(entry.bytes) for entry in entries).decode() == choice.message.content
    assert len(entries) == chat().usage.completion_tokens
    assert all(-50 < entry.logprob < 0 and entry.top_logprobs == [] for entry in entries)
    chunks = [chunk.choices[0] for chunk in chat(logprobs=True, stream=True)]
    streamed = [entry for chunk in chunks if chunk.logprobs for entry in chunk.logprobs.content]
    assert streamed == entries
    assert sum(entry.logprob for entry in streamed) == sum(entry.logprob for entry in entries)
    # of the model itself, not of what the knobs make of it
    (knobs,) = chat.choices(logprobs=True, temperature=2, top_k=1, presence_penalty=0.001)
    assert knobs.logprobs.content == entries
    for off in (False, None):
        assert chat.choices(logprobs=off)[0].logprobs is None
    several = chat.choices(logprobs=True, n=2, temperature=2, seed=3)
    for each in several:
        assert b"".join(bytes(entry.bytes) for entry in each.logprobs.content).decode() == each.message.content


def check_top_logprobs(chat: Any, **_: Any) -> None:
    (choice,) = chat.choices(logprobs=True, top_logprobs=5)
    for entry in choice.logprobs.content:
        likeliest = [each.logprob for each in entry.top_logprobs]
        assert likeliest == sorted(likeliest, reverse=True)
        assert len(likeliest) == 5
        assert sum(map(math.exp, likeliest)) < 1
        # at temperature 0 the token that was taken is the likeliest one
        assert (entry.token, entry.logprob) == (entry.top_logprobs[0].token, entry.top_logprobs[0].logprob)
    streamed = [
        entry
        for chunk in chat(logprobs=True, top_logprobs=5, stream=True)
        for entry in (chunk.choices[0].logprobs.content if chunk.choices[0].logprobs else [])
    ]
    assert streamed == choice.logprobs.content
    with pytest.raises(openai.BadRequestError) as caught:
        chat(top_logprobs=2)
    assert caught.value.param == "top_logprobs"


def check_response_format(chat: Any, **_: Any) -> None:
    drawn = [chat.choices(response_format={"type": "json_object"}, temperature=1, seed=seed)[0] for seed in range(8)]
    assert all(choice.message.content.startswith("{") for choice in drawn)
    # one that is cut short does not parse; the others do
    ended = [json.loads(choice.message.content) for choice in drawn if choice.finish_reason == "stop"]
    assert ended
    assert all(isinstance(value, dict) for value in ended)
    wanted = {"type": "json_schema", "json_schema": {"name": "mood", "schema": SCHEMA}}
    for seed in range(3):
        (choice,) = chat.choices(response_format=wanted, max_tokens=200, temperature=1.5, seed=seed)
        assert choice.finish_reason == "stop"
        jsonschema.validate(json.loads(choice.message.content), SCHEMA)
    (streamed,) = chat.streamed(response_format=wanted, max_tokens=200)
    assert streamed == chat.text(response_format=wanted, max_tokens=200)
    assert chat.text(response_format={"type": "text"}) == chat.text()
    impossible = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {"type": "string"}}}}
    with pytest.raises(openai.BadRequestError, match="uses not") as caught:
        chat(response_format=impossible)
    assert str(caught.value.param).startswith("response_format")
    with pytest.raises(openai.BadRequestError, match="exclude each other"):
        chat(response_format=wanted, grammar='root ::= "a"')


def check_tools(chat: Any, **_: Any) -> None:
    """The built-in model's template takes none; those that do are in test_tools."""
    with pytest.raises(openai.BadRequestError, match="tool") as caught:
        chat(tools=[TOOL])
    assert caught.value.param == "tools"
    assert chat.text(tools=[]) == chat.text()


def check_tool_choice(chat: Any, **_: Any) -> None:
    assert chat.text(tools=[TOOL], tool_choice="none") == chat.text(tool_choice="none") == chat.text()
    with pytest.raises(openai.BadRequestError, match="needs tools") as caught:
        chat(tool_choice="required")
    assert caught.value.param == "tool_choice"
    named = {"type": "function", "function": {"name": "look_up"}}
    some = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [named]}}
    for choice in ("auto", "required", named, some):
        with pytest.raises(openai.BadRequestError):
            chat(tools=[TOOL], tool_choice=choice)


def check_parallel_tool_calls(chat: Any, **_: Any) -> None:
    """Without tools there is nothing that it could change."""
    assert chat.text(parallel_tool_calls=False) == chat.text(parallel_tool_calls=True) == chat.text()
    with pytest.raises(openai.BadRequestError) as caught:
        chat(parallel_tool_calls="yes")
    assert caught.value.param == "parallel_tool_calls"


def check_truncation(chat: Any, **_: Any) -> None:
    roles = ("user", "assistant") * 12
    turns = [{"role": role, "content": f"A long word {number}. " * 12} for number, role in enumerate(roles)]
    long = [{"role": "system", "content": "Be kind."}, *turns, *HI]
    for refused in ({}, {"truncation": "disabled"}, {"truncation": None}):
        with pytest.raises(openai.BadRequestError, match="maximum context length") as caught:
            chat(messages=long, **refused)
        assert (caught.value.param, caught.value.code) == ("messages", "context_length_exceeded")
    reply = chat(messages=long, truncation="auto")
    left_out = reply.familiar["trimmed_messages"]
    assert 0 < left_out < len(turns)
    assert left_out % 2 == 0
    kept = [long[0], *long[1 + left_out :]]
    assert reply.choices[0].message.content == chat.text(messages=kept)
    assert reply.usage.prompt_tokens == chat(messages=kept).usage.prompt_tokens
    assert chat(truncation="auto").familiar["trimmed_messages"] == 0
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        chat(messages=[{"role": "user", "content": "word " * 3000}], truncation="auto")


CHECKS: dict[str, Callable[..., None]] = {
    "messages": check_messages,
    "max_completion_tokens": check_max_completion_tokens,
    "logprobs": check_logprobs,
    "top_logprobs": check_top_logprobs,
    "response_format": check_response_format,
    "tools": check_tools,
    "tool_choice": check_tool_choice,
    "parallel_tool_calls": check_parallel_tool_calls,
    "truncation": check_truncation,
}


def test_a_parameter_has_its_effect(chat_parameter: str, chat: Any, endless: dict[str, float]) -> None:
    CHECKS[chat_parameter](chat=chat, endless=endless)

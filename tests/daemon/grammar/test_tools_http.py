"""``tools`` over HTTP through the openai client, with a model whose template takes them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest

from familiar.daemon.engine import Engine
from familiar.daemon.engine_options import EngineOptions

ASKED: list[Any] = [{"role": "user", "content": "What is the weather in Paris, and what is 2 plus 2?"}]
WEATHER = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Paris", "London"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 5},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
SUM = {
    "type": "object",
    "properties": {"of": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "maxItems": 3}},
    "required": ["of"],
    "additionalProperties": False,
}
SCHEMAS = {"weather": WEATHER, "sum": SUM}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": name, "description": f"Get the {name}.", "parameters": schema}}
    for name, schema in SCHEMAS.items()
]


@pytest.fixture(scope="module")
def tool_engine(tool_model_path: Path) -> Iterator[Engine]:
    with Engine.open(tool_model_path, EngineOptions(slots=4, threads=1)) as opened:
        yield opened


@pytest.fixture
def service(serve: Any, data_dir: Path, tool_engine: Engine) -> Iterator[Any]:
    """A service of the model with tools."""
    with serve(data_dir, tool_engine) as running:
        yield running


def ask(service: Any, **fields: Any) -> Any:
    given = {"model": "familiar:base", "messages": ASKED, "max_tokens": 300, "temperature": 0, "tools": TOOLS, **fields}
    return service.openai.chat.completions.create(**given)


def calls_of(choice: Any) -> list[tuple[str, Any]]:
    """The calls of a choice, each held against its function's schema."""
    calls = [(call.function.name, json.loads(call.function.arguments)) for call in choice.message.tool_calls]
    for name, arguments in calls:
        jsonschema.validate(arguments, SCHEMAS[name])
    return calls


def gathered(chunks: Any) -> tuple[str, list[dict[str, str]], str]:
    """What a stream says: its content, its calls, its finish reason."""
    calls: list[dict[str, str]] = []
    content, reason = "", ""
    for chunk in chunks:
        (choice,) = chunk.choices
        content += choice.delta.content or ""
        for part in choice.delta.tool_calls or []:
            if part.id:
                assert part.index == len(calls)
                calls.append({"id": part.id, "name": part.function.name, "arguments": ""})
            calls[part.index]["arguments"] += part.function.arguments
        reason = choice.finish_reason or reason
    return content, calls, reason


def test_required_calls_follow_their_schemas(service: Any) -> None:
    drawn = [ask(service, tool_choice="required", temperature=1, seed=seed).choices[0] for seed in range(4)]
    for choice in drawn:
        assert choice.message.content is None
        assert len({call.id for call in choice.message.tool_calls}) == len(choice.message.tool_calls)
    # one that is cut short leaves the arguments of its last call unfinished
    ended = [choice for choice in drawn if choice.finish_reason != "length"]
    assert ended
    for choice in ended:
        assert choice.finish_reason == "tool_calls"
        assert calls_of(choice)


def test_a_function_by_its_name_is_the_one_that_is_called(service: Any) -> None:
    for name in SCHEMAS:
        named = {"type": "function", "function": {"name": name}}
        allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named]}}
        for choice in (named, allowed):
            (reply,) = ask(service, tool_choice=choice, parallel_tool_calls=False).choices
            assert [called for called, _ in calls_of(reply)] == [name]


def test_parallel_calls_can_be_ruled_out(service: Any) -> None:
    def counts(parallel: bool) -> set[int]:
        drawn = [
            ask(service, tool_choice="required", parallel_tool_calls=parallel, temperature=1.5, seed=seed).choices[0]
            for seed in range(6)
        ]
        return {len(choice.message.tool_calls) for choice in drawn}

    assert counts(parallel=False) == {1}
    assert max(counts(parallel=True)) > 1


def test_a_stream_of_calls_says_what_the_whole_reply_says(service: Any) -> None:
    seeded = {"temperature": 1, "seed": 1, "tool_choice": "required", "parallel_tool_calls": False}
    (whole,) = ask(service, **seeded).choices
    content, calls, reason = gathered(ask(service, **seeded, stream=True))
    assert (content, reason) == ("", "tool_calls")
    assert [(call["name"], json.loads(call["arguments"])) for call in calls] == calls_of(whole)
    with service.openai.chat.completions.stream(
        model="familiar:base", messages=ASKED, tools=TOOLS, max_tokens=300, **seeded
    ) as stream:
        stream.until_done()
        final = stream.get_final_completion().choices[0]
    assert calls_of(final) == calls_of(whole)


def test_a_reply_that_is_cut_leaks_no_spelling_into_its_content(service: Any) -> None:
    for length in (3, 30, 60):
        fields = {"tool_choice": "required", "temperature": 1, "seed": 4, "max_tokens": length}
        (whole,) = ask(service, **fields).choices
        content, calls, reason = gathered(ask(service, **fields, stream=True))
        assert reason == whole.finish_reason
        assert content == (whole.message.content or "")
        assert len(calls) == len(whole.message.tool_calls or [])
        assert (content == "") == bool(calls)


def test_auto_leaves_the_choice_to_the_model(service: Any) -> None:
    (free,) = ask(service).choices
    (auto,) = ask(service, tool_choice="auto").choices
    assert (free.message.content, free.finish_reason) == (auto.message.content, auto.finish_reason)
    content, calls, _ = gathered(ask(service, stream=True))
    assert content == (free.message.content or "")
    assert len(calls) == len(free.message.tool_calls or [])


def test_tools_are_put_before_the_model_and_none_takes_them_away(service: Any) -> None:
    with_tools, without = ask(service, max_tokens=1), ask(service, max_tokens=1, tools=openai.omit)
    assert with_tools.usage.prompt_tokens > without.usage.prompt_tokens + 50
    assert ask(service, tool_choice="none", max_tokens=1).usage == without.usage


def test_a_conversation_goes_on_with_what_the_tool_said(service: Any) -> None:
    first = ask(service, tool_choice="required", parallel_tool_calls=False).choices[0].message
    (call,) = first.tool_calls
    result: dict[str, Any] = {"role": "tool", "tool_call_id": call.id, "content": "Sunny, 20 degrees."}
    reply = ask(service, messages=[*ASKED, first, result], max_tokens=20)
    longer = ask(service, messages=[*ASKED, first, {**result, "content": "Sunny, 20 degrees. " * 10}], max_tokens=1)
    assert longer.usage.prompt_tokens > reply.usage.prompt_tokens + 20
    logged = service.http.get(f"/v1/exchanges/{reply.id}").json()["messages"]
    assert [message["role"] for message in logged] == ["user", "assistant", "tool"]
    assert logged[1]["tool_calls"][0]["function"]["name"] == call.function.name
    assert logged[2]["tool_call_id"] == call.id


def test_what_is_logged_of_calls_can_be_read_and_corrected(service: Any) -> None:
    reply = ask(service, tool_choice="required", parallel_tool_calls=False)
    logged = service.http.get(f"/v1/exchanges/{reply.id}").json()
    assert reply.choices[0].message.tool_calls[0].function.name in logged["completion"]
    said = {"completion_id": reply.id, "rating": "good"}
    assert service.http.post("/v1/feedback", json=said).status_code == 200


def test_logprobs_stand_beside_calls(service: Any) -> None:
    reply = ask(service, tool_choice="required", parallel_tool_calls=False, logprobs=True)
    assert len(reply.choices[0].logprobs.content) == reply.usage.completion_tokens
    chunks = list(ask(service, tool_choice="required", parallel_tool_calls=False, logprobs=True, stream=True))
    streamed = [entry for chunk in chunks if chunk.choices[0].logprobs for entry in chunk.choices[0].logprobs.content]
    assert streamed == reply.choices[0].logprobs.content


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools[1].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice.function.name"),
        ({"response_format": {"type": "json_object"}}, "tools"),
    ],
)
def test_tools_that_cannot_be_used_are_named(change: dict[str, Any], param: str, service: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(service, **change)
    assert caught.value.param == param


def test_replies_with_calls_are_as_published(service: Any) -> None:
    document = service.http.get("/openapi.json").json()

    def check(value: Any, name: str) -> None:
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.Draft202012Validator(schema).validate(value)

    body = {"model": "familiar", "messages": ASKED, "tools": TOOLS, "tool_choice": "required", "max_tokens": 300}
    whole = service.http.post("/v1/chat/completions", json=body).json()
    check(whole, "ChatCompletion")
    check(service.http.get(f"/v1/exchanges/{whole['id']}").json(), "Exchange")
    events = service.http.post("/v1/chat/completions", json={**body, "stream": True}).text.split("\n\n")[:-2]
    for event in events:
        check(json.loads(event.removeprefix("data: ")), "ChatCompletionChunk")

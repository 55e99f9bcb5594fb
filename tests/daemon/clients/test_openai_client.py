"""The official openai client as people use it: sync and async, its helpers, and its errors."""

import asyncio
import json
from typing import Any, Literal

import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

HI: list[Any] = [{"role": "user", "content": "Hello there, how are you?"}]


class Mood(BaseModel):
    """What ``parse`` is to return."""

    mood: Literal["good", "bad"]
    score: int


def test_parse_returns_the_callers_own_type(live: Any) -> None:
    reply = live.openai.chat.completions.parse(
        model="familiar:base", messages=HI, response_format=Mood, temperature=0, max_tokens=60
    )
    parsed = reply.choices[0].message.parsed
    assert isinstance(parsed, Mood)
    assert parsed.model_dump() == json.loads(reply.choices[0].message.content)


def test_a_cut_reply_is_not_parsed_but_an_error_of_the_client(live: Any) -> None:
    with pytest.raises(openai.LengthFinishReasonError):
        live.openai.chat.completions.parse(model="familiar:base", messages=HI, response_format=Mood, max_tokens=2)


def test_the_stream_helper_tells_what_happens(live: Any, chat: Any) -> None:
    with live.openai.chat.completions.stream(
        model="familiar:base", messages=HI, temperature=0, max_tokens=24, logprobs=True
    ) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    deltas = [event.delta for event in events if event.type == "content.delta"]
    assert "".join(deltas) == final.choices[0].message.content == chat.text()
    assert [event.type for event in events].count("content.done") == 1
    assert len(final.choices[0].logprobs.content) == chat().usage.completion_tokens


def test_the_stream_helper_parses(live: Any) -> None:
    with live.openai.chat.completions.stream(
        model="familiar:base", messages=HI, response_format=Mood, temperature=0, max_tokens=60
    ) as stream:
        stream.until_done()
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Mood)


def test_raw_responses_have_their_headers(live: Any) -> None:
    raw = live.openai.chat.completions.with_raw_response.create(model="familiar:base", messages=HI, max_tokens=2)
    assert raw.headers["content-type"] == "application/json"
    assert raw.parse().choices[0].message.content == json.loads(raw.text)["choices"][0]["message"]["content"]
    with live.openai.chat.completions.with_streaming_response.create(
        model="familiar:base", messages=HI, max_tokens=2, stream=True
    ) as streaming:
        assert streaming.headers["content-type"].startswith("text/event-stream")
        assert list(streaming.iter_lines())[-2:] == ["data: [DONE]", ""]


def test_what_is_ours_in_a_reply_reaches_the_caller(live: Any, chat: Any) -> None:
    reply = chat(model="familiar", n=2, temperature=1)
    assert reply.familiar["memories"] == []
    assert set(reply.familiar["timings"]) == {"queued_ms", "prompt_ms", "predicted_ms"}
    for id, choice in zip((reply.id, f"{reply.id}:1"), reply.choices, strict=True):
        logged = live.http.get(f"/v1/exchanges/{id}").json()
        assert logged["completion"] == choice.message.content
    assert live.http.get(f"/v1/exchanges/{reply.id}:2").status_code == 404
    said = {"completion_id": f"{reply.id}:1", "rating": "good"}
    assert live.openai.post("/feedback", cast_to=object, body=said)["kind"] == "rating"


def test_completions_are_not_logged(live: Any, text: Any) -> None:
    before = live.http.get("/v1/status").json()["counts"]["exchanges"]
    reply = text(model="familiar")
    assert reply.id.startswith("cmpl-")
    assert live.http.get(f"/v1/exchanges/{reply.id}").status_code == 404
    assert live.http.get("/v1/status").json()["counts"]["exchanges"] == before


def test_models_are_listed_and_shown(live: Any) -> None:
    models = {model.id: model for model in live.openai.models.list()}
    assert {"familiar", "familiar:memory", "familiar:base"} <= set(models)
    for name, model in models.items():
        assert live.openai.models.retrieve(name) == model
        assert model.created > 1_700_000_000


def test_errors_are_the_clients_own(live: Any, chat: Any) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        chat(temperature=9)
    assert (bad.value.param, bad.value.code, bad.value.type) == (
        "temperature",
        "invalid_value",
        "invalid_request_error",
    )
    with pytest.raises(openai.NotFoundError):
        live.openai.models.retrieve("gpt-4")
    with pytest.raises(openai.AuthenticationError) as refused:
        live.openai.with_options(api_key="fam-of-a-removed-user").models.list()
    assert refused.value.code == "invalid_api_key"


async def _ask(client: AsyncOpenAI, number: int) -> str:
    """One of many requests at once: every other one streamed."""
    messages: list[Any] = [{"role": "user", "content": f"Tell me about the number {number}."}]
    fields: dict[str, Any] = {"model": "familiar:base", "messages": messages, "temperature": 0, "max_tokens": 16}
    if number % 2:
        reply = await client.chat.completions.create(**fields)
        return reply.choices[0].message.content or ""
    texts = [
        chunk.choices[0].delta.content or ""
        async for chunk in await client.chat.completions.create(**fields, stream=True)
    ]
    return "".join(texts)


def test_many_requests_at_once_are_answered_as_alone(live: Any) -> None:
    async def run(numbers: range, at_once: bool) -> list[str]:
        async with AsyncOpenAI(base_url=f"{live.url}/v1", api_key="unused", max_retries=0) as client:
            if at_once:
                return await asyncio.gather(*(_ask(client, number) for number in numbers))
            return [await _ask(client, number) for number in numbers]

    together = asyncio.run(run(range(24), at_once=True))
    assert together == asyncio.run(run(range(24), at_once=False))
    assert len(set(together)) > 4


def test_an_async_stream_that_is_left_frees_its_slot(live: Any, endless: dict[str, float]) -> None:
    fields: dict[str, Any] = {"messages": HI, "stream": True, "logit_bias": endless, "max_tokens": 900}
    fields["model"] = "familiar"

    async def leave() -> None:
        async with AsyncOpenAI(base_url=f"{live.url}/v1", api_key="unused", max_retries=0) as client:
            for _ in range(8):  # more than there are slots
                stream: Any = await client.chat.completions.create(**fields)
                async for _chunk in stream:
                    break
                await stream.close()

    asyncio.run(leave())
    assert live.openai.chat.completions.create(model="familiar", messages=HI, max_tokens=2).usage.completion_tokens == 2

"""Ollama's API through its own Python client, and by hand where the client would hide something."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest

from familiar.adapters.folders import file_sha256
from familiar.daemon.engine import Engine

HI: list[Any] = [{"role": "user", "content": "Hello there, how are you?"}]


@pytest.fixture
def client(live: Any) -> Iterator[ollama.Client]:
    with ollama.Client(host=live.url, trust_env=False) as opened:
        yield opened


def openai_text(live: Any, **fields: Any) -> str:
    """What OpenAI's endpoint answers."""
    given: dict[str, Any] = {"model": "familiar:base", "messages": HI, "temperature": 0, **fields}
    return str(live.openai.chat.completions.create(**given).choices[0].message.content)


def lines(response: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line) for line in response.text.splitlines()]


# What there is


def test_the_models_are_listed(client: ollama.Client, live: Any, model_path: Path) -> None:
    models = client.list().models
    assert [model.model for model in models] == [model.id for model in live.openai.models.list()]
    assert {model.size for model in models} == {model_path.stat().st_size}
    assert {model.digest for model in models} == {file_sha256(model_path)}
    details = models[0].details
    assert details is not None
    assert (details.format, details.family, details.parameter_size) == ("gguf", "llama", "5.2M")
    assert details.quantization_level == "F16"


def test_a_model_is_shown(client: ollama.Client, engine: Engine) -> None:
    shown = client.show("familiar:latest")
    assert shown.capabilities == ["completion", "embedding"]
    assert "<|end|>" in (shown.template or "")
    assert (shown.parameters or "").split()[:2] == ["temperature", "0.7"]
    info = shown.modelinfo or {}
    assert info["llama.context_length"] == engine.info.context_tokens
    assert info["general.parameter_count"] == engine.info.parameters
    assert client.show("familiar:base").capabilities == ["completion"]
    assert client.show("familiar:embedding").capabilities == ["embedding"]


def test_the_model_is_always_loaded(client: ollama.Client) -> None:
    (loaded,) = client.ps().models
    assert (loaded.model, loaded.context_length) == ("familiar", 1024)
    assert loaded.expires_at is not None
    assert loaded.expires_at.year == 9999


def test_it_says_that_it_runs(live: Any) -> None:
    assert live.http.get("/").text == "Familiar is running"
    for path in ("/", "/api/version", "/api/tags"):
        answer = live.http.head(path)
        assert (answer.status_code, answer.text) == (200, "")
    version = live.http.get("/api/version").json()["version"]
    assert [int(part) for part in version.split(".")] >= [0, 12, 0]


# Chat


def test_a_chat_says_what_openais_endpoint_says(client: ollama.Client, live: Any, engine: Engine) -> None:
    reply = client.chat("familiar:base", HI, options={"temperature": 0})
    assert reply.message.content == openai_text(live)
    assert (reply.model, reply.message.role, reply.done, reply.done_reason) == (
        "familiar:base",
        "assistant",
        True,
        "stop",
    )
    assert reply.prompt_eval_count == len(engine.encode_prompt(HI))
    assert reply.total_duration is not None
    assert reply.total_duration >= (reply.prompt_eval_duration or 0) + (reply.eval_duration or 0) > 0
    assert client.chat("familiar:latest", HI).model == "familiar:latest"


def test_a_stream_is_lines_and_the_default(client: ollama.Client, live: Any) -> None:
    whole = client.chat("familiar:base", HI, options={"temperature": 0, "num_predict": 9})
    parts = list(client.chat("familiar:base", HI, options={"temperature": 0, "num_predict": 9}, stream=True))
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert (parts[-1].done_reason, parts[-1].eval_count, parts[-1].message.content) == ("length", 9, "")
    raw = live.http.post("/api/chat", json={"model": "familiar:base", "messages": HI})
    assert raw.headers["content-type"] == "application/x-ndjson"
    assert len(lines(raw)) > 2
    assert set(lines(raw)[0]) == {"model", "created_at", "message", "done"}


def test_a_chat_is_logged_recalled_for_and_corrected(service: Any) -> None:
    def chat() -> Any:
        response = service.http.post("/api/chat", json={"model": "familiar", "messages": HI, "stream": False})
        return response.json()["familiar"]

    first = chat()
    logged = service.http.get(f"/v1/exchanges/{first['id']}").json()
    assert (logged["messages"], logged["model"]) == (HI, "familiar")
    assert first["memories"] == []
    said = {"completion_id": first["id"], "correction": "Fine, thanks!"}
    memory = service.http.post("/v1/feedback", json=said).json()["memories"][0]["id"]
    assert chat()["memories"] == [memory]


@pytest.mark.parametrize(
    ("option", "value", "name"),
    [
        ("temperature", 0.0, "temperature"),
        ("top_k", 2, "top_k"),
        ("top_p", 0.2, "top_p"),
        ("min_p", 0.9, "min_p"),
        ("seed", 12, "seed"),
        ("num_predict", 3, "max_tokens"),
        ("stop", ["e"], "stop"),
        ("repeat_penalty", 1.9, "repeat_penalty"),
        ("presence_penalty", 2.0, "presence_penalty"),
        ("frequency_penalty", 2.0, "frequency_penalty"),
    ],
)
def test_each_option_does_what_openais_parameter_does(
    client: ollama.Client, live: Any, option: str, value: Any, name: str
) -> None:
    common = {"temperature": 1.5, "seed": 7}
    reply = client.chat("familiar:base", HI, options={**common, "num_predict": 40, option: value})
    assert reply.message.content == openai_text(live, **_body({**common, "max_tokens": 40, name: value}))
    plain = client.chat("familiar:base", HI, options={**common, "num_predict": 40})
    assert reply.message.content != plain.message.content


def _body(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields for the openai client, which has no argument for those of llama.cpp."""
    own = {name: fields.pop(name) for name in ("top_k", "min_p", "repeat_penalty") if name in fields}
    return {**fields, "extra_body": own}


@pytest.mark.parametrize("limit", [-1, -2])
def test_a_limit_below_zero_is_none(client: ollama.Client, limit: int) -> None:
    reply = client.chat("familiar:base", HI, options={"temperature": 0, "num_predict": limit})
    assert reply.done_reason == "stop"
    raw = client.generate("familiar:base", "Once upon", raw=True, options={"temperature": 0, "num_predict": limit})
    assert (raw.eval_count or 0) > 16  # OpenAI's default for plain text


def test_a_seed_below_zero_is_a_random_one(client: ollama.Client) -> None:
    options = {"temperature": 2.0, "seed": -1, "num_predict": 40}
    assert len({client.chat("familiar:base", HI, options=options).message.content for _ in range(4)}) > 1


def test_logprobs(client: ollama.Client) -> None:
    options = {"temperature": 0, "num_predict": 3}
    reply = client.chat("familiar:base", HI, options=options, logprobs=True, top_logprobs=2)
    assert reply.logprobs is not None
    assert "".join(entry.token for entry in reply.logprobs) == reply.message.content
    assert all(entry.top_logprobs and entry.top_logprobs[0].logprob == entry.logprob for entry in reply.logprobs)
    streamed = client.chat("familiar:base", HI, options=options, logprobs=True, stream=True)
    assert [entry.token for part in streamed for entry in part.logprobs or ()] == [e.token for e in reply.logprobs]


SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}


@pytest.mark.parametrize("stream", [False, True])
def test_a_reply_follows_its_format(client: ollama.Client, stream: bool) -> None:
    def said(form: Any, **more: Any) -> Any:
        options = {"temperature": 0, "num_predict": 80}
        parts = client.generate("familiar:base", "Age?", format=form, options=options, stream=stream, **more)
        return json.loads("".join(part.response for part in (parts if stream else [parts])))

    assert set(said(SCHEMA)) == {"age"}
    assert set(said(SCHEMA, raw=True)) == {"age"}
    assert isinstance(said("json"), dict)
    reply: Any = client.chat("familiar:base", HI, format=SCHEMA, options={"temperature": 0, "num_predict": 80})
    assert set(json.loads(reply.message.content)) == {"age"}


def test_a_conversation_that_outgrows_the_context_loses_its_beginning_unless_told_not_to(live: Any) -> None:
    turns = [{"role": role, "content": "word " * 60} for _ in range(12) for role in ("user", "assistant")]
    body = {"model": "familiar", "messages": [*turns, *HI], "stream": False, "options": {"num_predict": 3}}
    reply = live.http.post("/api/chat", json=body).json()
    assert reply["familiar"]["trimmed_messages"] > 0
    refused = live.http.post("/api/chat", json={**body, "truncate": False})
    assert refused.status_code == 400
    assert 'send "truncate": true to' in refused.json()["error"]


# Generate


def test_generate_is_a_chat_of_one_message(service: Any) -> None:
    options = {"temperature": 0, "num_predict": 20}
    with ollama.Client(host=service.url, trust_env=False) as client:
        reply = client.generate("familiar:base", "Hello!", system="Be brief.", options=options)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello!"}]
    assert reply.response == openai_text(service, messages=messages, max_tokens=20)
    assert service.parts.store.exchanges(1)[0].messages == tuple(messages)


def test_raw_goes_on_with_the_text(client: ollama.Client, live: Any) -> None:
    options = {"temperature": 0, "num_predict": 12}
    plain = live.openai.completions.create(model="familiar:base", prompt="Once", temperature=0, max_tokens=12)
    assert client.generate("familiar:base", "Once", raw=True, options=options).response == plain.choices[0].text
    parts = list(client.generate("familiar:base", "Once", raw=True, options=options, stream=True))
    assert "".join(part.response for part in parts) == plain.choices[0].text
    assert (parts[-1].done_reason, parts[-1].eval_count) == ("length", 12)


def test_what_is_raw_is_not_logged(service: Any) -> None:
    service.http.post("/api/generate", json={"model": "familiar", "prompt": "Once", "raw": True})
    service.http.post("/completion", json={"prompt": "Once"})
    assert service.parts.store.exchanges(1) == []


@pytest.mark.parametrize(
    ("path", "nothing"), [("chat", {"messages": []}), ("generate", {}), ("generate", {"raw": True})]
)
def test_asking_for_nothing_loads_the_model(live: Any, path: str, nothing: dict[str, Any]) -> None:
    answer = live.http.post(f"/api/{path}", json={"model": "familiar", "keep_alive": 0, **nothing}).json()
    assert (answer["done"], answer["done_reason"]) == (True, "load")
    unknown = live.http.post(f"/api/{path}", json={"model": "llama3", **nothing})
    assert unknown.status_code == 404


def test_what_the_ollama_command_sends_is_taken(live: Any) -> None:
    """Its requests have every field, most of them empty."""
    show = {"model": "familiar", "system": "", "template": "", "verbose": False, "options": None, "name": "familiar"}
    assert live.http.post("/api/show", json=show).status_code == 200
    generate = {"model": "familiar", "prompt": "Hi", "suffix": "", "system": "", "template": "", "options": {}}
    answer = live.http.post("/api/generate", json={**generate, "context": None, "images": [], "format": ""})
    assert lines(answer)[-1]["done"] is True
    message = {"role": "user", "content": "Hi", "images": None, "thinking": ""}
    chat: dict[str, Any] = {
        "model": "familiar",
        "messages": [message],
        "tools": None,
        "think": None,
        "keep_alive": "5m",
        "options": {},
    }
    assert lines(live.http.post("/api/chat", json=chat))[-1]["done"] is True


# Embeddings


def test_embeddings_are_those_of_openais_endpoint(client: ollama.Client, live: Any) -> None:
    expected = [each.embedding for each in live.openai.embeddings.create(model="familiar", input=["a b", "c"]).data]
    both = client.embed("familiar", ["a b", "c"], options={"num_ctx": 9}, truncate=True)
    for each, wanted in zip(both.embeddings, expected, strict=True):
        assert list(each) == pytest.approx(wanted, abs=5e-4)
    assert both.prompt_eval_count
    assert list(client.embeddings("familiar", "c").embedding) == pytest.approx(expected[1], abs=5e-4)
    assert list(client.embed("familiar:latest", "").embeddings) == []
    with pytest.raises(ollama.ResponseError, match="dimensions is 3") as refused:
        client.embed("familiar", "a", dimensions=3)
    assert refused.value.status_code == 400

"""The API through the official openai client, on a real socket, with the real engine and store."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from familiar.adapters.folders import file_sha256
from familiar.daemon.chat_service import ChatService, Ended
from familiar.daemon.engine import Engine
from familiar.daemon.engine_options import EngineOptions
from familiar.daemon.reply import Text
from familiar.daemon.schemas_chat import ChatRequest
from familiar.daemon.served_adapters import ServedAdapters
from familiar.daemon.signal_service import SignalService
from familiar.memory.errors import NoSpace
from familiar.memory.recall import Recaller
from familiar.memory.types import Exchange

HI = [{"role": "user", "content": "Hello there, how are you?"}]
LONG = 900
"""Tokens of a reply that is still being made when a test wants to stop it."""


def ask(service: Any, model: str = "familiar:base", **fields: Any) -> Any:
    given = {"messages": HI, "max_tokens": 6, "temperature": 0, **fields}
    return service.openai.chat.completions.create(model=model, **given)


def exchange(service: Any, completion_id: str) -> Any:
    response = service.http.get(f"/v1/exchanges/{completion_id}")
    return response.json() if response.status_code == 200 else None


def wait_for(what: Callable[[], Any]) -> Any:
    """The first true thing that ``what`` gives."""
    end = time.monotonic() + 60
    while not (found := what()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)
    return found


# Chat


def test_a_reply_is_a_chat_completion(service: Any) -> None:
    reply = ask(service)
    assert reply.object == "chat.completion"
    assert reply.model == "familiar:base"
    assert len(reply.id) == len("chatcmpl-") + 24
    choice = reply.choices[0]
    assert (choice.index, choice.message.role, choice.finish_reason) == (0, "assistant", "length")
    assert choice.message.content
    assert reply.usage.completion_tokens == 6
    assert reply.usage.prompt_tokens == len(service.parts.engine.encode_prompt(HI))
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + 6
    told = reply.model_extra["familiar"]
    timings = told.pop("timings")
    assert all(told.pop(name) == [] for name in ("learned", "pending", "memories", "consolidated"))
    assert told == {"adapter_version": None, "trimmed_messages": 0, "notice": None}
    assert set(timings) == {"queued_ms", "prompt_ms", "predicted_ms"}
    assert all(value > 0 for value in timings.values())


def test_a_stream_says_what_the_whole_reply_says(service: Any) -> None:
    whole = ask(service, max_tokens=40)
    chunks = list(ask(service, max_tokens=40, stream=True))
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].id != whole.id
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert (deltas[0].role, deltas[0].content) == ("assistant", "")
    assert [delta.role for delta in deltas[1:]] == [None] * (len(deltas) - 1)
    assert "".join(delta.content or "" for delta in deltas) == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert deltas[-1].content is None
    assert all(chunk.usage is None for chunk in chunks)
    assert ["familiar" in chunk.model_extra for chunk in chunks] == [True, *[False] * (len(chunks) - 2), True]
    first, last = chunks[0].model_extra["familiar"], chunks[-1].model_extra["familiar"]
    assert {**first, "timings": last["timings"]} == last


def test_content_parts_and_the_developer_role(service: Any) -> None:
    plain = ask(service, messages=[{"role": "system", "content": "Be brief."}, *HI])
    parts = [{"type": "text", "text": "Hello there, "}, {"type": "text", "text": "how are you?"}]
    same = ask(
        service,
        messages=[{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts, "name": "ann"}],
    )
    assert same.choices[0].message.content == plain.choices[0].message.content
    assert same.usage.prompt_tokens == plain.usage.prompt_tokens
    assert exchange(service, same.id)["messages"][0] == {"role": "system", "content": "Be brief."}


# Models


def test_models(service: Any) -> None:
    listed = [model.id for model in service.openai.models.list()]
    assert listed == ["familiar", "familiar:memory", "familiar:base"]
    model = service.openai.models.retrieve("familiar:memory")
    assert (model.id, model.object, model.owned_by) == ("familiar:memory", "model", "familiar")
    with pytest.raises(openai.NotFoundError) as caught:
        service.openai.models.retrieve("familiar:v1")
    assert caught.value.code == "model_not_found"


# The log of exchanges


def test_an_exchange_is_logged_before_the_reply_ends(service: Any) -> None:
    reply = ask(service, seed=5, stop=["zzz"])
    logged = exchange(service, reply.id)
    assert logged["messages"] == HI
    assert logged["completion"] == reply.choices[0].message.content
    assert logged["sampling"] == {"temperature": 0, "seed": 5, "max_tokens": 6, "stop": '["zzz"]'}
    assert logged["usage"]["completion_tokens"] == 6
    assert logged["finish_reason"] == "length"
    assert logged["duration_ms"] > 0
    texts = []
    for chunk in ask(service, stream=True):
        texts.append(chunk.choices[0].delta.content or "")
        if chunk.choices[0].finish_reason:
            assert exchange(service, chunk.id)["completion"] == "".join(texts)
            break


def test_a_client_that_leaves_a_stream_stops_it_and_what_was_said_is_kept(service: Any) -> None:
    texts = []
    for chunk in (stream := ask(service, stream=True, max_tokens=LONG, logit_bias=_no_end(service))):
        texts.append(chunk.choices[0].delta.content or "")
        if len(texts) == 4:
            break
    stream.close()
    logged = wait_for(lambda: exchange(service, chunk.id))
    assert logged["finish_reason"] == "cancelled"
    assert logged["completion"].startswith("".join(texts))
    assert 0 < logged["usage"]["completion_tokens"] < LONG


def test_a_client_that_does_not_wait_for_a_reply_stops_it(service: Any) -> None:
    with pytest.raises(openai.APITimeoutError):
        ask(service, max_tokens=LONG, logit_bias=_no_end(service), timeout=0.05)
    logged, *_ = wait_for(lambda: service.parts.store.exchanges(1))
    assert logged.finish_reason == "cancelled"
    assert logged.completion_tokens < LONG


def _no_end(service: Any) -> dict[str, float]:
    """A bias against the tokens that end a reply."""
    vocab = service.parts.engine._model.vocab
    return {str(token): -100.0 for token in range(vocab.size) if vocab.ends_generation(token)}


def test_a_full_disk_costs_the_log_and_not_the_reply(engine: Engine, service: Any, data_dir: Path) -> None:
    class Full:
        """The store on a disk that became full."""

        def __getattr__(self, name: str) -> Any:
            return getattr(service.parts.store, name)

        def add_exchange(self, exchange: Exchange) -> None:
            raise NoSpace("The disk is full.")

    store: Any = Full()
    adapters = ServedAdapters(store, data_dir, lambda: file_sha256(engine.info.path))
    outbox, workers = service.parts.outbox, service.parts.workers
    chat = ChatService(
        store,
        engine,
        adapters,
        outbox,
        workers,
        Recaller(store),
        SignalService(store, time.time),
        memory_budget_tokens=0,
    )
    request = ChatRequest.model_validate({"model": "familiar", "messages": HI, "max_tokens": 3})

    async def read() -> list[Any]:
        reply = await chat.begin(store.default_user(), request)
        return [event async for event in reply.events()]

    *texts, end = asyncio.run(read())
    assert any(isinstance(event, Text) for events in texts for event in events)
    assert isinstance(end, Ended)
    assert "not logged" in (end.notice or "")


def test_too_many_requests_are_told_to_come_again(serve: Any, data_dir: Path, model_path: Path) -> None:
    with Engine.open(model_path, EngineOptions(slots=1, queue_limit=1)) as small, serve(data_dir, small) as service:
        held = ask(service, stream=True, max_tokens=LONG, logit_bias=_no_end(service))
        next(iter(held))
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(ask, service)
            wait_for(lambda: small._waiting)
            response = service.http.post("/v1/chat/completions", json={"model": "familiar", "messages": HI})
            assert response.status_code == 503
            assert response.headers["retry-after"] == "1"
            assert response.json()["error"]["code"] == "busy"
            held.close()
            assert waiting.result().usage.completion_tokens == 6


def test_a_service_that_ends_finishes_its_streams_with_an_error_event(
    serve: Any, data_dir: Path, engine: Engine
) -> None:
    with serve(data_dir, engine, grace_s=0.1) as service:
        stream = iter(ask(service, stream=True, max_tokens=LONG, logit_bias=_no_end(service)))
        first = next(stream)
        with ThreadPoolExecutor(1) as pool:
            stopping = pool.submit(service.stop)
            with pytest.raises(openai.APIError, match="shutting down"):
                for _ in stream:
                    pass
            stopping.result()
        service.parts.workers.shutdown()
        assert service.parts.store.exchange(1, first.id).finish_reason == "cancelled"


# Feedback and memory


def feedback(service: Any, **fields: Any) -> Any:
    response = service.http.post("/v1/feedback", json=fields)
    assert response.status_code == 200, response.text
    return response.json()


def test_a_correction_is_remembered_on_the_next_request(service: Any) -> None:
    first = ask(service, "familiar")
    assert first.model_extra["familiar"]["memories"] == []
    said = feedback(service, completion_id=first.id, correction="Fine, thanks!", note="Keep replies short.")
    assert (said["object"], said["kind"], said["completion_id"]) == ("feedback", "correction", first.id)
    assert {memory["kind"]: memory["text"] for memory in said["memories"]} == {
        "example": "Fine, thanks!",
        "rule": "Keep replies short.",
    }
    second = ask(service, "familiar")
    ids = {memory["id"] for memory in said["memories"]}
    assert set(second.model_extra["familiar"]["memories"]) == ids
    assert second.usage.prompt_tokens > first.usage.prompt_tokens
    shown = exchange(service, second.id)["memories"]
    assert {memory["text"] for memory in shown} == {"Fine, thanks!", "Keep replies short."}


def test_memory_is_shown_to_the_models_that_have_it(service: Any) -> None:
    rule = feedback(service, rule="Always use metric units.")["memories"][0]
    plain = len(service.parts.engine.encode_prompt(HI))
    assert ask(service, "familiar").model_extra["familiar"]["memories"] == [rule["id"]]
    assert ask(service, "familiar:memory").model_extra["familiar"]["memories"] == [rule["id"]]
    base = ask(service, "familiar:base")
    assert base.model_extra["familiar"]["memories"] == []
    assert base.usage.prompt_tokens == plain


def test_a_stream_can_be_corrected(service: Any) -> None:
    chunks = list(ask(service, "familiar", stream=True))
    assert feedback(service, completion_id=chunks[0].id, correction="No.")["kind"] == "correction"
    assert feedback(service, completion_id=chunks[0].id, rating="bad")["memories"] == []
    assert feedback(service, completion_id=chunks[0].id, rating=1)["kind"] == "rating"
    assert feedback(service, completion_id=chunks[0].id, preferred="Well, no.")["kind"] == "preference"


def test_an_empty_correction_is_refused(service: Any) -> None:
    reply = ask(service)
    response = service.http.post("/v1/feedback", json={"completion_id": reply.id, "correction": "  "})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "correction"


def test_saying_something_again_names_the_same_memory(service: Any) -> None:
    first, again = (feedback(service, rule="Say please.") for _ in range(2))
    assert again["id"] != first["id"]
    assert [memory["id"] for memory in again["memories"]] == [memory["id"] for memory in first["memories"]]


def test_a_forgotten_memory_is_not_shown_again(service: Any) -> None:
    rule = feedback(service, rule="Always use metric units.")["memories"][0]
    before = ask(service, "familiar")
    listed = service.http.get("/v1/memories").json()["data"]
    assert [memory["text"] for memory in listed] == ["Always use metric units."]
    deleted = service.http.delete(f"/v1/memories/{rule['id']}").json()
    assert (deleted["object"], deleted["id"], deleted["deleted"]) == ("memory.deleted", rule["id"], True)
    assert deleted["report"]["memory_ids"] == [rule["id"]]
    assert ask(service, "familiar").model_extra["familiar"]["memories"] == []
    (shown,) = exchange(service, before.id)["memories"]
    assert (shown["id"], shown["state"]) == (rule["id"], "forgotten")
    assert "text" not in shown


def test_memories_that_leave_no_room_are_left_out(serve: Any, data_dir: Path, model_path: Path) -> None:
    with (
        Engine.open(model_path, EngineOptions(slots=1, context_tokens=128)) as small,
        serve(data_dir, small, memory_budget_tokens=500) as service,
    ):
        feedback(service, rule="Always answer with great care, " * 10)
        long = [{"role": "user", "content": "word " * 60}]
        for truncation in ("disabled", "auto"):
            reply = ask(service, "familiar", messages=long, extra_body={"truncation": truncation})
            told = reply.model_extra["familiar"]
            assert (told["memories"], told["trimmed_messages"]) == ([], 0)
            assert reply.usage.completion_tokens > 0


# Status


def test_status(service: Any, model_path: Path) -> None:
    ask(service)
    feedback(service, rule="Always use metric units.")
    status = service.http.get("/v1/status").json()
    assert status["model"]["path"] == str(model_path)
    assert status["model"]["size_bytes"] == model_path.stat().st_size
    assert status["model"]["flash_attention"] == service.parts.engine.info.flash_attention
    assert status["rss_bytes"] - status["rss_minus_model_bytes"] == model_path.stat().st_size
    assert status["adapter_version"] is None
    assert status["uptime_seconds"] >= 0
    counts = status["counts"]
    assert (counts["exchanges"], counts["feedback"], counts["memories"]) == (1, 1, 1)


def test_the_interface_is_described(service: Any) -> None:
    described = service.http.get("/openapi.json").json()
    assert {"/v1/chat/completions", "/v1/feedback", "/v1/models", "/v1/status"} <= set(described["paths"])
    assert service.http.get("/docs").status_code == 404

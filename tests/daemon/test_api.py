"""The API through the official openai client, on a real socket, with the real engine and store."""

import asyncio
import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from familiar.adapters import registry
from familiar.adapters.folders import file_sha256
from familiar.adapters.gate import Report
from familiar.daemon.chat_service import ChatService, Ended
from familiar.daemon.engine import Engine
from familiar.daemon.engine_options import EngineOptions
from familiar.daemon.reply import Text
from familiar.daemon.schemas_chat import ChatRequest
from familiar.daemon.served_adapters import ServedAdapters
from familiar.memory.errors import NoSpace
from familiar.memory.types import AdapterVersion, Exchange, LearningRun

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
    assert reply.model_extra["familiar"] == {"adapter_version": None, "memories": [], "notice": None}


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
    assert "familiar" in chunks[0].model_extra
    assert "familiar" in chunks[-1].model_extra


def test_a_stream_ends_with_usage_when_asked(service: Any) -> None:
    chunks = list(ask(service, stream=True, stream_options={"include_usage": True}))
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 6
    assert chunks[-1].usage.total_tokens == chunks[-1].usage.prompt_tokens + 6


def test_a_stream_is_server_sent_events(service: Any) -> None:
    body = {"model": "familiar", "messages": HI, "max_tokens": 3, "stream": True}
    with service.http.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = response.read().decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(json.loads(event.removeprefix("data: ")) for event in events[:-2])


def test_the_clients_own_stream_helper_reads_it(service: Any) -> None:
    whole = ask(service, stop=["e"]).choices[0].message.content
    fields = {"model": "familiar:base", "messages": HI, "temperature": 0, "stop": ["e"]}
    with service.openai.chat.completions.stream(**fields) as stream:
        stream.until_done()
        final = stream.get_final_completion().choices[0]
    assert (final.message.content, final.finish_reason) == (whole, "stop")


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


def test_a_reply_can_be_sent_back_as_it_came(service: Any) -> None:
    first = ask(service)
    second = ask(service, messages=[*HI, first.choices[0].message, {"role": "user", "content": "And?"}])
    assert second.usage.prompt_tokens > first.usage.prompt_tokens
    dumped = first.choices[0].message.model_dump()
    third = ask(service, messages=[*HI, dumped, {"role": "user", "content": "And?"}])
    assert third.choices[0].message.content == second.choices[0].message.content


def test_the_same_seed_gives_the_same_reply(service: Any) -> None:
    replies = [ask(service, temperature=2, seed=seed, max_tokens=30) for seed in (7, 7, 8)]
    texts = [reply.choices[0].message.content for reply in replies]
    assert texts[0] == texts[1] != texts[2]


def test_a_stop_ends_the_reply_before_it(service: Any) -> None:
    whole = ask(service, max_tokens=40).choices[0].message.content
    stop = whole[len(whole) // 2 :][:3]
    for given in (stop, ["never said", stop]):
        reply = ask(service, max_tokens=40, stop=given).choices[0]
        assert reply.finish_reason == "stop"
        assert reply.message.content == whole[: whole.index(stop)]


def test_every_sampling_parameter_takes_effect(service: Any) -> None:
    def text(**fields: Any) -> str:
        fields = {"temperature": 1.5, "seed": 3, "max_tokens": 40, **fields}
        extra = {name: fields.pop(name) for name in ("top_k", "min_p", "repetition_penalty") if name in fields}
        return str(ask(service, extra_body=extra, **fields).choices[0].message.content)

    loose = {"top_p": 1, "top_k": 0, "min_p": 0}
    greedy = ask(service, max_tokens=40).choices[0].message.content
    assert text(**loose) != greedy
    assert text(**{**loose, "top_k": 1}) == greedy
    assert text(**{**loose, "top_p": 1e-6}) == greedy
    assert text(**{**loose, "min_p": 1.0}) == greedy
    assert text(**loose, temperature=0) == greedy
    for name, value in (
        ("presence_penalty", 2),
        ("frequency_penalty", 2),
        ("repetition_penalty", 2),
        ("logit_bias", {str(token): -100 for token in range(300, 2000)}),
    ):
        assert text(**loose, **{name: value}) != text(**loose), name


def test_max_completion_tokens_is_max_tokens(service: Any) -> None:
    reply = ask(service, max_tokens=openai.omit, max_completion_tokens=5)
    assert reply.usage.completion_tokens == 5


def test_what_is_documented_as_ignored_is_ignored(service: Any) -> None:
    ignored: dict[str, Any] = {
        "user": "ann",
        "store": True,
        "metadata": {"a": "b"},
        "service_tier": "flex",
        "parallel_tool_calls": True,
        "reasoning_effort": "low",
        "verbosity": "low",
        "safety_identifier": "x",
        "prompt_cache_key": "x",
    }
    harmless: dict[str, Any] = {
        "n": 1,
        "logprobs": False,
        "tools": [],
        "response_format": {"type": "text"},
        "tool_choice": "none",
    }
    reply = ask(service, **ignored, **harmless)
    assert reply.choices[0].message.content == ask(service).choices[0].message.content


def test_an_unsupported_parameter_is_an_error_of_the_client(service: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(service, response_format={"type": "json_object"})
    assert (caught.value.param, caught.value.code) == ("response_format", "unsupported_parameter")


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
    logged = wait_for(lambda: service.parts.store.latest_exchange(1))
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
    chat = ChatService(store, engine, adapters, outbox, workers, memory_budget_tokens=0)
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
    assert deleted == {"object": "memory.deleted", "id": rule["id"], "deleted": True}
    assert ask(service, "familiar").model_extra["familiar"]["memories"] == []
    assert exchange(service, before.id)["memories"] == [{"object": "memory", "id": rule["id"], "deleted": True}]


def test_memories_that_leave_no_room_are_left_out(serve: Any, data_dir: Path, model_path: Path) -> None:
    with (
        Engine.open(model_path, EngineOptions(slots=1, context_tokens=128)) as small,
        serve(data_dir, small, memory_budget_tokens=500) as service,
    ):
        feedback(service, rule="Always answer with great care, " * 10)
        long = [{"role": "user", "content": "word " * 60}]
        reply = ask(service, "familiar", messages=long)
        assert reply.model_extra["familiar"]["memories"] == []
        assert reply.usage.completion_tokens > 0


# Adapters


def promote(service: Any, gguf: Path) -> AdapterVersion:
    """Make a version of a random adapter, as the learner does of one that passed."""
    store, folder = service.parts.store, gguf.parent / f"candidate-{gguf.stem}"
    run = LearningRun(
        id=f"run-{gguf.stem}", user_id=1, created_at=1.0, state="running", config={}, fingerprint=gguf.stem
    )
    store.add_run(run)
    folder.mkdir()
    shutil.copyfile(gguf, folder / registry.GGUF)
    for name in registry.PEFT_FILES:
        (folder / name).write_bytes(b"{}")
    report = Report(passed=True, checks=())
    sha256 = service.parts.base_sha256()
    data_dir = service.parts.settings.data_dir
    return registry.promote(
        store, data_dir, run, folder, base_sha256=sha256, feedback_ids=(), report=report, now=time.time()
    )


def test_a_promoted_adapter_answers_the_next_request(service: Any, write_lora: Any) -> None:
    before = ask(service, "familiar").choices[0].message.content
    promote(service, write_lora("one.gguf", seed=1))
    assert [model.id for model in service.openai.models.list()] == [
        "familiar",
        "familiar:memory",
        "familiar:adapter",
        "familiar:base",
        "familiar:v1",
    ]
    adapted = ask(service, "familiar")
    assert adapted.model_extra["familiar"]["adapter_version"] == 1
    assert exchange(service, adapted.id)["adapter_version"] == 1
    assert adapted.choices[0].message.content != before
    for model in ("familiar:v1", "familiar:adapter"):
        assert ask(service, model).choices[0].message.content == adapted.choices[0].message.content
    for model in ("familiar:base", "familiar:memory"):
        plain = ask(service, model)
        assert plain.model_extra["familiar"]["adapter_version"] is None
        assert plain.choices[0].message.content == before


def test_versions_and_memory_are_told_apart(service: Any, write_lora: Any) -> None:
    promote(service, write_lora("one.gguf", seed=1))
    promote(service, write_lora("two.gguf", seed=2))
    feedback(service, rule="Always use metric units.")
    one, two = ask(service, "familiar:v1"), ask(service, "familiar:v2")
    assert one.choices[0].message.content != two.choices[0].message.content
    assert one.model_extra["familiar"] == {"adapter_version": 1, "memories": [], "notice": None}
    assert ask(service, "familiar:adapter").choices[0].message.content == two.choices[0].message.content
    assert len(ask(service, "familiar").model_extra["familiar"]["memories"]) == 1
    listed = service.http.get("/v1/adapters").json()
    assert listed["current"] == 2
    assert [(each["number"], each["parent"], each["current"]) for each in listed["data"]] == [
        (1, None, False),
        (2, 1, True),
    ]


def test_rolling_back_takes_effect_on_the_next_request(service: Any, write_lora: Any) -> None:
    promote(service, write_lora("one.gguf", seed=1))
    promote(service, write_lora("two.gguf", seed=2))
    for expected, served in (({"from": 2, "to": 1}, 1), ({"from": 1, "to": None}, None)):
        assert service.http.post("/v1/adapters/rollback").json() == {"object": "rollback", **expected}
        assert ask(service, "familiar").model_extra["familiar"]["adapter_version"] == served
    assert "familiar:adapter" not in [model.id for model in service.openai.models.list()]
    assert ask(service, "familiar:v2").model_extra["familiar"]["adapter_version"] == 2


def test_no_request_is_lost_while_versions_are_swapped(service: Any, write_lora: Any) -> None:
    """Requests in flight end under the version they began with; each new one takes the version current then."""
    numbers = [promote(service, write_lora(f"{seed}.gguf", seed=seed)).number for seed in (1, 2)]
    expected: dict[int | None, str] = {}
    for number in numbers:
        expected[number] = ask(service, f"familiar:v{number}").choices[0].message.content
    expected[None] = ask(service, "familiar:base").choices[0].message.content
    user = service.parts.store.default_user()
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(ask, service, "familiar") for _ in range(40)]
        for current in (1, 2, None) * 10:
            service.parts.store.set_current(user, current)
            time.sleep(0.02)
        replies = [each.result() for each in waiting]
    assert len(replies) == 40
    for reply in replies:
        served = reply.model_extra["familiar"]["adapter_version"]
        assert reply.choices[0].message.content == expected[served]
    assert len({reply.model_extra["familiar"]["adapter_version"] for reply in replies}) > 1


def test_replies_at_the_same_time_share_no_adapter_and_no_prompt(service: Any, write_lora: Any) -> None:
    promote(service, write_lora("one.gguf", seed=1))
    promote(service, write_lora("two.gguf", seed=2))
    models = ["familiar:base", "familiar:v1", "familiar:v2", "familiar"] * 6
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda number: ask(service, models[number], messages=_numbered(number)), range(24)))
    served = {"familiar:base": None, "familiar:v1": 1, "familiar:v2": 2, "familiar": 2}
    for number, reply in enumerate(replies):
        assert reply.model_extra["familiar"]["adapter_version"] == served[models[number]]
        logged = exchange(service, reply.id)
        assert logged["messages"] == _numbered(number)
        assert logged["completion"] == reply.choices[0].message.content
        assert logged["adapter_version"] == served[models[number]]


def _numbered(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Request number {number}"}]


@pytest.mark.parametrize("damage", ["missing", "corrupt", "truncated"])
def test_a_damaged_adapter_is_an_error_by_its_number_and_a_notice_by_default(
    damage: str, service: Any, write_lora: Any, caplog: pytest.LogCaptureFixture
) -> None:
    version = promote(service, write_lora("one.gguf", seed=1))
    good = ask(service, "familiar:v1").choices[0].message.content
    path = service.parts.settings.data_dir / version.folder / registry.GGUF
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "corrupt":
        path.write_bytes(whole[:-4] + b"\0\1\2\3")
    else:
        path.write_bytes(whole[:1000])
    for model in ("familiar:v1", "familiar:adapter"):
        with pytest.raises(openai.InternalServerError) as caught:
            ask(service, model)
        assert caught.value.code == "bad_file"
        assert str(path.name) in caught.value.message
    caplog.clear()
    rule = feedback(service, rule="Always use metric units.")["memories"][0]
    for _ in range(2):
        reply = ask(service, "familiar")
        told = reply.model_extra["familiar"]
        assert (told["adapter_version"], told["memories"]) == (None, [rule["id"]])
        assert path.name in told["notice"]
        assert exchange(service, reply.id)["adapter_version"] is None
    assert len([record for record in caplog.records if path.name in record.message]) == 1
    path.write_bytes(whole)
    assert ask(service, "familiar:v1").choices[0].message.content == good


def test_an_adapter_of_another_base_model_is_not_served(service: Any, write_lora: Any) -> None:
    fine = promote(service, write_lora("one.gguf", seed=1))
    run = LearningRun(id="run-x", user_id=1, created_at=1.0, state="running", config={}, fingerprint="x")
    service.parts.store.add_run(run)
    for number, parent in ((2, 1), (3, None)):
        other = AdapterVersion(1, number, 2.0, fine.folder, parent, "0" * 64, fine.gguf_sha256, "run-x", (), {})
        service.parts.store.add_version(other, make_current=True)
        with pytest.raises(openai.InternalServerError, match="another base model"):
            ask(service, f"familiar:v{number}")
    assert "another base model" in ask(service, "familiar").model_extra["familiar"]["notice"]
    assert ask(service, "familiar:v1").model_extra["familiar"]["adapter_version"] == 1
    listed = service.http.get("/v1/adapters").json()
    assert listed["current"] is None
    assert [(each["number"], each["fits"], each["current"]) for each in listed["data"]] == [
        (1, True, False),
        (2, False, False),
        (3, False, False),
    ]


def test_what_was_served_before_a_swap_of_the_model_is_served_again_with_it(service: Any, write_lora: Any) -> None:
    fine = promote(service, write_lora("one.gguf", seed=1))
    run = LearningRun(id="run-x", user_id=1, created_at=1.0, state="running", config={}, fingerprint="x")
    service.parts.store.add_run(run)
    other = AdapterVersion(1, 2, 2.0, fine.folder, 1, "0" * 64, fine.gguf_sha256, "run-x", (), {})
    service.parts.store.add_version(other, make_current=True)
    told = ask(service, "familiar").model_extra["familiar"]
    assert (told["adapter_version"], told["notice"]) == (1, None)
    assert service.http.get("/v1/adapters").json()["current"] == 1
    assert service.http.get("/v1/status").json()["adapter_version"] == 1
    assert service.http.post("/v1/adapters/rollback").json() == {"object": "rollback", "from": 1, "to": None}


# Status


def test_status(service: Any, model_path: Path) -> None:
    ask(service)
    feedback(service, rule="Always use metric units.")
    status = service.http.get("/v1/status").json()
    assert status["model"]["path"] == str(model_path)
    assert status["model"]["size_bytes"] == model_path.stat().st_size
    assert status["rss_bytes"] - status["rss_minus_model_bytes"] == model_path.stat().st_size
    assert status["adapter_version"] is None
    assert status["uptime_seconds"] >= 0
    counts = status["counts"]
    assert (counts["exchanges"], counts["feedback"], counts["memories"]) == (1, 1, 1)


def test_the_interface_is_described(service: Any) -> None:
    described = service.http.get("/openapi.json").json()
    assert {"/v1/chat/completions", "/v1/feedback", "/v1/models", "/v1/status"} <= set(described["paths"])
    assert service.http.get("/docs").status_code == 404


def test_the_documentation_lists_what_the_wire_types_take() -> None:
    from familiar.daemon import schemas

    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    takes = set(ChatRequest.model_fields) | set(schemas.IGNORED) | set(schemas.UNSUPPORTED)
    takes |= set(schemas.FeedbackRequest.model_fields)
    assert [name for name in sorted(takes) if f"`{name}`" not in text] == []

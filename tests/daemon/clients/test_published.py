"""``/openapi.json`` is true: real replies of every route, streams and errors too, are as it says, and nothing more."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import jsonschema
import pytest

from familiar.daemon.engine import Engine
from familiar.daemon.engine_options import EngineOptions
from familiar.memory import users
from familiar.memory.finetuning_types import JobCheckpoint, TunedModel
from familiar.memory.types import AdapterVersion, LearningRun

CHAT: dict[str, Any] = {"model": "familiar:base", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
TEXT: dict[str, Any] = {"model": "familiar", "prompt": "Once upon a time", "max_tokens": 4}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
ANYWHERE = {403, 405, 421}
"""Statuses of ``default``: the guard's, and a wrong method's."""


class Published:
    """Asks a service, and holds each answer against what it publishes of the route."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self.document = http.get("/openapi.json").json()
        self.exercised: set[tuple[str, str, int]] = set()

    def __call__(self, method: str, path: str, status: int, *, route: str | None = None, **request: Any) -> Any:
        """The answer to a request: JSON, the events of a stream, or text. ``route`` is the path with its parameters."""
        response = self._http.request(method, path, **request)
        assert response.status_code == status, response.text
        responses = self.document["paths"][route or path][method.lower()]["responses"]
        key = str(status) if status not in ANYWHERE else "default"
        assert key in responses, f"{method} {route or path} answers {status}, which is not published"
        described = responses[key]
        for header in described.get("headers", {}):
            assert header in response.headers
        media_type = response.headers["content-type"].partition(";")[0]
        assert media_type in described["content"], (media_type, described)
        self.exercised.add((route or path, method, status))
        return getattr(self, {"text/event-stream": "_events"}.get(media_type, "_body"))(response, described, media_type)

    def _body(self, response: httpx.Response, described: Any, media_type: str) -> Any:
        body = response.json() if media_type == "application/json" else response.text
        self.validate(body, described["content"][media_type]["schema"])
        return body

    def _events(self, response: httpx.Response, described: Any, media_type: str) -> Any:
        schema = described["content"][media_type]["schema"]
        chunks = []
        for event in response.text.split("\n\n")[:-1]:
            data = event.removeprefix("data: ")
            self.validate({"data": data}, schema)
            for option in schema["properties"]["data"]["anyOf"]:
                if "contentSchema" in option and data != "[DONE]":
                    chunks.append(json.loads(data))
                    self.validate(chunks[-1], option["contentSchema"])
        return chunks

    def validate(self, value: Any, schema: Any) -> None:
        """Raise for a value that is not of the schema."""
        jsonschema.Draft202012Validator({**schema, "components": self.document["components"]}).validate(value)


@pytest.fixture
def published(service: Any) -> Published:
    return Published(service.http)


def test_the_replies_of_every_route_are_as_published(published: Published, service: Any) -> None:
    ask = published
    chat, text = "/v1/chat/completions", "/v1/completions"
    ask("POST", "/v1/learning/run", 400)  # there is nothing to learn yet
    # chat, whole and streamed
    first = ask("POST", chat, 200, json={**CHAT, "model": "familiar", "n": 2})
    ask("POST", chat, 200, json={**CHAT, "logprobs": True, "top_logprobs": 2})
    for more in ({}, USAGE, {"n": 2}, {"logprobs": True, "top_logprobs": 2}):
        chunks = ask("POST", chat, 200, json={**CHAT, "stream": True, **more})
        assert "familiar" in chunks[0]
    ask("POST", chat, 400, json={**CHAT, "temperature": 3})
    ask("POST", chat, 404, json={**CHAT, "model": "gpt-4"})
    ask("POST", chat, 415, content=b"{}", headers={"Content-Type": "text/plain"})
    # completions
    ask("POST", text, 200, json={**TEXT, "logprobs": 2, "echo": True, "n": 2})
    for more in ({}, USAGE, {"n": 2, "echo": True}, {"logprobs": 2, "echo": True}):
        assert ask("POST", text, 200, json={**TEXT, "stream": True, **more})
    ask("POST", text, 400, json={**TEXT, "max_tokens": 0})
    ask("POST", text, 404, json={**TEXT, "model": "gpt-4"})
    ask("POST", text, 415, content=b"{}", headers={"Content-Type": "text/plain"})
    # embeddings
    for encoding in ("float", "base64"):
        ask("POST", "/v1/embeddings", 200, json={"model": "familiar", "input": "Hi", "encoding_format": encoding})
    ask("POST", "/v1/embeddings", 400, json={"model": "familiar", "input": ""})
    ask("POST", "/v1/embeddings", 404, json={"model": "familiar:base", "input": "Hi"})
    ask("POST", "/v1/embeddings", 415, content=b"{}", headers={"Content-Type": "text/plain"})
    # feedback and memory
    id = first["id"]
    said = [
        ask("POST", "/v1/feedback", 200, json={"completion_id": id, "correction": "Fine!", "note": "Be brief."}),
        ask("POST", "/v1/feedback", 200, json={"completion_id": f"{id}:1", "rating": "bad"}),
        ask("POST", "/v1/feedback", 200, json={"completion_id": id, "preferred": "Fine."}),
        ask("POST", "/v1/feedback", 200, json={"rule": "Use metric units."}),
    ]
    assert [each["kind"] for each in said] == ["correction", "rating", "preference", "rule"]
    ask("POST", "/v1/feedback", 400, json={})
    ask("POST", "/v1/feedback", 404, json={"completion_id": "chatcmpl-0", "rating": 1})
    ask("POST", "/v1/feedback", 415, content=b"{}", headers={"Content-Type": "text/plain"})
    second = ask(
        "POST", chat, 200, json={**CHAT, "model": "familiar", "seed": 1, "stop": ["x"], "logit_bias": {"7": 1}}
    )
    forgotten = second["familiar"]["memories"][0]
    _ask_of_memories(ask, forgotten)
    _ask_of_guesses(ask)
    exchange = "/v1/exchanges/{completion_id}"
    logged = ask("GET", f"/v1/exchanges/{second['id']}", 200, route=exchange)
    assert forgotten in [each["id"] for each in logged["memories"] if each["state"] == "forgotten"]
    assert ask("GET", f"/v1/exchanges/{id}:1", 200, route=exchange)["completion"]
    ask("GET", "/v1/exchanges/chatcmpl-0", 404, route=exchange)
    assert ask("GET", f"/v1/exchanges/{second['id']}/why", 200, route=f"{exchange}/why")["memories"]
    ask("GET", "/v1/exchanges/chatcmpl-0/why", 404, route=f"{exchange}/why")
    # adapters
    ask("POST", "/v1/adapters/rollback", 404)
    _add_version(service)
    assert ask("GET", "/v1/adapters", 200)["current"] == 1
    ask("POST", "/v1/adapters/rollback", 400, json={"to": "base"})
    assert ask("POST", "/v1/adapters/rollback", 200)["from"] == 1
    # data
    export = ask("GET", "/v1/data/export", 200)
    ask("GET", "/v1/data/export", 400, params={"user": "bob"})
    assert ask("POST", "/v1/data/import", 200, content=export.encode())["added"] == {}
    ask("POST", "/v1/data/import", 400, content=b"{}")
    _ask_of_files_and_jobs(ask, service)
    _ask_of_graders(ask)
    _ask_of_learning(ask)
    # the rest
    ask("GET", "/v1/models", 200)
    ask("GET", "/v1/models/familiar:base", 200, route="/v1/models/{model_id}")
    ask("GET", "/v1/models/gpt-4", 404, route="/v1/models/{model_id}")
    ask("GET", "/v1/status", 200)
    ask("GET", "/health", 200)
    assert "familiar_slots" in ask("GET", "/metrics", 200)
    ask("GET", "/v1/models", 421, headers={"Host": "evil.example"})
    ask("GET", "/v1/models", 403, headers={"Origin": "http://evil.example"})
    published_routes = {
        (path, method.upper(), int(status))
        for path, methods in published.document["paths"].items()
        for method, operation in methods.items()
        for status in operation["responses"]
        if status in ("200", "400", "404", "415")
    }
    assert published_routes - published.exercised == set()


def _ask_of_graders(ask: Published) -> None:
    """Each route of the graders."""
    text: dict[str, Any] = {"content": b"{}", "headers": {"Content-Type": "text/plain"}}
    grader = {
        "type": "string_check",
        "name": "bye",
        "operation": "like",
        "input": "{{sample.output_text}}",
        "reference": "Bye",
    }
    openai = "/v1/fine_tuning/alpha/graders"
    assert ask("POST", f"{openai}/run", 200, json={"grader": grader, "model_sample": "Bye!"})["reward"] == 1.0
    ask("POST", f"{openai}/validate", 200, json={"grader": grader})
    for name in ("run", "validate"):
        ask("POST", f"{openai}/{name}", 400, json={"grader": {"type": "magic"}, "model_sample": ""})
        ask("POST", f"{openai}/{name}", 415, **text)
    one, route = "/v1/graders", "/v1/graders/{grader_id}"
    kept = ask("POST", one, 200, json={"grader": grader})
    ask("POST", one, 400, json={})
    ask("POST", one, 404, json={"grader": grader, "memory_id": "mem-0"})
    ask("POST", one, 415, **text)
    assert [each["id"] for each in ask("GET", one, 200)["data"]] == [kept["id"]]
    ask("GET", one, 404, params={"memory_id": "mem-0"})
    assert ask("GET", f"{one}/ready", 200)["data"]
    assert ask("GET", f"{one}/{kept['id']}", 200, route=route)["id"] == kept["id"]
    assert ask("DELETE", f"{one}/{kept['id']}", 200, route=route)["deleted"]
    for method in ("GET", "DELETE"):
        ask(method, f"{one}/{kept['id']}", 404, route=route)


def _ask_of_learning(ask: Published) -> None:
    """Each route of learning, with a real learner."""
    route = "/v1/learning"
    for deed in ("pause", "resume", "stop"):
        ask("POST", f"{route}/{deed}", 404)
        ask("POST", f"{route}/{deed}", 400, json={"now": True})
    for number in range(4):
        said = [{"role": "user", "content": f"How do I cook {number} eggs?"}]
        id = ask("POST", "/v1/chat/completions", 200, json={**CHAT, "model": "familiar", "messages": said})["id"]
        ask("POST", "/v1/feedback", 200, json={"completion_id": id, "correction": f"For {number} minutes. Bye."})
    ask("POST", f"{route}/run", 200)
    deadline = time.monotonic() + 120
    while not (ask("GET", route, 200)["run"] or {}).get("phase"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for deed in ("pause", "resume", "stop"):
        ask("POST", f"{route}/{deed}", 200)
    while ask("GET", route, 200)["run"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert ask("GET", f"{route}/runs", 200)["data"]


def _ask_of_guesses(ask: Published) -> None:
    """Each route of the guesses, and a reply to a request that made one."""
    one, chat = "/v1/feedback/{feedback_id}", "/v1/chat/completions"
    for answer, other in (("confirm", "Shorter, please."), ("dismiss", "Not so formal.")):
        about: list[dict[str, str]] = [{"role": "user", "content": f"Tell me of the sea and {answer}."}]
        for turn in ("", other):
            about += [{"role": "user", "content": turn}] if turn else []
            reply = ask("POST", chat, 200, json={**CHAT, "model": "familiar", "messages": about})
            about.append({"role": "assistant", "content": reply["choices"][0]["message"]["content"]})
        (guess,) = reply["familiar"]["pending"]
        waiting = ask("GET", "/v1/feedback", 200, params={"state": "pending"})["data"]
        assert [each["id"] for each in waiting] == [guess["id"]]
        path, route = f"/v1/feedback/{guess['id']}/{answer}", f"{one}/{answer}"
        assert ask("POST", path, 200, route=route)["id"] == guess["id"]
        ask("POST", path, 400, route=route)
        ask("POST", f"/v1/feedback/fb-0/{answer}", 404, route=route)
    text = {"content": b"{}", "headers": {"Content-Type": "text/plain"}}
    ask("POST", "/v1/feedback/fb-0/confirm", 415, route=f"{one}/confirm", **text)
    ask("GET", "/v1/feedback", 400, params={"state": "all"})
    remembered = {**CHAT, "model": "familiar", "messages": [{"role": "user", "content": "Remember that I like tea."}]}
    assert ask("POST", chat, 200, json=remembered)["familiar"]["learned"]


def _ask_of_memories(ask: Published, shown: str) -> None:
    """Each route of the memories; ``shown`` is one that a reply was made with, and is forgotten in the end."""
    one = "/v1/memories/{memory_id}"
    text: dict[str, Any] = {"content": b"{}", "headers": {"Content-Type": "text/plain"}}
    assert len(ask("GET", "/v1/memories", 200)["data"]) == 3
    assert ask("GET", "/v1/memories", 200, params={"query": "metric units"})["data"][0]["score"]
    ask("GET", "/v1/memories", 400, params={"limit": 0})
    ask("GET", "/v1/memories", 404, params={"after": "mem-0"})
    stated = ask("POST", "/v1/memories", 200, json={"text": "Ann is a nurse.", "pinned": True})["id"]
    ask("POST", "/v1/memories", 400, json={"text": ""})
    ask("POST", "/v1/memories", 404, json={"text": "Be brief.", "conversation_id": "conv-0"})
    ask("POST", "/v1/memories", 415, **text)
    assert ask("GET", f"/v1/memories/{shown}", 200, route=one)["shown_in"]
    ask("GET", "/v1/memories/mem-0", 404, route=one)
    ask("PATCH", f"/v1/memories/{stated}", 200, route=one, json={"text": "Ann is a doctor."})
    ask("PATCH", f"/v1/memories/{stated}", 400, route=one, json={})
    ask("PATCH", "/v1/memories/mem-0", 404, route=one, json={"pinned": True})
    ask("PATCH", f"/v1/memories/{stated}", 415, route=one, **text)
    forget = "/v1/memories/forget"
    assert ask("POST", forget, 200, json={"query": "Ann", "dry_run": True})["report"] is None
    assert ask("POST", forget, 200, json={"ids": [stated]})["report"]["finished"]
    ask("POST", forget, 400, json={})
    ask("POST", forget, 404, json={"ids": ["mem-0"]})
    ask("POST", forget, 415, **text)
    ask("DELETE", f"/v1/memories/{shown}", 200, route=one)
    ask("DELETE", f"/v1/memories/{shown}", 404, route=one)


def _add_version(service: Any) -> None:
    """A promoted adapter, as far as listing and rolling back look at it."""
    store, sha256 = service.parts.store, service.parts.base_sha256()
    store.add_run(LearningRun("run-1", 1, 1.0, "promoted", {}, fingerprint="x"))
    report = {"passed": True, "checks": [{"name": "probes", "value": 0.1, "limit": 0.2, "ok": True, "detail": "fine"}]}
    version = AdapterVersion(1, 1, 2.0, "adapters/v1", None, sha256, "0" * 64, "run-1", (), report)
    store.add_version(version, make_current=True)


def _ask_of_files_and_jobs(ask: Published, service: Any) -> None:
    files, one = "/v1/files", "/v1/files/{file_id}"
    form: dict[str, Any] = {"files": {"file": ("a.jsonl", b"{}")}, "data": {"purpose": "fine-tune"}}
    file = ask("POST", files, 200, **form)["id"]
    ask("POST", files, 400, files=form["files"])
    assert ask("GET", files, 200)["last_id"] == file
    ask("GET", files, 400, params={"limit": 0})
    ask("GET", files, 404, params={"after": "file-0"})
    ask("GET", f"{files}/{file}", 200, route=one)
    assert ask("GET", f"{files}/{file}/content", 200, route=f"{one}/content") == "{}"
    jobs, job = "/v1/fine_tuning/jobs", "/v1/fine_tuning/jobs/{job_id}"
    wanted = {"model": "familiar", "training_file": file}
    with service.parts.turn.taken("asked", 1, "other"):  # so that no job begins
        id = ask("POST", jobs, 200, json=wanted)["id"]
        ask("POST", jobs, 400, json={**wanted, "model": "gpt-4"})
        ask("POST", jobs, 415, content=b"{}", headers={"Content-Type": "text/plain"})
        assert ask("GET", jobs, 200)["last_id"] == id
        ask("GET", jobs, 400, params={"limit": 0})
        ask("GET", jobs, 404, params={"after": "ftjob-0"})
        while ask("GET", f"{jobs}/{id}", 200, route=job)["status"] == "validating_files":
            time.sleep(0.01)
        for change, before in (("pause", "queued"), ("resume", "paused"), ("cancel", "queued")):
            # Its file is no training data; what was found out of it is not what is asked here.
            service.parts.store.fine_tuning.move(id, ("failed",), before, error=None, finished_at=None)
            ask("POST", f"{jobs}/{id}/{change}", 200, route=f"{job}/{change}")
        for change in ("pause", "resume", "cancel"):
            ask("POST", f"{jobs}/{id}/{change}", 400, route=f"{job}/{change}")
            ask("POST", f"{jobs}/ftjob-0/{change}", 404, route=f"{job}/{change}")
    ask("GET", f"{jobs}/ftjob-0", 404, route=job)
    tuned = TunedModel(f"ft:base:me::{id[-8:]}", 1, id, 1.0, 2, service.parts.base_sha256(), "0" * 64)
    checkpoint = JobCheckpoint("ftckpt-1", 1, id, 1.0, 2, tuned.id, {"step": 2, "train_loss": 0.5, "valid_loss": 0.6})
    service.parts.store.fine_tuning.add_checkpoint(checkpoint, tuned)
    for name in ("events", "checkpoints"):
        assert ask("GET", f"{jobs}/{id}/{name}", 200, route=f"{job}/{name}")["data"]
        ask("GET", f"{jobs}/{id}/{name}", 400, route=f"{job}/{name}", params={"limit": 0})
        ask("GET", f"{jobs}/ftjob-0/{name}", 404, route=f"{job}/{name}")
    ask("DELETE", f"/v1/models/{tuned.id}", 200, route="/v1/models/{model_id}")
    ask("DELETE", f"/v1/models/{tuned.id}", 404, route="/v1/models/{model_id}")
    ask("DELETE", "/v1/models/familiar", 400, route="/v1/models/{model_id}")
    ask("DELETE", f"{files}/{file}", 200, route=one)
    for method, path in (("GET", one), ("GET", f"{one}/content"), ("DELETE", one)):
        ask(method, path.format(file_id=file), 404, route=path)


def test_without_a_key_every_route_that_needs_one_answers_401(published: Published, service: Any) -> None:
    service.parts.store.users.add_key(service.parts.store.default_user(), users.new_key(), 1.0, replace=False)
    for path, methods in published.document["paths"].items():
        for method, operation in methods.items():
            body: dict[str, Any] = {"json": CHAT} if method == "post" else {}
            asks_for_one = "security" in operation
            published(method.upper(), path, 401 if asks_for_one else 200, **body)
            assert asks_for_one or path == "/health"


def test_a_busy_service_answers_as_published(
    serve: Any, data_dir: Any, model_path: Any, endless: dict[str, float]
) -> None:
    long = {**CHAT, "max_tokens": 900, "logit_bias": endless, "stream": True}
    with (
        Engine.open(model_path, EngineOptions(slots=1, queue_limit=1, threads=1)) as small,
        serve(data_dir, small) as service,
        ThreadPoolExecutor(1) as pool,
    ):
        published = Published(service.http)
        with service.http.stream("POST", "/v1/chat/completions", json=long) as held:
            begun = held.iter_raw()  # one that is let go of closes the stream
            next(begun)
            waiting = pool.submit(service.http.post, "/v1/chat/completions", json=CHAT)
            while not small.stats().waiting:
                time.sleep(0.001)
            published("POST", "/v1/chat/completions", 503, json=CHAT)
            published("POST", "/v1/completions", 503, json=TEXT)
        assert waiting.result().status_code == 200


def test_nothing_is_published_that_is_not_answered(published: Published) -> None:
    document = published.document
    assert document["components"]["securitySchemes"]["ApiKey"]["scheme"] == "bearer"
    assert "ValidationError" not in json.dumps(document)
    for name, schema in document["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema.get("description"), name
        for field in schema["properties"].values():
            if "default" in field:
                published.validate(field["default"], field)
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert "422" not in operation["responses"], path
            assert "default" in operation["responses"], path
            assert operation["description"], path
            for response in operation["responses"].values():
                assert all(content["schema"] for content in response.get("content", {}).values()), path
    ids = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(set(ids)) == len(ids)


def test_a_field_that_is_not_published_is_found_out(published: Published) -> None:
    """The check itself can fail."""
    schema = {"$ref": "#/components/schemas/ChatCompletion"}
    reply = published("POST", "/v1/chat/completions", 200, json=CHAT)
    for wrong in ({**reply, "more": 1}, {**reply, "usage": None}, {key: reply[key] for key in reply if key != "id"}):
        with pytest.raises(jsonschema.ValidationError):
            published.validate(wrong, schema)
    reply["choices"][0]["message"]["more"] = 1
    with pytest.raises(jsonschema.ValidationError):
        published.validate(reply, schema)

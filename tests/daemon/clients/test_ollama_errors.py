"""What Ollama's API refuses here and how it says so, keys, and replies that come to no end."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ollama
import pytest

from familiar.daemon import schemas_ollama
from familiar.daemon.engine import Engine
from familiar.daemon.engine_options import EngineOptions
from familiar.memory import users

DOCS = Path(__file__).parents[3] / "docs" / "compatibility.md"
HI: list[Any] = [{"role": "user", "content": "Hello there, how are you?"}]
LONG = {"type": "string", "minLength": 4000}
"""A format whose reply takes as many tokens as the context has."""


@pytest.fixture
def client(live: Any) -> Iterator[ollama.Client]:
    with ollama.Client(host=live.url, trust_env=False) as opened:
        yield opened


def wait_for(what: Callable[[], Any]) -> Any:
    """The first true thing that ``what`` gives."""
    end = time.monotonic() + 60
    while not (found := what()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)
    return found


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"options": {"mirostat": 2}}, "mirostat"),
        ({"options": {"typical_p": 0.5}}, "typical_p"),
        ({"options": {"penalize_newline": False}}, "penalize_newline"),
        ({"options": {"nonsense": 1}}, "options.nonsense"),
        ({"options": {"temperature": 9}}, "options.temperature"),
        ({"options": {"num_predict": 0}}, "num_predict"),
        ({"options": {"num_ctx": 1025}}, "options.num_ctx"),
        ({"options": {"repeat_penalty": 1.1, "repeat_last_n": 5}}, "repeat_last_n"),
        ({"options": {"stop": [str(n) for n in range(17)]}}, "options.stop"),
        ({"options": {"top_k": "many"}}, "options.top_k"),
        ({"think": True}, "think"),
        ({"think": "low"}, "think"),
        ({"format": {"type": "nonsense"}}, "schema"),
        ({"format": "xml"}, "format"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"tools": [{"type": "function", "function": {"name": "add"}}]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "add"}}], "format": "json"}, "tools"),
        ({"nonsense": 1}, "nonsense"),
        ({"messages": [{"role": "user", "content": "x", "images": ["aaaa"]}]}, "images"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        ({"messages": "x"}, "messages"),
    ],
)
def test_what_cannot_be_done_is_named(live: Any, fields: dict[str, Any], named: str) -> None:
    answer = live.http.post("/api/chat", json={"model": "familiar", "messages": HI, **fields})
    assert answer.status_code == 400, answer.text
    assert set(answer.json()) == {"error"}
    assert named in answer.json()["error"]


@pytest.mark.parametrize("name", ["suffix", "template", "images", "context", "width"])
def test_what_generate_cannot_do_is_named(live: Any, name: str) -> None:
    asked = {"suffix": "x", "template": "x", "images": ["aaaa"], "context": [1], "width": 9}
    answer = live.http.post("/api/generate", json={"model": "familiar", "prompt": "Hi", name: asked[name]})
    assert answer.status_code == 400
    assert name in answer.json()["error"]
    both = live.http.post("/api/generate", json={"model": "familiar", "prompt": "Hi", "raw": True, "system": "x"})
    assert "system" in both.json()["error"]


def test_what_changes_nothing_is_taken(client: ollama.Client, live: Any) -> None:
    harmless = {name: values[0] for name, values in schemas_ollama.OPTIONS_UNSUPPORTED.items()}
    options = {**dict.fromkeys(schemas_ollama.OPTIONS_IGNORED, 3), **harmless, "num_ctx": 1024, "tfs_z": 1.0}
    reply = client.chat("familiar:base", HI, options={**options, "temperature": 0, "repeat_last_n": 5}, think=False)
    plain = client.chat("familiar:base", HI, options={"temperature": 0})
    assert reply.message.content == plain.message.content


def test_what_there_is_not_says_what_to_do_instead(client: ollama.Client, live: Any) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: client.pull("x"),
        lambda: client.copy("a", "b"),
        lambda: client.delete("x"),
    ]
    for call in calls:
        with pytest.raises(ollama.ResponseError, match=r"familiar pull|GET /api/tags|familiar models") as refused:
            call()
        assert refused.value.status_code == 501
    for path in ("push", "create", "blobs/sha256:0"):
        assert live.http.post(f"/api/{path}", json={"model": "x"}).status_code == 501


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/api/nothing", "", 404),
        ("POST", "/api/tags", "", 404),
        ("POST", "/api/chat", "", 400),
        ("POST", "/api/chat", "{", 400),
        ("POST", "/api/chat", "[]", 400),
        ("POST", "/api/show", "{}", 400),
        ("POST", "/api/generate", '{"prompt": "x"}', 400),
        ("POST", "/api/generate", '{"model": "x", "prompt": "x"}', 404),
        ("POST", "/api/embed", '{"model": "familiar:base", "input": "x"}', 404),
    ],
)
def test_an_error_is_a_text(live: Any, method: str, path: str, body: str, status: int) -> None:
    answer = live.http.request(method, path, content=body)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert "\n" not in answer.json()["error"]


def test_what_nobody_foresaw_is_an_error_that_tells_nothing(
    service: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the secret")

    monkeypatch.setattr(service.parts.chat, "_plan", fail)
    answer = service.http.post("/api/chat", json={"model": "familiar", "messages": HI})
    assert answer.status_code == 500
    assert "log has the details" in answer.json()["error"]
    assert answer.headers["x-should-retry"] == "false"
    assert "the secret" in caplog.text


def test_the_body_is_json_whatever_it_is_sent_as_but_not_from_a_web_page(live: Any) -> None:
    body = json.dumps({"model": "familiar", "messages": HI, "stream": False})
    form = {"content-type": "application/x-www-form-urlencoded"}  # what curl -d says
    assert live.http.post("/api/chat", content=body, headers=form).json()["done"] is True
    foreign = {"content-type": "text/plain", "origin": "https://example.com"}
    assert live.http.post("/api/chat", content=body, headers=foreign).status_code == 403


def test_a_key_is_asked_for_once_there_is_one(service: Any) -> None:
    key = users.new_key()
    bob = service.parts.store.users.add("bob", key, 0.0)
    for method, path in (("GET", "tags"), ("GET", "version"), ("POST", "chat"), ("POST", "pull"), ("POST", "show")):
        refused = service.http.request(method, f"/api/{path}", json={"model": "familiar", "messages": HI})
        assert refused.status_code == 401, path
        assert "API key" in refused.json()["error"]
    with ollama.Client(host=service.url, headers={"authorization": f"Bearer {key}"}, trust_env=False) as client:
        client.chat("familiar", HI)
        client.list()
    assert service.parts.store.exchanges(bob.id)
    assert service.parts.store.exchanges(1) == []
    assert service.http.get("/").status_code == 200


def test_a_client_that_leaves_stops_its_reply(service: Any) -> None:
    body = {"model": "familiar", "messages": HI, "format": LONG}
    with service.http.stream("POST", "/api/chat", json=body) as response:
        next(response.iter_lines())
    logged, *_ = wait_for(lambda: service.parts.store.exchanges(1))
    assert logged.finish_reason == "cancelled"


def test_a_full_queue_is_said_so(serve: Any, data_dir: Path, model_path: Path) -> None:
    body = {"model": "familiar", "messages": HI}
    with (
        Engine.open(model_path, EngineOptions(slots=1, queue_limit=1, threads=1)) as small,
        serve(data_dir, small) as service,
        ThreadPoolExecutor(1) as pool,
    ):
        with service.http.stream("POST", "/api/chat", json={**body, "format": LONG}) as held:
            reading = held.iter_lines()  # kept: without it httpx would leave
            next(reading)
            waiting = pool.submit(service.http.post, "/api/chat", json=body)
            wait_for(lambda: small.stats().waiting)
            refused = service.http.post("/api/chat", json=body)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert "try again" in refused.json()["error"]
        assert json.loads(waiting.result().text.splitlines()[-1])["done"] is True


def test_a_stream_that_breaks_ends_with_an_error(serve: Any, data_dir: Path, engine: Engine) -> None:
    with serve(data_dir, engine, grace_s=0.1) as service, ollama.Client(host=service.url, trust_env=False) as client:
        stream = iter(client.chat("familiar", HI, format=LONG, stream=True))
        next(stream)
        with ThreadPoolExecutor(1) as pool:
            stopping = pool.submit(service.stop)
            with pytest.raises(ollama.ResponseError, match="shutting down"):
                list(stream)
            stopping.result()


def test_every_option_is_documented() -> None:
    text = DOCS.read_text(encoding="utf-8")
    known = {*schemas_ollama.Options.model_fields, *schemas_ollama.OPTIONS_IGNORED, *schemas_ollama.OPTIONS_UNSUPPORTED}
    known |= {*schemas_ollama.IGNORED, *schemas_ollama.GENERATE_UNSUPPORTED}
    known |= {*schemas_ollama.OllamaChat.model_fields, *schemas_ollama.OllamaGenerate.model_fields}
    assert [name for name in sorted(known) if f"`{name}`" not in text] == []

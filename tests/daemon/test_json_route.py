"""Bodies as programs send them: emojis that were cut in two, and words where nothing is listened to."""

import json
import socket
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.daemon.test_api import wait_for
from tests.daemon.test_errors_http import error_of

ME = 1


def post(service: Any, path: str, body: object) -> Any:
    """A body whose half characters are escapes, as JSON spells them."""
    content = json.dumps(body).encode("ascii")
    return service.http.post(path, content=content, headers={"Content-Type": "application/json"})


def test_half_a_character_is_read_as_its_stand_in_and_the_exchange_is_kept(service: Any) -> None:
    messages = [{"role": "user", "content": "Hello \ud83d"}, {"role": "assistant", "content": "Hi \ude42\ud83d 🙂"}]
    messages.append({"role": "user", "content": [{"type": "text", "text": "Bye \ud83d\ude42 \ud83d"}]})  # type: ignore[dict-item]
    chat = {"model": "familiar", "messages": messages, "max_tokens": 2}
    reply = post(service, "/v1/chat/completions", chat)
    assert reply.status_code == 200, reply.text
    assert reply.json()["familiar"]["notice"] is None
    [logged] = service.parts.store.exchanges(ME)
    assert [turn["content"] for turn in logged.messages] == ["Hello \ufffd", "Hi \ufffd\ufffd 🙂", "Bye 🙂 \ufffd"]
    corrected = {"completion_id": logged.id, "correction": "Good\ud83d bye."}
    assert post(service, "/v1/feedback", corrected).json()["memories"][0]["text"] == "Good\ufffd bye."
    assert post(service, "/api/chat", {**chat, "stream": False, "max_tokens": None}).status_code == 400  # no such field
    again = {"model": "familiar", "messages": messages[:1], "stream": False, "options": {"num_predict": 1}}
    assert post(service, "/api/chat", again).status_code == 200
    assert [turn["content"] for turn in service.parts.store.exchanges(ME)[0].messages] == ["Hello \ufffd"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/memories", {"text": "Call me \ud83d"}),
        ("/v1/feedback", {"rule": "Call me \ud83d"}),
        ("/v1/completions", {"model": "familiar", "prompt": "\ud83d", "max_tokens": 1}),
        ("/completion", {"prompt": "\ud83d", "n_predict": 1}),
        ("/v1/embeddings", {"model": "familiar", "input": "\ud83d"}),
    ],
)
def test_half_a_character_is_no_mistake_anywhere(service: Any, path: str, body: object) -> None:
    assert post(service, path, body).status_code == 200
    assert {memory.text for memory in service.parts.store.memories(ME)} <= {"Call me \ufffd"}


def test_half_a_character_in_the_name_of_a_field_is_told_of(service: Any) -> None:
    error = error_of(post(service, "/v1/memories", {"text": "a", "\ud83d": 1}), 400)
    assert (error["param"], error["code"]) == ("\ufffd", "unknown_parameter")


BODILESS = [
    "/v1/adapters/rollback",
    "/v1/feedback/fb-0/dismiss",
    *(f"/v1/learning/{what}" for what in ("run", "pause", "resume", "stop")),
    *(f"/v1/fine_tuning/jobs/ftjob-0/{what}" for what in ("cancel", "pause", "resume")),
]


@pytest.mark.parametrize("path", BODILESS)
def test_a_body_where_none_is_taken_is_refused_before_anything_is_done(service: Any, path: str) -> None:
    error = error_of(service.http.post(path, json={"to": 1}), 400)
    assert (error["param"], error["code"]) == ("to", "unknown_parameter")
    assert error_of(service.http.post(path, content=b"to=1"), 415)["code"] == "unsupported_media_type"
    for nothing in (b"", b"{}", b"null"):
        reply = service.http.post(path, content=nothing, headers={"Content-Type": "application/json"})
        assert error_of(reply, 400 if path.endswith("/run") else 404)["code"] != "unknown_parameter"


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/data/export?with_adapters=1"), ("POST", "/v1/data/import?anyone=true")]
)
def test_a_parameter_of_the_address_that_means_nothing_is_refused(service: Any, method: str, path: str) -> None:
    error = error_of(service.http.request(method, path), 400)
    assert (error["param"], error["code"]) == (path.partition("?")[2].partition("=")[0], "unknown_parameter")


@pytest.mark.parametrize("path", ["/v1/data/import", "/v1/files"])
def test_a_client_that_goes_away_in_the_middle_of_its_body_is_no_failure(
    service: Any, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    form = "Content-Type: multipart/form-data; boundary=x"
    with socket.create_connection(("127.0.0.1", urlsplit(service.url).port)) as leaving:
        leaving.sendall(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{form}\r\nContent-Length: 99\r\n\r\n--x\r\n".encode()
        )
    counted = f'familiar_http_requests_total{{method="POST",route="{path}",status="499"}} 1.0'
    wait_for(lambda: counted in service.http.get("/metrics").text)
    assert "ClientDisconnect" not in caplog.text

"""The API by hand, over plain HTTP: what a client without a library sees of a stream, and when."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

CHAT: dict[str, Any] = {
    "model": "familiar:base",
    "messages": [{"role": "user", "content": "Hello there, how are you?"}],
    "temperature": 0,
    "max_tokens": 24,
    "stream": True,
}
TEXT: dict[str, Any] = {"model": "familiar:base", "prompt": "Once upon a time", "temperature": 0, "stream": True}


def events(response: httpx.Response) -> Iterator[str]:
    """The data of each event, as it arrives; raises for what is no event."""
    held = b""
    for piece in response.iter_raw():
        held += piece
        while b"\n\n" in held:
            event, _, held = held.partition(b"\n\n")
            lines = event.decode("utf-8").split("\n")
            assert len(lines) == 1
            assert lines[0].startswith("data: ")
            yield lines[0].removeprefix("data: ")
    assert held == b""


@pytest.mark.parametrize(("path", "body"), [("/v1/chat/completions", CHAT), ("/v1/completions", TEXT)])
def test_a_stream_is_framed_as_events(path: str, body: dict[str, Any], live: Any) -> None:
    with live.http.stream("POST", path, json=body) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["transfer-encoding"] == "chunked"
        assert "content-encoding" not in response.headers
        *chunks, done = events(response)
    assert done == "[DONE]"
    parsed = [json.loads(chunk) for chunk in chunks]
    assert len({(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in parsed}) == 1
    assert [chunk["choices"][0]["finish_reason"] is not None for chunk in parsed] == [False] * (len(parsed) - 1) + [
        True
    ]


def test_the_first_chunk_arrives_before_the_reply_is_done(live: Any, endless: dict[str, float]) -> None:
    long = {**CHAT, "max_tokens": 900, "logit_bias": endless}
    _wait(lambda: _running(live) == 0)
    with live.http.stream("POST", "/v1/chat/completions", json=long) as response:
        stream = events(response)
        first = json.loads(next(stream))
        assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert _running(live) == 1
        arrivals = sum(1 for _ in stream)
    assert arrivals > 20  # what so small a model says within a few milliseconds comes together


def _wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not until():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def _running(live: Any) -> float:
    """The replies that are being made, by the service's own account."""
    lines = live.http.get("/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("familiar_requests_running ")))


def test_a_client_that_leaves_stops_the_reply(live: Any, endless: dict[str, float]) -> None:
    long = {**CHAT, "max_tokens": 900, "logit_bias": endless}
    with live.http.stream("POST", "/v1/chat/completions", json=long) as response:
        stream = events(response)
        id = json.loads(next(stream))["id"]
    _wait(lambda: live.http.get(f"/v1/exchanges/{id}").status_code == 200)
    logged = live.http.get(f"/v1/exchanges/{id}").json()
    assert logged["finish_reason"] == "cancelled"
    assert logged["usage"]["completion_tokens"] < 900
    _wait(lambda: _running(live) == 0)


def test_an_error_before_the_first_token_has_its_own_status(live: Any) -> None:
    for change, status in (({"model": "gpt-4"}, 404), ({"temperature": 9}, 400), ({"logit_bias": {"99999": 1}}, 400)):
        response = live.http.post("/v1/chat/completions", json={**CHAT, **change})
        assert response.status_code == status
        assert response.headers["content-type"] == "application/json"
        assert "error" in response.json()


def test_characters_come_whole(live: Any, model: Any) -> None:
    """A character of several tokens is never cut, nor written as escapes."""
    grammar = 'root ::= "žluťoučký 🦊 \\"\\\\ \\n"'
    body = {**CHAT, "grammar": grammar, "max_tokens": 100}
    with live.http.stream("POST", "/v1/chat/completions", json=body) as response:
        chunks = [json.loads(event) for event in events(response) if event != "[DONE]"]
    pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert "".join(pieces) == 'žluťoučký 🦊 "\\ \n'
    assert not any("�" in piece for piece in pieces)
    # the fox is several tokens, and one piece
    assert len(model.vocab.tokenise("🦊")) > 1
    assert any("🦊" in piece for piece in pieces)


def test_several_choices_are_told_apart(live: Any) -> None:
    body = {**CHAT, "n": 3, "temperature": 1.5, "seed": 3, "stream_options": {"include_usage": True}}
    with live.http.stream("POST", "/v1/chat/completions", json=body) as response:
        *events_of, done = events(response)
    chunks = [json.loads(event) for event in events_of]
    assert done == "[DONE]"
    assert [chunk["choices"][0]["delta"].get("role") for chunk in chunks[:3]] == ["assistant"] * 3
    assert all("familiar" in chunk for chunk in chunks[:3])
    *ends, totals = chunks[-4:]
    assert {chunk["choices"][0]["index"] for chunk in ends} == {0, 1, 2}
    assert all(chunk["choices"][0]["finish_reason"] for chunk in ends)
    assert ["familiar" in chunk for chunk in ends] == [False, False, True]
    assert (totals["choices"], totals["usage"]["completion_tokens"] > 3) == ([], True)


def test_a_request_with_a_body_of_any_framing(live: Any) -> None:
    """A body in chunks, as some clients send theirs."""
    whole = json.dumps({**CHAT, "stream": False}).encode()
    pieces = (whole[at : at + 10] for at in range(0, len(whole), 10))
    response = live.http.post("/v1/chat/completions", content=pieces, headers={"Content-Type": "application/json"})
    assert response.status_code == 200
    assert response.headers["content-length"] == str(len(response.content))

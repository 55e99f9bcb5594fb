"""The benchmarks' report object, and their client against a real socket that sends in awkward pieces."""

import importlib.util
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def load(name: str) -> ModuleType:
    """Import a benchmark's module as its scripts do, under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


client = load("client")
common = load("common")

Serve = Callable[[Sequence[bytes]], int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """``serve(pieces)`` answers each connection to the returned port with these pieces, then closes it."""
    listeners: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def start(pieces: Sequence[bytes]) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    connection.recv(1 << 16)
                    for piece in pieces:
                        connection.sendall(piece)
                        time.sleep(0.001)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        port: int = listener.getsockname()[1]
        return port

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join()


def event(**chunk: object) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def delta(text: str | None, finish_reason: str | None = None) -> bytes:
    return event(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}])


def chunked(payload: bytes, size: int) -> bytes:
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENTS = (
    delta("")
    + b": ping\n\n"
    + delta("Hé")
    + delta("llo")
    + delta(None, "length")
    + event(choices=[], usage={"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10})
    + event(choices=[], timings={"prompt_ms": 1.5, "predicted_ms": 2.0})
    + b"data: [DONE]\n\n"
)


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("cut", [3, 60, 10_000])
def test_streams_are_read_however_they_are_cut(serve: Serve, size: int, cut: int) -> None:
    data = STREAM_HEAD + chunked(EVENTS, size)
    port = serve([*(data[at : at + cut] for at in range(0, 40 * cut, cut)), data[40 * cut :]])
    requests = [(client.Address("127.0.0.1", port), {"stream": True})] * 3
    for reply in client.stream_all(requests, timeout_s=30):
        assert reply.ok
        assert (reply.text, reply.finish_reason) == ("Héllo", "length")
        assert (reply.prompt_tokens, reply.completion_tokens, reply.compute_ms) == (7, 3, 3.5)
        assert len(reply.token_ms) == 2
        assert 0 < reply.first_token_ms <= reply.token_ms[1] <= reply.wall_ms


def test_a_token_is_timed_by_the_read_that_completed_it() -> None:
    first, second, third = (chunked(delta(text), 1000).removesuffix(b"0\r\n\r\n") for text in "abc")
    end = chunked(b"data: [DONE]\n\n", 1000)
    arrivals = [
        (5.010, STREAM_HEAD + first),
        (5.020, second[:9]),
        (5.050, second[9:] + third),
        (5.090, end),
        (5.5, b""),
    ]
    reply = client.parse_stream(5.0, arrivals)
    assert reply.text == "abc"
    assert reply.token_ms == pytest.approx((10, 50, 50))
    assert reply.wall_ms == pytest.approx(90)


def test_a_stream_that_breaks_off_or_tells_of_an_error_is_not_ok(serve: Serve) -> None:
    cut_short = STREAM_HEAD + chunked(delta("He"), 1000).removesuffix(b"0\r\n\r\n")
    failed = STREAM_HEAD + chunked(event(error={"message": "it broke"}), 1000)
    refused = b'HTTP/1.1 400 Bad\r\nContent-Length: 29\r\n\r\n{"error": {"message": "none"}}'[:-1]
    addresses = [client.Address("127.0.0.1", serve([data])) for data in (cut_short, failed, refused)]
    broken, told, bad = client.stream_all([(address, {}) for address in addresses], timeout_s=30)
    assert (broken.ok, broken.text, broken.complete) == (False, "He", False)
    assert (told.ok, told.error) == (False, "it broke")
    assert (bad.ok, bad.status) == (False, 400)


def test_a_whole_reply_is_read_to_its_length(serve: Serve) -> None:
    body = {
        "choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 4}},
        "familiar": {"timings": {"prompt_ms": 2, "predicted_ms": 0.5}},
    }
    data = json.dumps(body).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data)
    reply = client.ask(client.Address("127.0.0.1", serve([head, data[:9], data[9:]])), "/v1/chat/completions", {})
    assert (reply.ok, reply.text, reply.cached_tokens, reply.compute_ms) == (True, "Hello", 4, 2.5)


def test_a_report_has_its_figures_and_judges_its_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = common.Report()
    report.add("speed", 1234.56)
    report.add("name", "it")
    report.at_least("fast", 0.96, 0.97)
    report.at_most("quick", 1.0, 1.0)
    report.at_most("unknown", None, 2)
    report.finish(tmp_path / "new" / "report.json")
    written = json.loads((tmp_path / "new" / "report.json").read_text(encoding="utf-8"))
    assert written == json.loads(capsys.readouterr().out)
    assert written.keys() == {"figures", "targets", "machine", "seconds"}
    assert written["figures"] == {"speed": 1235.0, "name": "it"}
    assert [target["ok"] for target in written["targets"]] == [False, True, None]
    assert written["targets"][0] == {"name": "fast", "value": 0.96, "target": ">= 0.97", "ok": False}
    assert written["machine"]["threads"] >= 1


def test_a_connection_that_was_closed_while_idle_is_opened_again(serve: Serve) -> None:
    data = b'{"choices": [{"message": {"content": "Hi"}}]}'
    port = serve([b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(data), data)])
    with client.Connection(client.Address("127.0.0.1", port)) as connection:
        assert [connection.ask("/", {}).text for _ in range(3)] == ["Hi"] * 3  # the server closes after each


def test_no_reply_at_all_is_an_error(serve: Serve) -> None:
    with (
        client.Connection(client.Address("127.0.0.1", serve([]))) as connection,
        pytest.raises(OSError, match="closed the connection without a reply"),
    ):
        connection.ask("/", {})

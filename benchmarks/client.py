"""A client light enough to share two cores with what it measures: raw sockets, one thread, parsed afterwards.

While replies come in, each read is kept with the time at which it came and nothing else is done; ``parse_stream`` makes
sense of it when all is over. What is left out: TLS, redirects, retries.
"""

import json
import selectors
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Body = Mapping[str, Any]


@dataclass(frozen=True)
class Address:
    """Where a server listens, and the key that it wants, if any."""

    host: str
    port: int
    key: str | None = None


@dataclass(frozen=True)
class Reply:
    """One reply, timed from the moment its request was sent.

    ``token_ms`` are the times of the parts of text in a stream; a part may be more than one token. ``compute_ms`` is
    what the server says it computed for. ``error`` is the text of an error, whatever its status.
    """

    status: int
    text: str = ""
    wall_ms: float = 0.0
    token_ms: tuple[float, ...] = ()
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    compute_ms: float | None = None
    finish_reason: str | None = None
    error: str | None = None
    complete: bool = True

    @property
    def ok(self) -> bool:
        """Whether it is a whole reply without an error."""
        return self.status == 200 and self.error is None and self.complete

    @property
    def first_token_ms(self) -> float:
        """Time to the first text of a stream; nan when none came."""
        return self.token_ms[0] if self.token_ms else float("nan")

    @property
    def decode_tokens_per_s(self) -> float:
        """Tokens per second after the first one of a stream; nan when there are too few to tell."""
        if len(self.token_ms) < 2 or not self.completion_tokens:
            return float("nan")
        return (self.completion_tokens - 1) * 1000 / (self.token_ms[-1] - self.token_ms[0])


def request_bytes(address: Address, path: str, body: Body | None, *, keep: bool) -> bytes:
    """A whole HTTP/1.1 request: a POST of ``body``, or a GET without one."""
    data = b"" if body is None else json.dumps(body).encode()
    lines = [
        f"{'GET' if body is None else 'POST'} {path} HTTP/1.1",
        f"Host: {address.host}:{address.port}",
        f"Connection: {'keep-alive' if keep else 'close'}",
        "Content-Type: application/json",
        f"Content-Length: {len(data)}",
    ]
    if address.key:
        lines.append(f"Authorization: Bearer {address.key}")
    return "\r\n".join([*lines, "", ""]).encode() + data


class Connection:
    """A kept-alive connection for requests that are answered whole."""

    def __init__(self, address: Address, timeout_s: float = 600) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._socket = _connect(address, timeout_s)

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, path: str, body: Body | None) -> Reply:
        """Send a request and wait for the whole of its reply, on a new connection if the server closed this one."""
        data = request_bytes(self._address, path, body, keep=True)
        try:
            return self.exchange(data)
        except (ConnectionError, _Closed):
            # Servers close a connection that was idle for some seconds, or after so many requests.
            self._socket.close()
            self._socket = _connect(self._address, self._timeout_s)
            return self.exchange(data)

    def exchange(self, data: bytes) -> Reply:
        """Send a request's bytes and wait for the whole of its reply; raises OSError when none comes."""
        started = time.perf_counter()
        self._socket.sendall(data)
        decoder, payload = Decoder(), b""
        while not decoder.whole:
            data = self._socket.recv(1 << 16)
            if not data:
                break
            payload += decoder.feed(data)
        if not decoder.status:
            raise _Closed("the server closed the connection without a reply")
        return parse_whole(decoder.status, payload, (time.perf_counter() - started) * 1000)


class _Closed(OSError):
    """A connection was closed before anything of a reply came."""


def _connect(address: Address, timeout_s: float) -> socket.socket:
    connection = socket.create_connection((address.host, address.port), timeout=timeout_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def ask(address: Address, path: str, body: Body | None, timeout_s: float = 600) -> Reply:
    """Send one request on a connection of its own; no reply at all raises OSError."""
    with Connection(address, timeout_s) as connection:
        return connection.exchange(request_bytes(address, path, body, keep=False))


@dataclass
class _Stream:
    """One connection of ``stream_all`` while it runs: what came, and when."""

    started: float
    arrivals: list[tuple[float, bytes]]


def stream_all(requests: Sequence[tuple[Address, Body]], timeout_s: float = 900) -> list[Reply]:
    """Send streamed chat requests at the same moment and read all of them to their ends, in one thread.

    Raises TimeoutError when they have not all ended within ``timeout_s``.
    """
    selector = selectors.DefaultSelector()
    streams: list[_Stream] = []
    sockets: list[socket.socket] = []
    try:
        prepared = []
        for address, body in requests:
            data = request_bytes(address, "/v1/chat/completions", body, keep=False)
            connection = _connect(address, timeout_s)
            sockets.append(connection)
            prepared.append((connection, data))
        for connection, data in prepared:
            streams.append(_Stream(time.perf_counter(), []))
            connection.sendall(data)
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_READ, streams[-1])
        deadline = time.perf_counter() + timeout_s
        while selector.get_map():
            ready = selector.select(timeout=max(0.0, deadline - time.perf_counter()))
            now = time.perf_counter()
            if not ready and now >= deadline:
                raise TimeoutError(f"{len(selector.get_map())} of {len(requests)} replies had no end in {timeout_s} s")
            for key, _ in ready:
                assert isinstance(key.fileobj, socket.socket)
                data = key.fileobj.recv(1 << 16)
                if data:
                    key.data.arrivals.append((now, data))
                else:
                    selector.unregister(key.fileobj)
    finally:
        selector.close()
        for connection in sockets:
            connection.close()
    return [parse_stream(stream.started, stream.arrivals) for stream in streams]


class Decoder:
    """An HTTP/1.1 response as its bytes come: ``feed`` returns what each read adds to the payload."""

    def __init__(self) -> None:
        self.status = 0
        self.whole = False
        self._waiting = b""  # a head, or the length of a chunk, that is not all here yet
        self._chunked = False
        self._left: int | None = None  # bytes left of the body or of the chunk; None until the server closes

    def feed(self, data: bytes) -> bytes:
        """Take the bytes of one read."""
        self._waiting += data
        if not self.status and not self._take_head():
            return b""
        if not self._chunked:
            return self._take(self._left)
        payload = b""
        while not self.whole and (piece := self._take_chunk()) is not None:
            payload += piece
        return payload

    def _take_head(self) -> bool:
        head, found, rest = self._waiting.partition(b"\r\n\r\n")
        if not found:
            return False
        lines = head.decode("latin-1").split("\r\n")
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        self.status, self._waiting = int(lines[0].split()[1]), rest
        self._chunked = "chunked" in fields.get("transfer-encoding", "")
        self._left = int(fields["content-length"]) if "content-length" in fields else None
        return True

    def _take(self, size: int | None) -> bytes:
        taken, self._waiting = self._waiting[:size], b"" if size is None else self._waiting[size:]
        if size is not None:
            self._left = size - len(taken)
            self.whole = self._left == 0
        return taken

    def _take_chunk(self) -> bytes | None:
        end = self._waiting.find(b"\r\n")
        if end < 0:
            return None
        size, start = int(self._waiting[:end].split(b";")[0], 16), end + 2
        if len(self._waiting) < start + size + 2:
            return None
        piece, self._waiting = self._waiting[start : start + size], self._waiting[start + size + 2 :]
        self.whole = size == 0
        return piece


def leave_early(address: Address, body: Body, parts: int, *, reset: bool, timeout_s: float = 600) -> int:
    """Start a streamed request and go away after ``parts`` parts of text; return the status, 0 when none came.

    ``reset``: the connection is torn down (RST) rather than closed, as when a laptop's lid is shut.
    """
    with _connect(address, timeout_s) as connection:
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(request_bytes(address, "/v1/chat/completions", body, keep=False))
        decoder, payload = Decoder(), b""
        while payload.count(b'"content":') < parts and (data := connection.recv(1 << 16)):
            payload += decoder.feed(data)
    return decoder.status


def parse_whole(status: int, payload: bytes, wall_ms: float) -> Reply:
    """A reply that came in one piece."""
    try:
        body = json.loads(payload)
    except ValueError:
        body = {"error": payload.decode("utf-8", "replace")[:200]}
    if not isinstance(body, dict) or status != 200 or "error" in body:
        return Reply(status, wall_ms=wall_ms, error=_error_text(body))
    choice = (body.get("choices") or [{}])[0]
    message = choice.get("message") or {}
    return Reply(
        status,
        text=message.get("content") or choice.get("text") or "",
        wall_ms=wall_ms,
        finish_reason=choice.get("finish_reason"),
        **_counts(body),
    )


def parse_stream(started: float, arrivals: Sequence[tuple[float, bytes]]) -> Reply:
    """A reply of server-sent events from its timed reads; an event's time is that of the read that completed it."""
    decoder, waiting, all_data = Decoder(), b"", b""
    texts: list[str] = []
    token_ms: list[float] = []
    seen: dict[str, Any] = {}
    wall_ms = 0.0
    for at, data in arrivals:
        payload = decoder.feed(data)
        if decoder.status != 200:
            all_data += payload
            wall_ms = (at - started) * 1000
            continue
        *events, waiting = (waiting + payload).replace(b"\r\n", b"\n").split(b"\n\n")
        for value in _data_of(events):
            wall_ms = (at - started) * 1000
            if value == b"[DONE]":
                seen["complete"] = True
                continue
            chunk = json.loads(value)
            if "error" in chunk:
                seen["error"] = _error_text(chunk)
            for choice in chunk.get("choices") or []:
                text = (choice.get("delta") or {}).get("content") or choice.get("text")
                if text:
                    texts.append(text)
                    token_ms.append(wall_ms)
                if choice.get("finish_reason"):
                    seen["finish_reason"] = choice["finish_reason"]
            seen.update({name: value for name, value in _counts(chunk).items() if value is not None})
    if decoder.status != 200:
        return parse_whole(decoder.status, all_data, wall_ms)
    whole = {"complete": False, **seen}
    return Reply(200, text="".join(texts), wall_ms=wall_ms, token_ms=tuple(token_ms), **whole)


def _data_of(events: Sequence[bytes]) -> Iterator[bytes]:
    """The data of server-sent events; comments and other fields are stepped over."""
    for event in events:
        for line in event.split(b"\n"):
            if line.startswith(b"data:"):
                yield line[5:].strip()


def _counts(body: Body) -> dict[str, Any]:
    """Token counts, and the time that the server says it computed for, where a reply or a chunk has them."""
    usage = body.get("usage") or {}
    timings = body.get("timings") or (body.get("familiar") or {}).get("timings") or {}
    computed = [timings[name] for name in ("prompt_ms", "predicted_ms") if timings.get(name) is not None]
    return {
        "prompt_tokens": usage.get("prompt_tokens"),
        "completion_tokens": usage.get("completion_tokens"),
        "cached_tokens": (usage.get("prompt_tokens_details") or {}).get("cached_tokens"),
        "compute_ms": float(sum(computed)) if computed else None,
    }


def _error_text(body: Any) -> str:
    error = body.get("error", body.get("detail", body)) if isinstance(body, dict) else body
    message = error.get("message") if isinstance(error, dict) else error
    return str(message or error)

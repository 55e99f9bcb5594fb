"""Server-sent events as an ASGI response: little is done per event, and the source is told when the client has gone."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

T = TypeVar("T")

CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that went away: nobody reads it, but the access log does."""

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class EventStream(Response):
    """Sends the events that ``source`` yields. When the client leaves ``cancel`` is called, and the source read on.

    Read to its end the source can log what was produced; nothing is sent any more.
    """

    def __init__(self, source: AsyncGenerator[bytes, None], cancel: Callable[[], None]) -> None:
        super().__init__()
        self._source = source
        self._cancel = cancel

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        leaving = asyncio.ensure_future(_left(receive))
        leaving.add_done_callback(lambda done: None if done.cancelled() else self._cancel())
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            async for body in self._source:
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            leaving.cancel()
            await self._source.aclose()


async def unless_gone(request: Request, work: Awaitable[T]) -> T | None:
    """The result of ``work``, or None when the client goes away first; then ``work`` is cancelled."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request.receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        leaving.cancel()
        working.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

"""Server-sent events as an ASGI response: little is done per event, and the source is told when the client has gone."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

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


async def unless_gone(request: Request, work: Awaitable[Response | None]) -> Response:
    """The response that ``work`` makes; one for nobody when the client goes away first, or there is nothing to answer.

    ``work`` is then cancelled, and has ended. It runs in the request's own task: one of its own would cost every
    request more than the look-out for the client does.
    """
    task = asyncio.current_task()
    assert task is not None  # for the type checker: there is one wherever something is awaited
    asked = task.cancelling()

    async def cancel_once_left() -> None:
        await _left(request.receive)
        # Not in a callback, which could come when the work is done and cancel what the task does next.
        task.cancel()

    leaving = asyncio.ensure_future(cancel_once_left())
    try:
        response = await work
    except asyncio.CancelledError:
        # As asyncio.timeout has it: only what was cancelled here alone is answered here.
        if not leaving.done() or task.uncancel() > asked:
            raise
        response = None
    finally:
        leaving.cancel()
    return Response(status_code=CLIENT_CLOSED_REQUEST) if response is None else response


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

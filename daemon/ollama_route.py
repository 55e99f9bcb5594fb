"""What is Ollama's about a route and a stream: errors as ``{"error": "text"}``, and replies in lines of JSON."""

import json
import logging

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from familiar.daemon.event_stream import EventStream
from familiar.daemon.json_route import Handler, JsonRoute

log = logging.getLogger("familiar")

_KEPT = ("retry-after", "www-authenticate", "x-should-retry")
_INSTEAD = {'"truncation": "auto"': '"truncate": true'}
"""What errors tell to send, as Ollama's clients send it."""


class OllamaRoute(JsonRoute):
    """A ``route_class`` whose failures have Ollama's shape, and otherwise are what the application makes of them."""

    def get_route_handler(self) -> Handler:
        """FastAPI's hook."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except Exception as error:
                return await _failed(request, error)

        return handled


async def _failed(request: Request, error: Exception) -> Response:
    handlers = request.app.exception_handlers
    kind = next(cls for cls in type(error).__mro__ if cls in handlers)
    if kind is Exception:  # what nobody foresaw: elsewhere the server writes down where it happened
        log.exception("%s %s failed", request.method, request.url.path)
    response = await handlers[kind](request, error)
    headers = {name: response.headers[name] for name in _KEPT if name in response.headers}
    text = json.loads(response.body)["error"]["message"]
    for ours, theirs in _INSTEAD.items():
        text = text.replace(ours, theirs)
    return JSONResponse({"error": text}, response.status_code, headers)


class LineStream(EventStream):
    """A stream of lines: ``EventStream`` under Ollama's media type."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def labelled(message: Message) -> None:
            if message["type"] == "http.response.start":
                others = [header for header in message["headers"] if header[0] != b"content-type"]
                message = {**message, "headers": [*others, (b"content-type", b"application/x-ndjson")]}
            await send(message)

        await super().__call__(scope, receive, labelled)

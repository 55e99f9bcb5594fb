"""Routes that read their body as JSON whatever it is sent as: curl and many a client of local servers do not say.

A form of a foreign web page could be such a body. It is refused by its Origin before it gets here: see ``guard``.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class JsonRoute(APIRoute):
    """A ``route_class`` for such routes."""

    def get_route_handler(self) -> Handler:
        """FastAPI's hook."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            headers = [header for header in request.scope["headers"] if header[0] != b"content-type"]
            scope = {**request.scope, "headers": [*headers, (b"content-type", b"application/json")]}
            return await handle(Request(scope, request.receive))

        return handled

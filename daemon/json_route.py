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
            others = [header for header in request.scope["headers"] if header[0] != b"content-type"]
            # In the scope itself: whoever words an error later looks at the type too.
            request.scope["headers"] = [*others, (b"content-type", b"application/json")]
            return await handle(Request(request.scope, request.receive))

        return handled

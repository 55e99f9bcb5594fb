"""How routes read their bodies: in whole characters and, from some clients, as JSON whatever they are sent as."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from familiar.daemon.event_stream import CLIENT_CLOSED_REQUEST
from familiar.memory.whole_text import whole_json

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class WireRoute(APIRoute):
    """The ``route_class`` of all routes.

    Half a character in a body is read as U+FFFD, so that a conversation which holds one can be kept.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        # The ids in /openapi.json, by which generators of clients name their functions.
        super().__init__(path, endpoint, **{**options, "generate_unique_id_function": lambda route: route.name})

    def get_route_handler(self) -> Handler:
        """FastAPI's hook."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(_WholeRequest(request.scope, request.receive))
            except ClientDisconnect:  # in the middle of its body
                return Response(status_code=CLIENT_CLOSED_REQUEST)

        return handled


class JsonRoute(WireRoute):
    """A ``route_class`` for what curl and many clients of local servers call, which do not say that they send JSON.

    A form of a foreign web page could be such a body. It is refused by its Origin before it gets here: see ``guard``.
    """

    def get_route_handler(self) -> Handler:
        """FastAPI's hook."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            others = [header for header in request.scope["headers"] if header[0] != b"content-type"]
            # In the scope itself: whoever words an error later looks at the type too.
            request.scope["headers"] = [*others, (b"content-type", b"application/json")]
            return await handle(Request(request.scope, request.receive))

        return handled


class _WholeRequest(Request):
    async def json(self) -> Any:
        """The body's value; starlette's, but for halves of characters."""
        return whole_json(await super().json())

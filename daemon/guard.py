"""Who may call the service: the first thing a request meets.

A web page must not reach a service on the reader's machine. It could under a name of its own that resolves to loopback
(DNS rebinding), so the Host header must be a name that is known to be ours; and it could send what browsers call simple
requests, so an Origin header must be our own address. No CORS headers are sent. What is left out: who asks (``auth``).
"""

import ipaddress
import socket
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from familiar.daemon.errors import body

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
WILDCARDS = frozenset({"0.0.0.0", "::"})


def is_loopback(host: str) -> bool:
    """Whether an address or name can only be reached from this machine."""
    address = _ip(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def known_hosts(host: str, more: Collection[str]) -> frozenset[str]:
    """The names that a Host header may have when the service listens on ``host``; ``more`` are the configured ones."""
    names = LOOPBACK | {host.lower()} | {name.lower() for name in more}
    if host in WILDCARDS:
        machine = socket.gethostname().lower()
        names |= {machine, f"{machine}.local"}
    return frozenset(names)


class Guard:
    """ASGI middleware that refuses requests under unknown names (421) and for other origins (403)."""

    def __init__(self, app: ASGIApp, host: str, allowed_hosts: Collection[str]) -> None:
        self._app = app
        self._names = known_hosts(host, allowed_hosts)
        # Rebinding needs a name: where the whole network may ask, any plain address is as good as ours.
        self._any_address = host in WILDCARDS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        authority, origin = headers.get("host", ""), headers.get("origin")
        if not self._knows(_name(authority)):
            message = (
                f"This service does not answer under the name {_name(authority)!r}: call it by the address that it "
                f"listens on, or add the name to allowed_hosts."
            )
            await _refuse(421, message, "unknown_host", scope, receive, send)
        elif origin is not None and origin.partition("://")[2].lower() != authority.lower():
            message = f"Web pages of {origin} may not call this service: call it from a program."
            await _refuse(403, message, "foreign_origin", scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _knows(self, name: str) -> bool:
        address = _ip(name)
        return name in self._names or (address is not None and (self._any_address or address.is_loopback))


async def _refuse(status: int, message: str, code: str, scope: Scope, receive: Receive, send: Send) -> None:
    response = JSONResponse(body(message, "invalid_request_error", None, code), status)
    await response(scope, receive, send)


def _name(authority: str) -> str:
    """A Host header's name without its port and without an IPv6 address's brackets."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0].lower()
    return authority.partition(":")[0].lower()


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None

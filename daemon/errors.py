"""From an exception to an HTTP reply: the one table, and OpenAI's error shape for every failure of the API.

What is left out: errors in the middle of a stream, whose status has gone out already (routes_chat sends an event).
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from familiar.daemon.auth import Unauthorised
from familiar.daemon.engine import EngineBusy, EngineClosed
from familiar.daemon.wire_errors import described
from familiar.memory import errors as our

log = logging.getLogger("familiar")


@dataclass(frozen=True)
class Kind:
    """How one kind of error looks on the wire."""

    status: int
    type: str
    code: str | None
    headers: Mapping[str, str]


# The openai client repeats a request after any 5xx; only a busy service is worth asking again.
_NO_RETRY = {"x-should-retry": "false"}
_LATER = {"retry-after": "1"}

KINDS: dict[type[BaseException], Kind] = {
    our.InvalidInput: Kind(400, "invalid_request_error", "invalid_value", {}),
    our.NotEnoughSignals: Kind(400, "invalid_request_error", "not_enough_signals", {}),
    Unauthorised: Kind(401, "invalid_request_error", "invalid_api_key", {"www-authenticate": "Bearer"}),
    our.NotFound: Kind(404, "invalid_request_error", "not_found", {}),
    our.Busy: Kind(503, "server_error", "busy", _LATER),
    EngineBusy: Kind(503, "server_error", "busy", _LATER),
    EngineClosed: Kind(503, "server_error", "shutting_down", _LATER),
    our.NoSpace: Kind(507, "server_error", "insufficient_storage", _NO_RETRY),
    our.BadFile: Kind(500, "server_error", "bad_file", _NO_RETRY),
    our.MissingExtra: Kind(501, "server_error", "missing_extra", _NO_RETRY),
    our.FamiliarError: Kind(500, "server_error", None, _NO_RETRY),
    Exception: Kind(500, "server_error", "internal_error", _NO_RETRY),
}
"""The nearest class of an exception's ancestry decides."""


def kind_of(error: BaseException) -> Kind:
    """The entry for an exception."""
    return next((KINDS[cls] for cls in type(error).__mro__ if cls in KINDS), KINDS[Exception])


def body(message: str, kind: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """OpenAI's error object."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def body_of(error: BaseException) -> dict[str, Any]:
    """An exception as OpenAI's error object; one that is not ours tells nothing of the inside."""
    kind = kind_of(error)
    ours = isinstance(error, our.FamiliarError)
    message = str(error) if ours else "The service failed on this request: its log has the details."
    param = getattr(error, "param", None) if ours else None
    return body(message, kind.type, param, getattr(error, "code", None) or kind.code)


def install(app: FastAPI) -> None:
    """Make every failure of ``app`` answer in this shape."""
    app.add_exception_handler(our.FamiliarError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_error)


async def _on_error(request: Request, error: Exception) -> JSONResponse:
    kind = kind_of(error)
    if kind.status >= 500:
        log.error("%s %s: %s", request.method, request.url.path, error)
    return JSONResponse(body_of(error), kind.status, dict(kind.headers))


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    """Unknown routes and methods, and bodies that could not be read."""
    assert isinstance(error, HTTPException)  # for the type checker: registered for this type alone
    where = f"{request.method} {request.url.path}"
    message, code = {
        404: (f"There is no {where}: see /openapi.json for what there is.", "not_found"),
        400: ("The body cannot be read as JSON: it is not UTF-8, or is nested too deeply.", "invalid_json"),
        405: (f"{where} is not allowed: see /openapi.json for the methods.", "method_not_allowed"),
    }.get(error.status_code, (str(error.detail), None))
    kind = "invalid_request_error" if error.status_code < 500 else "server_error"
    return JSONResponse(body(message, kind, None, code), error.status_code, dict(error.headers or {}))


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    """What the wire types refused, as OpenAI does: 400, the first problem, and the field's name."""
    assert isinstance(error, RequestValidationError)  # for the type checker: registered for this type alone
    first = error.errors()[0]
    inside = first["loc"][:1] in (("body",), ("query",))
    where: Sequence[str | int] = first["loc"][1:] if inside else first["loc"]
    kind = first["type"]
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_json = content_type == "application/json" or content_type.endswith("+json")
    status, param, code, message = 400, *described(first, where)
    if kind == "json_invalid":
        param, code = None, "invalid_json"
        message = f"The body is not valid JSON: {first['ctx']['error']} at character {first['loc'][-1]}."
    elif not where and not is_json and kind not in ("missing", "refused"):
        status, param, code = 415, None, "unsupported_media_type"
        message = f"The body is sent as {content_type or 'nothing'}: send JSON with Content-Type: application/json."
    return JSONResponse(body(message, "invalid_request_error", param, code), status)

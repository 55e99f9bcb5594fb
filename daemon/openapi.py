"""``/openapi.json``: what FastAPI reads off the routes, put right where it would say something that is not so.

``replies`` is for the routes: what each answers and how it fails. ``install`` adds what cannot be said there: the
parameters that are accepted without effect or refused by name, the events of streams, and that a key need not be sent
while there is none. What is left out: which parameters go together, which a schema of one parameter each cannot say.
"""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from familiar.daemon import schemas_chat, schemas_fine_tuning, schemas_text
from familiar.daemon.schemas_replies import ChatCompletionChunk, Error, TextCompletionChunk

Responses = dict[int | str, dict[str, Any]]
"""As FastAPI's routes take them."""

TEXT = {"text/plain": {"schema": {"type": "string"}}}
"""A media type for ``replies``."""

_SCHEMAS = "#/components/schemas/{model}"
_EVENTS = (ChatCompletionChunk, TextCompletionChunk)
_FAILURES = {
    400: "The request cannot be answered as it is.",
    401: "A key is needed, or the one sent is not known.",
    404: "An id that names nothing.",
    415: "The body is not sent as JSON.",
    500: "The service failed; its log has the details.",
    503: "The service is busy, or shutting down: ask again later.",
    507: "The disk is full.",
}
_LATER = {"Retry-After": {"description": "seconds to wait", "schema": {"type": "integer"}}}


def replies(
    model: type[BaseModel] | None, *failures: int, also: Mapping[str, Any] | None = None, key: bool = True
) -> Responses:
    """What a route answers: its model, other media types by name, and the statuses of its usual failures.

    ``key``: it may ask for one. Any other failure has the same shape as these.
    """
    success: dict[str, Any] = {"description": "As asked."}
    if model:
        success["model"] = model
    if also:
        success["content"] = dict(also)
    responses: Responses = {200: success}
    for status in sorted({*failures, 500, *([401] if key else [])}):
        responses[status] = {"model": Error, "description": _FAILURES[status]}
        if status == 503:
            responses[status]["headers"] = _LATER
    # FastAPI adds a 422, which is never answered, only to a route without this.
    responses["default"] = {"model": Error, "description": "Any other failure."}
    return responses


def stream_of(chunk: type[BaseModel]) -> dict[str, Any]:
    """The media type of a stream of chunks, for ``replies``: the schema is that of each event, as is the custom."""
    either = [{"$ref": _SCHEMAS.format(model=model.__name__)} for model in (chunk, Error)]
    data = {
        "description": "JSON: a chunk, or the error that ends the stream. After the last chunk comes [DONE].",
        "type": "string",
        "anyOf": [
            {"const": "[DONE]"},
            {"contentMediaType": "application/json", "contentSchema": {"anyOf": either}},
        ],
    }
    event = {"type": "object", "properties": {"data": data}, "required": ["data"]}
    return {"text/event-stream": {"schema": event}}


def install(app: FastAPI) -> None:
    """Make ``app`` describe itself so; its routes must be there by the time that it is first asked."""

    @cache
    def described() -> dict[str, Any]:
        document = get_openapi(
            title=app.title, version=app.version, openapi_version=app.openapi_version, routes=app.routes
        )
        schemas = document["components"]["schemas"]
        _, extra = models_json_schema([(model, "serialization") for model in _EVENTS], ref_template=_SCHEMAS)
        schemas.update(extra["$defs"])
        _add(schemas["ChatRequest"], schemas_chat.IGNORED, schemas_chat.UNSUPPORTED)
        _add(schemas["TextRequest"], schemas_text.IGNORED, schemas_text.UNSUPPORTED)
        _add(schemas["EmbeddingRequest"], schemas_text.EMBEDDING_IGNORED, {})
        _add(schemas["JobRequest"], (), schemas_fine_tuning.UNSUPPORTED)
        _add(schemas["ReinforcementHyperparameters"], schemas_fine_tuning.IGNORED, {})
        _add(schemas["ChatMessage"], (), dict.fromkeys(schemas_chat.MESSAGE_EMPTY, schemas_chat.EMPTY))
        for operations in document["paths"].values():
            for operation in operations.values():
                if "security" in operation:
                    operation["security"].append({})
        return document

    app.openapi = described  # type: ignore[method-assign] # FastAPI's documented way


def _add(schema: dict[str, Any], ignored: Iterable[str], unsupported: Mapping[str, tuple[object, ...]]) -> None:
    """Add to a request the parameters that change nothing."""
    for name in ignored:
        schema["properties"][name] = {"description": "accepted and ignored"}
    for name, harmless in unsupported.items():
        values = [None, *harmless]
        said = " or ".join(json.dumps(value) for value in values)
        schema["properties"][name] = {"description": f"not supported: left out, or {said}", "enum": values}

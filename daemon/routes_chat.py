"""``/v1/chat/completions`` and ``/v1/models``: the events of a reply as OpenAI's clients read them.

Beside OpenAI's fields a reply holds ``familiar``: the adapter version, the ids of the memories that were shown to the
model, and a notice for the user, if any. In a stream it is on the first chunk and on the one with the finish reason.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from familiar.daemon import errors, model_ids
from familiar.daemon.chat_service import Ended, Event, Started, Text
from familiar.daemon.schemas import ChatRequest
from familiar.daemon.state import State

T = TypeVar("T")

CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that went away: nobody reads it, but the access log does."""


def router(state: State) -> APIRouter:
    """The routes over one service's state."""
    routes = APIRouter()

    @routes.post("/v1/chat/completions", response_model=None)
    async def create_chat_completion(chat: ChatRequest, request: Request) -> Response:
        """Answer a chat, whole or as server-sent events."""
        events = state.workers.iterate(lambda cancellation: state.chat.answer(chat, cancellation))
        # Awaited before the reply's head goes out, so that an error there has its own status.
        started = await _unless_gone(request, anext(events, None))
        if not isinstance(started, Started):
            await events.aclose()
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        if chat.stream:
            headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
            stream = _stream(started, events, include_usage=chat.include_usage)
            return StreamingResponse(stream, media_type="text/event-stream", headers=headers)
        body = await _unless_gone(request, _whole(started, events))
        await events.aclose()
        return Response(status_code=CLIENT_CLOSED_REQUEST) if body is None else JSONResponse(body)

    @routes.get("/v1/models")
    def list_models() -> dict[str, Any]:
        """List the models that this service answers as."""
        return {"object": "list", "data": list(_models(state).values())}

    @routes.get("/v1/models/{model_id}")
    def get_model(model_id: str) -> dict[str, Any]:
        """Describe one model."""
        models = _models(state)
        if model_id not in models:
            raise model_ids.UnknownModel(model_id, list(models))
        return models[model_id]

    return routes


def _models(state: State) -> dict[str, dict[str, Any]]:
    """OpenAI's model objects by id; a version was created when it was promoted, the others when the service started."""
    user = state.store.default_user()
    created = {f"familiar:v{version.number}": version.created_at for version in state.store.versions(user)}
    numbers = [version.number for version in state.store.versions(user)]
    ids = model_ids.listed(numbers, adapter=state.store.current_version(user) is not None)
    return {
        name: {
            "id": name,
            "object": "model",
            "created": int(created.get(name, state.started_at)),
            "owned_by": "familiar",
        }
        for name in ids
    }


async def _unless_gone(request: Request, work: Awaitable[T]) -> T | None:
    """The result of ``work``, or None when the client goes away first; then ``work`` is cancelled."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        leaving.cancel()
        working.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _extension(started: Started, notice: str | None) -> dict[str, Any]:
    return {"adapter_version": started.adapter_version, "memories": list(started.memory_ids), "notice": notice}


def _usage(ended: Ended) -> dict[str, Any]:
    return {
        "prompt_tokens": ended.prompt_tokens,
        "completion_tokens": ended.completion_tokens,
        "total_tokens": ended.prompt_tokens + ended.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": ended.cached_tokens},
    }


async def _whole(started: Started, events: AsyncIterator[Event]) -> dict[str, Any] | None:
    """OpenAI's chat.completion object; None when the reply was cancelled."""
    texts: list[str] = []
    async for event in events:
        if isinstance(event, Text):
            texts.append(event.text)
        elif isinstance(event, Ended):
            message = {"role": "assistant", "content": "".join(texts), "refusal": None}
            choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": event.finish_reason}
            return {
                "id": started.id,
                "object": "chat.completion",
                "created": int(started.created_at),
                "model": started.model,
                "choices": [choice],
                "usage": _usage(event),
                "familiar": _extension(started, event.notice),
            }
    return None


async def _stream(
    started: Started, events: AsyncGenerator[Event, None], *, include_usage: bool
) -> AsyncGenerator[str, None]:
    """OpenAI's chat.completion.chunk objects as server-sent events: role, texts, finish reason, usage, [DONE]."""
    common = {
        "id": started.id,
        "object": "chat.completion.chunk",
        "created": int(started.created_at),
        "model": started.model,
    }
    usage_field = {"usage": None} if include_usage else {}

    def chunk(delta: dict[str, str], finish_reason: str | None = None, **more: Any) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _event({**common, "choices": [choice], **usage_field, **more})

    try:
        yield chunk({"role": "assistant", "content": ""}, familiar=_extension(started, started.notice))
        async for event in events:
            if isinstance(event, Text):
                yield chunk({"content": event.text})
            elif isinstance(event, Ended):
                yield chunk({}, event.finish_reason, familiar=_extension(started, event.notice))
                if include_usage:
                    yield _event({**common, "choices": [], "usage": _usage(event)})
                yield "data: [DONE]\n\n"
    except Exception as error:
        # The status has gone out: clients read an error event, and the stream ends without [DONE].
        errors.log.error("The stream of %s broke: %s", started.id, error)
        yield _event(errors.body_of(error))
    finally:
        await events.aclose()


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"

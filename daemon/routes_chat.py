"""``/v1/chat/completions`` and ``/v1/models``: the events of a reply as OpenAI's clients read them.

Beside OpenAI's fields a reply holds ``familiar``: the adapter version, the ids of the memories that were shown to the
model, how many messages were left out to make it fit, the time that it took, and a notice for the user, if any. In a
stream it is on the first chunk and on the last one with a finish reason.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from familiar.daemon import errors, model_ids, openapi, wire
from familiar.daemon.chat_choices import ChatChoice
from familiar.daemon.chat_service import ChatReply, Ended, Started
from familiar.daemon.event_stream import EventStream, unless_gone
from familiar.daemon.json_route import WireRoute
from familiar.daemon.reply import Text
from familiar.daemon.schemas_chat import ChatRequest
from familiar.daemon.schemas_replies import ChatCompletion, ChatCompletionChunk, ModelCard, ModelList
from familiar.daemon.state import State


def router(state: State) -> APIRouter:
    """The routes over one service's state."""
    routes = APIRouter(route_class=WireRoute)
    User = Annotated[int, Depends(state.identify)]

    @routes.post(
        "/v1/chat/completions",
        response_model=None,
        responses=openapi.replies(ChatCompletion, 400, 404, 415, 503, also=openapi.stream_of(ChatCompletionChunk)),
    )
    async def create_chat_completion(chat: ChatRequest, request: Request, user: User) -> Response:
        """Answer a chat, whole or as server-sent events."""
        return await unless_gone(request, _answer(state, user, chat))

    @routes.get("/v1/models", response_model=None, responses=openapi.replies(ModelList))
    def list_models(user: User) -> dict[str, Any]:
        """List the models that this service answers as."""
        return {"object": "list", "data": list(_models(state, user).values())}

    @routes.get("/v1/models/{model_id}", response_model=None, responses=openapi.replies(ModelCard, 404))
    def get_model(model_id: str, user: User) -> dict[str, Any]:
        """Describe one model."""
        models = _models(state, user)
        if model_id not in models:
            raise model_ids.UnknownModel(model_id, list(models))
        return models[model_id]

    return routes


def _models(state: State, user: int) -> dict[str, dict[str, Any]]:
    """OpenAI's model objects by id; a version was created when it was promoted, the fixed ones with the service."""
    versions, tuned = state.adapters.fitting(user), state.adapters.tuned(user)
    created = {f"familiar:v{version.number}": version.created_at for version in versions}
    created |= {model.id: model.created_at for model in tuned}
    current = state.adapters.current(user) is not None
    ids = model_ids.listed([version.number for version in versions], tuned, adapter=current)
    return {
        name: {
            "id": name,
            "object": "model",
            "created": int(created.get(name, state.started_at)),
            "owned_by": "familiar",
        }
        for name in ids
    }


def _common(started: Started, kind: str) -> dict[str, Any]:
    return {"id": started.id, "object": kind, "created": int(started.created_at), "model": started.model}


def _extension(started: Started, ended: Ended) -> dict[str, Any]:
    return {**started.extension, "notice": ended.notice, "timings": wire.timings(ended.totals)}


async def _answer(state: State, user: int, chat: ChatRequest) -> Response | None:
    """The reply, whole or as a stream; None when it was cancelled."""
    # Awaited before the reply's head goes out, so that an error there has its own status.
    reply = await state.chat.begin(user, chat)
    if chat.stream:
        return EventStream(_stream(reply, chat), reply.cancel)
    body = await _whole(reply, chat)
    return None if body is None else JSONResponse(body)


async def _whole(reply: ChatReply, chat: ChatRequest) -> dict[str, Any] | None:
    """OpenAI's chat.completion object; None when the reply was cancelled."""
    started = reply.started
    choices = [ChatChoice(index, chat, started.plan.structure) for index in range(chat.choices)]
    async with aclosing(reply.events()) as produced:
        async for events in produced:
            if isinstance(events, Ended):
                return {
                    **_common(started, "chat.completion"),
                    "choices": [choice.whole() for choice in choices],
                    "usage": wire.usage(events.totals),
                    "familiar": _extension(started, events),
                }
            for event in events:
                choices[event.index].take(event)
    return None


async def _stream(reply: ChatReply, chat: ChatRequest) -> AsyncGenerator[bytes, None]:
    """OpenAI's chat.completion.chunk objects as server-sent events: role, texts, finish reason, usage, [DONE]."""
    started = reply.started
    write = wire.ChunkWriter(
        _common(started, "chat.completion.chunk"),
        include_usage=chat.include_usage,
        before=',"delta":{"content":',
        after='},"logprobs":null,"finish_reason":null',
    )
    choices = [ChatChoice(index, chat, started.plan.structure) for index in range(chat.choices)]
    # Goes out with the first text: one write less before it.
    out = [write.choice(choice.opening(), familiar=started.extension) for choice in choices]
    ends: list[dict[str, Any]] = []
    try:
        async with aclosing(reply.events()) as produced:
            async for events in produced:
                if isinstance(events, Ended):
                    out += [write.choice(end) for end in ends[:-1]]
                    out.append(write.choice(ends[-1], familiar=_extension(started, events)))
                    if chat.include_usage:
                        out.append(write.totals(events.totals))
                    out.append(wire.DONE)
                else:
                    for event in events:
                        choice = choices[event.index]
                        if choice.plain and isinstance(event, Text):
                            out.append(write.text(event.index, event.text))
                        else:
                            deltas, end = choice.stream(event)
                            out += [write.choice(delta) for delta in deltas]
                            ends += end
                if out:
                    yield b"".join(out)
                    out = []
    except Exception as error:
        # The status has gone out: clients read an error event, and the stream ends without [DONE].
        errors.log.error("The stream of %s broke: %s", started.id, error)
        yield b"".join(out) + wire.event(errors.body_of(error))

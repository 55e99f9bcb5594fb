"""``/v1/completions`` and ``/v1/embeddings``: plain text gone on with, and texts as vectors."""

import base64
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from numpy.typing import NDArray

from familiar.daemon import errors, openapi, wire
from familiar.daemon.embedding import floats, vectors_of
from familiar.daemon.event_stream import EventStream, unless_gone
from familiar.daemon.generation import TokenLogprob
from familiar.daemon.json_route import WireRoute
from familiar.daemon.reply import Text, Totals
from familiar.daemon.schemas_replies import EmbeddingList, TextCompletion, TextCompletionChunk
from familiar.daemon.schemas_text import EmbeddingRequest, TextRequest
from familiar.daemon.state import State
from familiar.daemon.text_service import TextReply


def router(state: State) -> APIRouter:
    """The routes over one service's state."""
    routes = APIRouter(route_class=WireRoute)
    User = Annotated[int, Depends(state.identify)]

    @routes.post(
        "/v1/completions",
        response_model=None,
        responses=openapi.replies(TextCompletion, 400, 404, 415, 503, also=openapi.stream_of(TextCompletionChunk)),
    )
    async def create_completion(text: TextRequest, request: Request, user: User) -> Response:
        """Go on with plain text, whole or as server-sent events. Nothing is recalled or logged."""
        return await unless_gone(request, _answer(state, user, text))

    @routes.post("/v1/embeddings", response_model=None, responses=openapi.replies(EmbeddingList, 400, 404, 415, 503))
    async def create_embeddings(wanted: EmbeddingRequest, user: User) -> Response:
        """Return a vector of length 1 for each input. Needs no adapter, and is the same for every user."""
        vectors, tokens = await vectors_of(state, wanted.model, wanted.inputs, wanted.dimensions)
        encode = _base64 if wanted.encoding_format == "base64" else floats
        data = [
            {"object": "embedding", "index": index, "embedding": encode(vector)} for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"object": "list", "data": data, "model": wanted.model, "usage": usage})

    return routes


def _base64(vector: NDArray[np.float32]) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")


def _common(reply: TextReply) -> dict[str, Any]:
    created, model = int(reply.created_at), reply.request.model
    return {"id": reply.id, "object": "text_completion", "created": created, "model": model}


def _choice(index: int, text: str, logprobs: dict[str, Any] | None, finish_reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


def _extension(reply: TextReply, totals: Totals) -> dict[str, Any]:
    return {**reply.extension, "timings": wire.timings(totals)}


async def _answer(state: State, user: int, text: TextRequest) -> Response | None:
    """The reply, whole or as a stream; None when it was cancelled."""
    reply = await state.text.begin(user, text)
    if text.stream:
        return EventStream(_stream(reply), reply.cancel)
    body = await _whole(reply)
    return None if body is None else JSONResponse(body)


async def _whole(reply: TextReply) -> dict[str, Any] | None:
    """OpenAI's text_completion object; None when the reply was cancelled."""
    count = len(reply.request.prompts) * reply.request.choices
    texts: list[list[str]] = [[] for _ in range(count)]
    entries: list[list[TokenLogprob]] = [[] for _ in range(count)]
    reasons = [""] * count
    async with aclosing(reply.events()) as produced:
        async for events in produced:
            if isinstance(events, Totals):
                choices = []
                for index in range(count):
                    prompt, prompt_entries = reply.echoed(index)
                    given = [*prompt_entries, *entries[index]]
                    logprobs = wire.text_logprobs(given, 0) if reply.request.logprobs is not None else None
                    choices.append(_choice(index, prompt + "".join(texts[index]), logprobs, reasons[index]))
                extension = _extension(reply, events)
                return {**_common(reply), "choices": choices, "usage": wire.usage(events), "familiar": extension}
            for event in events:
                if isinstance(event, Text):
                    texts[event.index].append(event.text)
                    entries[event.index] += event.logprobs
                else:
                    reasons[event.index] = event.finish_reason
    return None


async def _stream(reply: TextReply) -> AsyncGenerator[bytes, None]:
    """OpenAI's text_completion objects as server-sent events: texts, finish reasons, usage, [DONE]."""
    request = reply.request
    write = wire.ChunkWriter(
        _common(reply),
        include_usage=request.include_usage,
        before=',"text":',
        after=',"logprobs":null,"finish_reason":null',
    )
    count = len(request.prompts) * request.choices
    lengths = [0] * count
    echoed: set[int] = set()
    ends: list[dict[str, Any]] = []
    try:
        async with aclosing(reply.events()) as produced:
            async for events in produced:
                out: list[bytes] = []
                if isinstance(events, Totals):
                    out += [write.choice(end) for end in ends[:-1]]
                    out.append(write.choice(ends[-1], familiar=_extension(reply, events)))
                    if request.include_usage:
                        out.append(write.totals(events))
                    out.append(wire.DONE)
                else:
                    for event in events:
                        index = event.index
                        if request.echo and index not in echoed:
                            echoed.add(index)
                            prompt, entries = reply.echoed(index)
                            out.append(write.choice(_piece(reply, index, prompt, entries, 0)))
                            lengths[index] = len(prompt)
                        if not isinstance(event, Text):
                            ends.append(_choice(index, "", None, event.finish_reason))
                        elif request.logprobs is None:
                            out.append(write.text(index, event.text))
                        else:
                            out.append(write.choice(_piece(reply, index, event.text, event.logprobs, lengths[index])))
                            lengths[index] += len(event.text)
                if out:
                    yield b"".join(out)
    except Exception as error:
        # The status has gone out: clients read an error event, and the stream ends without [DONE].
        errors.log.error("The stream of %s broke: %s", reply.id, error)
        yield wire.event(errors.body_of(error))


def _piece(reply: TextReply, index: int, text: str, entries: tuple[TokenLogprob, ...], offset: int) -> dict[str, Any]:
    logprobs = wire.text_logprobs(entries, offset) if reply.request.logprobs is not None else None
    return _choice(index, text, logprobs, None)

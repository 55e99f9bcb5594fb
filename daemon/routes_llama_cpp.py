"""The endpoints that llama.cpp's server has beside OpenAI's, over the same services, and its shorter names of those.

Nothing here tells of another user: ``/slots`` has no prompts. ``docs/compatibility.md`` has every difference. These
routes are not in ``/openapi.json``, which describes this service's own API.
"""

import asyncio
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from familiar.daemon import llama_cpp_replies, model_ids, routes_admin, routes_chat
from familiar.daemon.embedding import floats, vectors_of
from familiar.daemon.event_stream import EventStream, unless_gone
from familiar.daemon.json_route import JsonRoute
from familiar.daemon.llama_cpp_replies import Shape
from familiar.daemon.sampling import Sampling
from familiar.daemon.schemas_llama_cpp import ApplyTemplate, Completion, Detokenize, NativeEmbedding, Tokenize
from familiar.daemon.state import State
from familiar.memory.errors import Busy

SHORTER = {"/v1/chat/completions": "/chat/completions", "/v1/models": "/models", "/health": "/v1/health"}
"""Endpoints under llama.cpp's other names. ``/completions`` and ``/embeddings`` are no such names: they are its own."""


def router(state: State) -> APIRouter:
    """The routes over one service's state."""
    routes = APIRouter(route_class=JsonRoute, include_in_schema=False)
    User = Annotated[int, Depends(state.identify)]
    engine, info = state.engine, state.engine.info

    @routes.post("/completion")
    @routes.post("/completions")
    async def create_completion(wanted: Completion, request: Request, user: User) -> Response:
        """Go on with plain text, whole or as server-sent events. Nothing is recalled or logged."""
        return await unless_gone(request, _complete(state, user, wanted))

    @routes.post("/tokenize")
    def tokenise(wanted: Tokenize, user: User) -> dict[str, Any]:
        """Return a text's tokens."""
        control = wanted.parse_special is not False
        tokens = engine.tokenise(wanted.content, control=control, around=wanted.add_special is True)
        if not wanted.with_pieces:
            return {"tokens": tokens}
        return {"tokens": [{"id": token, "piece": _piece(engine.decode_tokens([token]))} for token in tokens]}

    @routes.post("/detokenize")
    def detokenise(wanted: Detokenize, user: User) -> dict[str, Any]:
        """Return the text that tokens spell."""
        return {"content": _text(engine.decode_tokens(engine.check_tokens(wanted.tokens, "tokens")))}

    @routes.post("/apply-template")
    def apply_template(wanted: ApplyTemplate, user: User) -> dict[str, Any]:
        """Return a conversation as the model's template writes it, without memories."""
        return {"prompt": engine.render_prompt([each.message for each in wanted.messages])}

    @routes.get("/props")
    def get_properties(user: User) -> dict[str, Any]:
        """Describe the model and how it is served."""
        defaults = llama_cpp_replies.settings(Sampling(), info.context_tokens)
        return {
            "default_generation_settings": {"n_ctx": info.context_tokens, "params": defaults},
            "total_slots": engine.slots,
            "model_alias": model_ids.DEFAULT,
            "model_path": str(info.path),
            "modalities": {"vision": False, "video": False, "audio": False},
            "endpoint_slots": True,
            "endpoint_props": False,
            "endpoint_metrics": True,
            "chat_template": engine.chat_template,
            "chat_template_caps": {"supports_tools": engine.supports_tools},
            "build_info": f"familiar {version('familiar-llm')}",
            "is_sleeping": False,
        }

    @routes.get("/slots")
    def list_slots(user: User, fail_on_no_slot: str = "") -> list[dict[str, Any]]:
        """List the slots. Which of them is whose is not told: as many say that they are busy as there are replies."""
        running = engine.stats().running
        if fail_on_no_slot and running >= engine.slots:
            raise Busy("No slot is available: ask again later.")
        return [
            {"id": slot, "n_ctx": info.context_tokens, "speculative": False, "is_processing": slot < running}
            for slot in range(engine.slots)
        ]

    @routes.post("/embedding")
    @routes.post("/embeddings")
    async def create_embeddings(wanted: NativeEmbedding, user: User) -> list[dict[str, Any]]:
        """Return a vector of length 1 for each text, in a list of its own: there could be one for each token."""
        vectors, _ = await vectors_of(state, wanted.model, wanted.inputs)
        return [{"index": index, "embedding": [floats(vector)]} for index, vector in enumerate(vectors)]

    for module in (routes_chat, routes_admin):
        for route in module.router(state).routes:
            if isinstance(route, APIRoute) and (other := SHORTER.get(route.path)):
                routes.add_api_route(other, route.endpoint, methods=list(route.methods or ()), response_model=None)
    return routes


async def _complete(state: State, user: int, wanted: Completion) -> Response | None:
    """The reply, whole or as a stream; None when it was cancelled."""
    engine, context_tokens = state.engine, state.engine.info.context_tokens
    loop = asyncio.get_running_loop()
    # In a worker thread: a schema's grammar may take a while.
    text = await loop.run_in_executor(state.workers, wanted.text, context_tokens)
    reply = await state.text.begin(user, text)
    [prompt] = text.prompts
    shown = prompt if isinstance(prompt, str) else _text(engine.decode_tokens(prompt))
    shape = Shape(wanted, reply, shown, context_tokens)
    if wanted.streamed:
        return EventStream(llama_cpp_replies.stream(reply, shape), reply.cancel)
    body = await llama_cpp_replies.whole(reply, shape)
    return None if body is None else JSONResponse(body)


def _text(spelt: bytes) -> str:
    return spelt.decode("utf-8", "replace")


def _piece(spelt: bytes) -> str | list[int]:
    """A token's text, or its bytes where they are part of a character."""
    try:
        return spelt.decode()
    except UnicodeDecodeError:
        return list(spelt)

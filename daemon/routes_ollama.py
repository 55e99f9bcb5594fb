"""Ollama's native API over the same services as OpenAI's: the same recall, adapters, log and keys.

The last object of a reply has ``familiar``, with the id by which it is corrected. There is one model, so nothing is
pulled, copied or deleted through this API. ``docs/compatibility.md`` has every difference. These routes are not in
``/openapi.json``, which describes this service's own API.
"""

import asyncio
from functools import cache, partial
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from familiar.daemon import model_ids, ollama_replies
from familiar.daemon.embedding import floats, vectors_of
from familiar.daemon.event_stream import unless_gone
from familiar.daemon.model_card import ModelCard, read_card
from familiar.daemon.ollama_replies import Form, Parts, rfc3339
from familiar.daemon.ollama_route import LineStream, OllamaRoute
from familiar.daemon.sampling import Sampling
from familiar.daemon.schemas_chat import ChatRequest
from familiar.daemon.schemas_ollama import (
    OllamaChat,
    OllamaEmbed,
    OllamaEmbeddings,
    OllamaGenerate,
    OllamaShow,
    plain_name,
)
from familiar.daemon.schemas_text import TextRequest
from familiar.daemon.state import State
from familiar.memory.errors import NotFound

API_VERSION = "0.12.11"
"""The version of Ollama whose API this is: clients compare it with the one that they need."""

FOR_EVER = "9999-12-31T23:59:59Z"
"""When the model is unloaded."""

INSTEAD = {
    ("POST", "/api/pull"): "No model is pulled here: run `familiar pull REPO`, then `familiar serve --model REPO`.",
    ("POST", "/api/push"): "No model is pushed from here: copy the file that `familiar models` lists.",
    (
        "POST",
        "/api/create",
    ): "No model is made here: serve another with `familiar serve --model`, or teach this one.",
    ("POST", "/api/copy"): "No model is copied here: there is one, under the names that GET /api/tags lists.",
    ("DELETE", "/api/delete"): "No model is deleted here: delete the file that `familiar models` lists.",
    ("POST", "/api/blobs/{digest}"): "No file is taken in here: run `familiar pull REPO`.",
}
"""What this service does not do, and what to do instead."""

_DEFAULTS = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty")


def router(state: State) -> APIRouter:
    """The routes over one service's state."""
    routes = APIRouter(route_class=OllamaRoute, include_in_schema=False)
    User = Annotated[int, Depends(state.identify)]
    info = state.engine.info
    card = cache(partial(read_card, info.path))

    @routes.head("/")
    @routes.get("/")
    def greet() -> Response:
        """Say that the service runs, to whoever asks."""
        return PlainTextResponse("Familiar is running")

    @routes.head("/api/version")
    @routes.get("/api/version")
    def get_version(user: User) -> dict[str, Any]:
        """Say which API this is, and what answers it."""
        return {"version": API_VERSION, "familiar": version("familiar-llm")}

    @routes.head("/api/tags")
    @routes.get("/api/tags")
    def list_tags(user: User) -> dict[str, Any]:
        """List the models that this service answers as."""
        return {"models": [_listed(state, card(), *each) for each in _names(state, user).items()]}

    @routes.get("/api/ps")
    def list_loaded(user: User) -> dict[str, Any]:
        """List the model, which is always loaded."""
        loaded = {"size_vram": 0, "expires_at": FOR_EVER, "context_length": info.context_tokens}
        return {"models": [{**_listed(state, card(), model_ids.DEFAULT, state.started_at), **loaded}]}

    @routes.post("/api/show")
    def show(wanted: OllamaShow, user: User) -> dict[str, Any]:
        """Describe one model. The template is the file's own, and so a Jinja one."""
        name = plain_name(wanted.model or wanted.name or "")
        if name not in model_ids.EMBEDDING:
            state.adapters.parse(user, name)
        defaults = Sampling()
        return {
            "modified_at": rfc3339(_names(state, user).get(name, state.started_at)),
            "template": state.engine.chat_template,
            "parameters": "\n".join(f"{each:<30} {getattr(defaults, each)}" for each in _DEFAULTS),
            "details": _details(card()),
            # What a request can use, not what the model was trained with: clients choose num_ctx by it.
            "model_info": {**card().metadata, f"{info.architecture}.context_length": info.context_tokens},
            "capabilities": _capabilities(state, name),
        }

    @routes.post("/api/chat")
    async def create_chat(wanted: OllamaChat, request: Request, user: User) -> Response:
        """Answer a chat."""
        form = Form(wanted.model, ollama_replies.message, state.clock)
        return await unless_gone(request, _chat(state, user, wanted.chat(info.context_tokens), form))

    @routes.post("/api/generate")
    async def create_text(wanted: OllamaGenerate, request: Request, user: User) -> Response:
        """Answer one message, or go on with a raw text."""
        form = Form(wanted.model, ollama_replies.response, state.clock)
        if not wanted.raw:
            return await unless_gone(request, _chat(state, user, wanted.chat(info.context_tokens), form))
        # In a worker thread: a schema's grammar may take a while.
        text = await asyncio.get_running_loop().run_in_executor(state.workers, wanted.text, info.context_tokens)
        return await unless_gone(request, _text(state, user, text, form))

    @routes.post("/api/embed")
    async def create_embeddings(wanted: OllamaEmbed, user: User) -> dict[str, Any]:
        """Return a vector of length 1 for each text."""
        form = Form(wanted.model, ollama_replies.response, state.clock)
        vectors, tokens = await vectors_of(state, plain_name(wanted.model), wanted.inputs, wanted.dimensions)
        took = {"total_duration": form.elapsed_ns(), "load_duration": 0, "prompt_eval_count": tokens}
        return {"model": wanted.model, "embeddings": [floats(vector) for vector in vectors], **took}

    @routes.post("/api/embeddings")
    async def create_embedding(wanted: OllamaEmbeddings, user: User) -> dict[str, Any]:
        """Return the vector of one text, in the older form."""
        vectors, _ = await vectors_of(state, plain_name(wanted.model), [wanted.prompt] if wanted.prompt else [])
        return {"embedding": floats(vectors[0]) if vectors else []}

    for (method, path), instead in INSTEAD.items():
        routes.add_api_route(path, partial(_refuse, instead), methods=[method], dependencies=[Depends(state.identify)])

    @routes.api_route("/api/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    def get_nothing(path: str, request: Request) -> None:
        """Say so in Ollama's shape."""
        where = f"{request.method} /api/{path}"
        raise NotFound(f"There is no {where} here: docs/compatibility.md lists what there is of Ollama's API.")

    return routes


def _refuse(instead: str) -> Response:
    return JSONResponse({"error": instead}, 501)


def _names(state: State, user: int) -> dict[str, float]:
    """The model ids, and when each came to be in seconds since the epoch: a version when it was promoted."""
    versions = state.store.versions(user)
    created = {f"familiar:v{version.number}": version.created_at for version in versions}
    adapter = state.store.current_version(user) is not None
    ids = model_ids.listed([version.number for version in versions], adapter=adapter)
    return {id: created.get(id, state.started_at) for id in ids}


def _listed(state: State, card: ModelCard, name: str, created: float) -> dict[str, Any]:
    return {
        "name": name,
        "model": name,
        "modified_at": rfc3339(created),
        "size": state.engine.info.size_bytes,
        "digest": state.base_sha256(),
        "details": _details(card),
    }


def _details(card: ModelCard) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "gguf",
        "family": card.architecture,
        "families": [card.architecture],
        "parameter_size": card.parameters,
        "quantization_level": card.quantisation,
    }


def _capabilities(state: State, name: str) -> list[str]:
    chats = name != model_ids.EMBEDDING[0]
    able = {
        "completion": chats,
        "tools": chats and state.engine.tool_format is not None,
        "embedding": name in model_ids.EMBEDDING,
    }
    return [each for each, has in able.items() if has]


async def _chat(state: State, user: int, chat: ChatRequest | None, form: Form) -> Response | None:
    if chat is None:
        return await _loaded(state, user, form)
    # Awaited before the reply's head goes out, so that an error there has its own status.
    reply = await state.chat.begin(user, chat)
    parts = ollama_replies.chat_parts(reply, chat)
    if chat.stream:
        return LineStream(ollama_replies.lines(parts, form, reply.started.id), reply.cancel)
    return await _whole(parts, form)


async def _text(state: State, user: int, text: TextRequest | None, form: Form) -> Response | None:
    if text is None:
        return await _loaded(state, user, form)
    reply = await state.text.begin(user, text)
    parts = ollama_replies.text_parts(reply)
    if text.stream:
        return LineStream(ollama_replies.lines(parts, form, reply.id), reply.cancel)
    return await _whole(parts, form)


async def _whole(parts: Parts, form: Form) -> Response | None:
    body = await ollama_replies.whole(parts, form)
    return None if body is None else JSONResponse(body)


async def _loaded(state: State, user: int, form: Form) -> Response:
    """What a client gets that only wants the model loaded, or unloaded: it is loaded. Raises UnknownModel."""
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(state.workers, state.adapters.parse, user, plain_name(form.model))
    return JSONResponse(form.loaded())

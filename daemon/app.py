"""The HTTP application: every route over one service's state, guarded, with OpenAI's error shape."""

from importlib.metadata import version

from fastapi import FastAPI

from familiar.daemon import (
    errors,
    openapi,
    routes_admin,
    routes_chat,
    routes_data,
    routes_feedback,
    routes_files,
    routes_fine_tuning,
    routes_graders,
    routes_learning,
    routes_llama_cpp,
    routes_memories,
    routes_ollama,
    routes_text,
)
from familiar.daemon.guard import Guard
from familiar.daemon.metrics import Observer
from familiar.daemon.state import State


def create_app(state: State) -> FastAPI:
    """Build the application. It does not close ``state``."""
    # FastAPI's documentation pages load scripts from the network, which this service must not cause.
    app = FastAPI(
        title="Familiar",
        version=version("familiar-llm"),
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(Observer, metrics=state.metrics)
    app.add_middleware(Guard, host=state.settings.host, allowed_hosts=state.settings.allowed_hosts)
    errors.install(app)
    ours = (routes_feedback, routes_memories, routes_graders, routes_learning, routes_data, routes_admin)
    for routes in (routes_chat, routes_text, routes_files, routes_fine_tuning, *ours, routes_llama_cpp, routes_ollama):
        # Not included as routers: each request would go through two more layers, and through every route anew.
        app.router.routes += routes.router(state).routes
    openapi.install(app)
    return app

"""``/v1/adapters``, ``/v1/status``, ``/metrics`` and ``/health``: what was learned, and how the service is doing.

Versions and counts are the asking user's own; ``/health`` tells of nobody and is the one route that needs no key.
"""

import os
import sys
from importlib.metadata import version as package_version
from typing import Annotated, Any

import psutil
from fastapi import APIRouter, Depends, Response

from familiar.adapters import registry
from familiar.daemon import openapi
from familiar.daemon.json_route import WireRoute
from familiar.daemon.metrics import CONTENT_TYPE
from familiar.daemon.schemas import Nothing
from familiar.daemon.schemas_own_replies import AdapterList, Health, Rollback, Status
from familiar.daemon.state import State
from familiar.memory.types import AdapterVersion


def router(state: State) -> APIRouter:
    """The routes over one service's state."""
    routes = APIRouter(route_class=WireRoute)
    User = Annotated[int, Depends(state.identify)]

    @routes.get("/v1/adapters", response_model=None, responses=openapi.replies(AdapterList))
    def list_adapters(user: User) -> dict[str, Any]:
        """List the adapter versions, oldest first; ``fits`` says whether one was trained on the served model."""
        current = state.adapters.current(user)
        served = current.number if current else None
        fitting = {version.number for version in state.adapters.fitting(user)}
        data = [_adapter(each, served, each.number in fitting) for each in state.store.versions(user)]
        return {"object": "list", "current": served, "data": data}

    @routes.post("/v1/adapters/rollback", response_model=None, responses=openapi.replies(Rollback, 400, 404, 503, 507))
    def roll_back(user: User, nothing: Nothing | None = None) -> dict[str, Any]:
        """Serve the version before the current one, from the next request on; null is the base model."""
        before, after = registry.rollback(state.store, user, state.base_sha256())
        return {"object": "rollback", "from": before, "to": after}

    @routes.get("/v1/status", response_model=None, responses=openapi.replies(Status))
    def get_status(user: User) -> dict[str, Any]:
        """Show the model, what is stored, and what the process takes. Sizes are bytes."""
        current = state.adapters.current(user)
        info = state.engine.info
        rss = int(psutil.Process().memory_info().rss)
        return {
            "object": "status",
            "version": package_version("familiar-llm"),
            "pid": os.getpid(),
            "uptime_seconds": round(state.clock() - state.started_at, 3),
            "data_dir": str(state.settings.data_dir),
            "user": state.store.users.get(user).name,
            "model": {
                "name": info.name,
                "path": str(info.path),
                "architecture": info.architecture,
                "parameters": info.parameters,
                "size_bytes": info.size_bytes,
                "context_tokens": info.context_tokens,
                "trained_context_tokens": info.trained_context_tokens,
                "flash_attention": info.flash_attention,
            },
            "adapter_version": current.number if current else None,
            "counts": state.store.counts(user),
            "rss_bytes": rss,
            # The model file is mapped, so its pages count as resident.
            "rss_minus_model_bytes": rss - info.size_bytes,
            "torch_loaded": "torch" in sys.modules,
            "learning": state.learning.state(user),
        }

    # A response class of no media type: the figures are text, but an error is JSON here too.
    @routes.get("/metrics", response_class=Response, responses=openapi.replies(None, also=openapi.TEXT))
    def get_metrics(user: User) -> Response:
        """Show the service's figures in Prometheus' text format."""
        return Response(state.metrics.text(), media_type=CONTENT_TYPE)

    @routes.get("/health", response_model=None, responses=openapi.replies(Health, key=False))
    def get_health() -> dict[str, Any]:
        """Say that the service answers, and which process it is."""
        return {"status": "ok", "pid": os.getpid()}

    return routes


def _adapter(version: AdapterVersion, served: int | None, fits: bool) -> dict[str, Any]:
    return {
        "object": "adapter",
        "id": f"familiar:v{version.number}",
        "number": version.number,
        "created": int(version.created_at),
        "parent": version.parent,
        "current": version.number == served,
        "fits": fits,
        "base_sha256": version.base_sha256,
        "gguf_sha256": version.gguf_sha256,
        "run_id": version.run_id,
        "feedback_ids": list(version.feedback_ids),
        "report": dict(version.report),
    }

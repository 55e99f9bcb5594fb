"""``/v1/adapters``, ``/v1/status`` and ``/health``: the versions that were learned, and how the service is doing."""

import os
import sys
from importlib.metadata import version as package_version
from typing import Any

import psutil
from fastapi import APIRouter

from familiar.adapters import registry
from familiar.daemon.state import State
from familiar.memory.types import AdapterVersion


def router(state: State) -> APIRouter:
    """The routes over one service's state."""
    routes = APIRouter()

    @routes.get("/v1/adapters")
    def list_adapters() -> dict[str, Any]:
        """List the adapter versions, oldest first."""
        user = state.store.default_user()
        current = state.store.current_version(user)
        served = current.number if current else None
        versions = state.store.versions(user)
        return {"object": "list", "current": served, "data": [_adapter(each, served) for each in versions]}

    @routes.post("/v1/adapters/rollback")
    def roll_back() -> dict[str, Any]:
        """Serve the version before the current one, from the next request on; null is the base model."""
        before, after = registry.rollback(state.store, state.store.default_user())
        return {"object": "rollback", "from": before, "to": after}

    @routes.get("/v1/status")
    def get_status() -> dict[str, Any]:
        """Show the model, what is stored, and what the process takes. Sizes are bytes."""
        user = state.store.default_user()
        current = state.store.current_version(user)
        info = state.engine.info
        rss = int(psutil.Process().memory_info().rss)
        return {
            "object": "status",
            "version": package_version("familiar-llm"),
            "pid": os.getpid(),
            "uptime_seconds": round(state.clock() - state.started_at, 3),
            "data_dir": str(state.settings.data_dir),
            "model": {
                "name": info.name,
                "path": str(info.path),
                "architecture": info.architecture,
                "parameters": info.parameters,
                "size_bytes": info.size_bytes,
                "context_tokens": info.context_tokens,
                "trained_context_tokens": info.trained_context_tokens,
            },
            "adapter_version": current.number if current else None,
            "counts": state.store.counts(user),
            "rss_bytes": rss,
            # The model file is mapped, so its pages count as resident.
            "rss_minus_model_bytes": rss - info.size_bytes,
            "torch_loaded": "torch" in sys.modules,
        }

    @routes.get("/health")
    def get_health() -> dict[str, Any]:
        """Say that the service answers, and which process it is."""
        return {"status": "ok", "pid": os.getpid()}

    return routes


def _adapter(version: AdapterVersion, served: int | None) -> dict[str, Any]:
    return {
        "object": "adapter",
        "id": f"familiar:v{version.number}",
        "number": version.number,
        "created": int(version.created_at),
        "parent": version.parent,
        "current": version.number == served,
        "base_sha256": version.base_sha256,
        "gguf_sha256": version.gguf_sha256,
        "run_id": version.run_id,
        "feedback_ids": list(version.feedback_ids),
        "report": dict(version.report),
    }

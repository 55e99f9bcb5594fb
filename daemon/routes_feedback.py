"""``/v1/feedback``, ``/v1/exchanges`` and ``/v1/memories``: what was said about replies, and what is remembered.

Each is the asking user's own: the id of somebody else's is answered as one that never was.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from familiar.daemon import feedback_service, openapi
from familiar.daemon import schemas_own_replies as answered
from familiar.daemon.schemas import FeedbackRequest
from familiar.daemon.state import State
from familiar.memory.errors import NotFound
from familiar.memory.types import Exchange, Memory


def router(state: State) -> APIRouter:
    """The routes over one service's state."""
    routes = APIRouter()
    User = Annotated[int, Depends(state.identify)]

    @routes.post(
        "/v1/feedback",
        response_model=None,
        responses=openapi.replies(answered.Feedback, 400, 404, 415, 503, 507),
    )
    def create_feedback(feedback: FeedbackRequest, user: User) -> dict[str, Any]:
        """Correct, rate or better a reply, or state a rule. It is stored, and remembered, when this answers."""
        signal = feedback_service.record(state.store, user, feedback, state.clock())
        return {
            "object": "feedback",
            "id": signal.feedback.id,
            "kind": signal.feedback.kind,
            "completion_id": signal.feedback.exchange_id,
            "memories": [_memory(memory) for memory in signal.memories],
            "created": int(signal.feedback.created_at),
        }

    @routes.get("/v1/exchanges/{completion_id}", response_model=None, responses=openapi.replies(answered.Exchange, 404))
    def get_exchange(completion_id: str, user: User) -> dict[str, Any]:
        """Show what was sent, what was answered, and what the reply was made with."""
        exchange = state.store.exchange(user, completion_id)
        return _exchange(exchange, _remembered(state, exchange))

    @routes.get("/v1/memories", response_model=None, responses=openapi.replies(answered.MemoryList))
    def list_memories(user: User) -> dict[str, Any]:
        """List what is remembered, oldest first."""
        return {"object": "list", "data": [_memory(memory) for memory in state.store.memories(user)]}

    @routes.delete(
        "/v1/memories/{memory_id}",
        response_model=None,
        responses=openapi.replies(answered.MemoryDeleted, 404, 503, 507),
    )
    def delete_memory(memory_id: str, user: User) -> dict[str, Any]:
        """Forget one memory; the next request no longer gets it."""
        state.store.delete_memory(user, memory_id)
        return {"object": "memory.deleted", "id": memory_id, "deleted": True}

    return routes


def _memory(memory: Memory) -> dict[str, Any]:
    return {
        "object": "memory",
        "id": memory.id,
        "kind": memory.kind,
        "text": memory.text,
        "prompt": memory.prompt,
        "feedback_id": memory.feedback_id,
        "created": int(memory.created_at),
    }


def _remembered(state: State, exchange: Exchange) -> list[dict[str, Any]]:
    """The memories that the reply was made with; of those forgotten since, only the id is left."""
    memories: list[dict[str, Any]] = []
    for memory_id in exchange.memory_ids:
        try:
            memories.append(_memory(state.store.memory(exchange.user_id, memory_id)))
        except NotFound:
            memories.append({"object": "memory", "id": memory_id, "deleted": True})
    return memories


def _exchange(exchange: Exchange, memories: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "object": "exchange",
        "id": exchange.id,
        "created": int(exchange.created_at),
        "model": exchange.model,
        "messages": [dict(message) for message in exchange.messages],
        "completion": exchange.completion,
        "finish_reason": exchange.finish_reason,
        "adapter_version": exchange.adapter_version,
        "memories": memories,
        "sampling": dict(exchange.sampling),
        "usage": {
            "prompt_tokens": exchange.prompt_tokens,
            "completion_tokens": exchange.completion_tokens,
            "total_tokens": exchange.prompt_tokens + exchange.completion_tokens,
        },
        "duration_ms": round(exchange.duration_ms, 1),
    }

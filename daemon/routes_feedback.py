"""``/v1/feedback`` and ``/v1/exchanges``: what was said about replies, and what they were made with.

Each is the asking user's own: the id of somebody else's is answered as one that never was.
"""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query

from familiar.daemon import feedback_service, memory_service, openapi
from familiar.daemon import schemas_own_replies as answered
from familiar.daemon.json_route import WireRoute
from familiar.daemon.memory_objects import guess_object, memory_object
from familiar.daemon.schemas import ConfirmRequest, FeedbackRequest, Nothing
from familiar.daemon.state import State
from familiar.memory.types import Exchange


def router(state: State) -> APIRouter:
    """The routes over one service's state."""
    routes = APIRouter(route_class=WireRoute)
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
            "memories": [memory_object(memory) for memory in signal.memories],
            "created": int(signal.feedback.created_at),
        }

    @routes.get("/v1/feedback", response_model=None, responses=openapi.replies(answered.GuessList, 400))
    def list_pending(user: User, state_: Annotated[Literal["pending"], Query(alias="state")]) -> dict[str, Any]:
        """List what was read from what the user did and waits for a yes or a no, oldest first."""
        return {"object": "list", "data": [guess_object(each) for each in state.store.pending(user)]}

    @routes.post(
        "/v1/feedback/{feedback_id}/confirm",
        response_model=None,
        responses=openapi.replies(answered.SettledGuess, 400, 404, 415, 503, 507),
    )
    def confirm_feedback(feedback_id: str, user: User, confirmed: ConfirmRequest | None = None) -> dict[str, Any]:
        """Agree to a guess, in other words if need be. It is remembered when this answers."""
        text = confirmed.text if confirmed else None
        signal = feedback_service.confirm(state.store, user, feedback_id, state.clock(), text=text)
        return {**guess_object(signal.feedback), "memories": [memory_object(memory) for memory in signal.memories]}

    @routes.post(
        "/v1/feedback/{feedback_id}/dismiss",
        response_model=None,
        responses=openapi.replies(answered.SettledGuess, 400, 404, 503, 507),
    )
    def dismiss_feedback(feedback_id: str, user: User, nothing: Nothing | None = None) -> dict[str, Any]:
        """Say no to a guess. The same is not guessed again."""
        return {**guess_object(feedback_service.dismiss(state.store, user, feedback_id)), "memories": []}

    @routes.get("/v1/exchanges/{completion_id}", response_model=None, responses=openapi.replies(answered.Exchange, 404))
    def get_exchange(completion_id: str, user: User) -> dict[str, Any]:
        """Show what was sent, what was answered, and what the reply was made with."""
        exchange = state.store.exchange(user, completion_id)
        return _exchange(exchange, memory_service.shown(state.store, exchange))

    return routes


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
        "conversation_id": exchange.conversation_id,
        "memories": memories,
        "sampling": dict(exchange.sampling),
        "usage": {
            "prompt_tokens": exchange.prompt_tokens,
            "completion_tokens": exchange.completion_tokens,
            "total_tokens": exchange.prompt_tokens + exchange.completion_tokens,
        },
        "duration_ms": round(exchange.duration_ms, 1),
    }

"""``/v1/learning``: what is being learned from the asking user, or why nothing is; to start, pause and end it."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from familiar.daemon import openapi
from familiar.daemon.json_route import WireRoute
from familiar.daemon.learning_preview import run_object
from familiar.daemon.schemas import Nothing
from familiar.daemon.schemas_learning import Learning, LearningRuns
from familiar.daemon.state import State


def router(state: State) -> APIRouter:
    """The routes over one service's state."""
    routes = APIRouter(route_class=WireRoute)
    User = Annotated[int, Depends(state.identify)]

    @routes.get("/v1/learning", response_model=None, responses=openapi.replies(Learning))
    def get_learning(user: User) -> dict[str, Any]:
        """Show how far learning is, or why there is none at this moment and when it could begin."""
        return state.learning.status(user)

    @routes.get("/v1/learning/runs", response_model=None, responses=openapi.replies(LearningRuns))
    def list_learning_runs(user: User) -> dict[str, Any]:
        """List the runs so far, newest first, each with its recipe and what the gate found."""
        return {"object": "list", "data": [run_object(run) for run in state.store.runs(user)]}

    @routes.post("/v1/learning/run", response_model=None, responses=openapi.replies(Learning, 400, 503))
    def run_learning(user: User, nothing: Nothing | None = None) -> dict[str, Any]:
        """Learn now, or as soon as it is this user's turn, whatever the schedule says; requests pause it."""
        state.learning.run(user)
        return state.learning.status(user)

    @routes.post("/v1/learning/pause", response_model=None, responses=openapi.replies(Learning, 400, 404))
    def pause_learning(user: User, nothing: Nothing | None = None) -> dict[str, Any]:
        """Pause the running learner until it is resumed. It keeps its memory and its turn meanwhile."""
        state.learning.pause(user)
        return state.learning.status(user)

    @routes.post("/v1/learning/resume", response_model=None, responses=openapi.replies(Learning, 400, 404))
    def resume_learning(user: User, nothing: Nothing | None = None) -> dict[str, Any]:
        """Let a paused learner go on."""
        state.learning.resume(user)
        return state.learning.status(user)

    @routes.post("/v1/learning/stop", response_model=None, responses=openapi.replies(Learning, 400, 404))
    def stop_learning(user: User, nothing: Nothing | None = None) -> dict[str, Any]:
        """End the running learner after its current step. The next run goes on from there."""
        state.learning.stop_run(user)
        return state.learning.status(user)

    return routes

"""Graders over HTTP: OpenAI's ``run`` and ``validate``, and ``/v1/graders``, those that a user keeps with their rules.

What a grader does wrong is in the answer to ``run``, with a reward of 0; an error is only what cannot be run at all.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from familiar.daemon import grader_service, openapi
from familiar.daemon import schemas_graders as wire
from familiar.daemon.json_route import WireRoute
from familiar.daemon.memory_objects import list_object
from familiar.daemon.state import State
from familiar.feedback import graders, ready_graders
from familiar.memory.errors import InvalidInput

_OPENAI = "/v1/fine_tuning/alpha/graders"


def router(state: State) -> APIRouter:
    """The routes over one service's state."""
    routes = APIRouter(route_class=WireRoute)
    User = Annotated[int, Depends(state.identify)]

    @routes.post(f"{_OPENAI}/run", response_model=None, responses=openapi.replies(wire.GraderRun, 400, 415, 503))
    def run_grader(asked: wire.GraderRunRequest, user: User) -> dict[str, Any]:
        """Grade one sample, as OpenAI's API does; graders that ask a model ask the served base model."""
        return grader_service.run(state.engine, asked.grader, asked.model_sample, asked.item or {})

    @routes.post(f"{_OPENAI}/validate", response_model=None, responses=openapi.replies(wire.GraderValidated, 400, 415))
    def validate_grader(asked: wire.GraderValidateRequest, user: User) -> dict[str, Any]:
        """Say whether a grader can be run; a `python` one is compiled, and not run."""
        graders.parse(asked.grader)
        return {"grader": asked.grader}

    @routes.get("/v1/graders", response_model=None, responses=openapi.replies(wire.KeptGraderList, 404))
    def list_graders(
        user: User, memory_id: Annotated[str | None, Query(description="those of this rule alone")] = None
    ) -> dict[str, Any]:
        """List the graders that the user keeps, but for those of rules that are not active any more."""
        return list_object([grader_service.grader_object(each) for each in state.store.graders(user, memory_id)])

    @routes.post(
        "/v1/graders", response_model=None, responses=openapi.replies(wire.KeptGrader, 400, 404, 415, 503, 507)
    )
    def create_grader(asked: wire.GraderRequest, user: User) -> dict[str, Any]:
        """Keep a grader, alone or with the rule that it checks. The same one again is the one that there is."""
        definition = _definition(asked)
        return grader_service.grader_object(
            grader_service.keep(state.store, user, definition, asked.memory_id, state.clock())
        )

    @routes.get("/v1/graders/ready", response_model=None, responses=openapi.replies(wire.ReadyGraderList))
    def list_ready_graders(user: User) -> dict[str, Any]:
        """List the graders for everyday preferences that may be named."""
        return {"object": "list", "data": grader_service.ready_objects()}

    @routes.get("/v1/graders/{grader_id}", response_model=None, responses=openapi.replies(wire.KeptGrader, 404))
    def get_grader(grader_id: str, user: User) -> dict[str, Any]:
        """Show one grader that the user keeps."""
        return grader_service.grader_object(state.store.grader(user, grader_id))

    @routes.delete(
        "/v1/graders/{grader_id}", response_model=None, responses=openapi.replies(wire.GraderDeleted, 404, 503, 507)
    )
    def delete_grader(grader_id: str, user: User) -> dict[str, Any]:
        """Delete a grader; the rule that it checks stays."""
        state.store.delete_grader(user, grader_id)
        return {"object": "grader.deleted", "id": grader_id, "deleted": True}

    return routes


def _definition(asked: wire.GraderRequest) -> dict[str, Any]:
    if (asked.grader is None) == (asked.ready is None):
        have = "neither" if asked.grader is None else "both"
        raise InvalidInput(f"Either grader or ready says what to check by, but this has {have}: send one.", "grader")
    if asked.grader is not None:
        if asked.parameters is not None:
            raise InvalidInput("parameters are those of a ready grader: leave them out.", "parameters")
        return asked.grader
    if asked.parameters is None:
        return ready_graders.from_text(asked.ready or "")
    if not set(asked.parameters) <= {name for each in ready_graders.READY.values() for name in each.parameters}:
        raise InvalidInput(
            "parameters has a name that no ready grader takes: GET /v1/graders/ready lists them.", "parameters"
        )
    return ready_graders.ready(asked.ready or "", **asked.parameters)

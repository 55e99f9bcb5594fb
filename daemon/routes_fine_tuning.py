"""``/v1/fine_tuning/jobs``, and the deletion of what they made, in the shapes of OpenAI's API."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from familiar.adapters.extras import require_learn
from familiar.daemon import fine_tuning_recipe, model_ids, openapi
from familiar.daemon import schemas_fine_tuning_replies as answered
from familiar.daemon.fine_tuning_folders import remove_unused
from familiar.daemon.fine_tuning_service import new_job, plain_part
from familiar.daemon.json_route import WireRoute
from familiar.daemon.pages import page
from familiar.daemon.schemas import Nothing
from familiar.daemon.schemas_fine_tuning import JobRequest
from familiar.daemon.state import State
from familiar.memory.errors import InvalidInput, NotFound
from familiar.memory.finetuning_types import Job, JobCheckpoint, JobEvent

_METADATA = re.compile(r"metadata\[(.*)\]")

Limit = Annotated[int, Query(ge=1, le=1000)]
After = Annotated[str | None, Query(description="the id of the last one of the page before")]


class NotForFineTuning(InvalidInput):
    """A model that no job can begin with."""

    code = "model_not_available"


def router(state: State) -> APIRouter:
    """The routes over one service's state."""
    routes = APIRouter(route_class=WireRoute)
    jobs = state.store.fine_tuning
    User = Annotated[int, Depends(state.identify)]

    def shown(job: Job) -> dict[str, Any]:
        return job_object(job, state.store.users.get(job.user_id).name)

    @routes.post(
        "/v1/fine_tuning/jobs",
        response_model=None,
        responses=openapi.replies(answered.FineTuningJob, 400, 415, 503, 507),
    )
    def create_fine_tuning_job(asked: JobRequest, user: User) -> dict[str, Any]:
        """Train a model on uploaded data; it waits for the jobs that were created before it."""
        require_learn()
        base = _base_name(state, user, asked.model)
        if asked.method is not None and asked.method.reinforcement is not None:
            fine_tuning_recipe.check_grader(asked.method.reinforcement.grader)
        for param in ("training_file", "validation_file"):
            _check_file(state, user, getattr(asked, param), param)
        name = state.store.users.get(user).name
        job = new_job(asked, user, name, base, state.base_sha256(), state.clock())
        return shown(state.fine_tuning.create(job))

    @routes.get(
        "/v1/fine_tuning/jobs", response_model=None, responses=openapi.replies(answered.FineTuningJobList, 400, 404)
    )
    def list_fine_tuning_jobs(request: Request, user: User, limit: Limit = 20, after: After = None) -> dict[str, Any]:
        """List the user's jobs, newest first; ``metadata[key]=value`` for those that have it, ``metadata=null``."""
        wanted = _metadata(request)
        found = [job for job in jobs.jobs(user) if wanted is None or _has(job, wanted)]
        return page(found, limit, after, lambda job: job.id, shown)

    @routes.get(
        "/v1/fine_tuning/jobs/{job_id}", response_model=None, responses=openapi.replies(answered.FineTuningJob, 404)
    )
    def get_fine_tuning_job(job_id: str, user: User) -> dict[str, Any]:
        """Show one job."""
        return shown(jobs.job(user, job_id))

    change: dict[str, Any] = {
        "response_model": None,
        "responses": openapi.replies(answered.FineTuningJob, 400, 404, 503, 507),
    }

    @routes.post("/v1/fine_tuning/jobs/{job_id}/cancel", **change)
    def cancel_fine_tuning_job(job_id: str, user: User, nothing: Nothing | None = None) -> dict[str, Any]:
        """End a job for good, after its current step. Its checkpoints stay."""
        return shown(state.fine_tuning.cancel(user, job_id))

    @routes.post("/v1/fine_tuning/jobs/{job_id}/pause", **change)
    def pause_fine_tuning_job(job_id: str, user: User, nothing: Nothing | None = None) -> dict[str, Any]:
        """Let a job wait until it is resumed; others go on."""
        return shown(state.fine_tuning.pause(user, job_id))

    @routes.post("/v1/fine_tuning/jobs/{job_id}/resume", **change)
    def resume_fine_tuning_job(job_id: str, user: User, nothing: Nothing | None = None) -> dict[str, Any]:
        """Let a paused job go on from its last checkpoint, at the place in the queue that it had."""
        return shown(state.fine_tuning.resume(user, job_id))

    @routes.get(
        "/v1/fine_tuning/jobs/{job_id}/events",
        response_model=None,
        responses=openapi.replies(answered.FineTuningEventList, 400, 404),
    )
    def list_fine_tuning_events(job_id: str, user: User, limit: Limit = 20, after: After = None) -> dict[str, Any]:
        """List what happened to a job, newest first."""
        # One more than is shown, to know whether there are more: a long job has a great many.
        found = jobs.events(user, job_id, limit + 1, after)
        return page(found, limit, None, lambda event: event.id, event_object)

    @routes.get(
        "/v1/fine_tuning/jobs/{job_id}/checkpoints",
        response_model=None,
        responses=openapi.replies(answered.FineTuningCheckpointList, 400, 404),
    )
    def list_fine_tuning_checkpoints(job_id: str, user: User, limit: Limit = 10, after: After = None) -> dict[str, Any]:
        """List the models that a job made on its way, newest first."""
        return page(jobs.checkpoints(user, job_id), limit, after, lambda each: each.id, checkpoint_object)

    @routes.delete(
        "/v1/models/{model_id}", response_model=None, responses=openapi.replies(answered.ModelDeleted, 400, 404)
    )
    def delete_model(model_id: str, user: User) -> dict[str, Any]:
        """Delete a fine-tuned model, or a checkpoint's; replies that it is making end as they would."""
        model = jobs.model(user, model_id)
        if model is None:
            state.adapters.parse(user, model_id)  # raises for a model that does not exist
            raise InvalidInput(f"{model_id} is not a fine-tuned model: only these can be deleted.", "model")
        jobs.delete_model(user, model_id)
        gone = remove_unused(state.store, state.settings.data_dir, model)
        if gone is not None:
            state.engine.drop_adapter(gone)
        return {"id": model_id, "object": "model", "deleted": True}

    return routes


def job_object(job: Job, organization: str) -> dict[str, Any]:
    """OpenAI's fine_tuning.job object."""
    return {
        "id": job.id,
        "object": "fine_tuning.job",
        "created_at": int(job.created_at),
        "status": job.state,
        "model": job.model,
        "training_file": job.training_file,
        "validation_file": job.validation_file,
        "user_provided_suffix": job.suffix,
        "seed": job.seed,
        "method": dict(job.method),
        "hyperparameters": fine_tuning_recipe.hyperparameters(job.method),
        "metadata": None if job.metadata is None else dict(job.metadata),
        "integrations": [],
        "organization_id": organization,
        "error": None if job.error is None else dict(job.error),
        "fine_tuned_model": job.fine_tuned_model,
        "finished_at": _seconds(job.finished_at),
        "estimated_finish": _seconds(job.estimated_finish),
        "trained_tokens": job.trained_tokens,
        "result_files": [] if job.result_file is None else [job.result_file],
    }


def event_object(event: JobEvent) -> dict[str, Any]:
    """OpenAI's fine_tuning.job.event object."""
    return {
        "id": event.id,
        "object": "fine_tuning.job.event",
        "created_at": int(event.created_at),
        "level": event.level,
        "message": event.message,
        "type": event.type,
        "data": dict(event.data),
    }


def checkpoint_object(checkpoint: JobCheckpoint) -> dict[str, Any]:
    """OpenAI's fine_tuning.job.checkpoint object."""
    return {
        "id": checkpoint.id,
        "object": "fine_tuning.job.checkpoint",
        "created_at": int(checkpoint.created_at),
        "fine_tuned_model_checkpoint": checkpoint.model,
        "fine_tuning_job_id": checkpoint.job_id,
        "step_number": checkpoint.step,
        "metrics": dict(checkpoint.metrics),
    }


def _seconds(at: float | None) -> int | None:
    return None if at is None else int(at)


def _base_name(state: State, user: int, model: str) -> str:
    """The base model's name, when ``model`` means it. Raises NotForFineTuning."""
    base = state.engine.info.name
    if model in (model_ids.DEFAULT, "familiar:base", base, plain_part(base), state.settings.model):
        return base
    if state.store.fine_tuning.model(user, model) is not None:
        raise NotForFineTuning(
            f"{model} is a fine-tuned model, and training cannot go on from one: fine-tune familiar:base on the data "
            f"of both jobs.",
            "model",
        )
    raise NotForFineTuning(
        f"Model {model} is not available for fine-tuning or does not exist: use familiar:base, which is {base}.",
        "model",
    )


def _check_file(state: State, user: int, file_id: str | None, param: str) -> None:
    if file_id is None:
        return
    try:
        file = state.store.files.get(user, file_id)
    except NotFound as error:
        raise InvalidInput(str(error), param) from error
    if file.purpose != "fine-tune":
        raise InvalidInput(f"{file_id} has the purpose {file.purpose}, but fine-tune is needed: upload it so.", param)


def _metadata(request: Request) -> dict[str, str] | None:
    """What the query asks of a job's metadata: nothing (None), that it has none (empty), or these values."""
    wanted: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        found = _METADATA.fullmatch(name)
        if found:
            wanted[found[1]] = value
        elif name == "metadata" and value == "null":
            return {}
        elif name not in ("limit", "after"):
            raise InvalidInput(f"Unknown parameter: {name}. Leave it out.", name)
    return wanted or None


def _has(job: Job, wanted: dict[str, str]) -> bool:
    if not wanted:
        return job.metadata is None
    return job.metadata is not None and wanted.items() <= job.metadata.items()

"""``/v1/files``: training data for fine-tuning jobs, and the results of these."""

from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

from familiar.daemon import openapi
from familiar.daemon import schemas_files as answered
from familiar.daemon.files_store import FilesStore
from familiar.daemon.json_route import WireRoute
from familiar.daemon.pages import page
from familiar.daemon.schemas_files import FileQuery
from familiar.daemon.state import State
from familiar.daemon.uploads import uploaded
from familiar.memory.errors import InvalidInput, NotFound
from familiar.memory.finetuning_types import FilePurpose, StoredFile

PURPOSE = "fine-tune"
RESULTS = "fine-tune-results"

_FORM = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "properties": {
                "file": {"type": "string", "format": "binary", "description": "one JSON object a line"},
                "purpose": {"type": "string", "enum": [PURPOSE]},
            },
            "required": ["file", "purpose"],
        }
    }
}
_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def router(state: State) -> APIRouter:
    """The routes over one service's state."""
    routes = APIRouter(route_class=WireRoute)
    files = state.files
    User = Annotated[int, Depends(state.identify)]

    @routes.post(
        "/v1/files",
        response_model=None,
        responses=openapi.replies(answered.File, 400, 503, 507),
        openapi_extra={"requestBody": {"required": True, "content": _FORM}},
    )
    async def create_file(request: Request, user: User) -> dict[str, Any]:
        """Upload training data, as a form. Its lines are checked when a job is created with it."""
        async with uploaded(request) as (file, fields):
            purpose = _purpose(fields)
            stored = await run_in_threadpool(files.add, user, file.filename or "", purpose, file.file)
        return file_object(files, stored)

    @routes.get("/v1/files", response_model=None, responses=openapi.replies(answered.FileList, 400, 404))
    def list_files(asked: Annotated[FileQuery, Query()], user: User) -> dict[str, Any]:
        """List the user's files, the newest first."""
        known = asked.purpose in (None, PURPOSE, RESULTS)
        found = state.store.files.listed(user, cast(FilePurpose | None, asked.purpose)) if known else []
        found = found[::-1] if asked.order == "desc" else found
        return page(found, asked.limit, asked.after, lambda file: file.id, lambda file: file_object(files, file))

    @routes.get("/v1/files/{file_id}", response_model=None, responses=openapi.replies(answered.File, 404))
    def get_file(file_id: str, user: User) -> dict[str, Any]:
        """Describe one file."""
        return file_object(files, state.store.files.get(user, file_id))

    @routes.get(
        "/v1/files/{file_id}/content",
        response_class=FileResponse,
        responses=openapi.replies(None, 404, also=_BYTES),
    )
    def get_file_content(file_id: str, user: User) -> FileResponse:
        """Hand out a file's bytes."""
        file = state.store.files.get(user, file_id)
        path = files.path(file)
        if not path.is_file():
            raise NotFound(f"The content of {file_id} is not in this data folder: upload it again.", "file_id")
        return FileResponse(path, media_type="application/octet-stream", filename=file.filename)

    @routes.delete("/v1/files/{file_id}", response_model=None, responses=openapi.replies(answered.FileDeleted, 404))
    def delete_file(file_id: str, user: User) -> dict[str, Any]:
        """Delete a file. A job that waits and needs it will fail."""
        files.delete(user, file_id)
        return {"id": file_id, "object": "file", "deleted": True}

    return routes


def file_object(files: FilesStore, file: StoredFile) -> dict[str, Any]:
    """OpenAI's file object."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": files.size(file),
        "created_at": int(file.created_at),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
        "expires_at": None,
    }


def _purpose(fields: dict[str, str]) -> FilePurpose:
    """The purpose of an upload. Raises InvalidInput for any other, and for a field that would be without effect."""
    purpose = fields.pop("purpose", None)
    if purpose is None:
        raise InvalidInput(f"Missing required parameter: purpose. Send `{PURPOSE}`.", "purpose")
    if purpose != PURPOSE:
        raise InvalidInput(
            f'This service has no use for files of the purpose "{purpose}": send `{PURPOSE}`.', "purpose"
        )
    for name in fields:
        raise InvalidInput(f"This service does not support {name}: leave it out.", name)
    return "fine-tune"

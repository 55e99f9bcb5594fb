"""``/v1/data``: everything that the asking user owns, out of this store as JSON lines, and into it.

Both are streamed: neither side has to hold the whole. What is left out: the files of adapters, see ``cli_data``.
"""

import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, BinaryIO, cast

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from familiar.adapters.folders import disk_errors
from familiar.daemon import openapi
from familiar.daemon.json_route import WireRoute
from familiar.daemon.schemas_data import DataImported, ExportQuery, ImportQuery
from familiar.daemon.state import State

MEDIA_TYPE = "application/x-ndjson"
_LINES = {MEDIA_TYPE: {"schema": {"type": "string", "description": "one JSON object a line"}}}
_CHUNK_BYTES = 1 << 16


def router(state: State) -> APIRouter:
    """The routes over one service's state."""
    routes = APIRouter(route_class=WireRoute)
    User = Annotated[int, Depends(state.identify)]

    @routes.get(
        "/v1/data/export", response_class=StreamingResponse, responses=openapi.replies(None, 400, 503, also=_LINES)
    )
    def export_data(user: User, asked: Annotated[ExportQuery, Query()]) -> StreamingResponse:
        """Hand out everything that the user owns, as it is at this moment."""
        headers = {"content-disposition": 'attachment; filename="familiar.jsonl"'}
        return StreamingResponse(_chunks(state, user), media_type=MEDIA_TYPE, headers=headers)

    @routes.post(
        "/v1/data/import",
        response_model=None,
        responses=openapi.replies(DataImported, 400, 503, 507),
        openapi_extra={"requestBody": {"required": True, "content": _LINES}},
    )
    async def import_data(request: Request, user: User, asked: Annotated[ImportQuery, Query()]) -> dict[str, Any]:
        """Add an export to what the user has: all of it or nothing, and a second time changes nothing."""
        with disk_errors(Path(tempfile.gettempdir())), tempfile.TemporaryFile() as file:
            async for chunk in request.stream():
                file.write(chunk)
            file.seek(0)
            lines = cast(BinaryIO, file)
            report = await run_in_threadpool(state.store.import_data, user, lines, anyones=asked.anyones)
        return {
            "object": "data.imported",
            "added": dict(report.added),
            "known": dict(report.known),
            "renamed": report.renamed,
        }

    return routes


def _chunks(state: State, user: int) -> Iterator[bytes]:
    """The export's lines in larger pieces: each piece is a turn of a worker thread."""
    held = bytearray()
    with closing(state.store.export(user)) as lines:
        for line in lines:
            held += line
            if len(held) >= _CHUNK_BYTES:
                yield bytes(held)
                held.clear()
    yield bytes(held)

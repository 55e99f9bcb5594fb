"""A form with one file, as clients upload it: read as it comes, and refused as soon as it is too large."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.types import Message

from familiar.daemon.files_store import MAX_FILE_BYTES, TooLarge
from familiar.memory.errors import InvalidInput

_AROUND_BYTES = 1_000_000
"""As much as a form may have beside its file."""


@asynccontextmanager
async def uploaded(request: Request) -> AsyncIterator[tuple[UploadFile, dict[str, str]]]:
    """The file of the form's field ``file``, and the other fields by name.

    What is larger than a megabyte lies in an unnamed file of the system's temporary folder meanwhile. Raises TooLarge,
    InvalidInput for what is no such form.
    """
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > MAX_FILE_BYTES + _AROUND_BYTES:
            raise TooLarge
        return message

    if int(request.headers.get("content-length") or 0) > MAX_FILE_BYTES + _AROUND_BYTES:
        raise TooLarge
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise InvalidInput("Files are sent as a form: use Content-Type: multipart/form-data.", "file")
    limited = Request(request.scope, receive)
    try:
        async with limited.form(max_files=1, max_fields=16) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise InvalidInput("The form has no file: send one in its field `file`.", "file")
            yield file, {name: value for name, value in form.multi_items() if isinstance(value, str)}
    except (MultiPartException, HTTPException) as error:
        detail = error.detail if isinstance(error, HTTPException) else error.message
        raise InvalidInput(f"The form cannot be read ({detail}): send it as multipart/form-data does.") from error

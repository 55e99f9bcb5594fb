"""What may be asked of ``/v1/files``, and what it answers."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from familiar.daemon.schemas_replies import Reply

MAX_FILES_LISTED = 10_000


class FileQuery(BaseModel):
    """The query of ``GET /v1/files``. Its numbers are text in the address, so types are not as strict as in JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    purpose: Annotated[str | None, Field(description="only files of this purpose")] = None
    limit: Annotated[int, Field(ge=1, le=MAX_FILES_LISTED)] = MAX_FILES_LISTED
    after: Annotated[str | None, Field(description="the last_id of the page before")] = None
    order: Literal["asc", "desc"] = "desc"


class File(Reply):
    """A file: training data that was uploaded, or the results of a job."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    filename: str
    purpose: Literal["fine-tune", "fine-tune-results"]
    status: Literal["processed"]
    status_details: None
    expires_at: None


class FileList(Reply):
    """A page of files, the newest first unless asked otherwise."""

    object: Literal["list"]
    data: list[File]
    first_id: str | None
    last_id: Annotated[str | None, Field(description="what the next page comes after")]
    has_more: bool


class FileDeleted(Reply):
    """A file is gone."""

    id: str
    object: Literal["file"]
    deleted: Literal[True]

"""What may be asked of ``/v1/memories``: which to list or look for; the bodies that state, change and forget them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from familiar.daemon.schemas import Wire
from familiar.memory.types import MemoryKind, Scope

MAX_LISTED = 1000
MAX_FORGOTTEN = 1000


class MemoryQuery(BaseModel):
    """The query of ``GET /v1/memories``. Its numbers are text in the address, so types are not as strict as in JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    query: Annotated[str | None, Field(description="look for this; without it, list")] = None
    kind: MemoryKind | None = None
    state: Literal["active", "superseded", "evicted", "all"] = "active"
    limit: Annotated[int, Field(ge=1, le=MAX_LISTED, description="at most so many")] = 100
    after: Annotated[str | None, Field(description="the last_id of the page before")] = None


class MemoryRequest(Wire):
    """``POST /v1/memories``. A null is a field not given; what kind of memory it is, and its scope, then follow from
    the text."""

    text: Annotated[str, Field(description="the rule, the fact, or the reply that is wanted")]
    prompt: Annotated[str | None, Field(description="of an example: the message that it answers")] = None
    kind: MemoryKind | None = None
    scope: Scope | None = None
    conversation_id: Annotated[str | None, Field(description="where it applies; alone, it sets the scope")] = None
    pinned: bool | None = None


class MemoryChange(Wire):
    """``PATCH /v1/memories/{id}``: what is to be otherwise. A null is a field not given."""

    text: str | None = None
    prompt: str | None = None
    kind: MemoryKind | None = None
    scope: Scope | None = None
    conversation_id: str | None = None
    pinned: bool | None = None
    state: Annotated[Literal["active"] | None, Field(description="brings back a superseded or evicted one")] = None


class ForgetRequest(Wire):
    """``POST /v1/memories/forget``: those of these ids, or those that hold all words of the query."""

    ids: Annotated[list[str], Field(min_length=1, max_length=MAX_FORGOTTEN)] | None = None
    query: str | None = None
    dry_run: Annotated[bool, Field(description="only say which would go")] = False

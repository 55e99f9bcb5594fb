"""Storing what a file of the inbox says, a row at a time, by the rules of the API and each row once."""

import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from familiar.daemon import feedback_service
from familiar.daemon.schemas import FeedbackRequest, Wire
from familiar.daemon.schemas_chat import ChatMessage
from familiar.daemon.wire_errors import described
from familiar.feedback import drafts
from familiar.feedback.drafts import Draft
from familiar.feedback.inbox_row import Row
from familiar.memory.errors import InvalidInput
from familiar.memory.redact import FORGOTTEN
from familiar.memory.store import Store
from familiar.memory.types import Exchange, Trust

SOURCE = "inbox"
IMPORTED_MODEL = "import"
"""The model of an exchange that a row brought along: whoever answered it, it was not this service."""

Stored = Literal["stored", "known", "unchanged"]
"""Whether a row was new, had been stored before, or says nothing new."""


class _Said(Wire):
    """A row's own conversation, as a chat request has its messages."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    completion: str


def store_row(store: Store, user_id: int, row: Row, now: float) -> Stored:
    """Store what a row says. ``now``: seconds since the epoch.

    A row with its own conversation is about the reply that was logged to it, if one is the same, and else about a new
    exchange. Raises ``InvalidInput`` or ``NotFound`` for a row that cannot be used, with the API's messages, and
    ``Busy`` or ``NoSpace`` when the store cannot be written.
    """
    at = now if row.said_at is None else min(row.said_at, now)
    try:
        request = FeedbackRequest.model_validate(dict(row.fields))
        own = row.messages is not None
        said = _Said.model_validate({"messages": row.messages, "completion": row.completion}) if own else None
    except ValidationError as error:
        first = error.errors()[0]
        param, _, message = described(first, first["loc"])
        raise InvalidInput(message, param) from error
    exchange = None if said is None else _exchange(store, user_id, said, at)
    return _record(store, user_id, request, at, row.trust, exchange)


def store_draft(store: Store, user_id: int, draft: Draft, now: float) -> Stored:
    """Store an edited draft as a correction of the reply that it was written from.

    Raises ``InvalidInput`` for a draft that names no completion or has no text, ``NotFound`` for one of no reply of the
    user's, and ``Busy`` or ``NoSpace`` when the store cannot be written.
    """
    if draft.completion_id is None:
        raise InvalidInput(
            "it names no completion, neither in its first line nor in its name: put back the first line of the draft"
        )
    exchange = store.exchange(user_id, draft.completion_id)
    # What was forgotten is taken out of drafts too, which is no edit of the user's.
    if FORGOTTEN in draft.body or drafts.same(draft.body, exchange.completion):
        return "unchanged"
    request = FeedbackRequest(completion_id=exchange.id, correction=draft.body)
    return _record(store, user_id, request, now, "stated", None)


def _record(
    store: Store, user_id: int, request: FeedbackRequest, at: float, trust: Trust, exchange: Exchange | None
) -> Stored:
    key = _key(request, request.completion_id if exchange is None else exchange.id)
    if store.has_feedback(user_id, key):
        return "known"
    feedback_service.record(store, user_id, request, at, source=SOURCE, trust=trust, key=key, exchange=exchange)
    return "stored"


def _exchange(store: Store, user_id: int, said: _Said, at: float) -> Exchange:
    """The logged exchange that a row is about, or the one to be made of it, whose id is the same each time."""
    messages = tuple(message.message for message in said.messages)
    completion = said.completion.strip()
    for logged in store.replies_to(user_id, messages):
        if logged.completion.strip() == completion:
            return logged
    id = f"chatcmpl-{_sha256([user_id, messages, completion])[:24]}"
    return Exchange(id, user_id, at, IMPORTED_MODEL, messages, completion)


def _key(request: FeedbackRequest, exchange_id: str | None) -> str:
    """Names what is said, however it is written down."""
    given = request.model_dump(exclude_none=True, exclude={"completion_id"})
    said = {name: value.strip() if isinstance(value, str) else value for name, value in given.items()}
    if "rating" in said:
        said["rating"] = feedback_service.RATINGS[said["rating"]]
    return f"{SOURCE}:{_sha256([exchange_id, {name: value for name, value in said.items() if value != ''}])}"


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

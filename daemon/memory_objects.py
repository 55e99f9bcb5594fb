"""Memories as JSON objects, the same for the API and for ``--json`` in the terminal. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from familiar.feedback.signals import last_user_message
from familiar.memory.forgetting import Forgotten
from familiar.memory.types import Exchange, Feedback, Memory, Reason, Used

WHY: Mapping[Reason, str] = {
    "always": "applies always",
    "pinned": "is pinned",
    "conversation": "belongs to this conversation",
    "same prompt": "answers the same request",
    "words": "shares words with the request",
    "meaning": "means something like the request",
    "words and meaning": "shares words with the request and means something like it",
    "learnt": "is followed by the adapter, not in the prompt",
}
"""The reasons for showing a memory, or for not having to, as what is said of the memory."""
NOWHERE: Mapping[str, int] = {}
"""What no adapter follows untold: so is all that was said or changed a moment ago."""
FORGOTTEN = "forgotten"
"""The state of a memory that is no more: its id is all that is left of it."""


def memory_object(memory: Memory, consolidated: Mapping[str, int] = NOWHERE, **more: Any) -> dict[str, Any]:
    """A memory as it is now, with whatever ``more`` is to be said of it.

    ``consolidated`` gives the version in service by the ids of the memories that it follows untold.
    """
    return {
        "object": "memory",
        "id": memory.id,
        "kind": memory.kind,
        "text": memory.text,
        "prompt": memory.prompt,
        "scope": memory.scope,
        "conversation_id": memory.conversation_id,
        "pinned": memory.pinned,
        "state": memory.state,
        "superseded_by": memory.superseded_by,
        "consolidated_in": consolidated.get(memory.id),
        "source": memory.source,
        "feedback_id": memory.feedback_id,
        "created": int(memory.created_at),
        "ended": _seconds(memory.ended_at),
        "uses": memory.uses,
        "last_used": _seconds(memory.last_used_at),
        **more,
    }


def list_object(data: Sequence[dict[str, Any]], *, has_more: bool = False) -> dict[str, Any]:
    """A page of a list, as OpenAI's are: ``last_id`` is what the next page comes after."""
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return {"object": "list", "data": list(data), **ends, "has_more": has_more}


def detail_object(
    memory: Memory,
    completion_id: str | None,
    history: Sequence[Memory],
    uses: Sequence[tuple[Exchange, Used]],
    consolidated: Mapping[str, int],
) -> dict[str, Any]:
    """One memory with the reply that it came from, its ``history`` (oldest first), and its last ``uses``."""
    shown_in = [
        {
            "completion_id": exchange.id,
            "created": int(exchange.created_at),
            "model": exchange.model,
            "prompt": last_user_message(exchange.messages),
            **_reason(used),
        }
        for exchange, used in uses
    ]
    return memory_object(
        memory,
        consolidated,
        completion_id=completion_id,
        history=[memory_object(each, consolidated) for each in history],
        shown_in=shown_in,
    )


def why_object(exchange: Exchange, memories: Mapping[str, Memory], consolidated: Mapping[str, int]) -> dict[str, Any]:
    """What a reply was made with, and why. ``memories`` are those of its memories that are still there, by id."""
    return {
        "object": "exchange.why",
        "id": exchange.id,
        "created": int(exchange.created_at),
        "model": exchange.model,
        "adapter_version": exchange.adapter_version,
        "prompt": last_user_message(exchange.messages),
        "memories": shown_objects(exchange, memories, consolidated),
    }


def shown_objects(
    exchange: Exchange, memories: Mapping[str, Memory], consolidated: Mapping[str, int]
) -> list[dict[str, Any]]:
    """The memories that applied to a reply, as they are now, with why: those shown, in order, then those learnt."""
    shown = []
    for used in exchange.used:
        memory = memories.get(used.memory_id)
        gone = {"object": "memory", "id": used.memory_id, "state": FORGOTTEN}
        shown.append({**(memory_object(memory, consolidated) if memory else gone), **_reason(used)})
    return shown


def forgotten_object(report: Forgotten) -> dict[str, Any]:
    """What forgetting came to."""
    return {
        "memory_ids": list(report.memory_ids),
        "feedback_ids": list(report.feedback_ids),
        "redacted_exchanges": report.exchanges,
        "redacted_rows": report.others,
        "cleaned_backups": report.backups,
        "cleaned_files": report.files,
        "adapter_versions": list(report.versions),
        "left": list(report.left),
        "finished": report.finished,
    }


def guess_object(guess: Feedback) -> dict[str, Any]:
    """What was read from what the user did, and whether it still waits for a yes or a no."""
    return {
        "object": "feedback",
        "id": guess.id,
        "kind": guess.kind,
        "state": guess.state,
        "text": guess.text,
        "completion_id": guess.exchange_id,
        "source": guess.source,
        "created": int(guess.created_at),
    }


def _reason(used: Used) -> dict[str, Any]:
    score = None if used.score is None else round(used.score, 3)
    match = "" if score is None else f" (score {score:.2f})"
    return {"reason": used.reason, "score": score, "why": f"{WHY[used.reason]}{match}"}


def _seconds(at: float | None) -> int | None:
    return None if at is None else int(at)

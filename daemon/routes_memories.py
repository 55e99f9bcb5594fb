"""``/v1/memories``: what is remembered, to list, search, state, change and forget; and why a reply used what it used.

Each is the asking user's own: the id of somebody else's is answered as one that never was.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from familiar.daemon import memory_service, openapi
from familiar.daemon import schemas_own_replies as answered
from familiar.daemon.json_route import WireRoute
from familiar.daemon.memory_objects import forgotten_object, list_object, memory_object
from familiar.daemon.schemas_memories import ForgetRequest, MemoryChange, MemoryQuery, MemoryRequest
from familiar.daemon.state import State
from familiar.memory.errors import InvalidInput, NotFound
from familiar.memory.types import Memory

_LOOKED_AT = 500
"""Memories that a search of one kind is chosen from."""


def router(state: State) -> APIRouter:
    """The routes over one service's state."""
    routes = APIRouter(route_class=WireRoute)
    User = Annotated[int, Depends(state.identify)]

    @routes.get("/v1/memories", response_model=None, responses=openapi.replies(answered.MemoryList, 400, 404))
    def list_memories(asked: Annotated[MemoryQuery, Query()], user: User) -> dict[str, Any]:
        """List what is remembered, oldest first, or search it, best first."""
        states = memory_service.STATES[asked.state]
        carried = memory_service.consolidated(state.store, user)
        if asked.query is None:
            memories = state.store.memories(user, asked.kind, states=states)
            page, has_more = _page(memories, asked.limit, asked.after)
            return list_object([memory_object(each, carried) for each in page], has_more=has_more)
        if asked.after is not None:
            raise InvalidInput("A search is one page: leave after out, or raise the limit.", "after")
        if asked.state == "active":
            # As recall finds them, by what they mean too.
            alike = state.recaller.search(user, asked.query, _LOOKED_AT)
            found = [(each.memory, each.score) for each in alike if asked.kind in (None, each.memory.kind)]
        else:
            found = state.store.search_memories(user, asked.query, asked.limit, asked.kind, states=states)
        return list_object(
            [memory_object(memory, carried, score=round(score, 4)) for memory, score in found[: asked.limit]]
        )

    @routes.post(
        "/v1/memories", response_model=None, responses=openapi.replies(answered.Memory, 400, 404, 415, 503, 507)
    )
    def create_memory(asked: MemoryRequest, user: User) -> dict[str, Any]:
        """State something to remember, from the next request on. Said before, it keeps its id and is the latest."""
        memory = memory_service.remember(
            state.store,
            user,
            asked.text,
            state.clock(),
            source="api",
            prompt=asked.prompt,
            kind=asked.kind,
            scope=asked.scope,
            conversation_id=asked.conversation_id,
            pinned=bool(asked.pinned),
        )
        return memory_object(memory)

    @routes.post(
        "/v1/memories/forget",
        response_model=None,
        responses=openapi.replies(answered.MemoriesForgotten, 400, 404, 415, 503, 507),
    )
    def forget_memories(asked: ForgetRequest, user: User) -> dict[str, Any]:
        """Forget these memories, or those that hold every word of the query: all of them, or none where it fails."""
        if (asked.ids is None) == (asked.query is None):
            have = "neither" if asked.ids is None else "both"
            raise InvalidInput(f"Either ids or a query says what to forget, but this has {have}: send one.", "ids")
        if asked.ids is not None:
            memories = [state.store.memory(user, id) for id in dict.fromkeys(asked.ids)]
        else:
            memories = memory_service.matching(state.store, user, asked.query or "")
        carried = memory_service.consolidated(state.store, user)
        left_alone = asked.dry_run or not memories
        report = None if left_alone else state.store.forget(user, [memory.id for memory in memories])
        return {
            "object": "memory.forgotten",
            "dry_run": asked.dry_run,
            "data": [memory_object(memory, carried) for memory in memories],
            "report": forgotten_object(report) if report else None,
        }

    @routes.get("/v1/memories/{memory_id}", response_model=None, responses=openapi.replies(answered.MemoryDetail, 404))
    def get_memory(memory_id: str, user: User) -> dict[str, Any]:
        """Show one memory with its history, where it came from, and the last replies that it was shown for."""
        return memory_service.detail(state.store, user, memory_id)

    @routes.patch(
        "/v1/memories/{memory_id}",
        response_model=None,
        responses=openapi.replies(answered.Memory, 400, 404, 415, 503, 507),
    )
    def change_memory(memory_id: str, asked: MemoryChange, user: User) -> dict[str, Any]:
        """Change, pin or restore a memory; the next request gets it as it is then."""
        given = asked.model_dump(exclude={"state"})
        restore = asked.state is not None
        return memory_object(
            memory_service.change(state.store, user, memory_id, state.clock(), restore=restore, **given)
        )

    @routes.delete(
        "/v1/memories/{memory_id}",
        response_model=None,
        responses=openapi.replies(answered.MemoryDeleted, 404, 503, 507),
    )
    def delete_memory(memory_id: str, user: User) -> dict[str, Any]:
        """Forget one memory; the next request no longer gets it."""
        report = state.store.forget(user, [memory_id])
        return {"object": "memory.deleted", "id": memory_id, "deleted": True, "report": forgotten_object(report)}

    @routes.get(
        "/v1/exchanges/{completion_id}/why",
        response_model=None,
        responses=openapi.replies(answered.ExchangeWhy, 404),
    )
    def get_why(completion_id: str, user: User) -> dict[str, Any]:
        """Show which memories a reply was made with, why each was shown, and what became of it since."""
        return memory_service.why(state.store, state.store.exchange(user, completion_id))

    return routes


def _page(memories: Sequence[Memory], limit: int, after: str | None) -> tuple[Sequence[Memory], bool]:
    """So many of the memories, from behind the one named ``after``; and whether there are more."""
    start = 0
    if after is not None:
        ids = [memory.id for memory in memories]
        if after not in ids:
            raise NotFound(f'This list has no memory with the id "{after}": send the last_id of a page of it.', "after")
        start = ids.index(after) + 1
    return memories[start : start + limit], len(memories) > start + limit

"""Pages of a list, by the id that the next one comes after. Pure."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from familiar.memory.errors import NotFound

T = TypeVar("T")


def page(
    items: Sequence[T], limit: int, after: str | None, id_of: Callable[[T], str], shown: Callable[[T], dict[str, Any]]
) -> dict[str, Any]:
    """OpenAI's list object of at most ``limit`` items from behind the one named ``after``.

    Raises NotFound (``after``) when the list has no such item.
    """
    start = 0
    if after is not None:
        ids = [id_of(item) for item in items]
        if after not in ids:
            raise NotFound(f'This list has nothing with the id "{after}": send the last_id of a page of it.', "after")
        start = ids.index(after) + 1
    data = [shown(item) for item in items[start : start + limit]]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(items) > start + limit,
    }

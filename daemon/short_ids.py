"""Ids as people type them: the beginning of one is enough where no other begins alike. Pure."""

from collections.abc import Sequence

from familiar.memory.errors import InvalidInput, NotFound

SHORTEST = len("mem-1234")
LAST = "last"
_NAMED = 3


def shortened(ids: Sequence[str]) -> dict[str, str]:
    """The shortest beginning of each id that means no other of them, but no shorter than ``SHORTEST``."""
    ordered = sorted(ids)
    short = {}
    for before, id, after in zip(["", *ordered], ordered, [*ordered[1:], ""], strict=False):
        shared = max(_shared(id, before), _shared(id, after))
        short[id] = id[: max(SHORTEST, shared + 1)]
    return short


def pick(ids: Sequence[str], wanted: str, *, what: str, param: str, listed_by: str) -> str:
    """The one of ``ids`` (oldest first) that ``wanted`` means: a whole id, the beginning of one alone, or "last".

    The letters before the dash may be left out. Raises ``NotFound`` or ``InvalidInput`` for ``param``, in words that
    call an id's thing ``what`` and say that ``listed_by`` lists them.
    """
    if not wanted:
        raise InvalidInput(f"The id of the {what} is empty: {listed_by} lists them.", param)
    if wanted == LAST and ids:
        return ids[-1]
    if wanted in ids:
        return wanted
    found = [id for id in ids if id.startswith(wanted) or id.partition("-")[2].startswith(wanted)]
    if not found:
        raise NotFound(f'No {what} has an id that begins with "{wanted}": {listed_by} lists them.', param)
    if len(found) > 1:
        named = ", ".join(found[:_NAMED]) + (", …" if len(found) > _NAMED else "")
        raise InvalidInput(f'"{wanted}" begins the ids of {len(found)} of these ({named}): give more of it.', param)
    return found[0]


def _shared(one: str, other: str) -> int:
    """How many letters two ids begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))

"""Leaving out the oldest part of a conversation that outgrows the context. Pure."""

from bisect import bisect_left
from collections.abc import Callable, Sequence

from familiar.memory.types import Message

_LEAST_ROOM_SHARE = 4


def reply_room(context_tokens: int, max_tokens: int | None) -> int:
    """How many tokens of the context to leave for the reply: what was asked for, but at most a quarter of it."""
    most = context_tokens // _LEAST_ROOM_SHARE
    return max(1, most if max_tokens is None else min(max_tokens, most))


def trimmed(messages: Sequence[Message], fits: Callable[[Sequence[Message]], bool]) -> Sequence[Message]:
    """The messages without the fewest oldest turns that make them fit: a turn begins with a user message.

    What fits is taken to fit without its oldest turn too, so that few lengths are tried. System messages and the last
    turn always stay; where even these do not fit they are returned all the same, for the caller to refuse.
    """
    if fits(messages):
        return messages
    system = [message for message in messages if message["role"] == "system"]
    others = [message for message in messages if message["role"] != "system"]
    starts = [index for index, message in enumerate(others) if message["role"] == "user"] or [0]
    if starts[0] != 0:
        starts.insert(0, 0)
    # The first turn alone is never right: with it the messages are whole. The last stays, whether it fits or not.
    first = bisect_left(starts[1:-1], True, key=lambda start: fits([*system, *others[start:]]))
    return [*system, *others[[*starts[1:-1], starts[-1]][first] :]]

"""The same conversation asked again: a weak sign that the reply before was not what was wanted. Pure.

It says of the earlier reply that it was worse than another, not what was wrong, so it makes no memory. Programs ask the
same again for other reasons, which is why most of what is here says when it is no sign.
"""

from collections.abc import Mapping, Sequence

from familiar.memory.replies import Reply
from familiar.memory.types import Exchange, Message

WITHIN_S = 3600.0
"""The same question on another day is another conversation."""


def candidate(replies: Sequence[Reply], *, model: str, sampling: Mapping[str, object], now: float) -> Reply | None:
    """The newest reply to the same turns of the user that a request may be asking to replace, if any.

    ``replies`` are newest first. A reply that never came to its end was not judged; another model is asked to compare;
    a given seed is there to repeat a reply; and several choices at once are there to choose from.
    """
    newest = next(iter(replies), None)
    if newest is None or "seed" in sampling or ":" in newest.exchange_id:
        return None
    if newest.model != model or newest.finish_reason in ("cancelled", "error") or now - newest.created_at > WITHIN_S:
        return None
    return newest


def is_asked_again(messages: Sequence[Message], earlier: Exchange) -> bool:
    """Whether the request is the earlier one word for word: after an edit the reply may well differ."""
    return "seed" not in earlier.sampling and list(map(_plain, messages)) == list(map(_plain, earlier.messages))


def _plain(message: Message) -> tuple[str, str]:
    return message["role"], " ".join(message["content"].split())

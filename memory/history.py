"""How a request is known again: by what the user said in it. Pure.

A client sends the whole conversation with every request, and some change it on the way: they add a system message, trim
white space, or let the user edit a reply. What the user said stays, so that alone names a point in a conversation.
"""

import hashlib
import json
from collections.abc import Sequence

from familiar.memory.types import Message

_NOTHING_SAID = hashlib.sha256().hexdigest()


def user_turns(messages: Sequence[Message]) -> list[str]:
    """What the user said, turn by turn, white space folded."""
    return [" ".join(turn["content"].split()) for turn in messages if turn["role"] == "user"]


def history_key(messages: Sequence[Message]) -> str:
    """Names what the user said in ``messages``: equal whatever the system and the assistant said in between."""
    return next(reversed(history_keys(messages)), _NOTHING_SAID)


def history_keys(messages: Sequence[Message]) -> list[str]:
    """The ``history_key`` up to each turn of the user's, in order."""
    digest, keys = hashlib.sha256(), []
    for turn in user_turns(messages):
        # A lone surrogate cannot be encoded; as JSON escapes it can, and the store refuses it later by name.
        digest.update(json.dumps(turn).encode())
        keys.append(digest.hexdigest())
    return keys


def previous_key(messages: Sequence[Message]) -> str | None:
    """The ``history_key`` that the request before this one had; None where the user has spoken once, or not at all."""
    keys = history_keys(messages)
    return keys[-2] if len(keys) > 1 else None


def last_reply(messages: Sequence[Message]) -> str | None:
    """What the assistant said last, by what the client sent."""
    return next((turn["content"] for turn in reversed(messages) if turn["role"] == "assistant"), None)

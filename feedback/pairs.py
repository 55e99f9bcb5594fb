"""From stored signals to training examples. Pure.

What is left out: rules, which have no prompt.
"""

import hashlib
from collections.abc import Container, Sequence
from dataclasses import dataclass

from familiar.feedback.signals import last_user_message
from familiar.memory.types import Exchange, Feedback, Message
from familiar.memory.words import same_words_key

LESSON = "lesson"
"""The group of examples that memories make: what the model says when it is told them."""
PRACTICE = "practice"
"""The group of examples that a habit makes: replies of the model, as the user would have them."""
MADE_GROUPS = frozenset((LESSON, PRACTICE))
"""The groups of examples that are not the user's own words."""

_COMPARED = ("correction", "preference")


@dataclass(frozen=True)
class Example:
    """One prompt with the reply that the user wants and, if there was one, the reply that they got.

    ``id`` is the feedback's. ``messages`` is the prompt as the client sent it, without the memories that were added:
    the adapter is to do without them. Examples of one ``group`` ask the same and must not be parted between training
    and held-out data; those of ``MADE_GROUPS`` are made, and each has a prompt of its own.
    """

    id: str
    messages: tuple[Message, ...]
    chosen: str
    rejected: str | None
    group: str


def examples(rows: Sequence[tuple[Feedback, Exchange | None]]) -> list[Example]:
    """The examples in signals given oldest first: corrections and preferences, by when their exchange was first
    spoken of.

    The last word on an exchange counts: a later correction or preference replaces an earlier one. Text of another
    origin than the user (trust ``untrusted``) never trains, nor does a signal whose exchange is gone, nor a
    conversation in which tools took part: what they said is not the user's, and which they were is not stored.
    """
    latest: dict[str, Example] = {}
    for feedback, exchange in rows:
        if feedback.kind not in _COMPARED or feedback.trust == "untrusted":
            continue
        if exchange is None or not feedback.text or used_tools(exchange.messages):
            continue
        latest[exchange.id] = Example(
            id=feedback.id,
            messages=exchange.messages,
            chosen=feedback.text,
            rejected=exchange.completion if exchange.completion.strip() else None,
            group=group_of(exchange.messages),
        )
    return list(latest.values())


def groups(rows: Sequence[tuple[Feedback, Exchange | None]], ids: Container[str]) -> frozenset[str]:
    """The groups of the corrections and preferences with these ids, whatever was said about their exchange since."""
    found = ((feedback, exchange) for feedback, exchange in rows if feedback.id in ids)
    return frozenset(group_of(about.messages) for feedback, about in found if about and feedback.kind in _COMPARED)


@dataclass(frozen=True)
class Rating:
    """A reply that the user called good or bad, with nothing to compare it with. ``id`` is the feedback's."""

    id: str
    messages: tuple[Message, ...]
    reply: str
    desirable: bool


def ratings(rows: Sequence[tuple[Feedback, Exchange | None]]) -> list[Rating]:
    """The ratings in signals given oldest first, the last one of each exchange, under the same rules as ``examples``.

    A reply that was corrected as well is left out: the correction says more.
    """
    corrected = {
        exchange.id
        for feedback, exchange in rows
        if exchange and feedback.kind in _COMPARED and feedback.trust != "untrusted"
    }
    latest: dict[str, Rating] = {}
    for feedback, exchange in rows:
        if feedback.kind != "rating" or not feedback.rating or feedback.trust == "untrusted":
            continue
        if exchange is None or exchange.id in corrected or used_tools(exchange.messages):
            continue
        if exchange.completion.strip():
            good = feedback.rating > 0
            latest[exchange.id] = Rating(feedback.id, exchange.messages, exchange.completion, good)
    return list(latest.values())


def used_tools(messages: Sequence[Message]) -> bool:
    """Whether a conversation has a tool in it: what is said there is not the user's to teach."""
    return any(message["role"] == "tool" or message.get("tool_calls") for message in messages)


def group_of(messages: Sequence[Message]) -> str:
    """The same for prompts that ask the same."""
    return hashlib.sha256(same_words_key(last_user_message(messages)).encode()).hexdigest()[:16]

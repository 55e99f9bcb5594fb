"""What the user says about a reply, checked and turned into the rows that it becomes. Pure: nothing is stored here.

The memories are named after the feedback. Texts are kept without the white space around them. Every function raises
``InvalidInput``, whose ``param`` is ``text``, ``note`` or ``rating``. What is left out: finding signals in a client's
history.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from familiar.memory.errors import InvalidInput
from familiar.memory.scope import default_scope, kind_of
from familiar.memory.types import Exchange, Feedback, FeedbackKind, Memory, MemoryKind, Message, Scope, Trust

MAX_CHARS = 32_000
"""The longest text or note. Longer ones are files, which are no correction, and would never fit a prompt."""


@dataclass(frozen=True)
class Origin:
    """A signal's id (``fb-…``), when it was given (seconds since the epoch), by which door, and whose words it is."""

    id: str
    now: float
    source: str = "api"
    trust: Trust = "stated"


@dataclass(frozen=True)
class Signal:
    """One signal and the memories that it makes, to be stored together."""

    feedback: Feedback
    memories: tuple[Memory, ...]


def correction(origin: Origin, exchange: Exchange, text: str, note: str | None = None) -> Signal:
    """``text`` is what the reply should have been; ``note`` states the rule behind it, if there is one.

    Gives an example memory (the last user message with the right reply) and, for a note, one that states it.
    """
    text = _reply(exchange, text, "corrected")
    note = _note(note)
    prompt = last_user_message(exchange.messages)
    memories = _noted(origin, exchange.user_id, note)
    if prompt:
        scope = default_scope("example", text)
        example = _memory(origin, exchange.user_id, "example", text, scope, prompt=prompt)
        memories = (example, *memories)
    return Signal(_feedback(origin, "correction", exchange, text=text, note=note), memories)


def rating(origin: Origin, exchange: Exchange, value: int, note: str | None = None) -> Signal:
    """``value`` is +1 or -1 for the reply as a whole. Gives a memory only for a note."""
    if value not in (1, -1):
        raise InvalidInput(f"A rating is 1 (good) or -1 (bad), not {value}.", "rating")
    note = _note(note)
    memories = _noted(origin, exchange.user_id, note)
    return Signal(_feedback(origin, "rating", exchange, rating=int(value), note=note), memories)


def preference(origin: Origin, exchange: Exchange, text: str, note: str | None = None) -> Signal:
    """``text`` is another reply that the user likes better. Gives a memory only for a note."""
    text = _reply(exchange, text, "preferred")
    note = _note(note)
    memories = _noted(origin, exchange.user_id, note)
    return Signal(_feedback(origin, "preference", exchange, text=text, note=note), memories)


def rule(
    origin: Origin,
    user_id: int,
    text: str,
    *,
    kind: MemoryKind | None = None,
    scope: Scope | None = None,
    conversation_id: str | None = None,
) -> Signal:
    """``text`` is what the user states for the replies to come: a rule, or a fact. Gives a memory of it.

    ``kind`` and ``scope`` follow from the text where they are not given. ``conversation_id`` is where it was said.
    """
    text = checked_text(text, "text", "rule")
    feedback = Feedback(origin.id, user_id, origin.now, "rule", text=text, source=origin.source, trust=origin.trust)
    kind = kind or kind_of(text)
    scope = scope or default_scope(kind, text)
    return Signal(feedback, (_memory(origin, user_id, kind, text, scope, conversation_id=conversation_id),))


def checked_text(text: str, param: str, what: str) -> str:
    """``text`` without the white space around it. Raises ``InvalidInput`` (``param``) for none, and for too much."""
    text = text.strip()
    if not text:
        raise InvalidInput(f"The {what} is empty: write one.", param)
    if len(text) > MAX_CHARS:
        raise InvalidInput(f"The {what} has {len(text):,} characters but {MAX_CHARS:,} is the most: shorten it.", param)
    return text


def last_user_message(messages: Sequence[Message]) -> str:
    """The text of the last turn that the user wrote, without the white space around it; "" when there is none."""
    return next((turn["content"].strip() for turn in reversed(messages) if turn["role"] == "user"), "")


def _feedback(
    origin: Origin,
    kind: FeedbackKind,
    exchange: Exchange,
    *,
    text: str | None = None,
    rating: int | None = None,
    note: str | None,
) -> Feedback:
    user_id, about = exchange.user_id, exchange.id
    return Feedback(origin.id, user_id, origin.now, kind, about, text, rating, note, origin.source, origin.trust)


def _reply(exchange: Exchange, text: str, what: str) -> str:
    text = checked_text(text, "text", f"{what} reply")
    if text == exchange.completion.strip():
        raise InvalidInput(f"The {what} reply is the same as the original: change it, or rate the reply.", "text")
    return text


def _note(note: str | None) -> str | None:
    # An empty note is a form field that was left blank, not a mistake.
    return checked_text(note, "note", "note") if note and note.strip() else None


def _noted(origin: Origin, user_id: int, note: str | None) -> tuple[Memory, ...]:
    if note is None:
        return ()
    kind = kind_of(note)
    return (_memory(origin, user_id, kind, note, default_scope(kind, note), suffix="-rule"),)


def _memory(
    origin: Origin,
    user_id: int,
    kind: MemoryKind,
    text: str,
    scope: Scope,
    *,
    prompt: str | None = None,
    conversation_id: str | None = None,
    suffix: str = "",
) -> Memory:
    return Memory(
        id=f"mem-{origin.id.removeprefix('fb-')}{suffix}",
        user_id=user_id,
        created_at=origin.now,
        kind=kind,
        text=text,
        prompt=prompt,
        feedback_id=origin.id,
        scope=scope,
        conversation_id=conversation_id,
        source=origin.source,
    )

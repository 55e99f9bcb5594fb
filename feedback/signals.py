"""What the user says about a reply, checked and turned into the rows that it becomes. Pure: nothing is stored here.

Every function takes the ``id`` for the feedback (``fb-…``) and the time ``now`` (seconds since the epoch); the
memories are named after it. Texts are kept without the white space around them. Raises ``InvalidInput``, whose
``param`` is ``text``, ``note`` or ``rating``. What is left out: finding signals in a client's history.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from familiar.memory.errors import InvalidInput
from familiar.memory.scope import default_scope, kind_of
from familiar.memory.types import Exchange, Feedback, FeedbackKind, Memory, MemoryKind, Message, Scope, Trust

MAX_CHARS = 32_000
"""The longest text or note. Longer ones are files, which are no correction, and would never fit a prompt."""


@dataclass(frozen=True)
class Signal:
    """One signal and the memories that it makes, to be stored together."""

    feedback: Feedback
    memories: tuple[Memory, ...]


def correction(
    exchange: Exchange,
    text: str,
    note: str | None = None,
    *,
    id: str,
    now: float,
    source: str = "api",
    trust: Trust = "stated",
) -> Signal:
    """``text`` is what the reply should have been; ``note`` states the rule behind it, if there is one.

    Gives an example memory (the last user message with the right reply) and, for a note, one that states it.
    """
    text = _reply(exchange, text, "corrected")
    note = _note(note)
    prompt = last_user_message(exchange.messages)
    memories = _noted(note, exchange.user_id, id, now, source)
    if prompt:
        scope = default_scope("example", text)
        example = Memory(_memory_id(id), exchange.user_id, now, "example", text, prompt, id, scope, source=source)
        memories = (example, *memories)
    return Signal(_feedback("correction", exchange, text, None, note, id, now, source, trust), memories)


def rating(
    exchange: Exchange,
    value: int,
    note: str | None = None,
    *,
    id: str,
    now: float,
    source: str = "api",
    trust: Trust = "stated",
) -> Signal:
    """``value`` is +1 or -1 for the reply as a whole. Gives a memory only for a note."""
    if value not in (1, -1):
        raise InvalidInput(f"A rating is 1 (good) or -1 (bad), not {value}.", "rating")
    note = _note(note)
    memories = _noted(note, exchange.user_id, id, now, source)
    return Signal(_feedback("rating", exchange, None, int(value), note, id, now, source, trust), memories)


def preference(
    exchange: Exchange,
    text: str,
    note: str | None = None,
    *,
    id: str,
    now: float,
    source: str = "api",
    trust: Trust = "stated",
) -> Signal:
    """``text`` is another reply that the user likes better. Gives a memory only for a note."""
    text = _reply(exchange, text, "preferred")
    note = _note(note)
    memories = _noted(note, exchange.user_id, id, now, source)
    return Signal(_feedback("preference", exchange, text, None, note, id, now, source, trust), memories)


def rule(
    user_id: int,
    text: str,
    *,
    id: str,
    now: float,
    source: str = "api",
    trust: Trust = "stated",
    kind: MemoryKind | None = None,
    scope: Scope | None = None,
    conversation_id: str | None = None,
) -> Signal:
    """``text`` is what the user states for the replies to come: a rule, or a fact. Gives a memory of it.

    ``kind`` and ``scope`` follow from the text where they are not given. ``conversation_id`` is where it was said.
    """
    text = _text(text, "text", "rule")
    feedback = Feedback(id, user_id, now, "rule", text=text, source=source, trust=trust)
    kind = kind or kind_of(text)
    scope = scope or default_scope(kind, text)
    memory = Memory(
        _memory_id(id), user_id, now, kind, text, None, id, scope, conversation_id=conversation_id, source=source
    )
    return Signal(feedback, (memory,))


def last_user_message(messages: Sequence[Message]) -> str:
    """The text of the last turn that the user wrote, without the white space around it; "" when there is none."""
    return next((turn["content"].strip() for turn in reversed(messages) if turn["role"] == "user"), "")


def _feedback(
    kind: FeedbackKind,
    exchange: Exchange,
    text: str | None,
    rating: int | None,
    note: str | None,
    id: str,
    now: float,
    source: str,
    trust: Trust,
) -> Feedback:
    return Feedback(id, exchange.user_id, now, kind, exchange.id, text, rating, note, source, trust)


def _reply(exchange: Exchange, text: str, what: str) -> str:
    text = _text(text, "text", f"{what} reply")
    if text == exchange.completion.strip():
        raise InvalidInput(f"The {what} reply is the same as the original: change it, or rate the reply.", "text")
    return text


def _note(note: str | None) -> str | None:
    # An empty note is a form field that was left blank, not a mistake.
    return _text(note, "note", "note") if note and note.strip() else None


def _text(text: str, param: str, what: str) -> str:
    text = text.strip()
    if not text:
        raise InvalidInput(f"The {what} is empty: write one.", param)
    if len(text) > MAX_CHARS:
        raise InvalidInput(f"The {what} has {len(text):,} characters but {MAX_CHARS:,} is the most: shorten it.", param)
    return text


def _noted(note: str | None, user_id: int, feedback_id: str, now: float, source: str) -> tuple[Memory, ...]:
    if note is None:
        return ()
    id, kind = f"{_memory_id(feedback_id)}-rule", kind_of(note)
    return (Memory(id, user_id, now, kind, note, None, feedback_id, default_scope(kind, note), source=source),)


def _memory_id(feedback_id: str) -> str:
    return f"mem-{feedback_id.removeprefix('fb-')}"

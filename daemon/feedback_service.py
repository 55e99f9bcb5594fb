"""From a feedback request to stored signals, free of HTTP: which kind it is, what it is about, and what it teaches."""

import secrets
from dataclasses import replace

from familiar.daemon.schemas import FeedbackRequest
from familiar.feedback import rebuttals, signals
from familiar.feedback.signals import Origin, Signal
from familiar.memory.errors import InvalidInput, NotFound
from familiar.memory.store import Store
from familiar.memory.types import Exchange, Feedback, Memory, Trust

KINDS = ("correction", "rating", "preferred", "rule")
RATINGS = {"good": 1, "bad": -1, 1: 1, -1: -1}


def record(
    store: Store,
    user_id: int,
    request: FeedbackRequest,
    now: float,
    *,
    source: str = "api",
    trust: Trust = "stated",
    key: str | None = None,
    exchange: Exchange | None = None,
) -> Signal:
    """Store one signal of the user and the memories that follow from it, and return both.

    Args:
        now: seconds since the epoch.
        source: the door that it came through.
        trust: whose words these are; ``untrusted`` ones are kept and make no memory.
        key: names the deed, which is stored once.
        exchange: what the signal is about where the request does not name it; stored too if it is new.

    Raises:
        InvalidInput: not exactly one kind, or a value that says nothing; NotFound: the user has no such completion.
    """
    given = [kind for kind in KINDS if getattr(request, kind) is not None]
    if len(given) != 1:
        have = " and ".join(given) or "none"
        raise InvalidInput(f"Feedback is one of {', '.join(KINDS)}, but this has {have}: send one.", "correction")
    if request.note is not None and request.rule is not None:
        raise InvalidInput("A note explains what was said about a reply, not a rule: leave it out.", "note")
    origin = Origin(f"fb-{secrets.token_hex(12)}", now, source, trust)
    try:
        signal = _signal(store, user_id, request, exchange, origin)
    except InvalidInput as error:
        # A signal's text is the field that the request named its kind by.
        raise InvalidInput(str(error), given[0] if error.param == "text" else error.param) from error
    if exchange is not None and not _is_stored(store, exchange):
        store.add_exchange(exchange)
    feedback = replace(signal.feedback, key=key)
    memories = () if trust == "untrusted" else signal.memories
    # What was said before keeps the memory that it has: the stored ones are those to name.
    return Signal(feedback, store.add_feedback(feedback, memories))


def confirm(store: Store, user_id: int, feedback_id: str, now: float, *, text: str | None = None) -> Signal:
    """Make a pending signal active, in the user's own ``text`` if given, and return it with what is remembered by it.

    Raises NotFound for an unknown id, and InvalidInput for one that is not pending, or a text that says nothing.
    """
    guess = store.feedback(user_id, feedback_id)
    said = (text if text is not None else guess.text or "").strip()
    memories = rebuttal_memories(store, guess, said, now)
    stored = store.settle(user_id, feedback_id, "active", memories, text=said)
    return Signal(replace(guess, text=said, state="active"), stored)


def dismiss(store: Store, user_id: int, feedback_id: str) -> Feedback:
    """Drop a pending signal for good, and return it. Raises NotFound, and InvalidInput for one that is not pending."""
    store.settle(user_id, feedback_id, "dismissed")
    return store.feedback(user_id, feedback_id)


def rebuttal_memories(store: Store, guess: Feedback, text: str, now: float) -> tuple[Memory, ...]:
    """What is remembered once the user agrees to ``guess`` as ``text``. Raises InvalidInput for an empty text."""
    exchange = None if guess.exchange_id is None else store.exchange(guess.user_id, guess.exchange_id)
    bound = rebuttals.is_about_a_question(text)
    return signals.rule(
        Origin(guess.id, now, guess.source),
        guess.user_id,
        text,
        kind="fact" if bound else None,
        scope="related" if bound else None,
        conversation_id=exchange.conversation_id if exchange else None,
    ).memories


def _is_stored(store: Store, exchange: Exchange) -> bool:
    try:
        store.exchange(exchange.user_id, exchange.id)
    except NotFound:
        return False
    return True


def _signal(store: Store, user_id: int, request: FeedbackRequest, exchange: Exchange | None, origin: Origin) -> Signal:
    if request.completion_id is not None:
        exchange = store.exchange(user_id, request.completion_id)
    if request.rule is not None:
        signal = signals.rule(origin, user_id, request.rule)
        about = exchange.id if exchange else None
        return replace(signal, feedback=replace(signal.feedback, exchange_id=about))
    if exchange is None:
        raise InvalidInput("Feedback on a reply needs the completion_id of that reply: send it.", "completion_id")
    if request.rating is not None:
        return signals.rating(origin, exchange, RATINGS[request.rating], request.note)
    if request.preferred is not None:
        return signals.preference(origin, exchange, request.preferred, request.note)
    return signals.correction(origin, exchange, request.correction or "", request.note)

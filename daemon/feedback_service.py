"""From a feedback request to stored signals, free of HTTP: which kind it is, what it is about, and what it teaches."""

import secrets
from dataclasses import replace

from familiar.daemon.schemas import FeedbackRequest
from familiar.feedback import signals
from familiar.feedback.signals import Signal
from familiar.memory.errors import InvalidInput
from familiar.memory.store import Store

KINDS = ("correction", "rating", "preferred", "rule")
RATINGS = {"good": 1, "bad": -1, 1: 1, -1: -1}


def record(store: Store, user_id: int, request: FeedbackRequest, now: float) -> Signal:
    """Store one signal of the user and the memories that follow from it, and return both.

    Args:
        now: seconds since the epoch.

    Raises:
        InvalidInput: not exactly one kind, or a value that says nothing; NotFound: the user has no such completion.
    """
    given = [kind for kind in KINDS if getattr(request, kind) is not None]
    if len(given) != 1:
        have = " and ".join(given) or "none"
        raise InvalidInput(f"Feedback is one of {', '.join(KINDS)}, but this has {have}: send one.", "correction")
    if request.note is not None and request.rule is not None:
        raise InvalidInput("A note explains what was said about a reply, not a rule: leave it out.", "note")
    try:
        signal = _signal(store, user_id, request, f"fb-{secrets.token_hex(12)}", now)
    except InvalidInput as error:
        # A signal's text is the field that the request named its kind by.
        raise InvalidInput(str(error), given[0] if error.param == "text" else error.param) from error
    # What was said before keeps the memory that it has: the stored ones are those to name.
    return replace(signal, memories=store.add_feedback(signal.feedback, signal.memories))


def _signal(store: Store, user_id: int, request: FeedbackRequest, feedback_id: str, now: float) -> Signal:
    exchange = None if request.completion_id is None else store.exchange(user_id, request.completion_id)
    if request.rule is not None:
        signal = signals.rule(user_id, request.rule, id=feedback_id, now=now)
        about = exchange.id if exchange else None
        return replace(signal, feedback=replace(signal.feedback, exchange_id=about))
    if exchange is None:
        raise InvalidInput("Feedback on a reply needs the completion_id of that reply: send it.", "completion_id")
    if request.rating is not None:
        return signals.rating(exchange, RATINGS[request.rating], request.note, id=feedback_id, now=now)
    if request.preferred is not None:
        return signals.preference(exchange, request.preferred, request.note, id=feedback_id, now=now)
    return signals.correction(exchange, request.correction or "", request.note, id=feedback_id, now=now)

"""Edits in the conversations that clients send: looked up once, stored as corrections. Free of HTTP.

What is known of a conversation's earlier turns is kept in memory, as hashes, so that a request has only its new turns
looked up, however long it is. What an edit is, is decided in ``feedback.edits``.
"""

import hashlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from familiar.feedback import edits, signals
from familiar.feedback.edits import Reading, Turn
from familiar.feedback.own_words import own_words
from familiar.feedback.signals import Origin
from familiar.memory.errors import NotFound
from familiar.memory.replies import Reply
from familiar.memory.store import Store
from familiar.memory.types import Exchange, Memory, Message

MAX_ALIKE = 50
"""Of replies to the same turns, so many are compared; where there are more ("Hello"), no edit can be told."""

MAX_READ_TURNS = 10_000
"""Turns whose reading is kept, of all users."""


class EditReader:
    """Finds and stores the edits in requests. Thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[int, str, int], Reading] = OrderedDict()

    def learned(self, user_id: int, messages: Sequence[Message], now: float) -> list[Memory]:
        """The memories that the edits in a request make, stored; ``now`` is in seconds since the epoch."""
        readings, found = self._read(user_id, edits.assistant_turns(messages))
        made = [
            memory for turn, reply in found.items() for memory in self._store_edit(user_id, messages, turn, reply, now)
        ]
        # Only now: where storing an edit failed, the next request brings it again.
        self._keep(user_id, readings)
        return made

    def _read(self, user_id: int, turns: Sequence[Turn]) -> tuple[Mapping[Turn, Reading], Mapping[Turn, Reply]]:
        """What the turns are that were not read before, and the replies that the edited ones edit."""
        with self._lock:
            known = {turn: self._known.get(_name(user_id, turn)) for turn in turns}
        new = [turn for turn, reading in known.items() if reading is None]
        given = dict(
            zip(new, self._store.replies_at(user_id, [turn.history_key for turn in new], MAX_ALIKE), strict=True)
        )
        found: dict[Turn, Reply] = {}

        def read(turn: Turn, *, mixed: bool) -> None:
            known[turn], edited = self._read_turn(user_id, turn, given[turn], mixed=mixed)
            if edited is not None:
                found[turn] = edited

        for turn in new:
            read(turn, mixed=True)
        foreign = [turn for turn, reading in known.items() if reading is Reading.FOREIGN]
        # Read strictly until it is known that the rest of the conversation is ours.
        if len(foreign) == 1 and given.get(foreign[0]):
            read(foreign[0], mixed=False)
        return {turn: reading for turn in new if (reading := known[turn])}, found

    def _read_turn(
        self, user_id: int, turn: Turn, given: Sequence[Reply], *, mixed: bool
    ) -> tuple[Reading, Reply | None]:
        reading, edited = edits.read(turn.text, given, mixed=mixed)
        if edited is None:
            return reading, None
        if len(given) == MAX_ALIKE:
            return Reading.AS_GIVEN, None
        about = self._store.feedback_on(user_id, [reply.exchange_id for reply in given])
        return edits.read(turn.text, given, [each.text for each in about if each.text], mixed=mixed)

    def _store_edit(
        self, user_id: int, messages: Sequence[Message], turn: Turn, reply: Reply, now: float
    ) -> tuple[Memory, ...]:
        exchange = self._store.exchange(user_id, reply.exchange_id)
        if not edits.is_users_own(turn.text, reply.completion, self._not_the_users(messages, exchange)):
            return ()
        signal = signals.correction(Origin(new_id(), now, "history", "inferred"), exchange, turn.text)
        key = f"edit:{exchange.id}:{sha256(' '.join(turn.text.split()))}"
        return self._store.add_feedback(replace(signal.feedback, key=key), signal.memories)

    def _not_the_users(self, messages: Sequence[Message], exchange: Exchange) -> Iterator[str]:
        """What an edit may have been taken from: tools, system messages, pastes, and the memories that applied."""
        for message in messages:
            if message["role"] in ("tool", "system"):
                yield message["content"]
            elif message["role"] == "user" and (own := own_words(message["content"])) != message["content"].strip():
                yield message["content"].replace(own, "\n")
        for used in exchange.used:
            try:
                yield self._store.memory(exchange.user_id, used.memory_id).text
            except NotFound:
                continue

    def _keep(self, user_id: int, readings: Mapping[Turn, Reading]) -> None:
        with self._lock:
            for turn, reading in readings.items():
                self._known[_name(user_id, turn)] = reading
            while len(self._known) > MAX_READ_TURNS:
                self._known.popitem(last=False)


def new_id() -> str:
    """An id for feedback."""
    return f"fb-{secrets.token_hex(12)}"


def sha256(text: str) -> str:
    """The hash of a text of a client's, whatever it holds."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _name(user_id: int, turn: Turn) -> tuple[int, str, int]:
    return user_id, turn.history_key, hash(turn.text)

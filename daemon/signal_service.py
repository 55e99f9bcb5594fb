"""What a chat request says beside its question: edits of earlier replies, rules, objections. Free of HTTP.

Everything is found in what any OpenAI client sends, and takes effect on the very request that carries it, so this runs
before recall. It must never cost the user a reply: what fails here is one line in the log.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from familiar.daemon import feedback_service
from familiar.daemon.edit_reader import MAX_ALIKE, EditReader, new_id, sha256
from familiar.daemon.schemas_chat import ChatRequest
from familiar.feedback import regenerations, signals
from familiar.feedback.own_words import own_words
from familiar.feedback.rebuttals import rebuttal, says_again
from familiar.feedback.said import statements
from familiar.feedback.signals import Origin
from familiar.memory.history import history_keys
from familiar.memory.replies import Reply
from familiar.memory.store import Store
from familiar.memory.types import Feedback, Memory, Message
from familiar.memory.words import same_words_key

log = logging.getLogger("familiar")


@dataclass(frozen=True)
class Noticed:
    """What a request said: the memories that it made, and the guesses that wait for a yes or a no.

    ``conversation_id`` is the conversation that the request goes on with, None for a new one.
    """

    conversation_id: str | None = None
    learned: tuple[Memory, ...] = ()
    pending: tuple[Feedback, ...] = ()


NOTHING = Noticed()


@dataclass(frozen=True)
class _Asked:
    """A request, and ``keys``, the ``history_key`` up to each of its user's turns."""

    user_id: int
    request: ChatRequest
    messages: Sequence[Message]
    keys: Sequence[str]
    now: float

    @property
    def last(self) -> str | None:
        """What the user says now; None where the last turn is not the user's."""
        return self.messages[-1]["content"] if self.messages[-1]["role"] == "user" else None


class SignalService:
    """Finds and stores the signals in chat requests. Thread-safe."""

    def __init__(self, store: Store, clock: Callable[[], float], *, enabled: bool = True) -> None:
        self._store = store
        self._clock = clock
        self._enabled = enabled
        self._edits = EditReader(store)

    def notice(self, user_id: int, request: ChatRequest, messages: Sequence[Message]) -> Noticed:
        """Store what a request with these messages says, and return what came of it. Never raises."""
        conversation_id: str | None = None
        learned: list[Memory] = []
        pending: list[Feedback] = []
        with _harmless("conversation"):
            conversation_id = self._store.conversation_of(user_id, messages)
        if not self._enabled:
            return Noticed(conversation_id)
        is_new = conversation_id is None
        asked = _Asked(user_id, request, messages, history_keys(messages), self._clock())
        with _harmless("edit"):
            learned += self._edits.learned(user_id, messages, asked.now)
        stated = False
        if asked.last is not None:
            with _harmless("statement"):
                said = statements(own_words(asked.last))
                stated = bool(said)
                if said and conversation_id is None:
                    conversation_id = self._store.start_conversation(user_id, asked.now)
                for statement in said:
                    learned += self._said(asked, statement.text, conversation_id, statement.conversation_only)
            if not stated:
                with _harmless("rebuttal"):
                    guess, confirmed = self._rebuttal(asked, conversation_id)
                    pending += guess
                    learned += confirmed
            if not (is_new and len(asked.keys) == 1):  # the first words of another conversation may be the same
                with _harmless("regeneration"):
                    self._regeneration(asked)
        return Noticed(conversation_id, tuple(learned), tuple(pending))

    def _said(
        self, asked: _Asked, text: str, conversation_id: str | None, conversation_only: bool
    ) -> tuple[Memory, ...]:
        signal = signals.rule(
            Origin(new_id(), asked.now, "chat"),
            asked.user_id,
            text,
            scope="conversation" if conversation_only else None,
            conversation_id=conversation_id,
        )
        key = f"said:{conversation_id}:{sha256(asked.keys[-1] + text)}"
        known = self._store.feedback_by_key(asked.user_id, key)
        if known is None:
            return self._store.add_feedback(replace(signal.feedback, key=key), signal.memories)
        if known.state != "active":
            return ()  # it was forgotten since
        # A reply to it is asked for again, perhaps after something else was said: it is the latest word all the same.
        return tuple(
            self._store.put_memory(replace(memory, feedback_id=known.id), asked.now) for memory in signal.memories
        )

    def _rebuttal(self, asked: _Asked, conversation_id: str | None) -> tuple[list[Feedback], tuple[Memory, ...]]:
        """The guess that waits for an answer, or the memories of one that is confirmed by being said again."""
        if len(asked.messages) < 2 or len(asked.keys) < 2 or asked.messages[-2]["role"] != "assistant":
            return [], ()
        turns = [message["content"] for message in asked.messages if message["role"] == "user"]
        reply = asked.messages[-2]["content"]
        text = rebuttal(turns[-1], reply=reply, question=turns[-2])
        if text is None:
            return [], ()
        about = self._about(asked, reply)
        if about is None:
            return [], ()
        key = f"rebuttal:{sha256(same_words_key(text))}"
        known = self._store.feedback_by_key(asked.user_id, key) or next(
            (each for each in self._store.pending(asked.user_id) if says_again(each.text or "", text)), None
        )
        if known is None:
            guess = Feedback(
                id=new_id(),
                user_id=asked.user_id,
                created_at=asked.now,
                kind="rebuttal",
                exchange_id=about.exchange_id,
                text=text,
                source="chat",
                trust="inferred",
                state="pending",
                key=key,
            )
            self._store.add_feedback(guess)
            return [guess], ()
        if known.state == "dismissed":
            return [], ()
        if self._conversation_of(known) == conversation_id:
            return [known] if known.state == "pending" else [], ()
        if known.state == "pending":
            return [], feedback_service.confirm(self._store, asked.user_id, known.id, asked.now).memories
        # It was agreed to before: said again it is the latest word, whatever has superseded it meanwhile.
        (memory,) = feedback_service.rebuttal_memories(self._store, known, known.text or "", asked.now)
        return [], (self._store.put_memory(memory, asked.now),)

    def _about(self, asked: _Asked, reply: str) -> Reply | None:
        """The exchange whose reply the user objects to, by what the client shows of it."""
        (given,) = self._store.replies_at(asked.user_id, asked.keys[-2:-1], MAX_ALIKE)
        shown = " ".join(reply.split())
        same = (each for each in given if " ".join(each.completion.split()) == shown)
        return next(same, given[0] if given else None)

    def _conversation_of(self, feedback: Feedback) -> str | None:
        if feedback.exchange_id is None:
            return None
        return self._store.exchange(feedback.user_id, feedback.exchange_id).conversation_id

    def _regeneration(self, asked: _Asked) -> None:
        if asked.request.choices > 1:
            return
        (given,) = self._store.replies_at(asked.user_id, asked.keys[-1:], 1)
        earlier = regenerations.candidate(
            given, model=asked.request.model, sampling=asked.request.sampling, now=asked.now
        )
        if earlier is None or self._store.feedback_on(asked.user_id, [earlier.exchange_id]):
            return
        if regenerations.is_asked_again(asked.messages, self._store.exchange(asked.user_id, earlier.exchange_id)):
            self._store.add_feedback(
                Feedback(
                    id=new_id(),
                    user_id=asked.user_id,
                    created_at=asked.now,
                    kind="regeneration",
                    exchange_id=earlier.exchange_id,
                    rating=-1,
                    source="history",
                    trust="inferred",
                    key=f"regen:{earlier.exchange_id}",
                )
            )


@contextmanager
def _harmless(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        log.error("A chat goes on, but its %s was not noticed: %s", what, str(error) or type(error).__name__)

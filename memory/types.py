"""What the memory store holds, as frozen values. Every other package speaks in these.

Ids: exchanges are named as OpenAI names completions (``chatcmpl-…``), feedback ``fb-…``, memories ``mem-…``, runs
``run-…``, graders ``grader-…``. Times are seconds since the epoch (UTC), floats. Adapter versions are numbered 1, 2, …
per user.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NotRequired, TypedDict


class Message(TypedDict):
    """One turn, as on the OpenAI wire: a role (system, user, assistant, tool) and its text.

    An assistant's turn may hold ``tool_calls``; a tool's turn says with ``tool_call_id`` which one it answers.
    """

    role: str
    content: str
    tool_calls: NotRequired[list[dict[str, Any]]]
    tool_call_id: NotRequired[str]
    name: NotRequired[str]


def asked(text: str) -> tuple[Message, ...]:
    """A conversation that begins, and ends so far, with this message of the user."""
    return (Message(role="user", content=text),)


FeedbackKind = Literal["correction", "rating", "preference", "rule", "regeneration", "rebuttal"]
FeedbackState = Literal["active", "pending", "dismissed"]
"""A pending signal is a guess: it teaches nothing until the user confirms or repeats it."""
MemoryKind = Literal["rule", "fact", "example"]
MemoryState = Literal["active", "superseded", "evicted"]
Scope = Literal["always", "related", "conversation"]
"""Where a memory applies: in every request, in requests that it has to do with, or in one conversation."""
Trust = Literal["stated", "inferred", "untrusted"]
"""Who said it: the user in so many words, a reading of what the user did, or text of another origin.

Only ``stated`` and ``inferred`` signals train weights (design, decision 8)."""
RunState = Literal["running", "promoted", "rejected", "failed", "stopped"]
Reason = Literal["always", "pinned", "conversation", "same prompt", "words", "meaning", "words and meaning", "learnt"]
"""Why a memory was shown: its scope, or what it shares with the request. One that is ``learnt`` applied without being
shown, as the adapter that answered follows it untold."""


@dataclass(frozen=True)
class Used:
    """A memory that was put into a prompt, or learnt: why, and how well it matched (0 to 1; None: not compared).

    At 0 it is no more alike to the request than any memory would be, but may be shown for being the only one near it.
    """

    memory_id: str
    reason: Reason
    score: float | None = None


@dataclass(frozen=True)
class Exchange:
    """One request and its reply, as served.

    ``messages`` is what the client sent; ``used`` is what was added to it, in the order shown, then what was learnt.
    ``adapter_version`` is None when the base model answered alone. ``conversation_id`` is given by the store: requests
    whose history goes on from one another are one conversation.
    """

    id: str
    user_id: int
    created_at: float
    model: str
    messages: tuple[Message, ...]
    completion: str
    adapter_version: int | None = None
    used: tuple[Used, ...] = ()
    sampling: Mapping[str, float | int | str | None] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str = "stop"
    duration_ms: float = 0.0
    conversation_id: str | None = None

    @property
    def memory_ids(self) -> tuple[str, ...]:
        """The ids of the memories that were shown, in order."""
        return tuple(used.memory_id for used in self.used if used.reason != "learnt")


@dataclass(frozen=True)
class Feedback:
    """One signal from the user about one exchange (or about none, for a stated rule).

    ``text`` is the corrected or preferred reply, the rule, or what a rebuttal asks for. ``rating`` is +1 or -1.
    ``note`` is the rule that a correction states beside its text, if any. ``source`` is the door it came through;
    ``key``, where there is one, names the deed that it was read from, so that the same deed is never stored twice.
    """

    id: str
    user_id: int
    created_at: float
    kind: FeedbackKind
    exchange_id: str | None = None
    text: str | None = None
    rating: int | None = None
    note: str | None = None
    source: str = "api"
    trust: Trust = "stated"
    state: FeedbackState = "active"
    key: str | None = None


@dataclass(frozen=True)
class Memory:
    """One thing to be shown to the model again.

    A ``rule`` or ``fact`` is shown as it was said; an ``example`` shows ``prompt`` with the reply ``text`` that the
    user wanted. ``created_at`` is when it was last stated. A memory that a newer statement contradicts is kept as
    ``superseded``, by the memory named; one that was dropped to make room is ``evicted``. Neither is recalled.
    """

    id: str
    user_id: int
    created_at: float
    kind: MemoryKind
    text: str
    prompt: str | None = None
    feedback_id: str | None = None
    scope: Scope = "always"
    conversation_id: str | None = None
    pinned: bool = False
    source: str = "api"
    state: MemoryState = "active"
    superseded_by: str | None = None
    ended_at: float | None = None
    uses: int = 0
    last_used_at: float | None = None


class MemoryChanges(TypedDict, total=False):
    """What is to be changed of a memory; the rest stays as it is."""

    text: str
    prompt: str
    kind: MemoryKind
    scope: Scope
    conversation_id: str
    pinned: bool


@dataclass(frozen=True)
class StoredGrader:
    """A check of replies, in OpenAI's form, that a user keeps; ``memory_id`` is the rule that it checks, if any."""

    id: str
    user_id: int
    created_at: float
    name: str
    definition: Mapping[str, Any]
    memory_id: str | None = None


@dataclass(frozen=True)
class LearningRun:
    """One run of the learner; ``pid`` is its process, ``report`` the gate's figures once it has ended."""

    id: str
    user_id: int
    created_at: float
    state: RunState
    config: Mapping[str, object]
    fingerprint: str
    pid: int | None = None
    ended_at: float | None = None
    version: int | None = None
    error: str | None = None
    report: Mapping[str, object] | None = None


@dataclass(frozen=True)
class AdapterVersion:
    """A promoted adapter and where it came from (design, decision 6).

    ``folder`` is relative to the data folder and holds ``adapter.gguf``, the PEFT files and ``manifest.json``.
    ``feedback_ids`` are those of the signals that it was trained on, and then of the memories that it was taught.
    """

    user_id: int
    number: int
    created_at: float
    folder: str
    parent: int | None
    base_sha256: str
    gguf_sha256: str
    run_id: str
    feedback_ids: tuple[str, ...]
    report: Mapping[str, object]

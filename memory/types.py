"""What the memory store holds, as frozen values. Every other package speaks in these.

Ids: exchanges are named as OpenAI names completions (``chatcmpl-…``), feedback ``fb-…``, memories ``mem-…``, runs
``run-…``. Times are seconds since the epoch (UTC), floats. Adapter versions are numbered 1, 2, … per user.
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


FeedbackKind = Literal["correction", "rating", "preference", "rule"]
MemoryKind = Literal["rule", "example"]
Trust = Literal["stated", "inferred", "untrusted"]
"""Who said it: the user in so many words, a reading of what the user did, or text of another origin.

Only ``stated`` and ``inferred`` signals train weights (design, decision 8)."""
RunState = Literal["running", "promoted", "rejected", "failed", "stopped"]


@dataclass(frozen=True)
class Exchange:
    """One request and its reply, as served.

    ``messages`` is what the client sent; ``memory_ids`` is what was added to it. ``adapter_version`` is None when the
    base model answered alone.
    """

    id: str
    user_id: int
    created_at: float
    model: str
    messages: tuple[Message, ...]
    completion: str
    adapter_version: int | None = None
    memory_ids: tuple[str, ...] = ()
    sampling: Mapping[str, float | int | str | None] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str = "stop"
    duration_ms: float = 0.0


@dataclass(frozen=True)
class Feedback:
    """One signal from the user about one exchange (or about none, for a stated rule).

    ``text`` is the corrected or preferred reply, or the rule. ``rating`` is +1 or -1. ``note`` is the rule that a
    correction states beside its text, if any.
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


@dataclass(frozen=True)
class Memory:
    """One thing to be shown to the model again.

    A ``rule`` is shown as it was said; an ``example`` shows ``prompt`` with the reply ``text`` that the user wanted.
    """

    id: str
    user_id: int
    created_at: float
    kind: MemoryKind
    text: str
    prompt: str | None = None
    feedback_id: str | None = None


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

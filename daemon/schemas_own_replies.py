"""What the routes of our own answer, as ``/openapi.json`` says it. Documentation only, as ``schemas_replies`` is."""

from typing import Annotated, Any, Literal

from pydantic import Field

from familiar.daemon.schemas_replies import AssistantToolCall, Maybe, Reply

MemoryKind = Literal["rule", "fact", "example"]
Scope = Literal["always", "related", "conversation"]
Reason = Literal["always", "pinned", "conversation", "same prompt", "words", "meaning", "words and meaning", "learnt"]


class Memory(Reply):
    """One thing that the model is shown again: a rule or fact as it was said, or a prompt with the reply wanted."""

    object: Literal["memory"]
    id: str
    kind: MemoryKind
    text: str
    prompt: Annotated[str | None, Field(description="of an example: the message that it answers")]
    scope: Annotated[Scope, Field(description="which requests it applies to")]
    conversation_id: Annotated[str | None, Field(description="where it was said; so scoped, where it applies")]
    pinned: Annotated[bool, Field(description="shown with every request, before others, and never evicted")]
    state: Annotated[Literal["active", "superseded", "evicted"], Field(description="only active ones are shown")]
    superseded_by: Annotated[str | None, Field(description="the memory that took its place")]
    consolidated_in: Annotated[
        int | None, Field(description="the version in service, where it follows this untold; null: it is to be shown")
    ]
    source: Annotated[str, Field(description="which door it came through: api, cli, chat, history, inbox, import")]
    feedback_id: Annotated[str | None, Field(description="what last stated it")]
    created: Annotated[int, Field(description="when it was last stated")]
    ended: Annotated[int | None, Field(description="when it stopped being active")]
    uses: Annotated[int, Field(description="how often it applied to a reply: was in its prompt, or learnt")]
    last_used: int | None


class ListedMemory(Memory):
    """A memory in a list; one that was searched for has a score."""

    score: Annotated[Maybe[float], Field(description="how well it was found; higher is better")] = None


class MemoryList(Reply):
    """A page of what is remembered, oldest first; or what a search found, best first."""

    object: Literal["list"]
    data: list[ListedMemory]
    first_id: str | None
    last_id: Annotated[str | None, Field(description="what the next page comes after")]
    has_more: bool


class MemoryUse(Reply):
    """A reply that a memory was shown for, and why."""

    completion_id: str
    created: int
    model: str
    prompt: Annotated[str, Field(description="the user's last message")]
    reason: Reason
    score: Annotated[float | None, Field(description="how well it matched; null: nothing was compared")]
    why: Annotated[str, Field(description="the reason in words")]


class MemoryDetail(Memory):
    """One memory with all that is known of it."""

    completion_id: Annotated[str | None, Field(description="the reply that it was said about")]
    history: Annotated[list[Memory], Field(description="what took each other's place, oldest first; itself too")]
    shown_in: Annotated[list[MemoryUse], Field(description="the last replies that it was shown for, newest first")]


class ForgetReport(Reply):
    """What forgetting came to: the rows that went, and where else the text was taken out."""

    memory_ids: Annotated[list[str], Field(description="more than were named, where others go with them")]
    feedback_ids: Annotated[list[str], Field(description="the feedback that had made them")]
    redacted_exchanges: int
    redacted_rows: Annotated[int, Field(description="of other tables")]
    cleaned_backups: int
    cleaned_files: int
    adapter_versions: Annotated[list[int], Field(description="trained on what is gone; they keep what they learned")]
    left: Annotated[list[str], Field(description="files that could not be cleaned, each with the reason")]
    finished: Annotated[bool, Field(description="false: free space still holds text, until the store is next opened")]


class MemoryDeleted(Reply):
    """The memory is forgotten."""

    object: Literal["memory.deleted"]
    id: str
    deleted: Literal[True]
    report: ForgetReport


class MemoriesForgotten(Reply):
    """What was forgotten or, with ``dry_run``, would be."""

    object: Literal["memory.forgotten"]
    dry_run: bool
    data: Annotated[list[Memory], Field(description="those that were named, or that the query matched")]
    report: Annotated[ForgetReport | None, Field(description="null where nothing was forgotten")]


class ShownMemory(Memory):
    """A memory that a reply was made with, as it is now."""

    reason: Reason
    score: float | None
    why: str


class ForgottenMemory(Reply):
    """All that is left of a memory that a reply was made with and that was forgotten since."""

    object: Literal["memory"]
    id: str
    state: Literal["forgotten"]
    reason: Reason
    score: float | None
    why: str


class ExchangeWhy(Reply):
    """Which memories a reply was made with, and why."""

    object: Literal["exchange.why"]
    id: str
    created: int
    model: str
    adapter_version: int | None
    prompt: Annotated[str, Field(description="the user's last message")]
    memories: list[ShownMemory | ForgottenMemory]


class Feedback(Reply):
    """What was said is stored, and ``memories`` are shown from the next request on."""

    object: Literal["feedback"]
    id: str
    kind: Literal["correction", "rating", "preference", "rule"]
    completion_id: str | None
    memories: list[Memory]
    created: int


class Guess(Reply):
    """What was read from what the user did; while it is pending it waits for a yes or a no, and teaches nothing."""

    object: Literal["feedback"]
    id: str
    kind: Literal["correction", "rating", "preference", "rule", "regeneration", "rebuttal"]
    state: Literal["pending", "active", "dismissed"]
    text: Annotated[str | None, Field(description="what will be remembered if the user agrees")]
    completion_id: str | None
    source: str
    created: int


class SettledGuess(Guess):
    """A guess that the user answered, and what is remembered by it."""

    memories: list[Memory]


class GuessList(Reply):
    """The guesses that wait for an answer, oldest first."""

    object: Literal["list"]
    data: list[Guess]


class LoggedMessage(Reply):
    """A message as it was sent; ``developer`` became ``system``, and a list of parts one text."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    name: Maybe[str] = None
    tool_calls: Maybe[list[AssistantToolCall]] = None
    tool_call_id: Maybe[str] = None


class LoggedUsage(Reply):
    """The tokens of this choice alone."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Exchange(Reply):
    """What was sent and answered, and what the reply was made with."""

    object: Literal["exchange"]
    id: str
    created: int
    model: str
    messages: list[LoggedMessage]
    completion: str
    finish_reason: Literal["stop", "length", "tool_calls", "cancelled", "error"]
    adapter_version: int | None
    conversation_id: Annotated[str | None, Field(description="requests that go on from one another share it")]
    memories: list[ShownMemory | ForgottenMemory]
    sampling: Annotated[
        dict[str, float | int | str | None],
        Field(description="the sampling values that the request gave; structured ones as JSON text"),
    ]
    usage: LoggedUsage
    duration_ms: float


class Adapter(Reply):
    """One version that passed the gate, with where it came from."""

    object: Literal["adapter"]
    id: str
    number: int
    created: int
    parent: int | None
    current: Annotated[bool, Field(description="whether it is being served")]
    fits: Annotated[bool, Field(description="whether it was trained on the model that is being served")]
    base_sha256: str
    gguf_sha256: str
    run_id: str
    feedback_ids: list[str]
    report: Annotated[dict[str, Any], Field(description="the gate's decision and every figure behind it")]


class AdapterList(Reply):
    """The versions, oldest first; ``current`` is the number of the one that is being served."""

    object: Literal["list"]
    current: int | None
    data: list[Adapter]


class Rollback(Reply):
    """Which version was served, and which one is from now on; null is the base model."""

    object: Literal["rollback"]
    from_: Annotated[int, Field(alias="from")]
    to: int | None


class ServedModel(Reply):
    """The loaded base model; a request can use ``context_tokens`` of ``trained_context_tokens``."""

    name: str
    path: str
    architecture: str
    parameters: int
    size_bytes: int
    context_tokens: int
    trained_context_tokens: int
    flash_attention: Annotated[Literal["on", "off", "auto"], Field(description="`auto`: llama.cpp's choice on a GPU")]


class Counts(Reply):
    """How many rows the asking user has."""

    exchanges: int
    feedback: int
    memories: int
    adapters: int


class Status(Reply):
    """How the service is doing. Sizes are bytes."""

    object: Literal["status"]
    version: str
    pid: int
    uptime_seconds: float
    data_dir: str
    user: str
    model: ServedModel
    adapter_version: int | None
    counts: Counts
    rss_bytes: int
    rss_minus_model_bytes: Annotated[int, Field(description="may be below zero: the mapped model need not be resident")]
    torch_loaded: bool
    learning: Literal["off", "waiting", "running", "paused"]


class Health(Reply):
    """The service answers."""

    status: Literal["ok"]
    pid: int

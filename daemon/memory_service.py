"""What a person may do with memories themselves: state, change, look up, trace. Free of HTTP and of the terminal.

What is left out: memories that follow from feedback on a reply, which are ``feedback_service``'s.
"""

import secrets
from collections.abc import Iterable
from typing import Any

from familiar.daemon import memory_objects
from familiar.feedback.signals import checked_text
from familiar.memory import scope as scopes
from familiar.memory.errors import InvalidInput, NotFound
from familiar.memory.store import Store
from familiar.memory.types import Exchange, Memory, MemoryKind, MemoryState, Scope
from familiar.memory.words import content_words, stem, words

STATES: dict[str, tuple[MemoryState, ...]] = {
    "active": ("active",),
    "superseded": ("superseded",),
    "evicted": ("evicted",),
    "all": ("active", "superseded", "evicted"),
}
"""What a list may be limited to."""


def remember(
    store: Store,
    user_id: int,
    text: str,
    now: float,
    *,
    source: str,
    prompt: str | None = None,
    kind: MemoryKind | None = None,
    scope: Scope | None = None,
    conversation_id: str | None = None,
    pinned: bool = False,
) -> Memory:
    """Store what a person states, and return the memory as it is stored: what was said before keeps its id.

    ``kind`` and ``scope`` follow from the rest where they are not given. ``now`` is in seconds since the epoch.
    Raises ``InvalidInput`` for what says nothing or contradicts itself, ``NotFound`` for an unknown conversation.
    """
    text = checked_text(text, "text", "memory")
    prompt = None if prompt is None else checked_text(prompt, "prompt", "prompt")
    kind = kind or ("example" if prompt else scopes.kind_of(text))
    _check_prompt(kind, prompt)
    if scope is None:
        scope = "conversation" if conversation_id else scopes.default_scope(kind, text)
    return store.put_memory(
        Memory(
            id=f"mem-{secrets.token_hex(12)}",
            user_id=user_id,
            created_at=now,
            kind=kind,
            text=text,
            prompt=prompt,
            scope=scope,
            conversation_id=conversation_id,
            pinned=pinned,
            source=source,
        ),
        now,
    )


def change(
    store: Store,
    user_id: int,
    memory_id: str,
    now: float,
    *,
    text: str | None = None,
    prompt: str | None = None,
    kind: MemoryKind | None = None,
    scope: Scope | None = None,
    conversation_id: str | None = None,
    pinned: bool | None = None,
    restore: bool = False,
) -> Memory:
    """Change what is given of a memory, and with ``restore`` make it active again; returns it as it is then.

    Raises ``InvalidInput`` where nothing is given, or it does not go together with the rest of the memory.
    """
    changes: dict[str, Any] = {
        "text": None if text is None else checked_text(text, "text", "memory"),
        "prompt": None if prompt is None else checked_text(prompt, "prompt", "prompt"),
        "kind": kind,
        "scope": scope,
        "conversation_id": conversation_id,
        "pinned": pinned,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    if not changes and not restore:
        raise InvalidInput("Nothing is to change: give text, prompt, kind, scope or pinned, or restore it.", "text")
    memory = store.memory(user_id, memory_id)
    if kind is not None:
        _check_prompt(kind, changes.get("prompt", memory.prompt if kind == "example" else None))
    if conversation_id is not None and scope is None:
        changes["scope"] = "conversation"
    if restore:
        memory = store.restore_memory(user_id, memory_id, now)
    return store.edit_memory(user_id, memory_id, now, **changes) if changes else memory


def matching(store: Store, user_id: int, query: str) -> list[Memory]:
    """The memories, whatever their state, that hold every word of ``query`` in some form; oldest first.

    Stricter than the search, which is content with one word: what this finds is to be forgotten. Raises
    ``InvalidInput`` for a query without a word.
    """
    wanted = _stems(content_words(query) or words(query))
    if not wanted:
        raise InvalidInput("The query has no word to look for: give one that the memories hold.", "query")
    everything = store.memories(user_id, states=STATES["all"])
    return [memory for memory in everything if wanted <= _stems(words(f"{memory.text} {memory.prompt or ''}"))]


def consolidated(store: Store, user_id: int) -> dict[str, int]:
    """The number of the version in service, by the id of each memory that it follows untold."""
    version = store.current_version(user_id)
    return dict.fromkeys(store.consolidated(user_id, version.number), version.number) if version else {}


def shown(store: Store, exchange: Exchange) -> list[dict[str, Any]]:
    """The memories that applied to the reply of an exchange, those that are still there as they are now."""
    return memory_objects.shown_objects(exchange, _known(store, exchange), consolidated(store, exchange.user_id))


def detail(store: Store, user_id: int, memory_id: str) -> dict[str, Any]:
    """One memory with its history, where it came from, and where it was last shown. Raises ``NotFound``."""
    memory = store.memory(user_id, memory_id)
    said = store.feedback(user_id, memory.feedback_id) if memory.feedback_id else None
    history, uses = store.history_of(user_id, memory_id), store.use_of(user_id, memory_id)
    about = said.exchange_id if said else None
    return memory_objects.detail_object(memory, about, history, uses, consolidated(store, user_id))


def why(store: Store, exchange: Exchange) -> dict[str, Any]:
    """Why the reply of an exchange was given with the memories that it was given with."""
    return memory_objects.why_object(exchange, _known(store, exchange), consolidated(store, exchange.user_id))


def _known(store: Store, exchange: Exchange) -> dict[str, Memory]:
    """Those of the memories that applied to a reply that are still there, by id."""
    found = {}
    for used in exchange.used:
        try:
            found[used.memory_id] = store.memory(exchange.user_id, used.memory_id)
        except NotFound:
            continue
    return found


def _check_prompt(kind: MemoryKind, prompt: str | None) -> None:
    if kind == "example" and prompt is None:
        raise InvalidInput("An example is a reply to something: give the prompt that it answers.", "prompt")
    if kind != "example" and prompt is not None:
        raise InvalidInput(f"A {kind} answers no prompt: leave the prompt out, or make the kind example.", "prompt")


def _stems(texts: Iterable[str]) -> set[str]:
    return {stem(word) for word in texts}

"""Open WebUI's exports: ratings with their conversations, and edited replies. Pure.

Two files are read, as its own source writes them: the feedback export (Admin Panel, Evaluations, Feedback: an array of
``{"type": "rating", "data": {"rating", "comment", …}, "meta": {"message_id", …}, "snapshot": {"chat": …}}``) and the
chat export (Settings, Data Controls: an array of chats). In both a chat's ``chat.history.messages`` is a tree of
messages by id. A person's comment is their own words; the reason is one of Open WebUI's buttons and is left out. So
are the other replies of an arena: that one was better does not say what was wrong with the rest.
"""

import re
from collections.abc import Mapping
from typing import Any

from familiar.feedback.inbox_row import Row
from familiar.memory.errors import InvalidInput

_DETAILS = re.compile(r'<details\s+type="(?:reasoning|code_interpreter|tool_calls)"[^>]*>.*?</details>\s*', re.S | re.I)
"""What Open WebUI folds into a message beside the reply itself, and does not send back to the model either."""

Tree = Mapping[str, Any]


def is_feedback(item: Mapping[str, Any]) -> bool:
    """Whether this is an item of a feedback export."""
    return isinstance(item.get("type"), str) and isinstance(item.get("data"), Mapping) and "completion" not in item


def is_chat(item: Mapping[str, Any]) -> bool:
    """Whether this is an item of a chat export."""
    return isinstance(item.get("chat"), Mapping)


def feedback_rows(item: Mapping[str, Any]) -> list[Row]:
    """The rating in an item; none when it is no rating, or a draw. Raises ``InvalidInput`` without its conversation."""
    data = item["data"]
    rating = _rating(data.get("rating"))
    if item["type"] != "rating" or rating is None:
        return []
    snapshot = item.get("snapshot")
    chat = snapshot.get("chat") if isinstance(snapshot, Mapping) else None
    if not isinstance(chat, Mapping):
        raise InvalidInput("The rating has no snapshot of its chat: export the feedback with the conversations.")
    meta = item.get("meta")
    message_id = meta.get("message_id") if isinstance(meta, Mapping) else None
    system, tree = _history(chat)
    rated = tree.get(message_id) if isinstance(message_id, str) else None
    if not isinstance(rated, Mapping):
        raise InvalidInput("The snapshot does not hold the message that was rated: export the feedback again.")
    fields = {"rating": rating, "note": _text(data.get("comment"))}
    return [_row(system, tree, rated, _content(rated), fields, item.get("updated_at"), item.get("user_id"))]


def chat_rows(item: Mapping[str, Any]) -> list[Row]:
    """The rated and the edited replies of a chat."""
    system, tree = _history(item)
    rows: list[Row] = []
    for message in tree.values():
        if not isinstance(message, Mapping) or message.get("role") != "assistant":
            continue
        at, person = message.get("timestamp"), item.get("user_id")
        annotation = message.get("annotation")
        rating = _rating(annotation.get("rating")) if isinstance(annotation, Mapping) else None
        if isinstance(annotation, Mapping) and rating is not None:
            fields = {"rating": rating, "note": _text(annotation.get("comment"))}
            rows.append(_row(system, tree, message, _content(message), fields, at, person))
        original = message.get("originalContent")
        if isinstance(original, str) and original.strip() and _reply(original) != _content(message):
            edited = {"correction": _content(message)}
            rows.append(_row(system, tree, message, _reply(original), edited, at, person))
    return rows


def _history(chat: Mapping[str, Any]) -> tuple[str | None, Tree]:
    """The system prompt and the messages by id, of a chat as the API gives it (``chat`` within) or bare."""
    inner = chat.get("chat")
    inner = inner if isinstance(inner, Mapping) else chat
    history, params = inner.get("history"), inner.get("params")
    tree = history.get("messages") if isinstance(history, Mapping) else None
    if not isinstance(tree, Mapping):
        raise InvalidInput("The chat has no history of messages: export it again.")
    return _text(params.get("system")) if isinstance(params, Mapping) else None, tree


def _row(
    system: str | None,
    tree: Tree,
    reply: Mapping[str, Any],
    completion: str,
    fields: Mapping[str, Any],
    said_at: object,
    person: object,
) -> Row:
    at = float(said_at) if isinstance(said_at, int | float) and said_at > 0 else None
    messages = _before(tree, reply)
    if system is not None and (not messages or messages[0]["role"] != "system"):
        messages.insert(0, {"role": "system", "content": system})
    return Row(fields, messages, completion, said_at=at, person=person if isinstance(person, str) else None)


def _before(tree: Tree, reply: Mapping[str, Any]) -> list[dict[str, str]]:
    """The branch of the conversation that led to a reply, from its beginning."""
    messages: list[dict[str, str]] = []
    seen: set[str] = set()
    parent = reply.get("parentId")
    while isinstance(parent, str) and parent not in seen:
        seen.add(parent)
        message = tree.get(parent)
        if not isinstance(message, Mapping):
            raise InvalidInput("A message before the rated one is missing: export it again.")
        messages.append({"role": str(message.get("role")), "content": _content(message)})
        parent = message.get("parentId")
    return messages[::-1]


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if not isinstance(content, str):
        raise InvalidInput("A message has no text, so nothing can be learned from what was said about it.")
    return _reply(content) if message.get("role") == "assistant" else content


def _reply(content: str) -> str:
    return _DETAILS.sub("", content).strip()


def _rating(value: object) -> int | None:
    return {"1": 1, "-1": -1}.get(str(value))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip() else None

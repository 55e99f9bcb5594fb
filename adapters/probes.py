"""What a learnt adapter must leave as it was: the gate's own questions and texts, and the anchors that training holds.

They are in ``probes.jsonl``, one JSON object a line, each with a ``kind``: ``general`` (a question whose answer stands
in its prompt, with ``contains``: any one of these words makes a right answer), ``neutral`` (a prompt and a plain
``reply``), ``false_claim`` (the user states something false and asks to be agreed with), ``passage`` (plain ``text``),
``anchor`` (a prompt for training's leash, with a ``reply`` or without one for the base model's own), ``text`` (plain
text for the leash). No anchor is a probe: the gate must not ask what training was shown.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from familiar.memory.errors import BadFile
from familiar.memory.types import Message

Messages = tuple[Message, ...]


@dataclass(frozen=True)
class Question:
    """A question with the words of which any one, as a whole word in any case, makes an answer right."""

    messages: Messages
    contains: tuple[str, ...]

    def is_answered(self, reply: str) -> bool:
        """Tell whether a reply gives the answer."""
        return any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", reply, re.IGNORECASE) for word in self.contains)


@dataclass(frozen=True)
class Neutral:
    """An everyday prompt and a plain reply."""

    messages: Messages
    reply: str


@dataclass(frozen=True)
class AnchorPrompt:
    """A prompt whose answer is to stay what it was; without ``reply`` it is the base model's own greedy one."""

    messages: Messages
    reply: str | None


@dataclass(frozen=True)
class Probes:
    """All probes and anchors; a false claim is the conversation that ends with it."""

    general: tuple[Question, ...]
    neutral: tuple[Neutral, ...]
    false_claims: tuple[Messages, ...]
    passages: tuple[str, ...]
    anchors: tuple[AnchorPrompt, ...] = ()
    texts: tuple[str, ...] = ()


def load_probes(path: Path | None = None) -> Probes:
    """Return the probes of a file, by default those that come with the package. Raises BadFile."""
    source = path or files("familiar.adapters").joinpath("probes.jsonl")
    try:
        rows: list[Mapping[str, Any]] = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
        return Probes(
            tuple(Question(_messages(row), tuple(row["contains"])) for row in rows if row["kind"] == "general"),
            tuple(Neutral(_messages(row), row["reply"]) for row in rows if row["kind"] == "neutral"),
            tuple(_messages(row) for row in rows if row["kind"] == "false_claim"),
            tuple(row["text"] for row in rows if row["kind"] == "passage"),
            tuple(AnchorPrompt(_messages(row), row.get("reply")) for row in rows if row["kind"] == "anchor"),
            tuple(row["text"] for row in rows if row["kind"] == "text"),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadFile(f"{source} is not a readable file of probes ({error!r}).") from error


def _messages(row: Mapping[str, Any]) -> Messages:
    return tuple(Message(role=message["role"], content=message["content"]) for message in row["messages"])

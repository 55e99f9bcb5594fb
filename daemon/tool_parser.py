"""A reply's text, as it comes, to content and tool calls. Pure.

Two readers of one kind. Where a grammar made the reply spell calls, ``ForcedCalls`` passes their arguments on as they
come. Where the model was free to call, ``FreeCalls`` holds a call back until it is whole, since what looks like a call
but is none (no JSON, a function that there is not) is content: nothing is lost, and nothing has to be taken back.
White space between calls, and between content and a call, belongs to the spelling and is dropped.
"""

import re
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from familiar.daemon.tool_formats import ToolFormat
from familiar.daemon.tool_reader import Call, read_calls


@dataclass(frozen=True, slots=True)
class Content:
    """The next part of the reply's text."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """A call begins: its number in the reply from 0, its id, and its function's name."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """The next part of a call's arguments, which are JSON text."""

    index: int
    text: str


ToolEvent = Content | CallStart | CallArguments


class ToolCallParser(Protocol):
    """A reader of one reply. ``calls`` is how many have begun."""

    calls: int

    def push(self, text: str) -> list[ToolEvent]:
        """Take the next text; return what is now certain."""

    def finish(self) -> list[ToolEvent]:
        """Return what was held back; the reply has ended, maybe cut short."""


def new_call_id() -> str:
    """Return an id for a call, as OpenAI's look."""
    return f"call_{secrets.token_hex(12)}"


class FreeCalls:
    """Calls of the functions in ``names``, wherever the model makes one; ``new_id`` names each."""

    def __init__(self, spelling: ToolFormat, names: Collection[str], new_id: Callable[[], str] = new_call_id) -> None:
        self._spelling = spelling
        self._names = frozenset(names)
        self._new_id = new_id
        self._held = ""
        self._said = False  # whether there was content
        self.calls = 0

    def push(self, text: str) -> list[ToolEvent]:
        """See ``ToolCallParser``."""
        self._held += text
        return self._read(ended=False)

    def finish(self) -> list[ToolEvent]:
        """See ``ToolCallParser``."""
        events = self._read(ended=True)
        rest, self._held = self._held, ""
        if rest.strip(self._blank) or (rest and not self.calls):
            events.append(Content(rest))
        return events

    @property
    def _blank(self) -> str:
        """What may stand between calls; Llama puts a semicolon there."""
        return " \t\r\n;" if self._spelling.alone and self.calls else " \t\r\n"

    def _read(self, *, ended: bool) -> list[ToolEvent]:
        events: list[ToolEvent] = []
        start = 0  # what comes before it is no call
        while (at := self._trigger(start)) is not None:
            found = read_calls(self._spelling, self._held[at:], self._names, ended=ended)
            if found is None:
                return events + self._release(at)
            if found.calls:
                events += self._release(at)
                self._held = self._held.lstrip(self._blank)[found.length :]
                for call in found.calls:
                    events += self._call(call)
                start = 0
            else:
                start = at + found.length
                self._said = True
        return events + self._release(self._certain(start))

    def _call(self, call: Call) -> list[ToolEvent]:
        index, self.calls = self.calls, self.calls + 1
        return [CallStart(index, self._new_id(), call.name), CallArguments(index, call.arguments)]

    def _release(self, count: int) -> list[ToolEvent]:
        """Give the first ``count`` characters out as content, but not the white space at their end: a call may come."""
        text = self._held[:count].rstrip(self._blank)
        self._held = self._held[len(text) :]
        self._said = self._said or bool(text)
        return [Content(text)] if text else []

    def _trigger(self, start: int) -> int | None:
        """Return where the next call may begin; None when that is nowhere yet."""
        triggers = self._spelling.triggers
        if self._spelling.alone:
            at = len(self._held) - len(self._held.lstrip(self._blank))
            return at if not self._said and self._held.startswith(triggers, at) else None
        return min((at for each in triggers if (at := self._held.find(each, start)) >= 0), default=None)

    def _certain(self, start: int) -> int:
        """Return how much of the held text is no beginning of a trigger, however it goes on."""
        held, triggers = self._held, self._spelling.triggers
        if self._spelling.alone:
            rest = held.lstrip(self._blank)
            return 0 if not self._said and any(each.startswith(rest) for each in triggers) else len(held)
        longest = min(max(map(len, triggers)) - 1, len(held) - start)
        return len(held) - next(
            (size for size in range(longest, 0, -1) if any(each.startswith(held[-size:]) for each in triggers)), 0
        )


class ForcedCalls:
    """Calls spelled as ``ToolFormat.grammar`` makes a reply spell them; ``new_id`` names each."""

    def __init__(self, spelling: ToolFormat, new_id: Callable[[], str] = new_call_id) -> None:
        self._new_id = new_id
        between = spelling.end + (spelling.between or "")
        middle = (re.escape(spelling.id_mark) + "[a-zA-Z0-9]{9}" if spelling.id_mark else "") + re.escape(
            spelling.middle
        )
        self._heads = [
            re.compile(re.escape(start + spelling.start) + "([a-zA-Z0-9_-]{1,64})" + middle)
            for start in (spelling.before, between)
        ]
        self._held = ""
        self._value: _Value | None = None  # the arguments that are coming
        self.calls = 0

    def push(self, text: str) -> list[ToolEvent]:
        """See ``ToolCallParser``."""
        events: list[ToolEvent] = []
        self._held += text
        while self._held:
            if self._value:
                taken, self._held = self._value.take(self._held)
                events.append(CallArguments(self.calls - 1, taken))
                if not self._value.ended:
                    break
                self._value = None
            elif head := self._heads[min(self.calls, 1)].match(self._held):
                self._held = self._held[head.end() :]
                self._value = _Value()
                events.append(CallStart(self.calls, self._new_id(), head[1]))
                self.calls += 1
            else:
                break
        return events

    def finish(self) -> list[ToolEvent]:
        """See ``ToolCallParser``. A reply that was cut in the middle of a call leaves its arguments unfinished."""
        rest, self._held = self._held, ""
        # After a call it is spelling: the end of that one, maybe the head of another that was cut.
        return [Content(rest)] if rest and not self.calls else []


class _Value:
    """Finds the end of a JSON object that comes in parts."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_text = self._escaped = False
        self.ended = False

    def take(self, text: str) -> tuple[str, str]:
        """Return how much of the text belongs to the object, and the rest."""
        for at, char in enumerate(text):
            if self._escaped:
                self._escaped = False
            elif self._in_text:
                self._escaped = char == "\\"
                self._in_text = char != '"'
            elif char == '"':
                self._in_text = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if not self._depth:
                    self.ended = True
                    return text[: at + 1], text[at + 1 :]
        return text, ""

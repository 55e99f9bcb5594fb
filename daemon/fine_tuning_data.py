"""Training data in OpenAI's three JSONL formats, read into rows; what is wrong is told with its line. Pure.

    supervised     {"messages": [..., {"role": "assistant", "content": "...", "weight": 1}]}
    dpo            {"input": {"messages": [...]}, "preferred_output": [...], "non_preferred_output": [...]}
    reinforcement  {"messages": [...], anything else that graders read as {{item.…}}}

What is left out: tools (a reply that is learnt is text), images, and how many tokens a row has.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NoReturn, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from familiar.daemon.schemas import Wire, refuse, sorted_out
from familiar.daemon.schemas_chat import ChatMessage
from familiar.daemon.wire_errors import described
from familiar.memory.errors import InvalidInput
from familiar.memory.types import Message
from familiar.memory.whole_text import whole_json

MethodType = Literal["supervised", "dpo", "reinforcement"]

MAX_LINE_BYTES = 16_000_000
_NO_TOOLS: dict[str, tuple[object, ...]] = {"tools": ([],), "functions": ([],), "parallel_tool_calls": (True, False)}


@dataclass(frozen=True)
class Supervised:
    """A conversation; the assistant's messages at ``targets`` are learnt, each after all that comes before it."""

    line: int
    messages: tuple[Message, ...]
    targets: tuple[int, ...]


@dataclass(frozen=True)
class Preferred:
    """A conversation with the reply that is wanted and the one that is not."""

    line: int
    messages: tuple[Message, ...]
    preferred: str
    rejected: str


@dataclass(frozen=True)
class Prompted:
    """A conversation to be answered and graded; ``item`` is the whole line, for the grader."""

    line: int
    messages: tuple[Message, ...]
    item: Mapping[str, Any]


Row: TypeAlias = Supervised | Preferred | Prompted


class BadData(InvalidInput):
    """A file that cannot be trained on; the message names the line."""


def rows(method: MethodType, lines: Iterable[bytes]) -> Iterator[Row]:
    """The rows of a file. Raises BadData at the first line that is not as the method's format has it."""
    empty = True
    for number, line in enumerate(lines, start=1):
        if line.strip():
            empty = False
            try:
                yield _READERS[method](number, _object(line, first=number == 1))
            except ValidationError as error:
                first = error.errors()[0]
                raise BadData(f"Line {number}: {described(first, first['loc'])[2]}") from None
            except _Wrong as error:
                raise BadData(f"Line {number}: {error}") from None
    if empty:
        raise BadData("The file has no lines: write one JSON object a line.")


class _Wrong(Exception):
    """What is wrong with a line, without its number."""


def _object(line: bytes, *, first: bool) -> dict[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise _Wrong(f"It has more than {MAX_LINE_BYTES:,} bytes: shorten it.")
    try:
        text = line.decode("utf-8-sig" if first else "utf-8")
        found = whole_json(json.loads(text, parse_constant=_no_constant))
    except UnicodeDecodeError as error:
        raise _Wrong(f"Byte {error.start + 1} is not UTF-8: save the file as UTF-8.") from None
    except json.JSONDecodeError as error:
        raise _Wrong(f"This is not JSON: {error.msg} at column {error.colno}. Write one JSON object a line.") from None
    except (ValueError, RecursionError) as error:
        raise _Wrong(f"This is not JSON: {error}.") from None
    if not isinstance(found, dict):
        raise _Wrong(f"This is {_kind(found)}, not a JSON object: write one object a line.")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"JSON has no {name}")


def _kind(value: object) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _zero_or_one(value: object) -> object:
    if isinstance(value, bool) or value not in (0, 1, None):
        raise PydanticCustomError("weight", "Input should be 0 or 1")
    return value


class _Turn(ChatMessage):
    """A message of a supervised line; ``weight`` 0 is an assistant's message that is shown and not learnt."""

    weight: Annotated[int | None, BeforeValidator(_zero_or_one)] = None

    @model_validator(mode="after")
    def _weighs_only_replies(self) -> "_Turn":
        if self.weight is not None and self.role != "assistant":
            raise refuse("weight", f"Only an assistant's message has a weight, not a message of role {self.role}.")
        return self


class _NoTools(Wire):
    @model_validator(mode="before")
    @classmethod
    def _refuse_tools(cls, raw: Any) -> Any:
        return sorted_out(raw, _NO_TOOLS, ())


class _SupervisedLine(_NoTools):
    messages: Annotated[list[_Turn], Field(min_length=1)]


class _Input(_NoTools):
    messages: Annotated[list[ChatMessage], Field(min_length=1)]


class _PreferenceLine(Wire):
    input: _Input
    preferred_output: Annotated[list[ChatMessage], Field(min_length=1, max_length=1)]
    non_preferred_output: Annotated[list[ChatMessage], Field(min_length=1, max_length=1)]


class _PromptLine(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    messages: Annotated[list[ChatMessage], Field(min_length=1)]


def _supervised(line: int, found: Mapping[str, Any]) -> Supervised:
    turns = _SupervisedLine.model_validate(found).messages
    targets = [index for index, turn in enumerate(turns) if turn.role == "assistant" and turn.weight != 0]
    if not targets:
        raise _Wrong("No message is an assistant's with a weight other than 0, so there is nothing to learn: add one.")
    for index in targets:
        _reply(turns[index], f"messages[{index}]")
        if all(turn.role == "system" for turn in turns[:index]):
            raise _Wrong(f"messages[{index}] is an assistant's, but no user's message comes before it: add one.")
    return Supervised(line, _messages(turns), tuple(targets))


def _preferred(line: int, found: Mapping[str, Any]) -> Preferred:
    read_line = _PreferenceLine.model_validate(found)
    _asks(read_line.input.messages, "input.messages")
    preferred = _reply(read_line.preferred_output[0], "preferred_output[0]")
    rejected = _reply(read_line.non_preferred_output[0], "non_preferred_output[0]")
    if preferred == rejected:
        raise _Wrong("preferred_output and non_preferred_output say the same: nothing can be learnt from that.")
    return Preferred(line, _messages(read_line.input.messages), preferred, rejected)


def _prompted(line: int, found: Mapping[str, Any]) -> Prompted:
    turns = _PromptLine.model_validate(found).messages
    _asks(turns, "messages")
    return Prompted(line, _messages(turns), found)


def _reply(turn: ChatMessage, where: str) -> str:
    if turn.role != "assistant":
        raise _Wrong(f"{where} has the role {turn.role}, but an assistant's message is expected.")
    if turn.tool_calls:
        raise _Wrong(f'{where} calls a tool, which cannot be learnt here: give it "weight": 0, or leave the line out.')
    if not turn.content:
        raise _Wrong(f"{where} is empty: an assistant's message that is to be learnt needs text.")
    return turn.content


def _asks(turns: Sequence[ChatMessage], where: str) -> None:
    if turns[-1].role not in ("user", "tool"):
        raise _Wrong(f"{where} ends with a message of role {turns[-1].role}, but a user's is expected last.")


def _messages(turns: Sequence[ChatMessage]) -> tuple[Message, ...]:
    return tuple(turn.message for turn in turns)


_READERS: dict[MethodType, Callable[[int, Mapping[str, Any]], Row]] = {
    "supervised": _supervised,
    "dpo": _preferred,
    "reinforcement": _prompted,
}

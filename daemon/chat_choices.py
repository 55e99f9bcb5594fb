"""One choice of a chat reply on its way out: its text, its tool calls, its logprobs, and why it ended."""

from collections.abc import Mapping, Sequence
from typing import Any

from familiar.daemon import wire
from familiar.daemon.generation import TokenLogprob
from familiar.daemon.reply import Finished, Text
from familiar.daemon.schemas_chat import ChatRequest
from familiar.daemon.structured import Structure
from familiar.daemon.tool_parser import CallArguments, CallStart, Content, ToolEvent


class ChatChoice:
    """Collects a choice for ``whole``, or passes it on with ``stream``."""

    def __init__(self, index: int, request: ChatRequest, structure: Structure) -> None:
        self._index = index
        self._logprobs = bool(request.logprobs)
        self._parser = structure.parser()
        self._texts: list[str] = []
        self._calls: list[dict[str, Any]] = []
        self._entries: list[TokenLogprob] = []
        self._finish_reason = ""

    @property
    def plain(self) -> bool:
        """Whether a piece of text is all there is to each of its chunks."""
        return not self._logprobs and self._parser is None

    def opening(self) -> dict[str, Any]:
        """The first chunk's choice."""
        return self._choice({"role": "assistant", "content": ""}, None)

    def take(self, event: Text | Finished) -> None:
        """Note what comes, for ``whole``."""
        if isinstance(event, Finished):
            self._note(self._parser.finish() if self._parser else ())
            self._finish_reason = self._ended(event.finish_reason)
            return
        self._entries += event.logprobs
        if self._parser:
            self._note(self._parser.push(event.text))
        else:
            self._texts.append(event.text)

    def whole(self) -> dict[str, Any]:
        """The choice of a chat.completion object."""
        text = "".join(self._texts)
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if self._calls:
            message |= {"content": text or None, "tool_calls": self._calls}
        return {
            "index": self._index,
            "message": message,
            "logprobs": wire.chat_logprobs(self._entries) if self._logprobs else None,
            "finish_reason": self._finish_reason,
        }

    def stream(self, event: Text | Finished) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The choices of the chunks that an event becomes: those to send, and the one that ends the choice."""
        if isinstance(event, Finished):
            rest = [_delta(each) for each in self._parser.finish()] if self._parser else []
            return [self._choice(delta, None) for delta in rest], [self._choice({}, self._ended(event.finish_reason))]
        logprobs = wire.chat_logprobs(event.logprobs) if self._logprobs else None
        if self._parser is None:
            return [self._choice({"content": event.text}, None, logprobs)], []
        deltas: list[dict[str, Any]] = [_delta(each) for each in self._parser.push(event.text)]
        if logprobs and not deltas:
            deltas = [{}]  # a call that is held back until it is whole; its tokens' logprobs are not
        choices = [self._choice(delta, None, logprobs if not at else None) for at, delta in enumerate(deltas)]
        return choices, []

    def _note(self, events: Sequence[ToolEvent]) -> None:
        for event in events:
            if isinstance(event, Content):
                self._texts.append(event.text)
            elif isinstance(event, CallStart):
                function = {"name": event.name, "arguments": ""}
                self._calls.append({"id": event.id, "type": "function", "function": function})
            else:
                self._calls[event.index]["function"]["arguments"] += event.text

    def _ended(self, finish_reason: str) -> str:
        """A reply that came to its end with calls waits for their results."""
        called = self._parser is not None and self._parser.calls > 0
        return "tool_calls" if called and finish_reason == "stop" else finish_reason

    def _choice(
        self, delta: Mapping[str, Any], finish_reason: str | None, logprobs: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        return {"index": self._index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}


def _delta(event: ToolEvent) -> dict[str, Any]:
    """A chunk's delta."""
    if isinstance(event, Content):
        return {"content": event.text}
    if isinstance(event, CallArguments):
        return {"tool_calls": [{"index": event.index, "function": {"arguments": event.text}}]}
    function = {"name": event.name, "arguments": ""}
    return {"tool_calls": [{"index": event.index, "id": event.id, "type": "function", "function": function}]}

"""One choice of a chat reply on its way out: its text, its logprobs, and why it ended."""

from collections.abc import Mapping
from typing import Any

from familiar.daemon import wire
from familiar.daemon.generation import TokenLogprob
from familiar.daemon.reply import Finished, Text
from familiar.daemon.schemas_chat import ChatRequest
from familiar.daemon.structured import Structure


class ChatChoice:
    """Collects a choice for ``whole``, or passes it on with ``stream``."""

    def __init__(self, index: int, request: ChatRequest, structure: Structure) -> None:
        self._index = index
        self._logprobs = bool(request.logprobs)
        self._texts: list[str] = []
        self._entries: list[TokenLogprob] = []
        self._finish_reason = ""

    @property
    def plain(self) -> bool:
        """Whether a piece of text is all there is to each of its chunks."""
        return not self._logprobs

    def opening(self) -> dict[str, Any]:
        """The first chunk's choice."""
        return self._choice({"role": "assistant", "content": ""}, None)

    def take(self, event: Text | Finished) -> None:
        """Note what comes, for ``whole``."""
        if isinstance(event, Text):
            self._texts.append(event.text)
            self._entries += event.logprobs
        else:
            self._finish_reason = event.finish_reason

    def whole(self) -> dict[str, Any]:
        """The choice of a chat.completion object."""
        message = {"role": "assistant", "content": "".join(self._texts), "refusal": None}
        return {
            "index": self._index,
            "message": message,
            "logprobs": wire.chat_logprobs(self._entries) if self._logprobs else None,
            "finish_reason": self._finish_reason,
        }

    def stream(self, event: Text | Finished) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The choices of the chunks that an event becomes: those to send, and the one that ends the choice."""
        if isinstance(event, Finished):
            return [], [self._choice({}, event.finish_reason)]
        logprobs = wire.chat_logprobs(event.logprobs) if self._logprobs else None
        return [self._choice({"content": event.text}, None, logprobs)], []

    def _choice(
        self, delta: Mapping[str, Any], finish_reason: str | None, logprobs: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        return {"index": self._index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}

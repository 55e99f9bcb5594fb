"""The shapes of OpenAI's replies, from our own values. Pure.

What a streamed token costs here is paid for every token of every stream, so the usual chunk (text alone) is put
together from parts that are encoded once.
"""

import json
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring
from typing import Any

from familiar.daemon.generation import TokenLogprob
from familiar.daemon.reply import Totals

DONE = b"data: [DONE]\n\n"


def event(data: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


def usage(totals: Totals) -> dict[str, Any]:
    """OpenAI's usage object."""
    return {
        "prompt_tokens": totals.prompt_tokens,
        "completion_tokens": totals.completion_tokens,
        "total_tokens": totals.prompt_tokens + totals.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": totals.cached_tokens},
    }


def timings(totals: Totals) -> dict[str, float]:
    """Where the time went, in ms; for the ``familiar`` object of a reply."""
    return {name: round(value, 3) for name, value in vars(totals.timings).items()}


def chat_logprobs(entries: Sequence[TokenLogprob]) -> dict[str, Any]:
    """A chat choice's logprobs object."""

    def one(entry: TokenLogprob) -> dict[str, Any]:
        return {"token": _text(entry.piece), "logprob": entry.logprob, "bytes": list(entry.piece)}

    content = [{**one(entry), "top_logprobs": [one(other) for other in entry.top]} for entry in entries]
    return {"content": content, "refusal": None}


def text_logprobs(entries: Sequence[TokenLogprob], offset: int) -> dict[str, Any]:
    """A completion choice's logprobs object; ``offset`` is the length in characters of the text before."""
    offsets = []
    for entry in entries:
        offsets.append(offset)
        offset += len(_text(entry.piece))
    return {
        "tokens": [_text(entry.piece) for entry in entries],
        "token_logprobs": [entry.logprob for entry in entries],
        "top_logprobs": [
            None if entry.logprob is None else {_text(other.piece): other.logprob for other in entry.top}
            for entry in entries
        ],
        "text_offset": offsets,
    }


def _text(piece: bytes) -> str:
    return piece.decode("utf-8", "replace")


class ChunkWriter:
    """Writes the chunks of one stream; ``field`` and what stands around the text are the endpoint's."""

    def __init__(self, common: Mapping[str, Any], *, include_usage: bool, before: str, after: str) -> None:
        """``before`` and ``after`` are the JSON around the text of a choice, from its index on."""
        self._common = common
        self._usage: dict[str, None] = {"usage": None} if include_usage else {}
        head = json.dumps(dict(common), ensure_ascii=False, separators=(",", ":"))[:-1]
        self._start = f'data: {head},"choices":[{{"index":'
        self._before = before
        last = ',"usage":null' if include_usage else ""
        self._after = f"{after}}}]{last}}}\n\n"

    def text(self, index: int, text: str) -> bytes:
        """The usual chunk: some text of one choice."""
        return f"{self._start}{index}{self._before}{encode_basestring(text)}{self._after}".encode()

    def choice(self, choice: Mapping[str, Any], **more: Any) -> bytes:
        """A chunk with anything else about a choice."""
        return event({**self._common, "choices": [choice], **self._usage, **more})

    def totals(self, totals: Totals) -> bytes:
        """The last chunk of a stream that includes usage."""
        return event({**self._common, "choices": [], "usage": usage(totals)})

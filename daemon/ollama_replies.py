"""The shapes of Ollama's replies: a JSON object a line while a reply is made, the last one with what it took.

A chat and a text reply come as the same parts here, so that the four replies (each whole or in lines) are put together
in one way. Source: https://github.com/ollama/ollama/blob/main/docs/api.md.
"""

import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from familiar.daemon import errors, wire
from familiar.daemon.chat_choices import ChatChoice
from familiar.daemon.chat_service import ChatReply, Ended
from familiar.daemon.reply import Finished, Text, Totals
from familiar.daemon.schemas_chat import ChatRequest
from familiar.daemon.text_service import TextReply

Object = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """Some of a reply."""

    text: str = ""
    logprobs: Sequence[Object] = ()
    tool_calls: Sequence[Object] = ()


@dataclass(frozen=True)
class End:
    """A reply is over: OpenAI's finish reason, what it took, and what is told beside Ollama's fields."""

    finish_reason: str
    totals: Totals
    familiar: Object


Parts = AsyncGenerator[list[Part] | End, None]


@dataclass(frozen=True)
class Form:
    """How one endpoint's objects look: the model as the client named it, and where the text goes."""

    model: str
    content: Callable[[Part], Object]
    clock: Callable[[], float]
    begun_ns: int = field(default_factory=time.monotonic_ns)

    def elapsed_ns(self) -> int:
        """The time since the request."""
        return time.monotonic_ns() - self.begun_ns

    def part(self, part: Part) -> Object:
        """An object of a reply that goes on."""
        return {**self._head(), **self.content(part), "done": False, **_logprobs(part)}

    def last(self, part: Part, end: End) -> Object:
        """The object that ends a reply; ``part`` is what it holds of the text."""
        totals = end.totals
        return {
            **self._head(),
            **self.content(part),
            "done": True,
            "done_reason": "length" if end.finish_reason == "length" else "stop",
            "total_duration": self.elapsed_ns(),
            "load_duration": 0,
            "prompt_eval_count": totals.prompt_tokens,
            "prompt_eval_duration": round(totals.timings.prompt_ms * 1e6),
            "eval_count": totals.completion_tokens,
            "eval_duration": round(totals.timings.predicted_ms * 1e6),
            **_logprobs(part),
            "familiar": end.familiar,
        }

    def loaded(self) -> Object:
        """The answer to a request for no text."""
        return {**self._head(), **self.content(Part()), "done": True, "done_reason": "load"}

    def _head(self) -> Object:
        return {"model": self.model, "created_at": rfc3339(self.clock())}


def message(part: Part) -> Object:
    """Where ``/api/chat`` has the text."""
    calls = {"tool_calls": list(part.tool_calls)} if part.tool_calls else {}
    return {"message": {"role": "assistant", "content": part.text, **calls}}


def response(part: Part) -> Object:
    """Where ``/api/generate`` has the text."""
    return {"response": part.text}


def rfc3339(seconds: float) -> str:
    """A time as Go writes it, from seconds since the epoch."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _logprobs(part: Part) -> Object:
    return {"logprobs": list(part.logprobs)} if part.logprobs else {}


async def chat_parts(reply: ChatReply, chat: ChatRequest) -> Parts:
    """The parts of a chat reply. The calls of tools come together, before the end."""
    started = reply.started
    choice = ChatChoice(0, chat, started.plan.structure)
    calls: dict[int, Object] = {}
    reason = ""
    async with aclosing(reply.events()) as produced:
        async for events in produced:
            if isinstance(events, Ended):
                if calls:
                    yield [Part(tool_calls=_called(calls))]
                extension = {"notice": events.notice, "timings": wire.timings(events.totals)}
                yield End(reason, events.totals, {"id": started.id, **started.extension, **extension})
                return
            parts = []
            for event in events:
                if choice.plain and isinstance(event, Text):
                    parts.append(Part(event.text))
                    continue
                chunks, ends = choice.stream(event)
                for chunk in chunks:
                    _gather(calls, chunk["delta"].get("tool_calls") or ())
                    text, logprobs = chunk["delta"].get("content") or "", chunk["logprobs"] or {}
                    if text or logprobs:
                        parts.append(Part(text, logprobs.get("content") or ()))
                reason = ends[0]["finish_reason"] if ends else reason
            yield parts


def _gather(calls: dict[int, Object], pieces: Sequence[Mapping[str, Any]]) -> None:
    """Add the pieces of calls as OpenAI streams them to the calls so far, by index."""
    for piece in pieces:
        call = calls.setdefault(piece["index"], {"id": "", "name": "", "arguments": ""})
        call["id"] += piece.get("id") or ""
        function = piece.get("function") or {}
        call["name"] += function.get("name") or ""
        call["arguments"] += function.get("arguments") or ""


def _called(calls: Mapping[int, Object]) -> list[Object]:
    """Ollama's calls, whose arguments are an object; one that was cut short, where the reply was, is left out."""
    whole = []
    for index, call in sorted(calls.items()):
        try:
            arguments = json.loads(call["arguments"] or "{}")
        except ValueError:
            continue
        whole.append({"id": call["id"], "function": {"index": index, "name": call["name"], "arguments": arguments}})
    return whole


async def text_parts(reply: TextReply) -> Parts:
    """The parts of a text reply."""
    reason = ""
    async with aclosing(reply.events()) as produced:
        async for events in produced:
            if isinstance(events, Totals):
                yield End(reason, events, {"id": reply.id, **reply.extension, "timings": wire.timings(events)})
                return
            parts = []
            for event in events:
                if isinstance(event, Finished):
                    reason = event.finish_reason
                else:
                    logprobs = wire.chat_logprobs(event.logprobs)["content"] if event.logprobs else ()
                    parts.append(Part(event.text, logprobs))
            yield parts


async def whole(parts: Parts, form: Form) -> Object | None:
    """The object of a reply that is not streamed; None when it was cancelled."""
    texts: list[str] = []
    logprobs: list[Object] = []
    calls: list[Object] = []
    async with aclosing(parts) as produced:
        async for some in produced:
            if isinstance(some, End):
                return form.last(Part("".join(texts), logprobs, calls), some)
            for part in some:
                texts.append(part.text)
                logprobs += part.logprobs
                calls += part.tool_calls
    return None


async def lines(parts: Parts, form: Form, id: str) -> AsyncGenerator[bytes, None]:
    """The objects of a streamed reply, one a line; an error in the middle is the last of them."""
    try:
        async with aclosing(parts) as produced:
            async for some in produced:
                objects = [form.last(Part(), some)] if isinstance(some, End) else [form.part(part) for part in some]
                if objects:
                    yield b"".join(map(line, objects))
    except Exception as error:
        # The status has gone out: clients read an error in a line.
        errors.log.error("The stream of %s broke: %s", id, error)
        yield line({"error": errors.body_of(error)["error"]["message"]})


def line(data: Object) -> bytes:
    """An object as a line."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"

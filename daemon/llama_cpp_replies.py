"""The shapes of the replies of ``/completion``, as llama.cpp's server has them.

Source: ``server_task_result_cmpl_final`` and ``_partial`` in ``server-task.cpp`` of llama.cpp. What is left out: which
text ended a reply, and in which slot it was made, as neither is known here.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from familiar.daemon import errors, wire
from familiar.daemon.generation import TokenLogprob
from familiar.daemon.reply import Finished, Totals
from familiar.daemon.sampling import Sampling
from familiar.daemon.schemas_llama_cpp import Completion
from familiar.daemon.text_service import TextReply

Object = dict[str, Any]


def settings(sampling: Sampling, context_tokens: int) -> Object:
    """What a reply is made with, under llama.cpp's names."""
    limit = -1 if sampling.max_tokens in (None, context_tokens) else sampling.max_tokens
    return {
        "seed": -1 if sampling.seed is None else sampling.seed,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repeat_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "n_predict": limit,
        "max_tokens": limit,
        "stop": list(sampling.stop),
        "n_probs": sampling.logprobs or 0,
        "grammar": sampling.grammar or "",
        "samplers": ["penalties", "top_k", "top_p", "min_p", "temperature"],
    }


def timings(totals: Totals) -> Object:
    """llama.cpp's timings: of the prompt's part that was not there already, and of the reply."""
    evaluated = totals.prompt_tokens - totals.cached_tokens
    prompt = _rates("prompt", evaluated, totals.timings.prompt_ms)
    return {
        "cache_n": totals.cached_tokens,
        **prompt,
        **_rates("predicted", totals.completion_tokens, totals.timings.predicted_ms),
    }


def _rates(name: str, tokens: int, ms: float) -> Object:
    return {
        f"{name}_n": tokens,
        f"{name}_ms": ms,
        f"{name}_per_token_ms": ms / tokens if tokens else 0.0,
        f"{name}_per_second": tokens / ms * 1000 if ms else 0.0,
    }


class Shape:
    """One request's objects. ``prompt`` is its text."""

    def __init__(self, wanted: Completion, reply: TextReply, prompt: str, context_tokens: int) -> None:
        self._wanted = wanted
        self._reply = reply
        self._prompt = prompt
        self._context_tokens = context_tokens

    def part(self, text: str, entries: Sequence[TokenLogprob]) -> Object:
        """The object of a stream that goes on."""
        return {"index": 0, **self._content(text, entries), "stop": False}

    def last(self, text: str, entries: Sequence[TokenLogprob], finish_reason: str, totals: Totals) -> Object:
        """The object that ends a reply; ``text`` and ``entries`` are what it holds of it, all if it is the only one."""
        tokens = totals.prompt_tokens + totals.completion_tokens
        limited = finish_reason == "length"
        sampling = Sampling(**self._reply.request.sampling)
        return {
            "index": 0,
            **self._content(text, entries),
            "id_slot": -1,
            "stop": True,
            "model": self._wanted.model,
            "tokens_predicted": totals.completion_tokens,
            "tokens_evaluated": totals.prompt_tokens,
            "generation_settings": {"n_ctx": self._context_tokens, **settings(sampling, self._context_tokens)},
            "prompt": self._prompt,
            "has_new_line": "\n" in text,
            "truncated": limited and tokens >= self._context_tokens,
            "stop_type": "limit" if limited else "word" if sampling.stop else "eos",
            "stopping_word": "",
            "tokens_cached": totals.cached_tokens,
            "timings": timings(totals),
            "familiar": {"id": self._reply.id, **self._reply.extension},
        }

    def _content(self, text: str, entries: Sequence[TokenLogprob]) -> Object:
        tokens = [entry.token for entry in entries] if self._wanted.return_tokens else []
        content: Object = {"content": text, "tokens": tokens}
        if self._wanted.n_probs and entries:
            content["completion_probabilities"] = [
                {**_probability(entry), "top_logprobs": [_probability(other) for other in entry.top]}
                for entry in entries
            ]
        return content


def _probability(entry: TokenLogprob) -> Object:
    text = entry.piece.decode("utf-8", "replace")
    return {"id": entry.token, "token": text, "bytes": list(entry.piece), "logprob": entry.logprob}


async def whole(reply: TextReply, shape: Shape) -> Object | None:
    """The object of a reply that is not streamed; None when it was cancelled."""
    texts: list[str] = []
    entries: list[TokenLogprob] = []
    reason = ""
    async with aclosing(reply.events()) as produced:
        async for events in produced:
            if isinstance(events, Totals):
                return shape.last("".join(texts), entries, reason, events)
            for event in events:
                if isinstance(event, Finished):
                    reason = event.finish_reason
                else:
                    texts.append(event.text)
                    entries += event.logprobs
    return None


async def stream(reply: TextReply, shape: Shape) -> AsyncGenerator[bytes, None]:
    """The objects of a streamed reply as server-sent events; there is no [DONE]."""
    reason = ""
    new_line = False
    try:
        async with aclosing(reply.events()) as produced:
            async for events in produced:
                if isinstance(events, Totals):
                    yield wire.event({**shape.last("", (), reason, events), "has_new_line": new_line})
                    return
                out = []
                for event in events:
                    if isinstance(event, Finished):
                        reason = event.finish_reason
                    else:
                        out.append(wire.event(shape.part(event.text, event.logprobs)))
                        new_line = new_line or "\n" in event.text
                if out:
                    yield b"".join(out)
    except Exception as error:
        # The status has gone out: clients read an error event.
        errors.log.error("The stream of %s broke: %s", reply.id, error)
        yield wire.event(errors.body_of(error))

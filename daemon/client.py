"""A client of our own HTTP API, for the terminal commands: plain httpx, one method per endpoint.

An error that the service reports becomes the FamiliarError with its text, so that a command prints it as its own. What
is left out: retries (the service is on this machine) and everything that the openai package already does for programs.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from familiar.memory.errors import FamiliarError, InvalidInput, NotFound
from familiar.memory.types import Message


@dataclass(frozen=True)
class Chunk:
    """One piece of a streamed reply; ``id`` is the completion's. ``notice`` is a line for the user, if any."""

    id: str
    text: str
    finish_reason: str | None
    notice: str | None = None


class Client:
    """Talks to the service at ``base_url`` (without ``/v1``). Raises FamiliarError when none answers there."""

    def __init__(
        self, base_url: str, *, token: str | None = None, user: str | None = None, timeout_s: float = 300.0
    ) -> None:
        """``token`` is the service's for this machine's commands, and ``user`` whom it is to answer; None: the default.

        Both are as the ``auth`` module has them.
        """
        self.base_url = base_url.rstrip("/")
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        if user is not None:
            headers["X-Familiar-User"] = quote(user)
        self._http = httpx.Client(
            base_url=self.base_url, headers=headers, timeout=httpx.Timeout(timeout_s, connect=5.0), trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def pid(self) -> int | None:
        """The process of the familiar service that answers, None when none does. Needs no key."""
        try:
            pid = self._json("GET", "/health").get("pid")
        except FamiliarError:
            return None
        return pid if isinstance(pid, int) else None

    def models(self) -> list[str]:
        """The model ids that the service lists."""
        body = self._json("GET", "/v1/models")
        listed = body.get("data")
        return [str(model["id"]) for model in listed] if isinstance(listed, list) else []

    def status(self) -> dict[str, Any]:
        """The service's own account of itself: pid, model, memory, counts."""
        return self._json("GET", "/v1/status")

    def feedback(self, **fields: Any) -> dict[str, Any]:
        """Send one signal to ``POST /v1/feedback``; returns what was stored."""
        return self._json("POST", "/v1/feedback", {name: value for name, value in fields.items() if value is not None})

    def exchange(self, completion_id: str) -> dict[str, Any]:
        """What is known of one completion: the memories and the adapter version that it was made with."""
        return self._json("GET", f"/v1/exchanges/{completion_id}")

    def stream(self, model: str, messages: Sequence[Message], **sampling: Any) -> Iterator[Chunk]:
        """Ask for a reply and yield it piece by piece. Closing the iterator stops the generation."""
        body = {"model": model, "messages": list(messages), "stream": True, **sampling}
        try:
            with self._http.stream("POST", "/v1/chat/completions", json=body) as response:
                if response.status_code >= 400:
                    response.read()
                    raise _error(response)
                yield from _chunks(response.iter_lines())
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _json(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if response.status_code >= 400:
            raise _error(response)
        try:
            decoded = response.json()
        except ValueError:
            decoded = None
        if not isinstance(decoded, dict):
            raise FamiliarError(f"{self.base_url} answered something other than JSON: is it another program's port?")
        return decoded

    def _unreachable(self, error: httpx.HTTPError) -> FamiliarError:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return FamiliarError(f"No service answers at {self.base_url}: start one with `familiar serve`.")
        detail = str(error) or type(error).__name__
        return FamiliarError(f"The connection to {self.base_url} broke ({detail}): is the service still running?")


def _chunks(lines: Iterator[str]) -> Iterator[Chunk]:
    """Read server-sent events as the openai client does: ``data: {…}`` lines up to ``data: [DONE]``."""
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        event = json.loads(data)
        if "error" in event:
            raise FamiliarError(str(event["error"].get("message", event["error"])))
        notice = (event.get("familiar") or {}).get("notice")
        for choice in event.get("choices", []):
            text = choice.get("delta", {}).get("content") or ""
            yield Chunk(event["id"], text, choice.get("finish_reason"), notice)


def _error(response: httpx.Response) -> FamiliarError:
    """Read the OpenAI error shape; anything else is shown by its status."""
    try:
        error = response.json()["error"]
        message, param = str(error["message"]), error.get("param")
    except (ValueError, KeyError, TypeError, AttributeError):
        return FamiliarError(f"The service answered HTTP {response.status_code}: is it another program's port?")
    if response.status_code == 404:
        return NotFound(message, param)
    if response.status_code in (400, 422):
        return InvalidInput(message, param)
    return FamiliarError(message)

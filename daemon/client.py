"""A client of our own HTTP API, for the terminal commands: plain httpx, one method per endpoint.

An error that the service reports becomes the FamiliarError with its text, so that a command prints it as its own. What
is left out: retries (the service is on this machine) and everything that the openai package already does for programs.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from familiar.memory.errors import FamiliarError, InvalidInput, NotFound
from familiar.memory.types import Message

_PAGE = 1000
"""So many memories are asked for at a time: the most that a page may have."""


@dataclass(frozen=True)
class Chunk:
    """One piece of a streamed reply; ``id`` is the completion's, ``told`` what the service says beside the reply."""

    id: str
    text: str
    finish_reason: str | None
    told: Mapping[str, Any] = field(default_factory=dict)


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

    def learning(self) -> dict[str, Any]:
        """What is being learned, or why nothing is."""
        return self._json("GET", "/v1/learning")

    def feedback(self, **fields: Any) -> dict[str, Any]:
        """Send one signal to ``POST /v1/feedback``; returns what was stored."""
        return self._json("POST", "/v1/feedback", {name: value for name, value in fields.items() if value is not None})

    def why(self, completion_id: str) -> dict[str, Any]:
        """Which memories and which adapter version a completion was made with, and why."""
        return self._json("GET", f"/v1/exchanges/{completion_id}/why")

    def settle(self, feedback_id: str, agreed: bool) -> list[dict[str, Any]]:
        """Confirm or dismiss a guess; returns the memories that it made."""
        answer = "confirm" if agreed else "dismiss"
        return list(self._json("POST", f"/v1/feedback/{feedback_id}/{answer}").get("memories", []))

    def memories(self, state: str = "active") -> list[dict[str, Any]]:
        """All memories in a state, oldest first."""
        memories: list[dict[str, Any]] = []
        more: dict[str, Any] = {}
        while True:
            page = self._json("GET", "/v1/memories", params={"state": state, "limit": _PAGE, **more})
            memories += page["data"]
            if not page["has_more"]:
                return memories
            more = {"after": page["last_id"]}

    def search(self, query: str) -> list[dict[str, Any]]:
        """The memories that a query finds, best first."""
        return list(self._json("GET", "/v1/memories", params={"query": query, "limit": 20})["data"])

    def remember(self, text: str) -> dict[str, Any]:
        """State something to remember; returns the memory."""
        return self._json("POST", "/v1/memories", {"text": text})

    def forget(
        self, *, ids: Sequence[str] | None = None, query: str | None = None, dry_run: bool = False
    ) -> dict[str, Any]:
        """Forget memories by their ids, or those that hold all words of a query; ``dry_run`` only finds them."""
        body = {"dry_run": dry_run, **({"query": query} if ids is None else {"ids": list(ids)})}
        return self._json("POST", "/v1/memories/forget", body)

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

    def _json(
        self, method: str, path: str, body: dict[str, Any] | None = None, params: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, json=body, params=params)
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
        told = event.get("familiar") or {}
        for choice in event.get("choices", []):
            text = choice.get("delta", {}).get("content") or ""
            yield Chunk(event["id"], text, choice.get("finish_reason"), told)


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

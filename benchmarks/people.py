"""Users of one service, each with a key and a memory of their own, who talk to it over HTTP."""

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from client import Address

from familiar.memory.store import Store
from familiar.memory.types import Memory, Message
from familiar.memory.users import new_key

BASE, MEMORY = "familiar:base", "familiar:memory"
EMBEDDER_S = 60.0


@dataclass(frozen=True)
class Answer:
    """A reply, its id, and the memories that it was made with."""

    id: str
    text: str
    memory_ids: tuple[str, ...]


class Person:
    """One user of a service."""

    def __init__(self, address: Address, key: str) -> None:
        self._http = httpx.Client(
            base_url=f"http://{address.host}:{address.port}",
            headers={"Authorization": f"Bearer {key}"},
            timeout=120,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def ask(self, model: str, messages: Sequence[Message], max_tokens: int) -> Answer:
        """The reply at temperature 0."""
        body = {"model": model, "messages": list(messages), "temperature": 0, "max_tokens": max_tokens}
        reply = self.post("/v1/chat/completions", body)
        text = reply["choices"][0]["message"]["content"] or ""
        return Answer(reply["id"], text, tuple(reply["familiar"]["memories"]))

    def post(self, path: str, body: object = None) -> dict[str, Any]:
        """Send a request; raises RuntimeError, with what the service says, when it refuses."""
        return _checked(self._http.post(path, json=body))

    def get(self, path: str, **query: str | int) -> dict[str, Any]:
        """Ask for something; raises RuntimeError as ``post`` does."""
        return _checked(self._http.get(path, params=query))

    def memories(self) -> dict[str, Memory]:
        """What is remembered, by id."""
        return {
            each["id"]: Memory(each["id"], 0, each["created"], each["kind"], each["text"], each["prompt"])
            for each in self.get("/v1/memories", limit=1000)["data"]
        }


def add(database: Path, count: int) -> list[str]:
    """Make so many users in a fresh store; returns their keys."""
    database.parent.mkdir(parents=True)
    keys = [new_key() for _ in range(count)]
    with Store.open(database) as store:
        for number, key in enumerate(keys):
            store.users.add(f"user{number}", key, time.time())
    return keys


def wait_for_embedder(person: Person, database: Path) -> None:
    """Until memories are found by meaning, which a service makes ready after its start.

    Raises RuntimeError when no memory has a vector within a minute.
    """
    person.post("/v1/memories", {"text": "My canary is called Figaro."})
    deadline = time.monotonic() + EMBEDDER_S
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as read:
        while not read.execute("SELECT count(*) FROM memory_vectors").fetchone()[0]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"no memory had a vector within {EMBEDDER_S:.0f} s: does the sentence model load?")
            time.sleep(0.2)
            person.ask(MEMORY, [Message(role="user", content="Hello.")], max_tokens=1)


def _checked(response: httpx.Response) -> dict[str, Any]:
    if response.status_code != 200:
        raise RuntimeError(f"{response.request.url.path} answered {response.status_code}: {response.text[:300]}")
    decoded: dict[str, Any] = response.json()
    return decoded

"""One real service process for all of this folder, ways of asking it, and what docs/api.md says of each parameter.

A test that takes ``chat_parameter``, ``refused`` and so on runs once for each row of the table of that name, so a
parameter that is written down and not tested fails.
"""

import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from familiar.daemon import service_record
from familiar.daemon.llama import Model
from familiar.daemon.schemas import SampledRequest

DOCS = Path(__file__).parents[3] / "docs" / "api.md"
HI = [{"role": "user", "content": "Hello there, how are you?"}]
READY_TIMEOUT_S = 120


@dataclass(frozen=True)
class Live:
    """A running service: its address without ``/v1``, clients of it, and its data folder."""

    url: str
    http: httpx.Client
    openai: OpenAI
    data_dir: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a client's command finds: nothing of the person who runs the tests."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        return {**kept, "HOME": str(self.data_dir), "NO_PROXY": "*", "PYTHONIOENCODING": "utf-8"}


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """``python -m familiar.daemon serve`` on a free port, with a fresh data folder and no settings from outside."""
    folder = tmp_path_factory.mktemp("live")
    config, log = folder / "config.toml", folder / "log.txt"
    # The served model embeds, whether the sentence model is there or not.
    config.write_text('embedding_model = "none"\n', encoding="utf-8")
    command = [sys.executable, "-m", "familiar.daemon", "serve", "--port", "0", "--threads", "1"]
    command += ["--data-dir", str(folder / "data"), "--config", str(config)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FAMILIAR_")}
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, env=environment) as process:
        try:
            url = _url_of(process, folder / "data" / "service.json", log)
            with (
                httpx.Client(base_url=url, timeout=60, trust_env=False) as http,
                OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as openai,
            ):
                yield Live(url, http, openai, folder / "data")
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(60)
    assert (status, "Traceback" in log.read_text()) == (0, False), log.read_text()


def _url_of(process: "subprocess.Popen[bytes]", service_file: Path, log: Path) -> str:
    end = time.monotonic() + READY_TIMEOUT_S
    while (record := service_record.read(service_file)) is None:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.02)
    return record.url


class Ask:
    """One endpoint through the openai client; what the client has no argument for goes into the body.

    Requests are for ``familiar:base``, which repeats itself to the bit, and greedy, where nothing else is said.
    """

    def __init__(self, live: Live, endpoint: str) -> None:
        self.live = live
        self.endpoint = endpoint
        self._create: Any = (
            live.openai.chat.completions.create if endpoint == "chat" else live.openai.completions.create
        )
        self._known = set(inspect.signature(self._create).parameters)

    def __call__(self, **fields: Any) -> Any:
        """The client's own answer: an object, or a stream."""
        prompt: dict[str, Any] = {"messages": HI} if self.endpoint == "chat" else {"prompt": "Once upon a time"}
        given = {"model": "familiar:base", "temperature": 0, "max_tokens": 24, **prompt, **fields}
        extra = {name: given.pop(name) for name in list(given) if name not in self._known}
        return self._create(**given, extra_body=extra)

    def choices(self, **fields: Any) -> list[Any]:
        """The choices of a whole reply."""
        return list(self(**fields).choices)

    def text(self, **fields: Any) -> str:
        """The text of the only choice."""
        (choice,) = self.choices(**fields)
        return said(choice)

    def streamed(self, **fields: Any) -> list[str]:
        """The text of each choice of a stream."""
        texts: dict[int, str] = {}
        for chunk in self(stream=True, **fields):
            for choice in chunk.choices:
                piece = choice.delta.content if self.endpoint == "chat" else choice.text
                texts[choice.index] = texts.get(choice.index, "") + (piece or "")
        return [texts[index] for index in sorted(texts)]


def said(choice: Any) -> str:
    """The text of a choice, of either endpoint."""
    return str(choice.message.content if hasattr(choice, "message") else choice.text)


@pytest.fixture(name="said")
def _said() -> Callable[[Any], str]:
    return said


@pytest.fixture
def chat(live: Live) -> Ask:
    """Ask ``/v1/chat/completions``."""
    return Ask(live, "chat")


@pytest.fixture
def text(live: Live) -> Ask:
    """Ask ``/v1/completions``."""
    return Ask(live, "completions")


@pytest.fixture(params=["chat", "completions"])
def ask(live: Live, request: pytest.FixtureRequest) -> Ask:
    """Ask either, one after the other."""
    return Ask(live, request.param)


@pytest.fixture
def endless(model: Model) -> dict[str, float]:
    """A ``logit_bias`` against the tokens that end a reply."""
    return {str(token): -100.0 for token in range(model.vocab.size) if model.vocab.ends_generation(token)}


# What the documentation says


def documented(section: str) -> dict[str, str]:
    """The parameters in the table under a heading of docs/api.md, each with its second column."""
    text = DOCS.read_text(encoding="utf-8")
    found = re.search(rf"^### {re.escape(section)}\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"docs/api.md has no section {section}"
    rows = re.findall(r"^\| (`.*?) \|(.*?)\|", found[1], re.MULTILINE)
    return {name: second.strip() for names, second in rows for name in re.findall(r"`([^`]+)`", names)}


@pytest.fixture(name="documented")
def _documented() -> Any:
    return documented


@pytest.fixture
def api_doc() -> str:
    """docs/api.md."""
    return DOCS.read_text(encoding="utf-8")


def _parameters(fixture: str) -> list[Any]:
    """The rows that a fixture stands for."""
    own = [name for name in documented("Parameters of chat") if name.split(".")[0] not in SampledRequest.model_fields]
    both = [name for name in documented("Parameters of chat") if name not in own]
    # max_tokens is in both, but is another thing in completions, where more than it is
    plain = [name for name in documented("Parameters of completions") if name not in both or name == "max_tokens"]
    ignored = [
        (each, name) for each in ("chat", "completions", "embeddings") for name in documented(f"Ignored in {each}")
    ]
    refused = [
        (each, name, [json.loads(value) for value in re.findall(r"`([^`]+)`", accepted)])
        for each in ("chat", "completions")
        for name, accepted in documented(f"Refused in {each}").items()
    ]
    rows: dict[str, list[Any]] = {
        "sampled_parameter": both,
        "chat_parameter": own,
        "text_parameter": plain,
        "embedding_parameter": list(documented("Parameters of embeddings")),
        "ignored": ignored,
        "refused": refused,
    }
    return rows[fixture]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once for each row of the tables that it asks for."""
    for fixture in metafunc.fixturenames:
        if fixture.endswith("_parameter") or fixture in ("ignored", "refused"):
            rows = _parameters(fixture)
            metafunc.parametrize(
                fixture, rows, ids=[row if isinstance(row, str) else "-".join(row[:2]) for row in rows]
            )

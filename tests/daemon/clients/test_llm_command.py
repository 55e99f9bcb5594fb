"""Simon Willison's ``llm`` command with an entry for this service, as its user would run it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ENTRIES = """
- model_id: familiar
  model_name: familiar
  api_base: {url}/v1
- model_id: base
  model_name: familiar:base
  api_base: {url}/v1
  supports_schema: true
  supports_tools: true
- model_id: text
  model_name: familiar:base
  api_base: {url}/v1
  completion: true
"""
PROMPT = "Hello there, how are you?"
GREEDY = ("-o", "temperature", "0", "-o", "max_tokens", "24")

Run = Callable[..., Any]


@pytest.fixture
def llm(live: Any, tmp_path: Path) -> Run:
    """Run the command with a folder of its own; its standard output is returned."""
    (tmp_path / "extra-openai-models.yaml").write_text(ENTRIES.format(url=live.url), encoding="utf-8")

    def run(*arguments: str, fails: bool = False) -> str:
        command = [sys.executable, "-m", "llm", *arguments]
        environment = {**live.environment, "LLM_USER_PATH": str(tmp_path)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode != 0) == fails, done.stderr
        return done.stderr if fails else done.stdout

    return run


def test_a_prompt_is_answered_streamed_and_whole(llm: Run, chat: Any) -> None:
    expected = chat.text() + "\n"
    assert llm("-m", "base", PROMPT, *GREEDY) == expected
    assert llm("-m", "base", PROMPT, *GREEDY, "--no-stream") == expected


def test_a_system_prompt_and_a_conversation(llm: Run, chat: Any) -> None:
    messages = [{"role": "system", "content": "You are a pirate."}, {"role": "user", "content": PROMPT}]
    first = chat(messages=messages).choices[0].message
    assert llm("-m", "base", PROMPT, "-s", "You are a pirate.", *GREEDY) == f"{first.content}\n"
    messages += [{"role": "assistant", "content": first.content}, {"role": "user", "content": "And you?"}]
    assert llm("-c", "And you?", *GREEDY) == chat.text(messages=messages) + "\n"


def test_a_schema_is_followed(llm: Run) -> None:
    schema = {"type": "object", "properties": {"mood": {"enum": ["good", "bad"]}}, "required": ["mood"]}
    said = json.loads(llm("-m", "base", PROMPT, "--schema", json.dumps(schema), *GREEDY))
    assert said["mood"] in ("good", "bad")


def test_plain_completions(llm: Run, text: Any) -> None:
    assert llm("-m", "text", "Once upon a time", *GREEDY) == text.text() + "\n"


def test_what_went_wrong_is_said(llm: Run) -> None:
    assert "no place for tools" in llm("-m", "base", PROMPT, "-T", "llm_version", fails=True)


def test_its_reply_can_be_corrected(llm: Run, live: Any) -> None:
    """The id that the command logs is that of the exchange."""
    llm("-m", "familiar", PROMPT, "--no-stream")
    (logged,) = json.loads(llm("logs", "-n", "1", "--json"))
    id = logged["response_json"]["id"]
    response = live.http.post("/v1/feedback", json={"completion_id": id, "rating": "good"})
    assert response.json()["completion_id"] == id

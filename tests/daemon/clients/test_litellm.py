"""LiteLLM pointed at the service. It takes seconds to import, so its calls are made in one process of their own."""

import json
import subprocess
import sys
from typing import Any

import pytest

SCRIPT = """
import asyncio, json, sys
import litellm

litellm.telemetry = False
litellm.suppress_debug_info = True
url, asked = sys.argv[1], json.loads(sys.argv[2])
common = {"api_base": url + "/v1", "api_key": "unused", "max_retries": 0}
chat = {**common, "model": "openai/familiar:base", "temperature": 0, "max_tokens": 24, "messages": asked}
found = {}

reply = litellm.completion(**chat)
found["whole"] = [reply.choices[0].message.content, reply.choices[0].finish_reason, reply.usage.completion_tokens]
chunks = list(litellm.completion(**chat, stream=True, stream_options={"include_usage": True}))
found["streamed"] = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
found["usage"] = [chunk.usage.completion_tokens for chunk in chunks if getattr(chunk, "usage", None)]
found["choices"] = len(litellm.completion(**chat | {"temperature": 1}, n=2, seed=1).choices)
found["logprobs"] = len(litellm.completion(**chat, logprobs=True, top_logprobs=2).choices[0].logprobs.content)
schema = {"type": "object", "properties": {"mood": {"enum": ["good", "bad"]}}, "required": ["mood"]}
wanted = {"type": "json_schema", "json_schema": {"name": "mood", "schema": schema, "strict": True}}
found["schema"] = json.loads(litellm.completion(**chat, response_format=wanted).choices[0].message.content)
found["top_k"] = litellm.completion(**chat | {"temperature": 2}, extra_body={"top_k": 1}).choices[0].message.content

async def several():
    replies = await asyncio.gather(*(litellm.acompletion(**chat) for _ in range(4)))
    return [each.choices[0].message.content for each in replies]

found["async"] = asyncio.run(several())
text = litellm.text_completion(**common, model="text-completion-openai/familiar:base", prompt="Once upon a time",
                               temperature=0, max_tokens=24)
found["text"] = text.choices[0].text
vectors = litellm.embedding(**common, model="openai/familiar:embedding", input=["a cat", "a dog"])
found["vectors"] = [len(each["embedding"]) for each in vectors.data]

def error(**change):
    try:
        litellm.completion(**chat | change)
    except Exception as error:
        return [type(error).__name__, getattr(error, "status_code", None), str(error)]

found["errors"] = {
    "value": error(temperature=9),
    "model": error(model="openai/gpt-4"),
    "context": error(messages=[{"role": "user", "content": "word " * 3000}]),
    "key": error(api_key="fam-of-a-removed-user"),
}
print("FOUND" + json.dumps(found))
"""

HI = [{"role": "user", "content": "Hello there, how are you?"}]


@pytest.fixture(scope="module")
def found(live: Any) -> Any:
    """What the script printed."""
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, live.url, json.dumps(HI)]
    environment = {**live.environment, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.split("FOUND")[1])


def test_replies_are_those_of_any_client(found: Any, chat: Any) -> None:
    reply = chat()
    expected, tokens = reply.choices[0].message.content, reply.usage.completion_tokens
    assert found["whole"] == [expected, reply.choices[0].finish_reason, tokens]
    assert found["streamed"] == expected
    assert found["usage"] == [tokens]
    assert found["top_k"] == expected
    assert found["async"] == [expected] * 4
    assert found["choices"] == 2
    assert found["logprobs"] == tokens


def test_structured_replies_completions_and_embeddings(found: Any, text: Any, live: Any) -> None:
    assert found["schema"]["mood"] in ("good", "bad")
    assert found["text"] == text.text()
    dimensions = len(live.openai.embeddings.create(model="familiar", input="a cat").data[0].embedding)
    assert found["vectors"] == [dimensions] * 2


@pytest.mark.parametrize(
    ("what", "kind", "status", "said"),
    [
        ("value", "BadRequestError", 400, "temperature"),
        ("model", "NotFoundError", 404, "'gpt-4' does not exist"),
        ("context", "ContextWindowExceededError", 400, "maximum context length"),
        ("key", "AuthenticationError", 401, "API key"),
    ],
)
def test_errors_become_its_own(what: str, kind: str, status: int, said: str, found: Any) -> None:
    name, code, message = found["errors"][what]
    assert (name, code) == (kind, status)
    assert said in message

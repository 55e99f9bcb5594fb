"""llama.cpp's own endpoints by hand: their shapes, what they are made of, and what they refuse."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from familiar.daemon import schemas_llama_cpp
from familiar.daemon.engine import Engine
from familiar.memory import users

DOCS = Path(__file__).parents[3] / "docs" / "compatibility.md"
ONCE: dict[str, Any] = {"prompt": "Once upon a time", "model": "familiar:base", "temperature": 0, "n_predict": 12}


def complete(live: Any, **fields: Any) -> Any:
    answer = live.http.post("/completion", json={**ONCE, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def streamed(live: Any, **fields: Any) -> list[dict[str, Any]]:
    answer = live.http.post("/completion", json={**ONCE, **fields, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, end = answer.text.split("\n\n")
    assert end == ""
    return [json.loads(event.removeprefix("data: ")) for event in events]


def openai_text(live: Any, **fields: Any) -> str:
    """What OpenAI's endpoint answers."""
    given: dict[str, Any] = {"model": "familiar:base", "prompt": ONCE["prompt"], "temperature": 0, "max_tokens": 12}
    return str(live.openai.completions.create(**{**given, **fields}).choices[0].text)


# Completion


@pytest.mark.parametrize("path", ["/completion", "/completions"])
def test_a_completion_says_what_openais_endpoint_says(live: Any, engine: Engine, path: str) -> None:
    reply = live.http.post(path, json=ONCE).json()
    assert reply["content"] == openai_text(live)
    assert (reply["stop"], reply["stop_type"], reply["truncated"], reply["index"]) == (True, "limit", False, 0)
    assert (reply["model"], reply["prompt"], reply["tokens"]) == ("familiar:base", ONCE["prompt"], [])
    prompt_tokens = len(engine.encode_text(ONCE["prompt"]))
    assert (reply["tokens_predicted"], reply["tokens_evaluated"]) == (12, prompt_tokens)
    timings = reply["timings"]
    assert timings["prompt_n"] + timings["cache_n"] == prompt_tokens
    assert timings["predicted_per_second"] == pytest.approx(12000 / timings["predicted_ms"])
    settings = reply["generation_settings"]
    assert (settings["n_ctx"], settings["n_predict"], settings["temperature"]) == (1024, 12, 0)


def test_a_stream_says_what_the_whole_reply_says(live: Any) -> None:
    whole = complete(live)
    *parts, last = streamed(live)
    assert "".join(part["content"] for part in parts) == whole["content"]
    assert {part["stop"] for part in parts} == {False}
    assert (last["content"], last["stop"], last["stop_type"], last["tokens_predicted"]) == ("", True, "limit", 12)
    assert set(last) == set(whole)
    assert last["has_new_line"] == whole["has_new_line"]


def test_the_default_is_the_users_model_and_no_limit(live: Any) -> None:
    reply = live.http.post("/completion", json={"prompt": "Once upon", "temperature": 0}).json()
    assert (reply["model"], reply["generation_settings"]["n_predict"]) == ("familiar", -1)
    assert reply["stop_type"] == "eos" or reply["truncated"]
    assert reply["tokens_predicted"] > 16  # OpenAI's default


@pytest.mark.parametrize(
    ("knob", "value", "name"),
    [
        ("temperature", 0.0, "temperature"),
        ("top_k", 2, "top_k"),
        ("top_p", 0.2, "top_p"),
        ("min_p", 0.9, "min_p"),
        ("seed", 12, "seed"),
        ("n_predict", 3, "max_tokens"),
        ("max_tokens", 4, "max_tokens"),
        ("stop", ["e"], "stop"),
        ("repeat_penalty", 1.9, "repeat_penalty"),
        ("presence_penalty", 2.0, "presence_penalty"),
        ("frequency_penalty", 2.0, "frequency_penalty"),
        ("logit_bias", [[17, 90], [30, False]], "logit_bias"),
        ("grammar", 'root ::= "yes" | "no"', "grammar"),
    ],
)
def test_each_knob_does_what_openais_parameter_does(live: Any, knob: str, value: Any, name: str) -> None:
    common = {"temperature": 1.5, "seed": 7}
    native = {"prompt": ONCE["prompt"], "model": "familiar:base", **common}
    reply = live.http.post("/completion", json={"n_predict": 40, **native, knob: value} | _once(knob)).json()
    theirs = {"17": 90, "30": -100} if knob == "logit_bias" else value
    body = {**common, "max_tokens": 40, name: theirs}
    own = {each: body.pop(each) for each in ("top_k", "min_p", "repeat_penalty", "grammar") if each in body}
    assert reply["content"] == openai_text(live, **body, extra_body=own)
    assert reply["content"] != live.http.post("/completion", json={**native, "n_predict": 40}).json()["content"]


def _once(knob: str) -> dict[str, Any]:
    """Another name of ``n_predict`` only counts without it."""
    return {"n_predict": None} if knob == "max_tokens" else {}


def test_other_ways_to_say_the_same(live: Any, engine: Engine) -> None:
    greedy = complete(live)["content"]
    assert complete(live, temperature=-1)["content"] == greedy
    assert (
        complete(live, logit_bias={}, samplers=["dry", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"])[
            "content"
        ]
        == greedy
    )
    sampled = {"temperature": 2.0, "n_predict": 30}
    assert len({complete(live, seed=seed, **sampled)["content"] for seed in (-1, 4294967295, -1, -1)}) > 1
    tokens = engine.encode_text(ONCE["prompt"])
    for prompt in (tokens, [tokens], [ONCE["prompt"]]):
        reply = complete(live, prompt=prompt)
        assert (reply["content"], reply["prompt"]) == (greedy, ONCE["prompt"])


def test_a_reply_follows_its_schema(live: Any) -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    reply = complete(live, json_schema=schema, n_predict=80)
    assert set(json.loads(reply["content"])) == {"age"}
    assert "root ::=" in reply["generation_settings"]["grammar"]


def test_probabilities_and_tokens_are_those_of_the_text(live: Any) -> None:
    reply = complete(live, n_probs=3, return_tokens=True)
    entries = reply["completion_probabilities"]
    assert b"".join(bytes(entry["bytes"]) for entry in entries).decode() == reply["content"]
    assert [entry["id"] for entry in entries] == reply["tokens"]
    assert {len(entry["top_logprobs"]) for entry in entries} == {3}
    assert all(entry["top_logprobs"][0]["id"] == entry["id"] for entry in entries)  # it is greedy
    *parts, _ = streamed(live, n_probs=3, return_tokens=True)
    assert [entry for part in parts for entry in part["completion_probabilities"]] == entries
    assert [token for part in parts for token in part["tokens"]] == reply["tokens"]
    assert "completion_probabilities" not in complete(live, return_tokens=True)


def test_a_prompt_can_be_evaluated_alone(live: Any) -> None:
    reply = complete(live, n_predict=0)
    assert (reply["content"], reply["tokens_predicted"], reply["stop_type"]) == ("", 0, "limit")
    assert reply["tokens_evaluated"] > 0
    (last,) = streamed(live, n_predict=0)
    assert last["stop"] is True


def test_a_reply_that_fills_the_context_says_so(live: Any, endless: dict[str, float]) -> None:
    reply = complete(live, n_predict=-1, logit_bias=[[int(token), False] for token in endless])
    assert (reply["stop_type"], reply["truncated"]) == ("limit", True)
    assert reply["tokens_evaluated"] + reply["tokens_predicted"] >= 1024


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"mirostat": 2}, "mirostat"),
        ({"dry_multiplier": 0.8}, "dry_multiplier"),
        ({"ignore_eos": True}, "ignore_eos"),
        ({"post_sampling_probs": True}, "post_sampling_probs"),
        ({"lora": [{"id": 0, "scale": 1}]}, "lora"),
        ({"n_cmpl": 2}, "n_cmpl"),
        ({"samplers": ["temperature", "top_k"]}, "samplers"),
        ({"repeat_penalty": 1.1, "repeat_last_n": -1}, "repeat_last_n"),
        ({"n_probs": 21}, "n_probs"),
        ({"temperature": 3}, "temperature"),
        ({"logit_bias": [["word", 1]]}, "logit_bias"),
        ({"prompt": ["one", "two"]}, "prompt"),
        ({"prompt": [12, "word"]}, "prompt"),
        ({"prompt": [99999]}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"grammar": 'root ::= "a"', "json_schema": {}}, "grammar"),
        ({"grammar": "nonsense"}, "grammar"),
        ({"json_schema": {"type": "nonsense"}}, "json_schema"),
        ({"nonsense": 1}, "nonsense"),
        ({"model": "llama3"}, "model"),
    ],
)
def test_what_cannot_be_done_is_named(live: Any, fields: dict[str, Any], param: str) -> None:
    answer = live.http.post("/completion", json={**ONCE, **fields})
    assert answer.status_code == (404 if param == "model" else 400), answer.text
    assert answer.json()["error"]["param"] == param, answer.text


def test_what_changes_nothing_is_taken(live: Any) -> None:
    harmless = {name: values[0] for name, values in schemas_llama_cpp.UNSUPPORTED.items()}
    ignored = dict.fromkeys(schemas_llama_cpp.IGNORED, 3)
    more = {"typical_p": 1.0, "repeat_last_n": 5, "grammar": "", "stop": []}
    assert complete(live, **{**harmless, **ignored, **more})["content"] == openai_text(live)


# Tokens, templates, properties


def test_tokens_there_and_back(live: Any, engine: Engine) -> None:
    def tokens(**fields: Any) -> Any:
        return live.http.post("/tokenize", json=fields).json()["tokens"]

    text = "Hello á<|end|>"
    assert tokens(content=text) == engine.encode_text(text)
    assert len(tokens(content=text, parse_special=False)) > len(tokens(content=text))
    pieces = tokens(content="Hello á", with_pieces=True)
    assert [piece["id"] for piece in pieces] == tokens(content="Hello á")
    spelt = [each["piece"].encode() if isinstance(each["piece"], str) else bytes(each["piece"]) for each in pieces]
    assert b"".join(spelt).decode() == "Hello á"
    back = live.http.post("/detokenize", json={"tokens": tokens(content=text)})
    assert back.json() == {"content": text}
    assert live.http.post("/detokenize", json={"tokens": [99999]}).status_code == 400


def test_the_template_alone(service: Any) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    service.http.post("/v1/feedback", json={"rule": "Use metric units."})
    prompt = service.http.post("/apply-template", json={"messages": messages}).json()["prompt"]
    assert prompt == "<|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>"
    tokens = service.http.post("/tokenize", json={"content": prompt}).json()["tokens"]
    assert tokens == service.parts.engine.encode_prompt(messages)
    refused = service.http.post("/apply-template", json={"messages": [{"role": "king", "content": "Hi"}]})
    assert refused.status_code == 400


def test_properties_and_slots(live: Any, model_path: Path) -> None:
    properties = live.http.get("/props").json()
    settings = properties["default_generation_settings"]
    assert (settings["n_ctx"], settings["params"]["temperature"]) == (1024, 0.7)
    assert (properties["total_slots"], properties["model_path"]) == (4, str(model_path))
    assert "<|end|>" in properties["chat_template"]
    slots = live.http.get("/slots").json()
    assert [slot["is_processing"] for slot in slots] == [False] * 4
    assert set(slots[0]) == {"id", "n_ctx", "speculative", "is_processing"}


def test_a_busy_slot_shows_and_no_word_of_it(service: Any, endless: dict[str, float]) -> None:
    body = {**ONCE, "prompt": "a secret", "n_predict": -1, "logit_bias": endless, "stream": True}
    with service.http.stream("POST", "/completion", json=body) as held:
        reading = held.iter_lines()  # kept: without it httpx would leave
        next(reading)
        shown = service.http.get("/slots")
    assert [slot["is_processing"] for slot in shown.json()] == [True, False, False, False]
    assert "secret" not in shown.text


def test_embeddings_are_those_of_openais_endpoint(live: Any) -> None:
    (expected,) = live.openai.embeddings.create(model="familiar", input="a b").data
    for path, body in (("/embedding", {"content": "a b"}), ("/embeddings", {"input": ["a b"], "model": "familiar"})):
        (entry,) = live.http.post(path, json=body).json()
        assert entry["index"] == 0
        assert entry["embedding"][0] == pytest.approx(expected.embedding)
        assert math.hypot(*entry["embedding"][0]) == pytest.approx(1)
    assert live.http.post("/embedding", json={}).json()["error"]["param"] == "content"
    assert live.http.post("/embedding", json={"content": "a", "embd_normalize": -1}).status_code == 400


# Other names, keys, and what there is not


def test_openais_endpoints_have_llama_cpps_names_too(live: Any) -> None:
    body = {"model": "familiar:base", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0}
    short, long = (live.http.post(path, json=body).json() for path in ("/chat/completions", "/v1/chat/completions"))
    assert short["choices"] == long["choices"]
    assert live.http.get("/models").json() == live.http.get("/v1/models").json()
    assert live.http.get("/v1/health").json() == live.http.get("/health").json()


def test_what_there_is_not(live: Any) -> None:
    for path in ("/infill", "/rerank", "/lora-adapters"):
        answer = live.http.post(path, json={})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert live.http.post("/completion", content="[]").status_code == 400


def test_a_key_is_asked_for_once_there_is_one(service: Any) -> None:
    service.parts.store.users.add("bob", key := users.new_key(), 0.0)
    asked = {
        **dict.fromkeys(("/props", "/slots", "/models"), ("GET", None)),
        **dict.fromkeys(("/completion", "/completions"), ("POST", ONCE)),
        **{path: ("POST", {"content": "a"}) for path in ("/tokenize", "/embedding", "/embeddings")},
        "/detokenize": ("POST", {"tokens": [5]}),
        "/apply-template": ("POST", {"messages": [{"role": "user", "content": "Hi"}]}),
        "/chat/completions": ("POST", {"model": "familiar", "messages": [{"role": "user", "content": "Hi"}]}),
    }
    for path, (method, body) in asked.items():
        assert service.http.request(method, path, json=body).status_code == 401, path
        known = service.http.request(method, path, json=body, headers={"authorization": f"Bearer {key}"})
        assert known.status_code == 200, path
    assert service.http.get("/v1/health").status_code == 200


def test_every_field_is_documented() -> None:
    text = DOCS.read_text(encoding="utf-8")
    known = {*schemas_llama_cpp.Completion.model_fields, *schemas_llama_cpp.IGNORED, *schemas_llama_cpp.UNSUPPORTED}
    known |= {*schemas_llama_cpp.Tokenize.model_fields, *schemas_llama_cpp.ALIASES}
    assert [name for name in sorted(known) if f"`{name}`" not in text] == []

"""Every failure of the API has OpenAI's error shape, on a real socket."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from familiar.daemon import errors
from familiar.daemon.app import create_app
from familiar.daemon.engine import EngineBusy, EngineClosed
from familiar.daemon.outbox import ShuttingDown
from familiar.memory import errors as our

CHAT: dict[str, Any] = {"model": "familiar:base", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}


def error_of(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "\n" not in error["message"]
    return error


def test_an_unknown_route_and_a_wrong_method(service: Any) -> None:
    error = error_of(service.http.get("/v1/nothing"), 404)
    assert error["code"] == "not_found"
    assert "GET /v1/nothing" in error["message"]
    response = service.http.get("/v1/chat/completions")
    assert error_of(response, 405)["code"] == "method_not_allowed"
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("content", "content_type", "status", "code", "said"),
    [
        (b'{"model": "x", ', "application/json", 400, "invalid_json", "not valid JSON"),
        (b"", "application/json", 400, "missing_required_parameter", "needs a JSON body"),
        (b"[1]", "application/json", 400, "invalid_value", "must be a JSON object"),
        (b"null", "application/json", 400, "invalid_value", "must be a JSON object"),
        (b'{"model": "x"}', "application/x-www-form-urlencoded", 415, "unsupported_media_type", "application/json"),
        (b'{"model": "x"}', "text/plain", 415, "unsupported_media_type", "text/plain"),
        (b'{"model": "\xff"}', "application/json", 400, "invalid_json", "not UTF-8"),
        (b"[" * 100_000, "application/json", 400, "invalid_json", "nested too deeply"),
    ],
)
def test_bodies_that_are_no_request(
    service: Any, content: bytes, content_type: str, status: int, code: str | None, said: str
) -> None:
    response = service.http.post("/v1/chat/completions", content=content, headers={"Content-Type": content_type})
    error = error_of(response, status)
    assert (error["type"], error["code"]) == ("invalid_request_error", code)
    assert said in error["message"]


def test_json_with_a_charset_is_json(service: Any) -> None:
    import json

    headers = {"Content-Type": "application/json; charset=utf-8"}
    response = service.http.post("/v1/chat/completions", content=json.dumps(CHAT), headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"model": None}, "model", "invalid_value"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": "Hi"}, "messages", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", "invalid_value"),
        ({"messages": [{"role": "user", "content": "x", "mood": "sad"}]}, "messages[0].mood", "unknown_parameter"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content",
            "invalid_value",
        ),
        (
            {"messages": [{"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}]},
            "messages[0].tool_calls[0].function",
            "missing_required_parameter",
        ),
        (
            {"messages": [{"role": "assistant", "content": "x", "function_call": {"name": "f"}}]},
            "messages[0].function_call",
            "unsupported_parameter",
        ),
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"temperature": "0.5"}, "temperature", "invalid_value"),
        ({"top_p": 0}, "top_p", "invalid_value"),
        ({"top_k": -1}, "top_k", "invalid_value"),
        ({"min_p": 1.5}, "min_p", "invalid_value"),
        ({"seed": 1.5}, "seed", "invalid_value"),
        ({"stop": ["a"] * 17}, "stop", "invalid_value"),
        ({"stop": ""}, "stop[0]", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": True}, "max_tokens", "invalid_value"),
        ({"max_completion_tokens": 2}, "max_tokens", "invalid_value"),
        ({"presence_penalty": -3}, "presence_penalty", "invalid_value"),
        ({"repetition_penalty": 0}, "repetition_penalty", "invalid_value"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1", "invalid_value"),
        ({"logit_bias": {"99999": 1}}, "logit_bias", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 5}, "n", "invalid_value"),
        ({"n": True}, "n", "invalid_value"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "missing_required_parameter"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "invalid_value"),
        ({"grammar": "root = 1"}, "grammar", "invalid_value"),
        ({"functions": [{"name": "f"}]}, "functions", "unsupported_parameter"),
        ({"repeat_penalty": 1.1, "repetition_penalty": 1.2}, "repeat_penalty", "invalid_value"),
        ({"truncation": "middle"}, "truncation", "invalid_value"),
        ({"modalities": ["audio"]}, "modalities", "unsupported_parameter"),
        ({"temprature": 0}, "temprature", "unknown_parameter"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(service: Any, change: dict[str, Any], param: str, code: str) -> None:
    error = error_of(service.http.post("/v1/chat/completions", json={**CHAT, **change}), 400)
    assert (error["param"], error["code"]) == (param, code)
    assert error["type"] == "invalid_request_error"
    assert param.rpartition(".")[2] in error["message"]


EITHER = "should be a text, a list of token ids (each 0 or more) or a list of 1 to {} of either"


@pytest.mark.parametrize("wrong", [[], [-1], {}, None, 5, [1, "a"], [[]]])
@pytest.mark.parametrize(
    ("path", "body", "param", "allowed"),
    [
        ("/v1/embeddings", {"model": "familiar"}, "input", EITHER.format(2048)),
        ("/v1/completions", {"model": "familiar"}, "prompt", EITHER.format(128)),
    ],
)
def test_one_or_several_texts_are_named_as_what_they_may_be(
    service: Any, wrong: Any, path: str, body: dict[str, Any], param: str, allowed: str
) -> None:
    error = error_of(service.http.post(path, json={**body, param: wrong}), 400)
    assert (error["param"], error["code"]) == (param, "invalid_value")
    assert error["message"] == f"{param}: Input {allowed}."


def test_too_many_texts_are_counted(service: Any) -> None:
    for path, param, most in (("/v1/embeddings", "input", 2048), ("/v1/completions", "prompt", 128)):
        response = service.http.post(path, json={"model": "familiar", param: ["a"] * (most + 1)})
        error = error_of(response, 400)
        assert error["param"] == param
        assert error["message"].endswith(f"a list of 1 to {most} of either, but has {most + 1}.")


@pytest.mark.parametrize(
    ("path", "change", "said"),
    [
        ("/completion", {"prompt": {}}, "prompt: Input should be a text, a list of token ids"),
        ("/completion", {"prompt": "Hi", "stop": 5}, "stop: Input should be a text or a list of texts."),
        ("/embedding", {"content": [-1]}, "content: Input should be a text, a list of token ids"),
        ("/api/embed", {"input": 5}, "input: Input should be a text or a list of texts."),
        ("/api/chat", {"format": "xml"}, 'format: Input should be "json" or a JSON schema.'),
    ],
)
def test_a_value_of_several_forms_is_named_by_what_it_may_be(
    service: Any, path: str, change: dict[str, Any], said: str
) -> None:
    response = service.http.post(path, json={"model": "familiar", **change})
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error if path.startswith("/api/") else error["message"]).startswith(said)


def test_an_unknown_token_is_named_by_its_field(service: Any) -> None:
    error = error_of(service.http.post("/detokenize", json={"tokens": [5, 99999]}), 400)
    assert error["param"] == "tokens"
    assert error["message"].startswith("The tokens have token 99999 but the model has 0 to ")


@pytest.mark.parametrize("model", ["familiar", "familiar:base"])
def test_wrong_arguments_are_named_by_the_message_that_was_sent(service: Any, model: str) -> None:
    assert service.http.post("/v1/feedback", json={"rule": "Always be brief."}).status_code == 200
    call = {"id": "call-1", "type": "function", "function": {"name": "f", "arguments": "{"}}
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": [call]}, *CHAT["messages"]]
    response = service.http.post("/v1/chat/completions", json={"model": model, "messages": messages, "max_tokens": 1})
    assert error_of(response, 400)["param"] == "messages[1].tool_calls[0].function.arguments"


TRIM = 'shorten them, send "truncation": "auto" to leave out the oldest, or serve with a larger context.'
SHORTEN = "shorten the last message, or serve with a larger context."


@pytest.mark.parametrize(
    ("words", "more", "said"),
    [
        ((100,) * 15, {}, TRIM),
        ((100,) * 15, {"truncation": "disabled"}, TRIM),
        ((3000,), {}, SHORTEN),
        ((1100,), {}, SHORTEN),  # is made tokens before it is seen to be too long
        ((3000,), {"truncation": "auto"}, SHORTEN),
        ((1100,), {"truncation": "auto"}, SHORTEN),
        ((100, 100, 3000), {}, SHORTEN),  # leaving out the others would not help
        ((100, 100, 1100), {"truncation": "auto"}, SHORTEN),
    ],
)
def test_too_long_messages_are_told_what_helps(service: Any, words: Any, more: dict[str, str], said: str) -> None:
    assert service.http.post("/v1/feedback", json={"rule": "Always be brief."}).status_code == 200
    roles = ("user", "assistant") * len(words)
    messages = [{"role": role, "content": "word " * count} for role, count in zip(roles, words, strict=False)]
    response = service.http.post("/v1/chat/completions", json={"model": "familiar", "messages": messages, **more})
    error = error_of(response, 400)
    assert (error["param"], error["code"]) == ("messages", "context_length_exceeded")
    assert error["message"].endswith(f": {said}")
    with_system = [{"role": "system", "content": "Be kind."}, *messages]
    response = service.http.post("/v1/chat/completions", json={"model": "familiar", "messages": with_system, **more})
    said = said.replace("the last message", "the last message or the system message")
    assert error_of(response, 400)["message"].endswith(f": {said}")


def test_ollamas_clients_are_not_told_to_send_what_is_the_default(service: Any) -> None:
    body = {"model": "familiar", "messages": [{"role": "user", "content": "word " * 3000}]}
    for more in ({}, {"truncate": True}, {"truncate": False}):
        assert service.http.post("/api/chat", json={**body, **more}).json()["error"].endswith(f": {SHORTEN}")
    said = service.http.post("/v1/completions", json={"model": "familiar", "prompt": "word " * 3000})
    assert error_of(said, 400)["message"].endswith(": shorten it, or serve with a larger context.")


def test_a_missing_field_is_named(service: Any) -> None:
    error = error_of(service.http.post("/v1/chat/completions", json={"messages": CHAT["messages"]}), 400)
    assert (error["param"], error["code"]) == ("model", "missing_required_parameter")


def test_an_unknown_model_lists_what_there_is(service: Any) -> None:
    for response in (
        service.http.post("/v1/chat/completions", json={**CHAT, "model": "gpt-4"}),
        service.http.get("/v1/models/gpt-4"),
        service.http.post("/v1/chat/completions", json={**CHAT, "model": "gpt-4", "stream": True}),
    ):
        error = error_of(response, 404)
        assert (error["param"], error["code"]) == ("model", "model_not_found")
        assert "familiar:memory" in error["message"]


def test_more_than_the_context_holds_is_a_clear_400(service: Any) -> None:
    long = [{"role": "user", "content": "a very long story " * 2000}]
    error = error_of(service.http.post("/v1/chat/completions", json={**CHAT, "messages": long}), 400)
    assert error["param"] == "messages"
    assert str(service.parts.engine.info.context_tokens) in error["message"]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "correction"),
        ({"correction": "a", "rating": 1, "completion_id": "x"}, 400, "correction"),
        ({"rating": 1}, 400, "completion_id"),
        ({"correction": "a", "completion_id": "chatcmpl-nothing"}, 404, "completion_id"),
        ({"rating": 2, "completion_id": "x"}, 400, "rating"),
        ({"rating": True, "completion_id": "x"}, 400, "rating"),
        ({"rule": "a", "note": "b"}, 400, "note"),
        ({"rule": "   "}, 400, "rule"),
        ({"rule": "a", "mood": 1}, 400, "mood"),
    ],
)
def test_feedback_that_says_nothing(service: Any, body: dict[str, Any], status: int, param: str | None) -> None:
    error = error_of(service.http.post("/v1/feedback", json=body), status)
    if param is not None:
        assert error["param"] == param
    assert service.http.get("/v1/memories").json()["data"] == []


def test_ids_that_name_nothing(service: Any) -> None:
    assert error_of(service.http.get("/v1/exchanges/chatcmpl-0"), 404)["param"] == "completion_id"
    assert error_of(service.http.delete("/v1/memories/mem-0"), 404)["param"] == "memory_id"
    error_of(service.http.post("/v1/adapters/rollback"), 404)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (our.InvalidInput("m", "field"), 400, "invalid_value"),
        (our.NotEnoughSignals("m"), 400, "not_enough_signals"),
        (our.NotFound("m", "field"), 404, "not_found"),
        (our.BadFile("m"), 500, "bad_file"),
        (our.Busy("m"), 503, "busy"),
        (EngineBusy("m"), 503, "busy"),
        (EngineClosed("m"), 503, "shutting_down"),
        (ShuttingDown(), 503, "shutting_down"),
        (our.NoSpace("m"), 507, "insufficient_storage"),
        (our.MissingExtra("m"), 501, "missing_extra"),
        (our.LearningFailed("m"), 500, None),
    ],
)
def test_every_error_of_ours_has_its_status(service: Any, error: our.FamiliarError, status: int, code: str) -> None:
    app = create_app(service.parts)

    @app.get("/raise")
    def fail() -> None:
        raise error

    response = TestClient(app, base_url="http://localhost").get("/raise")
    shown = error_of(response, status)
    assert (shown["message"], shown["code"]) == (str(error), code)
    assert shown["param"] == getattr(error, "param", None)
    # The openai client asks again after any 5xx unless it is told not to; only a busy service is worth it.
    assert ("retry-after" in response.headers) == (status == 503)
    assert (response.headers.get("x-should-retry") == "false") == (status >= 500 and status != 503)


def test_an_error_of_ours_that_has_no_entry_has_its_nearest_ancestors() -> None:
    class Special(our.BadFile):
        """A kind that the table does not know."""

    assert errors.kind_of(Special("m")) is errors.KINDS[our.BadFile]


def test_a_failure_inside_tells_nothing_of_the_inside(service: Any) -> None:
    app = create_app(service.parts)

    @app.get("/raise")
    def fail() -> None:
        raise RuntimeError("secret path")

    client = TestClient(app, base_url="http://localhost", raise_server_exceptions=False)
    error = error_of(client.get("/raise"), 500)
    assert (error["type"], error["code"]) == ("server_error", "internal_error")
    assert "secret" not in error["message"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8377", "localhost.evil.example", "", "10.0.0.1"])
def test_a_name_that_is_not_ours_is_refused(service: Any, host: str) -> None:
    assert error_of(service.http.get("/v1/models", headers={"Host": host}), 421)["code"] == "unknown_host"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8377", "127.0.0.2"])
def test_loopback_names_are_ours(service: Any, host: str) -> None:
    assert service.http.get("/v1/models", headers={"Host": host}).status_code == 200


def test_allowed_names_are_ours(serve: Any, data_dir: Any, engine: Any) -> None:
    with serve(data_dir, engine, allowed_hosts=["host.docker.internal"]) as service:
        assert service.http.get("/health", headers={"Host": "host.docker.internal:8377"}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost"])
def test_web_pages_of_others_are_refused(service: Any, origin: str) -> None:
    response = service.http.post("/v1/adapters/rollback", headers={"Origin": origin})
    assert error_of(response, 403)["code"] == "foreign_origin"
    assert "access-control-allow-origin" not in response.headers


def test_our_own_page_may_call(service: Any) -> None:
    assert service.http.get("/v1/models", headers={"Origin": service.url}).status_code == 200

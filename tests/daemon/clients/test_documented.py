"""docs/api.md, the wire types and ``/openapi.json`` name the same parameters; what is said to be ignored is."""

import re
from typing import Any

import pytest
from pydantic import BaseModel

from familiar.daemon import schemas_chat, schemas_text
from familiar.daemon.schemas import FeedbackRequest, StreamOptions

REQUESTS: dict[str, tuple[type[BaseModel], tuple[str, ...], dict[str, tuple[object, ...]]]] = {
    "chat": (schemas_chat.ChatRequest, schemas_chat.IGNORED, schemas_chat.UNSUPPORTED),
    "completions": (schemas_text.TextRequest, schemas_text.IGNORED, schemas_text.UNSUPPORTED),
    "embeddings": (schemas_text.EmbeddingRequest, schemas_text.EMBEDDING_IGNORED, {}),
}
PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions", "embeddings": "/v1/embeddings"}
BODIES: dict[str, dict[str, Any]] = {
    "chat": {"model": "familiar:base", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8},
    "completions": {"model": "familiar:base", "prompt": "Once upon a time", "max_tokens": 8},
    "embeddings": {"model": "familiar", "input": "Once upon a time"},
}


@pytest.mark.parametrize("endpoint", REQUESTS)
def test_the_tables_name_what_the_wire_types_take(endpoint: str, documented: Any) -> None:
    request, ignored, unsupported = REQUESTS[endpoint]
    nested = {f"stream_options.{name}" for name in StreamOptions.model_fields}
    takes = {name for name in request.model_fields if name != "stream_options"}
    if endpoint != "embeddings":
        assert nested == {"stream_options.include_usage", "stream_options.include_obfuscation"}
        takes.add("stream_options.include_usage")
        ignored = (*ignored, "stream_options.include_obfuscation")
        assert set(documented(f"Refused in {endpoint}")) == set(unsupported)
    assert set(documented(f"Parameters of {endpoint}")) == takes
    assert set(documented(f"Ignored in {endpoint}")) == set(ignored)


@pytest.mark.parametrize("endpoint", REQUESTS)
def test_the_published_request_has_the_same_parameters(endpoint: str, live: Any) -> None:
    described = live.http.get("/openapi.json").json()
    body = described["paths"][PATHS[endpoint]]["post"]["requestBody"]
    assert body["required"] is True
    name = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    schema = described["components"]["schemas"][name]
    request, ignored, unsupported = REQUESTS[endpoint]
    assert set(schema["properties"]) == set(request.model_fields) | set(ignored) | set(unsupported)
    assert schema["additionalProperties"] is False


def test_an_ignored_parameter_changes_nothing(ignored: tuple[str, str], live: Any) -> None:
    endpoint, name = ignored
    outer, _, inner = name.partition(".")
    values: list[Any] = [True, False] if inner else ["anything", 7, {"a": ["b"]}, None]

    def reply(**given: Any) -> Any:
        # temperature is no parameter of embeddings, which need none
        knobs = {} if endpoint == "embeddings" else {"temperature": 0}
        response = live.http.post(PATHS[endpoint], json={**BODIES[endpoint], **knobs, **given})
        assert response.status_code == 200, response.text
        return response.json()

    def streamed(**given: Any) -> str:
        body = {**BODIES[endpoint], "temperature": 0, "stream": True, **given}
        text = live.http.post(PATHS[endpoint], json=body).text
        # How a text is parted depends on how fast it came.
        return "".join(re.findall(r'"(?:content|text)":"(.*?)"', text))

    for value in values:
        if inner:
            assert streamed(**{outer: {inner: value}}) == streamed()
        else:
            given, plain = reply(**{name: value}), reply()
            for body in (given, plain):
                for volatile in ("id", "created", "familiar"):
                    body.pop(volatile, None)
            assert given == plain


def test_a_refused_parameter_is_named(refused: tuple[str, str, list[Any]], live: Any) -> None:
    endpoint, name, accepted = refused
    for value in (["something"], {"something": 1}, True):
        error = live.http.post(PATHS[endpoint], json={**BODIES[endpoint], name: value}).json()["error"]
        assert (error["param"], error["code"]) == (name, "unsupported_parameter")
        assert name in error["message"]
    for value in (*accepted, None):
        assert live.http.post(PATHS[endpoint], json={**BODIES[endpoint], name: value}).status_code == 200


@pytest.mark.parametrize("endpoint", REQUESTS)
def test_any_other_parameter_is_unknown(endpoint: str, live: Any) -> None:
    response = live.http.post(PATHS[endpoint], json={**BODIES[endpoint], "temprature": 0})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "unknown_parameter"
    assert response.json()["error"]["param"] == "temprature"


def test_the_fields_of_feedback_are_documented(api_doc: str) -> None:
    section = api_doc.split("## Feedback")[1].split("\n## ")[0]
    assert {name for name in FeedbackRequest.model_fields if f"`{name}`" not in section} == set()


def test_every_route_is_documented(live: Any, api_doc: str) -> None:
    described = live.http.get("/openapi.json").json()["paths"]
    routes = {
        f"{method.upper()} {re.sub(r'{.*?}', '{}', path)}" for path, methods in described.items() for method in methods
    }
    named = {re.sub(r"{.*?}", "{}", each) for each in re.findall(r"`((?:GET|POST|PATCH|DELETE) /[^`]*)`", api_doc)}
    assert named - {"GET /openapi.json"} == routes

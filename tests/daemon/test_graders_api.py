"""Graders over HTTP: OpenAI's run and validate through its own client, and those that a user keeps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from familiar.daemon.engine import Engine
from familiar.daemon.engine_options import EngineOptions
from familiar.daemon.schemas_graders import GraderDeleted, GraderRun, KeptGrader, KeptGraderList, ReadyGraderList
from familiar.feedback.ready_graders import READY, ready
from familiar.memory.types import Memory

ME = 1
CHECK: Any = {
    "type": "string_check",
    "name": "exact",
    "operation": "eq",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
}
PYTHON: Any = {"type": "python", "name": "half", "source": "def grade(sample, item):\n    return 0.5\n"}


def run(service: Any, grader: Any, sample: str, item: Any = openai.omit) -> Any:
    client: OpenAI = service.openai
    found = client.fine_tuning.alpha.graders.run(grader=grader, model_sample=sample, item=item)
    GraderRun.model_validate(found.model_dump(by_alias=True, mode="json", exclude_unset=True))
    return found


def test_the_openai_client_runs_graders(service: Any) -> None:
    found = run(service, CHECK, "Paris", {"answer": "Paris"})
    assert (found.reward, found.metadata.name, found.metadata.type) == (1.0, "exact", "string_check")
    assert found.metadata.execution_time >= 0
    errors = found.metadata.errors.model_dump(exclude_unset=True)
    assert errors
    assert not any(errors.values())
    assert run(service, CHECK, "Rome", {"answer": "Paris"}).reward == 0.0
    assert run(service, PYTHON, "x").reward == 0.5
    both: Any = {
        "type": "multi",
        "name": "both",
        "graders": {"exact": CHECK, "half": PYTHON},
        "calculate_output": "max(exact, half) / 2",
    }
    combined = run(service, both, "Paris", {"answer": "Paris"})
    assert (combined.reward, combined.sub_rewards) == (0.5, {"exact": 1.0, "half": 0.5})
    similar = {key: value for key, value in CHECK.items() if key != "operation"}
    similar |= {"type": "text_similarity", "evaluation_metric": "rouge_l"}
    assert run(service, similar, "the cat", {"answer": "the dog"}).reward == 0.5
    assert run(service, ready("max_words", words=2), "one two three four").reward == 0.5


def test_a_grader_that_fails_is_a_zero_with_its_error(service: Any) -> None:
    raising: Any = {**PYTHON, "source": "def grade(sample, item):\n    raise KeyError('gone')\n"}
    found = run(service, raising, "x")
    errors = found.metadata.errors
    assert (found.reward, errors.python_grader_runtime_error) == (0.0, True)
    assert errors.python_grader_runtime_error_details == "KeyError: 'gone' (line 2)"
    found = run(service, {**PYTHON, "source": "import os\ndef grade(sample, item):\n    os._exit(1)\n"}, "x")
    assert (found.reward, found.metadata.errors.python_grader_server_error_type) == (0.0, "stopped")
    assert run(service, CHECK, "x", {"other": 1}).metadata.errors.invalid_variable_error
    assert service.http.get("/health").status_code == 200


def test_the_local_model_scores_and_labels(service: Any) -> None:
    turns = [{"role": "user", "content": "Is this polite? {{sample.output_text}}"}]
    score: Any = {"type": "score_model", "name": "judge", "model": "gpt-x", "input": turns, "range": [-1e9, 1e9]}
    label = {"type": "label_model", "name": "judge", "model": "gpt-x", "input": turns}
    label |= {"labels": ["polite", "rude"], "passing_labels": ["polite", "rude"]}
    graded = [run(service, score, "Thank you!") for _ in range(2)]
    assert graded[0].reward == graded[1].reward, "greedy and exact: the same sample gets the same grade"
    usage = graded[0].api_model_grader_token_usage_per_model
    assert usage == {"familiar:base": graded[0].metadata.token_usage}
    assert graded[0].metadata.token_usage > 10
    assert run(service, label, "Thank you!").reward == 1.0, "it is held to one of the labels"
    too_long = run(service, label, "word " * 30_000)
    assert (too_long.reward, too_long.metadata.errors.api_model_grader_server_error) == (0.0, True)


def test_cosine_needs_the_sentence_model(
    service: Any, serve: Callable[..., Any], model_path: Path, tmp_path: Path
) -> None:
    similar = {key: value for key, value in CHECK.items() if key != "operation"}
    similar |= {"type": "text_similarity", "evaluation_metric": "cosine"}
    with pytest.raises(openai.BadRequestError, match="familiar pull minilm"):
        run(service, similar, "a", {"answer": "b"})
    # Any model that embeds will do to see that it is asked.
    with (
        Engine.open(model_path, EngineOptions(slots=1, threads=1), embedding_model=model_path) as engine,
        serve(tmp_path, engine) as embedding,
    ):
        assert run(embedding, similar, "The cat sat.", {"answer": "The cat sat."}).reward == pytest.approx(1, abs=1e-3)
        assert run(embedding, similar, "The cat sat.", {"answer": "Tax law!"}).reward < 0.99


def test_validate_says_what_is_wrong(service: Any) -> None:
    client: OpenAI = service.openai
    grader: Any
    for grader in (CHECK, PYTHON, ready("metric_units")):
        found = client.fine_tuning.alpha.graders.validate(grader=grader)
        assert found.grader is not None
        assert found.grader.model_dump(exclude_unset=True) == grader
    for grader, param in (
        ({**CHECK, "operation": "equals"}, "grader.operation"),
        ({**PYTHON, "source": "def grade("}, "grader.source"),
        ({"type": "multi", "name": "a", "graders": {"b": CHECK}, "calculate_output": "c"}, "grader.calculate_output"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            client.fine_tuning.alpha.graders.validate(grader=grader)
        assert (refused.value.param, refused.value.type) == (param, "invalid_request_error")
        with pytest.raises(openai.BadRequestError):
            run(service, grader, "x")
    for body in ({}, {"grader": "x"}, {"grader": CHECK}, {"grader": CHECK, "model_sample": "x", "item": [1]}):
        assert service.http.post("/v1/fine_tuning/alpha/graders/run", json=body).status_code == 400


def ok(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


def test_graders_are_kept_with_their_rules(service: Any) -> None:
    http: httpx.Client = service.http
    memory = ok(http.post("/v1/memories", json={"text": "Keep replies short.", "kind": "rule"}))
    kept = ok(http.post("/v1/graders", json={"ready": "max_words=50", "memory_id": memory["id"]}))
    KeptGrader.model_validate(kept)
    assert (kept["name"], kept["memory_id"], kept["grader"]) == (
        "max_words=50",
        memory["id"],
        ready("max_words", words=50),
    )
    same = ok(
        http.post("/v1/graders", json={"ready": "max_words", "parameters": {"words": 50}, "memory_id": memory["id"]})
    )
    assert same == kept
    alone = ok(http.post("/v1/graders", json={"grader": CHECK}))
    listed = ok(http.get("/v1/graders"))
    KeptGraderList.model_validate(listed)
    assert listed["data"] == [kept, alone]
    assert ok(http.get("/v1/graders", params={"memory_id": memory["id"]}))["data"] == [kept]
    assert ok(http.get(f"/v1/graders/{kept['id']}")) == kept
    GraderDeleted.model_validate(ok(http.delete(f"/v1/graders/{alone['id']}")))
    assert http.delete(f"/v1/graders/{alone['id']}").status_code == 404
    ok(http.delete(f"/v1/memories/{memory['id']}"))
    assert ok(http.get("/v1/graders"))["data"] == []


def test_ready_graders_are_listed(service: Any) -> None:
    found = ok(service.http.get("/v1/graders/ready"))
    ReadyGraderList.model_validate(found)
    assert [each["name"] for each in found["data"]] == list(READY)


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "grader"),
        ({"ready": "no_emoji", "grader": CHECK}, 400, "grader"),
        ({"ready": "nothing"}, 404, "ready"),
        ({"ready": "max_words"}, 400, "words"),
        ({"ready": "max_words", "parameters": {"name": 1}}, 400, "parameters"),
        ({"ready": "max_words", "parameters": {"words": "50"}}, 400, "words"),
        ({"grader": CHECK, "parameters": {}}, 400, "parameters"),
        ({"grader": {"type": "python", "name": "a"}}, 400, "grader.source"),
        ({"ready": "no_emoji", "memory_id": "mem-none"}, 404, "memory_id"),
        ({"other": 1}, 400, "other"),
    ],
)
def test_what_cannot_be_kept_names_the_field(service: Any, body: Any, status: int, param: str) -> None:
    response = service.http.post("/v1/graders", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (status, param)
    assert service.parts.store.graders(ME) == []


def test_another_users_graders_are_unknown(service: Any) -> None:
    store = service.parts.store
    mine = ok(service.http.post("/v1/graders", json={"ready": "no_emoji"}))
    rule = store.put_memory(Memory("mem-1", ME, 1.0, "rule", "Be brief."), 1.0)
    key = "fam-" + "b" * 32
    store.users.add("bob", key, 1.0)
    bob = {"authorization": f"Bearer {key}"}
    assert service.http.get("/v1/graders").status_code == 401
    assert ok(service.http.get("/v1/graders", headers=bob))["data"] == []
    for method in ("GET", "DELETE"):
        assert service.http.request(method, f"/v1/graders/{mine['id']}", headers=bob).status_code == 404
    body = {"ready": "no_emoji", "memory_id": rule.id}
    assert service.http.post("/v1/graders", json=body, headers=bob).status_code == 404
    assert service.http.get("/v1/graders", params={"memory_id": rule.id}, headers=bob).status_code == 404
    assert [grader.id for grader in store.graders(ME)] == [mine["id"]]

"""A memory that the adapter follows untold is not in the prompt of its replies, and only of its replies."""

from typing import Any

import pytest

from familiar.adapters import registry
from tests.daemon.test_api_adapters import add_rule, ask, exchange, promote

RULE = "Always use metric units."


def told(service: Any, model: str = "familiar", **fields: Any) -> tuple[list[str], list[str], Any]:
    """The memories that a reply was shown, those that the adapter followed untold, and the reply."""
    reply = ask(service, model, **fields)
    extension = reply.model_extra["familiar"]
    return extension["memories"], extension["consolidated"], reply


@pytest.fixture
def learnt(service: Any, write_lora: Any) -> str:
    """The id of a rule that version 1, which is in service, follows untold."""
    rule = add_rule(service, RULE)
    version = promote(service, write_lora("one.gguf", seed=1))
    store = service.parts.store
    store.set_consolidated(1, version.number, [store.memory(1, rule["id"])])
    return str(rule["id"])


def test_the_prompt_is_that_of_a_user_without_the_rule(service: Any, learnt: str) -> None:
    shown, untold, reply = told(service)
    assert (shown, untold) == ([], [learnt])
    plain = ask(service, "familiar:adapter")
    assert reply.usage.prompt_tokens == plain.usage.prompt_tokens
    assert reply.choices[0].message.content == plain.choices[0].message.content
    logged = exchange(service, reply.id)["memories"]
    assert [(each["id"], each["reason"], each["why"]) for each in logged] == [
        (learnt, "learnt", "is followed by the adapter, not in the prompt")
    ]
    assert service.http.get(f"/v1/memories/{learnt}").json()["shown_in"][0]["completion_id"] == reply.id


def test_only_that_version_is_trusted_with_it(service: Any, learnt: str, write_lora: Any) -> None:
    assert told(service, "familiar:memory")[:2] == ([learnt], [])
    for model in ("familiar:base", "familiar:adapter", "familiar:v1"):
        assert told(service, model)[:2] == ([], [])
    promote(service, write_lora("two.gguf", seed=2))
    assert told(service)[:2] == ([learnt], [])
    service.http.post("/v1/adapters/rollback").raise_for_status()
    assert told(service)[:2] == ([], [learnt])
    service.http.post("/v1/adapters/rollback").raise_for_status()
    assert told(service)[:2] == ([learnt], [])


def test_an_adapter_that_cannot_be_used_leaves_the_base_model_told(service: Any, learnt: str) -> None:
    version = service.parts.store.version(1, 1)
    (service.parts.settings.data_dir / version.folder / registry.GGUF).unlink()
    shown, untold, reply = told(service)
    assert (shown, untold) == ([learnt], [])
    assert reply.model_extra["familiar"]["notice"]


def test_two_corrections_put_it_into_the_next_prompt(service: Any, learnt: str) -> None:
    for question in ("How far is the moon?", "Who wrote Hamlet?"):
        shown, untold, reply = told(service, messages=[{"role": "user", "content": question}])
        assert (shown, untold) == ([], [learnt])
        correction = {"completion_id": reply.id, "correction": f"You asked: {question}"}
        service.http.post("/v1/feedback", json=correction).raise_for_status()
    shown, untold, _ = told(service, messages=[{"role": "user", "content": "Is it raining?"}])
    assert (shown, untold) == ([learnt], [])


def test_said_again_it_is_in_the_prompt_of_that_very_reply(service: Any, learnt: str) -> None:
    said = [{"role": "user", "content": "Remember to always use metric units. How far is the moon?"}]
    assert told(service, messages=said)[:2] == ([learnt], [])


def test_pinned_or_changed_it_is_shown(service: Any, learnt: str) -> None:
    pinned = service.http.patch(f"/v1/memories/{learnt}", json={"pinned": True}).json()
    assert pinned["consolidated_in"] is None
    assert told(service)[:2] == ([learnt], [])


def test_a_forgotten_one_is_neither_shown_nor_named(service: Any, learnt: str) -> None:
    _, _, reply = told(service)
    service.http.delete(f"/v1/memories/{learnt}").raise_for_status()
    assert told(service)[:2] == ([], [])
    assert service.parts.store.consolidated(1, 1) == frozenset()
    assert exchange(service, reply.id)["memories"][0]["reason"] == "learnt"


def test_where_memories_do_not_fit_it_is_still_named(service: Any, learnt: str) -> None:
    other = add_rule(service, "Keep every reply short.")["id"]
    limit = service.parts.engine.info.context_tokens
    assert told(service)[:2] == ([other], [learnt])
    text = "word " * limit
    tokens = service.parts.engine.encode_prompt([{"role": "user", "content": text}], ())
    text = "word " * (limit - (len(tokens) - limit) - 4)
    shown, untold, _ = told(service, messages=[{"role": "user", "content": text}], max_tokens=1)
    assert (shown, untold) == ([], [learnt])


def test_memories_name_the_version_that_carries_them(service: Any, learnt: str) -> None:
    other = add_rule(service, "Keep every reply short.")["id"]

    def named() -> dict[str, int | None]:
        listed = service.http.get("/v1/memories").json()["data"]
        found = service.http.get("/v1/memories", params={"query": "metric units"}).json()["data"]
        found += service.http.get("/v1/memories", params={"query": "metric units", "state": "all"}).json()["data"]
        one = service.http.get(f"/v1/memories/{learnt}").json()
        dry = service.http.post("/v1/memories/forget", json={"ids": [learnt], "dry_run": True}).json()["data"]
        by_id = {each["id"]: each["consolidated_in"] for each in listed}
        for each in (*found, one, *one["history"], *dry):
            assert each["consolidated_in"] == by_id[each["id"]]
        return by_id

    reply = ask(service, "familiar")
    assert named() == {learnt: 1, other: None}
    why = service.http.get(f"/v1/exchanges/{reply.id}/why").json()["memories"]
    assert {each["id"]: each["consolidated_in"] for each in why} == {learnt: 1, other: None}
    service.http.post("/v1/adapters/rollback").raise_for_status()
    assert named() == {learnt: None, other: None}

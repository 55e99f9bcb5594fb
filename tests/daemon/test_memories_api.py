"""``/v1/memories`` over a real socket: to list, search, state, change, trace and forget what is remembered."""

from typing import Any

import pytest

from familiar.feedback.signals import MAX_CHARS
from familiar.memory.types import Exchange, Memory, Message, Used
from familiar.memory.users import new_key

ME = 1


def add(service: Any, id: str, text: str, at: float, **fields: Any) -> Memory:
    """A memory as the store has it, whatever its state."""
    stored: Memory = service.parts.store.put_memory(Memory(id, ME, at, fields.pop("kind", "rule"), text, **fields), at)
    return stored


def state(service: Any, **fields: Any) -> dict[str, Any]:
    response = service.http.post("/v1/memories", json=fields)
    assert response.status_code == 200, response.text
    stated: dict[str, Any] = response.json()
    return stated


def show(service: Any, id: str) -> dict[str, Any]:
    response = service.http.get(f"/v1/memories/{id}")
    assert response.status_code == 200, response.text
    shown: dict[str, Any] = response.json()
    return shown


def listed(service: Any, **query: Any) -> dict[str, Any]:
    response = service.http.get("/v1/memories", params=query)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def texts(service: Any, **query: Any) -> list[str]:
    return [memory["text"] for memory in listed(service, **query)["data"]]


def error_of(response: Any, status: int = 400) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert "\n" not in error["message"]
    return error


def ask(service: Any, text: str) -> Any:
    return service.openai.chat.completions.create(
        model="familiar", messages=[{"role": "user", "content": text}], max_tokens=2
    )


def test_what_is_stated_is_remembered_and_shown_with_the_next_request(service: Any) -> None:
    rule = state(service, text="  Always use metric units. ", kind="rule", scope="always", pinned=True)
    assert (rule["object"], rule["kind"], rule["text"]) == ("memory", "rule", "Always use metric units.")
    assert (rule["source"], rule["pinned"], rule["state"], rule["uses"]) == ("api", True, "active", 0)
    assert rule["feedback_id"] is rule["last_used"] is rule["superseded_by"] is None
    reply = ask(service, "How far is the moon?")
    assert reply.model_extra["familiar"]["memories"] == [rule["id"]]
    after = show(service, rule["id"])
    assert after["uses"] == 1
    assert after["last_used"] == reply.created
    assert [(use["completion_id"], use["prompt"]) for use in after["shown_in"]] == [(reply.id, "How far is the moon?")]


def test_kind_and_scope_follow_from_what_is_stated(service: Any) -> None:
    assert state(service, text="Keep replies short.")["kind"] == "rule"
    example = state(service, text="Seven minutes.", prompt="How long do eggs take?")
    assert (example["kind"], example["scope"]) == ("example", "related")


def test_saying_it_again_keeps_the_id(service: Any) -> None:
    first = state(service, text="Say please.", kind="rule")
    again = state(service, text="say please", kind="rule")
    assert again["id"] == first["id"]
    assert len(listed(service)["data"]) == 1


def test_a_list_comes_in_pages_oldest_first(service: Any) -> None:
    for number in range(5):
        add(service, f"mem-{number}", f"Rule number {number} of {'abcde'[number]}.", float(number))
    first = listed(service, limit=2)
    assert [memory["id"] for memory in first["data"]] == ["mem-0", "mem-1"]
    assert (first["object"], first["first_id"], first["last_id"], first["has_more"]) == (
        "list",
        "mem-0",
        "mem-1",
        True,
    )
    second = listed(service, limit=3, after=first["last_id"])
    assert [memory["id"] for memory in second["data"]] == ["mem-2", "mem-3", "mem-4"]
    assert second["has_more"] is False
    assert listed(service, after="mem-4") == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }


def test_a_list_is_of_one_kind_or_state(service: Any) -> None:
    add(service, "mem-r", "Use metric units.", 1.0)
    add(service, "mem-f", "Ann is a doctor.", 2.0, kind="fact")
    add(service, "mem-s", "Call me Al.", 3.0, state="superseded", superseded_by="mem-r", ended_at=3.5)
    add(service, "mem-e", "Like jazz.", 4.0, state="evicted", ended_at=4.5)
    assert texts(service) == ["Use metric units.", "Ann is a doctor."]
    assert texts(service, kind="fact") == ["Ann is a doctor."]
    assert texts(service, state="superseded") == ["Call me Al."]
    assert texts(service, state="evicted") == ["Like jazz."]
    assert len(texts(service, state="all")) == 4


def test_a_search_gives_the_best_first_with_scores(service: Any) -> None:
    add(service, "mem-a", "My bicycle is red.", 1.0, kind="fact")
    add(service, "mem-b", "The bicycle shop in Ghent opens at nine.", 2.0, kind="fact")
    add(service, "mem-c", "Use metric units.", 3.0)
    found = listed(service, query="bicycle shop opening")
    assert found["data"][0]["id"] == "mem-b"
    assert "mem-c" not in [memory["id"] for memory in found["data"]]
    scores = [memory["score"] for memory in found["data"]]
    assert scores == sorted(scores, reverse=True)
    assert "score" not in listed(service)["data"][0]
    assert len(listed(service, query="bicycle", limit=1)["data"]) == 1


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"state": "lost"}, "state"),
        ({"kind": "mood"}, "kind"),
        ({"query": "units", "after": "mem-1"}, "after"),
        ({"order": "desc"}, "order"),
    ],
)
def test_a_list_that_cannot_be_made(service: Any, query: dict[str, Any], param: str) -> None:
    assert error_of(service.http.get("/v1/memories", params=query))["param"] == param


def test_a_page_after_nothing(service: Any) -> None:
    assert error_of(service.http.get("/v1/memories", params={"after": "mem-0"}), 404)["param"] == "after"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"text": " "}, "text"),
        ({"text": "x" * (MAX_CHARS + 1)}, "text"),
        ({"text": "a", "scope": "sometimes"}, "scope"),
        ({"text": "a", "kind": "mood"}, "kind"),
        ({"text": "a", "kind": "rule", "scope": "conversation"}, "conversation_id"),
        ({"text": "a", "kind": "example"}, "prompt"),
        ({"text": "a", "kind": "rule", "prompt": "b"}, "prompt"),
        ({"text": "a", "kind": "example", "prompt": "  "}, "prompt"),
        ({}, "text"),
        ({"text": "a", "mood": 1}, "mood"),
        ({"text": "a", "pinned": "yes"}, "pinned"),
    ],
)
def test_a_statement_that_cannot_be_kept(service: Any, body: dict[str, Any], param: str) -> None:
    assert error_of(service.http.post("/v1/memories", json=body))["param"] == param
    assert listed(service)["data"] == []


def test_a_memory_for_one_conversation(service: Any) -> None:
    unknown = {"text": "We speak of Oslo.", "conversation_id": "conv-0"}
    assert error_of(service.http.post("/v1/memories", json=unknown), 404)["param"] == "conversation_id"
    reply = ask(service, "Hello")
    conversation = service.http.get(f"/v1/exchanges/{reply.id}").json()["conversation_id"]
    memory = state(service, text="We speak of Oslo.", conversation_id=conversation)
    assert (memory["scope"], memory["conversation_id"]) == ("conversation", conversation)
    wider = service.http.patch(f"/v1/memories/{memory['id']}", json={"scope": "always"}).json()
    assert (wider["scope"], wider["conversation_id"]) == ("always", conversation)


def test_a_memory_is_edited_pinned_and_restored(service: Any) -> None:
    add(service, "mem-1", "Use metric units.", 1.0, state="evicted", ended_at=2.0)
    changes = {"text": "Use SI units.", "pinned": True, "state": "active"}
    changed = service.http.patch("/v1/memories/mem-1", json=changes)
    assert changed.status_code == 200, changed.text
    assert (changed.json()["text"], changed.json()["pinned"]) == ("Use SI units.", True)
    assert (changed.json()["state"], changed.json()["ended"]) == ("active", None)
    assert service.http.patch("/v1/memories/mem-1", json={"pinned": False}).json()["pinned"] is False
    example = service.http.patch("/v1/memories/mem-1", json={"kind": "example", "prompt": "Units?"}).json()
    assert (example["kind"], example["prompt"]) == ("example", "Units?")
    assert service.http.patch("/v1/memories/mem-1", json={"kind": "fact"}).json()["prompt"] is None
    assert texts(service, query="SI") == ["Use SI units."]
    assert texts(service, query="metric") == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "text"),
        ({"text": "  "}, "text"),
        ({"text": "Ann is a nurse."}, "text"),
        ({"kind": "example"}, "prompt"),
        ({"prompt": "b"}, "prompt"),
        ({"state": "evicted"}, "state"),
        ({"scope": "conversation"}, "conversation_id"),
    ],
)
def test_a_change_that_cannot_be_made(service: Any, body: dict[str, Any], param: str) -> None:
    add(service, "mem-1", "Use metric units.", 1.0)
    add(service, "mem-2", "Ann is a nurse.", 2.0)
    before = show(service, "mem-1")
    assert error_of(service.http.patch("/v1/memories/mem-1", json=body))["param"] == param
    assert show(service, "mem-1") == before


def test_what_took_anothers_place_is_its_history(service: Any) -> None:
    add(service, "mem-new", "Call me Albert.", 2.0)
    add(service, "mem-old", "Call me Al.", 1.0, state="superseded", superseded_by="mem-new", ended_at=2.0)
    old = show(service, "mem-old")
    assert (old["state"], old["superseded_by"], old["ended"]) == ("superseded", "mem-new", 2)
    assert [memory["id"] for memory in old["history"]] == ["mem-old", "mem-new"]
    assert [memory["id"] for memory in show(service, "mem-new")["history"]] == ["mem-old", "mem-new"]


def test_a_memory_says_where_it_came_from(service: Any) -> None:
    reply = ask(service, "How long do eggs take?")
    said = service.http.post("/v1/feedback", json={"completion_id": reply.id, "correction": "Seven minutes."}).json()
    (memory,) = said["memories"]
    shown = show(service, memory["id"])
    assert (shown["feedback_id"], shown["completion_id"], shown["source"]) == (said["id"], reply.id, "api")
    assert shown["prompt"] == "How long do eggs take?"


def test_why_says_the_reason_the_score_and_what_became_of_it(service: Any) -> None:
    for id, text in (("mem-a", "Use metric units."), ("mem-b", "Ann is a nurse."), ("mem-c", "Like jazz.")):
        add(service, id, text, 1.0)
    used = (Used("mem-a", "always"), Used("mem-b", "words", 0.625), Used("mem-c", "meaning", 0.5))
    messages = (Message(role="user", content="Who is Ann?"),)
    service.parts.store.add_exchange(Exchange("chatcmpl-1", ME, 5.0, "familiar", messages, "A nurse.", used=used))
    assert service.http.delete("/v1/memories/mem-c").status_code == 200
    add(service, "mem-b", "Ann is a nurse.", 1.0, state="superseded", superseded_by="mem-a", ended_at=6.0)
    why = service.http.get("/v1/exchanges/chatcmpl-1/why").json()
    assert (why["object"], why["id"], why["prompt"]) == ("exchange.why", "chatcmpl-1", "Who is Ann?")
    first, second, third = why["memories"]
    assert (first["text"], first["why"], first["score"]) == ("Use metric units.", "applies always", None)
    assert second["why"] == "shares words with the request (score 0.62)"
    assert (second["reason"], second["score"], second["state"]) == ("words", 0.625, "superseded")
    assert third == {
        "object": "memory",
        "id": "mem-c",
        "state": "forgotten",
        "reason": "meaning",
        "score": 0.5,
        "why": "means something like the request (score 0.50)",
    }
    assert service.http.get("/v1/exchanges/chatcmpl-1").json()["memories"] == why["memories"]
    assert error_of(service.http.get("/v1/exchanges/chatcmpl-0/why"), 404)["param"] == "completion_id"


def test_many_are_forgotten_by_id_all_or_none(service: Any) -> None:
    for number, text in enumerate(("Use metric units.", "Ann is a nurse.", "Like jazz.")):
        add(service, f"mem-{number}", text, float(number))
    wrong = service.http.post("/v1/memories/forget", json={"ids": ["mem-0", "mem-9"]})
    assert "mem-9" in error_of(wrong, 404)["message"]
    assert len(texts(service)) == 3
    gone = service.http.post("/v1/memories/forget", json={"ids": ["mem-0", "mem-2", "mem-0"]}).json()
    assert (gone["object"], gone["dry_run"]) == ("memory.forgotten", False)
    assert [memory["id"] for memory in gone["data"]] == ["mem-0", "mem-2"]
    assert (gone["report"]["memory_ids"], gone["report"]["finished"]) == (["mem-0", "mem-2"], True)
    assert texts(service) == ["Ann is a nurse."]


def test_many_are_forgotten_by_the_words_that_they_hold(service: Any) -> None:
    add(service, "mem-0", "My boss likes short emails.", 0.0, kind="fact")
    add(service, "mem-1", "Sign with my name.", 1.0, kind="example", prompt="Write an email to my boss")
    add(service, "mem-2", "My boss is called Ann.", 2.0, kind="fact")
    asked = {"query": "emails of the boss", "dry_run": True}
    would = service.http.post("/v1/memories/forget", json=asked).json()
    assert [memory["id"] for memory in would["data"]] == ["mem-0", "mem-1"]
    assert (would["dry_run"], would["report"]) == (True, None)
    assert len(texts(service)) == 3
    service.http.post("/v1/memories/forget", json={"query": "emails of the boss"}).raise_for_status()
    assert texts(service, state="all") == ["My boss is called Ann."]
    assert service.http.post("/v1/memories/forget", json={"query": "elephants"}).json()["data"] == []


@pytest.mark.parametrize(
    ("body", "param"),
    [({}, "ids"), ({"ids": ["mem-1"], "query": "x"}, "ids"), ({"ids": []}, "ids"), ({"query": " ?! "}, "query")],
)
def test_forgetting_that_names_nothing(service: Any, body: dict[str, Any], param: str) -> None:
    assert error_of(service.http.post("/v1/memories/forget", json=body))["param"] == param


@pytest.mark.parametrize(("method", "body"), [("GET", None), ("PATCH", {"pinned": True}), ("DELETE", None)])
def test_an_id_that_names_nothing(service: Any, method: str, body: Any) -> None:
    error = error_of(service.http.request(method, "/v1/memories/mem-0", json=body), 404)
    assert error["param"] == "memory_id"
    assert "mem-0" in error["message"]


def test_another_users_memories_are_unknown(service: Any) -> None:
    mine = state(service, text="My safe's number is 4711.", kind="fact")
    key = new_key()
    service.parts.store.users.add("bob", key, 1.0)
    bob = {"authorization": f"Bearer {key}"}
    path = f"/v1/memories/{mine['id']}"
    for method, body in (("GET", None), ("PATCH", {"text": "0000"}), ("DELETE", None)):
        error_of(service.http.request(method, path, json=body, headers=bob), 404)
    error_of(service.http.post("/v1/memories/forget", json={"ids": [mine["id"]]}, headers=bob), 404)
    assert service.http.get("/v1/memories", params={"query": "safe number"}, headers=bob).json()["data"] == []
    matched = service.http.post("/v1/memories/forget", json={"query": "number"}, headers=bob).json()
    assert matched["data"] == []
    assert service.parts.store.memory(ME, mine["id"]).text == "My safe's number is 4711."


def test_a_pinned_memory_that_is_too_long_to_be_shown_is_told_of(service: Any) -> None:
    added = service.http.post("/v1/memories", json={"text": "Always use metric units. " * 60, "pinned": True}).json()

    def notice() -> str | None:
        body = {"model": "familiar", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
        told: str | None = service.http.post("/v1/chat/completions", json=body).json()["familiar"]["notice"]
        return told

    assert added["id"] in (notice() or "")
    service.http.patch(f"/v1/memories/{added['id']}", json={"text": "Use metric units."}).raise_for_status()
    assert notice() is None

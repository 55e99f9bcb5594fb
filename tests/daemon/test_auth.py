"""Whose a request is, by every header that may say so."""

from collections.abc import Callable, Iterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from familiar.daemon import auth, errors
from familiar.memory.store import Store
from familiar.memory.users import new_key

TOKEN = auth.new_local_token()

Ask = Callable[..., Any]
"""(headers) -> the user's id, or the error object of a refusal with its status under ``status``."""


@pytest.fixture
def ask(store: Store) -> Iterator[Ask]:
    app = FastAPI()
    errors.install(app)
    identify = auth.Identify(store, TOKEN, lambda: 100.0)

    @app.get("/whose")
    def whose(user: Annotated[int, Depends(identify)]) -> int:
        return user

    with TestClient(app) as client:

        def ask(**headers: str) -> Any:
            response = client.get("/whose", headers={name.replace("_", "-"): value for name, value in headers.items()})
            if response.status_code == 200:
                return response.json()
            if response.status_code == 401:
                assert response.headers["www-authenticate"] == "Bearer"
            return {**response.json()["error"], "status": response.status_code}

        yield ask


def refused(answer: Any, *said: str) -> None:
    """Assert OpenAI's 401 and what its message tells."""
    assert (answer["status"], answer["type"], answer["code"]) == (401, "invalid_request_error", "invalid_api_key")
    for each in said:
        assert each in answer["message"]


def test_while_nobody_has_a_key_anything_is_the_default_user(ask: Ask) -> None:
    assert ask() == 1
    for sent in ("Bearer unused", "Bearer sk-1234", "Bearer ", "Basic dXNlcjpwYXNz", "", "Bearer fa\u00efm"):
        assert ask(authorization=sent.encode("latin-1")) == 1
    assert ask(x_api_key="anything", api_key="anything") == 1


def test_what_looks_like_a_key_of_ours_is_never_the_default_user(ask: Ask) -> None:
    for key in (new_key(), "fam-", "fam-short", "fam-\u00e9"):
        refused(ask(authorization=f"Bearer {key}".encode("latin-1")), "is not known", "familiar users key")
        refused(ask(x_api_key=key.encode("latin-1")), "is not known")
    refused(ask(authorization=f"Bearer {auth.new_local_token()}"), "started anew")


def test_a_refusal_does_not_repeat_the_key(ask: Ask) -> None:
    key = new_key()
    assert key[8:] not in ask(authorization=f"Bearer {key}")["message"]


def test_each_header_may_carry_the_key(ask: Ask, store: Store) -> None:
    key = new_key()
    bob = store.users.add("bob", key, 1.0).id
    assert ask(authorization=f"Bearer {key}") == bob
    assert ask(authorization=f"bearer  {key} ") == bob
    assert ask(authorization=key) == bob
    assert ask(api_key=key) == bob
    assert ask(x_api_key=key) == bob
    assert ask(authorization="Bearer unused", x_api_key=key) == bob
    assert store.users.keys(bob)[0].last_used_at == 100.0


def test_from_the_first_key_on_everybody_needs_one(ask: Ask, store: Store) -> None:
    assert ask() == 1
    bobs, mine = new_key(), new_key()
    bob = store.users.add("bob", bobs, 1.0).id
    refused(ask(), "no API key was sent", "Authorization: Bearer fam-", "familiar users key")
    refused(ask(authorization="Bearer unused"), "the key sent is not one")
    store.users.add_key(1, mine, 2.0, replace=True)
    assert (ask(x_api_key=bobs), ask(x_api_key=mine)) == (bob, 1)
    store.erase(bob, keep_user=False)
    refused(ask(x_api_key=bobs), "is not known")
    store.users.revoke_keys(1)
    assert ask() == 1
    refused(ask(x_api_key=bobs), "is not known")
    refused(ask(x_api_key=mine), "is not known")


@pytest.mark.parametrize("keys", [False, True])
def test_the_local_token_speaks_for_any_user(ask: Ask, store: Store, keys: bool) -> None:
    zoe = store.users.add("Zo\u00eb", new_key(), 1.0).id
    if not keys:
        store.users.revoke_keys(zoe)
    local = {"authorization": f"Bearer {TOKEN}"}
    assert ask(**local) == 1
    assert ask(**local, x_familiar_user="me") == 1
    assert ask(**local, x_familiar_user="zo%C3%AB") == zoe
    unknown = ask(**local, x_familiar_user="bob")
    assert (unknown["status"], unknown["param"]) == (404, "user")
    assert "there are me, Zo\u00eb" in unknown["message"]


def test_naming_a_user_needs_the_local_token(ask: Ask, store: Store) -> None:
    refused(ask(x_familiar_user="me"), "own API key")
    key = new_key()
    store.users.add("bob", key, 1.0)
    for name in ("me", "bob"):
        refused(ask(authorization=f"Bearer {key}", x_familiar_user=name), "own API key")


def test_without_a_local_token_none_is_taken(store: Store) -> None:
    identify = auth.Identify(store, None, lambda: 1.0)
    app = FastAPI()
    errors.install(app)

    @app.get("/whose")
    def whose(user: Annotated[int, Depends(identify)]) -> int:
        return user

    with TestClient(app) as client:
        for token in (TOKEN, "fam-local-", "fam-local-None"):
            assert client.get("/whose", headers={"authorization": f"Bearer {token}"}).status_code == 401
        assert client.get("/openapi.json").json()["paths"]["/whose"]["get"]["security"] == [{"ApiKey": []}]

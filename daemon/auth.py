"""Whose a request is: the dependency that every route asks, except ``/health``.

While no API key exists, whoever asks is the default user, and whatever their client sends as a key is ignored. From
the first key on each request must bring one. A credential that looks like ours but is unknown is refused in either
case: a removed user must never become the default one. The commands of the data folder's owner send the token that
the service writes there, which speaks for any user. Read from the store at each request, so that a key works, or no
longer does, at once. What is left out: passwords, sessions, and limits on attempts (a key is 192 random bits).
"""

import hmac
import secrets
from collections.abc import Callable
from urllib.parse import unquote

from fastapi import Request
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers

from familiar.memory.errors import FamiliarError
from familiar.memory.store import Store
from familiar.memory.users import KEY_PREFIX

LOCAL_PREFIX = f"{KEY_PREFIX}local-"
USER_HEADER = "x-familiar-user"
"""Names the user that a request with the local token is for, percent-encoded: a header is ASCII."""

_KEY_HEADERS = ("authorization", "api-key", "x-api-key")


class Unauthorised(FamiliarError, PermissionError):
    """A request that does not say whose it is, or not so that it can be believed."""


def new_local_token() -> str:
    """A fresh token for the commands of this machine: ``fam-local-`` and 32 url-safe characters."""
    return LOCAL_PREFIX + secrets.token_urlsafe(24)


class Identify(SecurityBase):
    """A FastAPI dependency: the id of the user whose request it is. Declared as a bearer token in ``/openapi.json``."""

    scheme_name = "ApiKey"
    model = HTTPBearer(description="An API key; needed once `familiar users` has made one, also as `x-api-key`.")

    def __init__(self, store: Store, local_token: str | None, clock: Callable[[], float]) -> None:
        """``store`` is open for this alone, so that no other use of it is waited for; ``close`` closes it.

        ``local_token`` None: there are no commands that it could be given to. ``clock`` is in seconds.
        """
        self._store = store
        self._local_token = local_token
        self._clock = clock
        self._default = store.default_user()

    async def __call__(self, request: Request) -> int:
        """The user's id. Raises Unauthorised, and NotFound when the local token is sent for an unknown name."""
        headers = request.headers
        if USER_HEADER not in headers and not any(name in headers and _is_ours(headers[name]) for name in _KEY_HEADERS):
            return self._user(headers)  # one look into an index: a thread would take longer to start
        return await run_in_threadpool(self._user, headers)  # notes when the key was used

    def _user(self, headers: Headers) -> int:
        sent = [_credential(headers[name]) for name in _KEY_HEADERS if name in headers]
        # Many clients cannot but send some Authorization; a key of ours in another header counts all the same.
        key = next((each for each in sent if each.startswith(KEY_PREFIX)), None)
        name = headers.get(USER_HEADER)
        if key is not None and self._is_local(key):
            return self._store.users.id_of(None if name is None else unquote(name))
        if name is not None:
            raise Unauthorised(
                "X-Familiar-User is for the commands of this machine: send that user's own API key instead."
            )
        if key is None:
            if self._store.users.have_keys():
                raise Unauthorised(_needed("no API key was sent" if not any(sent) else "the key sent is not one"))
            return self._default
        user = self._store.users.by_key(key, self._clock())
        if user is None:
            raise Unauthorised(_unknown(key))
        return user

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def _is_local(self, key: str) -> bool:
        token = self._local_token
        return token is not None and hmac.compare_digest(key.encode(), token.encode())


def _is_ours(value: str) -> bool:
    return _credential(value).startswith(KEY_PREFIX)


def _credential(value: str) -> str:
    """The key in a header's value: after ``Bearer``, or the whole of it."""
    scheme, _, rest = value.strip().partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else value.strip()


def _needed(why: str) -> str:
    return (
        f"This service asks for an API key, and {why}: send `Authorization: Bearer fam-…`. "
        f"`familiar users key NAME` makes a key."
    )


def _unknown(key: str) -> str:
    if key.startswith(LOCAL_PREFIX):
        return "The service has been started anew since this command was: run it again."
    return f'The API key "{key[:8]}…" is not known: `familiar users key NAME` makes a new one.'

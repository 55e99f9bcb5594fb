"""The people of a store, and the API keys that say whose a request is.

A new store has one user, the default one, whose every request is that brings no key; they are never removed. A key is
known by its SHA-256: it is 192 random bits, so a slow hash would guard nothing more. What is left out: passwords,
roles, and limits per user; who may make and remove users is who may write the file.
"""

import hashlib
import re
import secrets
import unicodedata
from contextlib import suppress
from dataclasses import dataclass

from familiar.memory.database import Connection, Row
from familiar.memory.errors import FamiliarError, InvalidInput, NotFound

DEFAULT_NAME = "me"
"""The default user, as the first migration names them."""

KEY_PREFIX = "fam-"
"""What every credential of ours begins with, so that an unknown one is told from another program's."""

USED_EVERY_S = 60.0
"""A key's last use is written this often at most: a write for each request would cost more than it tells."""

_KEY_BYTES = 24
_SHOWN_CHARACTERS = 10
_NAME = re.compile(r"[^\W_][\w.-]{0,31}")


@dataclass(frozen=True)
class User:
    """One person; ``created_at`` is in seconds since the epoch."""

    id: int
    name: str
    created_at: float


@dataclass(frozen=True)
class ApiKey:
    """What is known of a key: its first characters, when it was made, and when it was last used, if ever."""

    prefix: str
    created_at: float
    last_used_at: float | None


def new_key() -> str:
    """A fresh API key: ``fam-`` and 32 url-safe characters."""
    return KEY_PREFIX + secrets.token_urlsafe(_KEY_BYTES)


class Users:
    """The users of an open store, as ``Store.users``. Names are told apart without regard to case."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def all(self) -> list[User]:
        """Every user, the default one first, then as they were added."""
        return [_user(row) for row in self._connection.read("SELECT * FROM users ORDER BY id")]

    def get(self, user_id: int) -> User:
        """The user of that id. Raises ``NotFound`` (param ``user``)."""
        row = self._connection.first("SELECT * FROM users WHERE id = ?", (user_id,))
        if row is None:
            raise _gone()
        return _user(row)

    def named(self, name: str) -> User:
        """The user of that name. Raises ``NotFound`` (param ``user``), which lists the names that there are."""
        users = self.all()
        found = next((user for user in users if _same(user.name, name)), None)
        if found is None:
            known = ", ".join(user.name for user in users)
            raise NotFound(f'There is no user "{name}": there are {known}; `familiar users add` makes one.', "user")
        return found

    def id_of(self, name: str | None) -> int:
        """The id of the user of that name, as ``named`` finds them, or of the default one for None."""
        return self.default() if name is None else self.named(name).id

    def default(self) -> int:
        """The id of the user that a store is made with."""
        row = self._connection.first("SELECT min(id) FROM users")
        return int(row[0]) if row else 1

    def add(self, name: str, key: str, now: float) -> User:
        """Make a user who comes with ``key``, both or neither. Raises ``InvalidInput`` (param ``user``)."""
        name = unicodedata.normalize("NFC", name)
        if not _NAME.fullmatch(name):
            raise InvalidInput(
                f'"{name}" cannot be a name: use 1 to 32 letters, digits, dots, dashes and underscores, '
                f"a letter or digit first.",
                "user",
            )
        with self._connection.write() as transaction:
            if any(_same(user.name, name) for user in self.all()):
                raise InvalidInput(
                    f'There is a user "{name}" already: choose another name, or make them a new key with '
                    f"`familiar users key {name}`.",
                    "user",
                )
            transaction.execute("UPDATE user_ids SET last = last + 1")
            transaction.execute(
                "INSERT INTO users (id, name, created_at_s) SELECT last, ?, ? FROM user_ids", (name, now)
            )
            user = self.named(name)
            _add_key(transaction, user.id, key, now)
        return user

    def refuse_default(self, user_id: int) -> None:
        """Raise ``InvalidInput`` (param ``user``) for the default user, who cannot be removed."""
        if user_id == self.default():
            raise InvalidInput(
                f'"{self.get(user_id).name}" is the default user and cannot be removed: `familiar data erase` '
                f"forgets everything of theirs.",
                "user",
            )

    # Keys

    def add_key(self, user_id: int, key: str, now: float, *, replace: bool) -> int:
        """Let ``key`` speak for the user; ``replace`` revokes their other keys, and their number is returned."""
        with self._connection.write() as transaction:
            require(transaction, user_id)
            revoked = self._revoke(transaction, user_id) if replace else 0
            _add_key(transaction, user_id, key, now)
        return revoked

    def revoke_keys(self, user_id: int) -> int:
        """Make all keys of the user useless, and return how many they were."""
        with self._connection.write() as transaction:
            return self._revoke(transaction, user_id)

    def keys(self, user_id: int) -> list[ApiKey]:
        """The user's keys, oldest first."""
        sql = "SELECT * FROM api_keys WHERE user_id = ? ORDER BY created_at_s, prefix"
        return [
            ApiKey(row["prefix"], row["created_at_s"], row["last_used_at_s"])
            for row in self._connection.read(sql, (user_id,))
        ]

    def have_keys(self) -> bool:
        """Whether anybody has a key, and requests must bring one."""
        return self._connection.first("SELECT 1 FROM api_keys LIMIT 1") is not None

    def by_key(self, key: str, now: float) -> int | None:
        """The id of the user whose key this is, or None; its last use is kept, to the minute."""
        row = self._connection.first("SELECT user_id, last_used_at_s FROM api_keys WHERE sha256 = ?", (_sha256(key),))
        if row is None:
            return None
        last = row["last_used_at_s"]
        if last is None or abs(now - last) >= USED_EVERY_S:
            # A full disk or a held file must not turn away a request that is in order.
            with suppress(FamiliarError), self._connection.write(durable=False) as transaction:
                transaction.execute("UPDATE api_keys SET last_used_at_s = ? WHERE sha256 = ?", (now, _sha256(key)))
        return int(row["user_id"])

    def _revoke(self, transaction: Connection, user_id: int) -> int:
        return transaction.execute("DELETE FROM api_keys WHERE user_id = ?", (user_id,))


def require(transaction: Connection, user_id: int) -> None:
    """Raise ``NotFound`` (param ``user``) when the user was removed while a request of theirs was answered."""
    if transaction.first("SELECT 1 FROM users WHERE id = ?", (user_id,)) is None:
        raise _gone()


def _add_key(transaction: Connection, user_id: int, key: str, now: float) -> None:
    transaction.execute(
        "INSERT INTO api_keys (sha256, user_id, created_at_s, prefix) VALUES (?, ?, ?, ?)",
        (_sha256(key), user_id, now, key[:_SHOWN_CHARACTERS]),
    )


def _sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _same(one: str, other: str) -> bool:
    return unicodedata.normalize("NFC", one).casefold() == unicodedata.normalize("NFC", other).casefold()


def _user(row: Row) -> User:
    return User(row["id"], row["name"], row["created_at_s"])


def _gone() -> NotFound:
    return NotFound("The user was removed: `familiar users list` shows those there are.", "user")

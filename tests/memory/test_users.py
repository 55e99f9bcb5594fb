"""Users and their keys on a real file: who is who, what a key opens, and that nothing is left of whom was removed."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from familiar.memory.errors import InvalidInput, NotFound
from familiar.memory.store import Store
from familiar.memory.types import AdapterVersion, Exchange, Feedback, LearningRun, Memory, Message, Used
from familiar.memory.users import DEFAULT_NAME, User, new_key


@pytest.fixture
def store(data_dir: Path) -> Iterator[Store]:
    with Store.open(data_dir / "familiar.db", clock=lambda: 1000.0) as opened:
        yield opened


def fill(store: Store, user: int, word: str) -> None:
    """Give a user rows in every table, each text of which holds ``word``."""
    said = Message(role="user", content=f"Tell me of {word}")
    used = (Used(f"mem-{user}", "words"),)
    store.add_exchange(Exchange(f"chatcmpl-{user}", user, 1.0, "familiar", (said,), f"A {word}.", 2, used))
    feedback = Feedback(f"fb-{user}", user, 2.0, "correction", f"chatcmpl-{user}", f"The {word}!", note=f"Say {word}")
    memory = Memory(f"mem-{user}", user, 2.0, "example", f"The {word}!", f"Tell me of {word}", f"fb-{user}")
    store.add_feedback(feedback, [memory])
    store.add_run(LearningRun(f"run-{user}", user, 3.0, "promoted", {"word": word}, "print", error=word))
    for number in (1, 2):
        store.add_version(
            AdapterVersion(
                user_id=user,
                number=number,
                created_at=4.0,
                folder=f"adapters/{user}/v{number}",
                parent=number - 1 or None,
                base_sha256="b" * 64,
                gguf_sha256="a" * 64,
                run_id=f"run-{user}",
                feedback_ids=(f"fb-{user}",),
                report={"word": word},
            ),
            make_current=True,
        )


def everything(store: Store, user: int) -> list[object]:
    """All that the store tells of a user."""
    return [
        store.exchanges(user),
        store.feedback_rows(user),
        store.memories(user),
        store.runs(user),
        store.versions(user),
        store.current_version(user),
        store.users.keys(user),
    ]


def test_a_new_store_has_one_user_and_no_key(store: Store) -> None:
    assert store.users.all() == [User(1, DEFAULT_NAME, 1000.0)]
    assert store.users.id_of(None) == store.default_user() == 1
    assert not store.users.have_keys()
    assert store.users.keys(1) == []


def test_users_are_found_by_name_in_any_case_and_spelling(store: Store) -> None:
    bob = store.users.add("Bob", new_key(), 5.0)
    zoe = store.users.add("Zoe\u0308", new_key(), 6.0)  # e and a combining mark: stored as one letter
    assert [user.name for user in store.users.all()] == ["me", "Bob", "Zo\u00eb"]
    assert store.users.named("bOB") == bob == store.users.get(bob.id)
    assert store.users.named("ZOË") == zoe
    assert store.users.id_of("zoë") == zoe.id
    assert (bob.created_at, zoe.created_at) == (5.0, 6.0)
    for name in ("bob", "BOB", "zoe\u0308", "Me"):
        with pytest.raises(InvalidInput, match="already") as refused:
            store.users.add(name, new_key(), 7.0)
        assert refused.value.param == "user"
    with pytest.raises(NotFound, match=r'no user "bib": there are me, Bob, Zoë;') as missing:
        store.users.named("bib")
    assert missing.value.param == "user"


@pytest.mark.parametrize("name", ["", " ", "a b", "-x", "../x", "a/b", "x" * 33, "a\nb", "_x", "%41", "a\x00b"])
def test_a_name_that_cannot_be_one_is_refused(store: Store, name: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be a name") as refused:
        store.users.add(name, new_key(), 1.0)
    assert refused.value.param == "user"
    assert len(store.users.all()) == 1
    assert not store.users.have_keys()


def test_a_key_has_its_shape_and_only_its_hash_is_kept(store: Store, data_dir: Path) -> None:
    key = new_key()
    assert len(key) == 36
    assert key.startswith("fam-")
    assert set(key) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
    assert len({new_key() for _ in range(100)}) == 100
    bob = store.users.add("bob", key, 1.0)
    [kept] = store.users.keys(bob.id)
    assert key.startswith(kept.prefix)
    assert len(kept.prefix) <= 10
    store._connection.empty_log()
    files = b"".join(path.read_bytes() for path in data_dir.iterdir())
    assert kept.prefix.encode() in files
    assert key.encode() not in files
    assert key[len(kept.prefix) :].encode() not in files


def test_keys_open_their_users_until_they_are_replaced_or_revoked(store: Store) -> None:
    first, second, third, mine = (new_key() for _ in range(4))
    bob = store.users.add("bob", first, 1.0)
    store.users.add_key(1, mine, 2.0, replace=True)
    assert (store.users.by_key(first, 3.0), store.users.by_key(mine, 3.0)) == (bob.id, 1)
    assert store.users.by_key(first[:-1], 3.0) is None
    assert store.users.by_key(first + "x", 3.0) is None
    assert store.users.add_key(bob.id, second, 4.0, replace=False) == 0
    assert {store.users.by_key(key, 5.0) for key in (first, second)} == {bob.id}
    assert store.users.add_key(bob.id, third, 6.0, replace=True) == 2
    assert [store.users.by_key(key, 7.0) for key in (first, second, third, mine)] == [None, None, bob.id, 1]
    assert store.users.revoke_keys(bob.id) == 1
    assert store.users.by_key(third, 8.0) is None
    assert store.users.have_keys()
    assert store.users.revoke_keys(1) == 1
    assert not store.users.have_keys()


def test_the_last_use_of_a_key_is_kept_to_the_minute(store: Store) -> None:
    key = new_key()
    bob = store.users.add("bob", key, 1.0)

    def last_use(now: float) -> float | None:
        assert store.users.by_key(key, now) == bob.id
        return store.users.keys(bob.id)[0].last_used_at

    assert store.users.keys(bob.id)[0].last_used_at is None
    assert [last_use(now) for now in (10.0, 11.0, 69.9, 70.0, 71.0)] == [10.0, 10.0, 10.0, 70.0, 70.0]
    assert last_use(5.0) == 5.0  # a clock that was put right


def test_a_key_is_found_by_the_index(store: Store) -> None:
    sql = "EXPLAIN QUERY PLAN SELECT user_id, last_used_at_s FROM api_keys WHERE sha256 = ?"
    [row] = store._connection.read(sql, ("0",))
    assert row["detail"].startswith("SEARCH api_keys USING PRIMARY KEY")


def test_another_process_sees_a_change_at_once(store: Store, data_dir: Path) -> None:
    with Store.open(data_dir / "familiar.db") as service:
        key = new_key()
        bob = store.users.add("bob", key, 1.0)
        assert service.users.by_key(key, 2.0) == bob.id
        store.erase(bob.id, keep_user=False)
        assert service.users.by_key(key, 3.0) is None


def test_a_removed_user_leaves_no_row_and_no_text(store: Store, data_dir: Path) -> None:
    word, others = "zanzibarquux", "timbuktufrob"
    bob = store.users.add("Bobadil", new_key(), 1.0)
    fill(store, 1, others)
    fill(store, bob.id, word)
    for number in range(50):  # pages that are full, and an index of several segments
        store.add_exchange(Exchange(f"chatcmpl-more-{number}", bob.id, 9.0, "familiar", (), f"{word} {number} " * 40))
        memory = Memory(f"mem-more-{number}", bob.id, 9.0, "rule", f"{word}{number} is {word}", None, f"fb-m-{number}")
        store.add_feedback(Feedback(f"fb-m-{number}", bob.id, 9.0, "rule", text=word), [memory])
    mine = everything(store, 1)

    def holding(text: str) -> set[str]:
        return {path.name for path in data_dir.iterdir() if path.is_file() and text.encode() in path.read_bytes()}

    with Store.open(data_dir / "familiar.db") as service:  # which keeps the log from going when the store is closed
        assert service.search_memories(bob.id, word)
        assert "familiar.db-wal" in holding(word)
        assert store.erase(bob.id, keep_user=False).finished
        assert holding(word) == holding("Bobadil") == set()
        assert "familiar.db" in holding(others)
        assert service.search_memories(1, others)
        assert everything(service, 1) == mine
        assert everything(service, bob.id) == [[], [], [], [], [], None, []]
    with sqlite3.connect(data_dir / "familiar.db") as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        of_users = [
            name for name in tables if any(row[1] == "user_id" for row in db.execute(f"PRAGMA table_info({name})"))
        ]
        assert {"exchanges", "feedback", "memories", "learning_runs", "api_keys"} <= set(of_users)
        for name in of_users:
            sql = f"SELECT count(*) FROM {name} WHERE user_id = ?"
            assert db.execute(sql, (bob.id,)).fetchone() == (0,), name
        assert db.execute("SELECT count(*) FROM exchange_memories").fetchone() == (1,)
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        db.execute("INSERT INTO memories_fts (memories_fts, rank) VALUES ('integrity-check', 1)")
    db.close()


def test_a_reader_that_holds_the_log_is_told_of(store: Store, data_dir: Path) -> None:
    bob = store.users.add("bob", new_key(), 1.0)
    store._connection.read("PRAGMA busy_timeout = 50")
    reader = sqlite3.connect(data_dir / "familiar.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM users").fetchall()
    assert not store.erase(bob.id, keep_user=False).finished
    reader.close()
    assert [user.name for user in store.users.all()] == ["me"]


def test_an_id_is_never_given_again(store: Store) -> None:
    ids = []
    for _ in range(3):
        user = store.users.add("bob", new_key(), 1.0)
        ids.append(user.id)
        store.erase(user.id, keep_user=False)
    assert ids == [2, 3, 4]


def test_the_default_user_cannot_be_removed(store: Store) -> None:
    with pytest.raises(InvalidInput, match='"me" is the default user'):
        store.erase(1, keep_user=False)
    store.users.refuse_default(store.users.add("bob", new_key(), 1.0).id)
    assert store.erase(1).finished
    assert [user.name for user in store.users.all()] == ["me", "bob"]


def test_nothing_is_kept_of_a_user_who_has_just_been_removed(store: Store) -> None:
    """A reply may still be running when its user goes: logging it must not bring anything back, or break."""
    bob = store.users.add("bob", new_key(), 1.0)
    store.erase(bob.id, keep_user=False)
    late: list[Callable[[], object]] = [
        lambda: store.add_exchange(Exchange("chatcmpl-late", bob.id, 1.0, "familiar", (), "late")),
        lambda: store.add_feedback(Feedback("fb-late", bob.id, 1.0, "rule", text="late"), []),
        lambda: store.add_run(LearningRun("run-late", bob.id, 1.0, "running", {}, "print")),
        lambda: store.users.add_key(bob.id, new_key(), 1.0, replace=True),
        lambda: store.erase(bob.id, keep_user=False),
        lambda: store.users.get(bob.id),
    ]
    for write in late:
        with pytest.raises(NotFound, match="was removed"):
            write()
    assert everything(store, bob.id) == [[], [], [], [], [], None, []]


def test_the_ids_of_another_user_are_as_unknown_as_any(store: Store) -> None:
    bob = store.users.add("bob", new_key(), 1.0).id
    fill(store, 1, "mine")
    fill(store, bob, "theirs")
    mine = everything(store, 1)
    reads: dict[str, Callable[[str], object]] = {
        "chatcmpl": lambda id: store.exchange(bob, id),
        "fb": lambda id: store.feedback(bob, id),
        "mem": lambda id: store.memory(bob, id),
        "run": lambda id: store.run(bob, id),
    }
    writes: dict[str, Callable[[str], object]] = {
        "chatcmpl": lambda id: store.add_feedback(Feedback("fb-new", bob, 1.0, "rating", id, rating=1), []),
        "mem": lambda id: store.forget(bob, [id]),
        "run": lambda id: store.update_run(LearningRun(id, bob, 1.0, "failed", {}, "stolen")),
    }
    for calls in (reads, writes):
        for sort, call in calls.items():
            said = []
            for id in (f"{sort}-1", f"{sort}-9"):  # another user's, and nobody's
                with pytest.raises(NotFound) as missing:
                    call(id)
                said.append(str(missing.value).replace(id, "ID"))
            assert said[0] == said[1]
    stolen = AdapterVersion(bob, 3, 1.0, "adapters/1/v1", None, "b", "a", "run-1", (), {})
    with pytest.raises(NotFound, match="run-1"):
        store.add_version(stolen, make_current=True)
    assert everything(store, 1) == mine
    assert [memory.text for memory, _ in store.search_memories(bob, "mine theirs")] == ["The theirs!"]
    for sort, call in reads.items():
        assert call(f"{sort}-{bob}")

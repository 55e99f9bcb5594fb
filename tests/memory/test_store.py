"""The store on real files: what goes in comes out, and what is asked for that is not there is said to be so."""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from familiar.memory.errors import BadFile, InvalidInput, NotFound
from familiar.memory.store import Store
from familiar.memory.types import AdapterVersion, Exchange, Feedback, LearningRun, Memory, Scope, Used

ANY_USED = st.builds(
    Used,
    st.text(),
    st.sampled_from(["always", "words", "meaning"]),
    st.none() | st.integers(0, 1000).map(lambda thousandths: thousandths / 1000),
)
ANY_TEXT = st.text()  # every character but surrogates: NUL, emoji, right-to-left marks
WITH_STORE = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def store(data_dir: Path) -> Iterator[Store]:
    with Store.open(data_dir / "familiar.db", clock=lambda: 1000.0) as opened:
        yield opened


def exchange(id: str, created_at: float = 1.0, **changes: object) -> Exchange:
    made = Exchange(id, 1, created_at, "familiar", ({"role": "user", "content": "hi"},), "hello")
    return replace(made, **changes)  # type: ignore[arg-type]


def rule(number: int, text: str, created_at: float = 1.0) -> Memory:
    return Memory(f"mem-{number}", 1, created_at, "rule", text, feedback_id=f"fb-{number}")


def say(store: Store, memory: Memory) -> tuple[Memory, ...]:
    assert memory.feedback_id is not None
    feedback = Feedback(memory.feedback_id, memory.user_id, memory.created_at, "rule", text=memory.text)
    return store.add_feedback(feedback, [memory])


def run(id: str, created_at: float = 1.0) -> LearningRun:
    return LearningRun(id, 1, created_at, "running", {"rank": 16, "modules": ["q", "k"]}, "print", pid=7)


def version(number: int, run_id: str = "run-1") -> AdapterVersion:
    parent = number - 1 or None
    return AdapterVersion(
        1, number, 5.0, f"adapters/1/v{number}", parent, "b" * 64, "a" * 64, run_id, ("fb-2", "fb-1"), {"passed": True}
    )


@WITH_STORE
@given(
    contents=st.lists(ANY_TEXT, max_size=4),
    completion=ANY_TEXT,
    sampling=st.dictionaries(ANY_TEXT, st.none() | st.integers(-9, 9) | st.floats(0, 2) | ANY_TEXT, max_size=3),
    used=st.lists(ANY_USED, max_size=3),
    version_used=st.none() | st.integers(1, 5),
)
def test_exchange_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    contents: list[str],
    completion: str,
    sampling: dict[str, float | int | str | None],
    used: list[Used],
    version_used: int | None,
) -> None:
    given_exchange = Exchange(
        id="chatcmpl-1",
        user_id=1,
        created_at=1.25,
        model="familiar",
        messages=tuple({"role": "user", "content": content} for content in contents),
        completion=completion,
        adapter_version=version_used,
        used=tuple(used),
        sampling=sampling,
        prompt_tokens=3,
        completion_tokens=4,
        finish_reason="length",
        duration_ms=12.5,
    )
    path = tmp_path_factory.mktemp("store") / "familiar.db"
    with Store.open(path) as store:
        conversation_id = store.add_exchange(given_exchange)
    with Store.open(path) as store:
        stored = store.exchange(1, "chatcmpl-1")
        assert stored == replace(given_exchange, conversation_id=conversation_id)
        assert stored.memory_ids == tuple(each.memory_id for each in used)
        assert store.exchanges(1, limit=1) == [stored]


@WITH_STORE
@given(text=ANY_TEXT, prompt=ANY_TEXT, note=st.none() | ANY_TEXT, scope=st.sampled_from(["always", "conversation"]))
def test_feedback_and_memory_round_trip(
    tmp_path_factory: pytest.TempPathFactory, text: str, prompt: str, note: str | None, scope: Scope
) -> None:
    feedback = Feedback("fb-1", 1, 2.5, "correction", "chatcmpl-1", text, None, note, "chat", "inferred", key="e")
    with Store.open(tmp_path_factory.mktemp("store") / "familiar.db") as store:
        conversation = store.add_exchange(exchange("chatcmpl-1"))
        memory = Memory("mem-1", 1, 2.5, "example", text, prompt, "fb-1", scope, conversation, True, "chat")
        assert store.add_feedback(feedback, [memory]) == (memory,)
        assert store.feedback(1, "fb-1") == feedback
        assert store.memory(1, "mem-1") == memory
        assert store.feedback_rows(1) == [(feedback, store.exchange(1, "chatcmpl-1"))]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    query=ANY_TEXT
    | st.lists(st.sampled_from(['"', "AND", "OR", "NOT", "NEAR(", ")", "*", "^", "text:", "tea", "-"])).map(" ".join)
)
def test_any_text_is_a_safe_query(store: Store, query: str) -> None:
    if not store.memories(1):
        say(store, rule(1, "I drink tea"))
    found = store.search_memories(1, query)
    assert all(score > 0 for _, score in found)
    if "tea" in query.split():
        assert [memory.id for memory, _ in found] == ["mem-1"]


@pytest.mark.parametrize("query", ["", "   ", "😀", '"', "'", "()", "\x00", "\ud800", "* ^ -"])
def test_query_without_a_word_finds_nothing(store: Store, query: str) -> None:
    say(store, rule(1, "Use metric units"))
    assert store.search_memories(1, query) == []


def test_words_of_the_query_language_are_plain_words(store: Store) -> None:
    say(store, rule(1, "Say NEAR, not close"))
    say(store, rule(2, "Write AND in capitals"))
    assert [memory.id for memory, _ in store.search_memories(1, "NEAR")] == ["mem-1"]
    assert [memory.id for memory, _ in store.search_memories(1, "and")] == ["mem-2"]


def test_search_stems_drops_accents_and_ranks(store: Store) -> None:
    say(store, rule(1, "Boiling temperatures are in kelvin"))
    say(store, rule(2, "The Café temperature"))
    say(store, rule(3, "Straße is spelled so"))
    for number in range(4, 20):
        say(store, rule(number, f"Something else {number}"))
    assert store.search_memories(1, "boiled")[0][0].id == "mem-1"
    assert store.search_memories(1, "CAFE")[0][0].id == "mem-2"
    assert store.search_memories(1, "cafe\u0301")[0][0].id == "mem-2"
    assert store.search_memories(1, "straße")[0][0].id == "mem-3"
    both = store.search_memories(1, "boil temperature")
    assert [memory.id for memory, _ in both] == ["mem-1", "mem-2"]
    assert both[0][1] > both[1][1] > 0
    assert len(store.search_memories(1, "something", limit=5)) == 5


def test_search_takes_a_long_text(store: Store) -> None:
    say(store, rule(1, "Use w7 always"))
    book = " ".join(f"w{number}" for number in range(100_000))
    assert [memory.id for memory, _ in store.search_memories(1, book)] == ["mem-1"]


def test_search_by_kind_finds_prompts_too(store: Store) -> None:
    say(store, rule(1, "Answer capital questions briefly"))
    store.add_exchange(exchange("chatcmpl-1"))
    example = Memory("mem-2", 1, 1.0, "example", "Canberra.", "What is the capital of Australia?", "fb-2")
    store.add_feedback(Feedback("fb-2", 1, 1.0, "correction", "chatcmpl-1", "Canberra."), [example])
    assert [memory.id for memory, _ in store.search_memories(1, "capital", kind="example")] == ["mem-2"]
    assert [memory.id for memory, _ in store.search_memories(1, "capital", kind="rule")] == ["mem-1"]
    assert len(store.search_memories(1, "capital")) == 2


def test_same_memory_is_stored_once_and_becomes_the_newest(store: Store) -> None:
    say(store, rule(1, "Use metric units", 1.0))
    say(store, rule(2, "Write in French", 2.0))
    stored = say(store, rule(3, "use  Metric units.", 3.0))
    assert stored == (Memory("mem-1", 1, 3.0, "rule", "use  Metric units.", feedback_id="fb-3"),)
    assert [memory.text for memory in store.memories(1)] == ["Write in French", "use  Metric units."]
    assert len(store.search_memories(1, "metric")) == 1
    assert [row.id for row, _ in store.feedback_rows(1)] == ["fb-1", "fb-2", "fb-3"]


def test_same_reply_to_another_prompt_is_another_memory(store: Store) -> None:
    store.add_exchange(exchange("chatcmpl-1"))
    for number, prompt in enumerate(("Is it raining?", "Is it snowing?")):
        example = Memory(f"mem-{number}", 1, 1.0, "example", "No.", prompt, f"fb-{number}")
        store.add_feedback(Feedback(f"fb-{number}", 1, 1.0, "correction", "chatcmpl-1", "No."), [example])
    assert len(store.memories(1)) == 2


def test_exchanges_are_newest_first(store: Store) -> None:
    assert store.exchanges(1) == []
    for id, created_at in (("a", 5.0), ("b", 9.0), ("c", 5.0)):
        store.add_exchange(exchange(id, created_at))
    assert [found.id for found in store.exchanges(1)] == ["b", "c", "a"]
    assert [found.id for found in store.exchanges(1, limit=2)] == ["b", "c"]


def test_a_deed_is_stored_once(store: Store) -> None:
    store.add_exchange(exchange("chatcmpl-1"))
    seen = Feedback("fb-1", 1, 1.0, "regeneration", "chatcmpl-1", source="history", trust="inferred", key="deed")
    memory = rule(1, "Be brief")
    assert not store.has_feedback(1, "deed")
    assert store.add_feedback(seen, [memory]) == (memory,)
    assert store.has_feedback(1, "deed")
    assert store.add_feedback(replace(seen, id="fb-2"), [rule(2, "Be long")]) == ()
    assert [row.id for row, _ in store.feedback_rows(1)] == ["fb-1"]
    assert [each.id for each in store.memories(1)] == ["mem-1"]
    bob = store.users.add("bob", "fam-key", 1.0).id
    assert not store.has_feedback(bob, "deed")
    store.add_feedback(Feedback("fb-3", bob, 1.0, "rating", rating=1, key="deed"))  # another user's deed is another
    assert store.has_feedback(bob, "deed")


def test_a_pending_signal_counts_once_it_is_confirmed(store: Store) -> None:
    store.add_exchange(exchange("chatcmpl-1"))
    for number in (1, 2):
        guess = Feedback(f"fb-{number}", 1, number, "rebuttal", "chatcmpl-1", "shorter", key=str(number))
        assert store.add_feedback(replace(guess, state="pending")) == ()
    assert [each.id for each in store.pending(1)] == ["fb-1", "fb-2"]
    assert store.feedback_rows(1) == []
    assert store.counts(1)["feedback"] == 0

    (made,) = store.settle(1, "fb-1", "active", [rule(1, "Keep replies short.")], text="Keep replies short.")
    assert store.memories(1) == [made]
    assert [(row.id, row.text) for row, _ in store.feedback_rows(1)] == [("fb-1", "Keep replies short.")]
    assert store.settle(1, "fb-2", "dismissed", [rule(2, "Be loud.")]) == ()
    assert store.feedback(1, "fb-2").state == "dismissed"
    assert store.pending(1) == []
    assert store.has_feedback(1, "2")  # what was turned down is not asked again
    assert store.memories(1) == [made]

    for settled in ("fb-1", "fb-2"):
        with pytest.raises(InvalidInput, match="not pending") as wrong:
            store.settle(1, settled, "active")
        assert wrong.value.param == "feedback_id"
    with pytest.raises(NotFound) as missing:
        store.settle(1, "fb-9", "active")
    assert missing.value.param == "feedback_id"


def test_unknown_ids_name_their_field(store: Store) -> None:
    calls: dict[str, Callable[[], object]] = {
        "completion_id": lambda: store.exchange(1, "nope"),
        "feedback_id": lambda: store.feedback(1, "nope"),
        "memory_id": lambda: store.memory(1, "nope"),
        "run_id": lambda: store.run(1, "nope"),
        "version": lambda: store.version(1, 9),
    }
    for param, call in calls.items():
        with pytest.raises(NotFound) as missing:
            call()
        assert missing.value.param == param
    with pytest.raises(NotFound, match="chatcmpl-gone") as missing:
        store.add_feedback(Feedback("fb-1", 1, 1.0, "rating", "chatcmpl-gone", rating=1), [])
    assert missing.value.param == "completion_id"
    with pytest.raises(NotFound):
        store.set_current(1, 3)
    with pytest.raises(NotFound):
        store.update_run(run("nope"))
    with pytest.raises(NotFound):
        store.add_version(version(1, "nope"), make_current=True)
    assert store.feedback_rows(1) == []
    assert store.versions(1) == []


def test_runs_round_trip_and_update(store: Store) -> None:
    store.add_run(run("run-1", 1.0))
    store.add_run(run("run-2", 2.0))
    assert store.run(1, "run-1") == run("run-1", 1.0)
    ended = replace(
        run("run-1", 1.0), state="rejected", pid=None, ended_at=9.0, error="no", report={"kl": float("nan")}
    )
    store.update_run(ended)
    assert store.run(1, "run-1") == replace(ended, report={"kl": None})  # JSON has no NaN
    assert [found.id for found in store.runs(1)] == ["run-2", "run-1"]


def test_versions_and_which_is_served(store: Store, data_dir: Path) -> None:
    store.add_run(run("run-1"))
    assert store.next_version(1) == 1
    assert store.current_version(1) is None
    store.add_version(version(1), make_current=True)
    store.add_version(version(2), make_current=False)
    assert store.next_version(1) == 3
    assert store.versions(1) == [version(1), version(2)]
    assert store.version(1, 2) == version(2)
    assert store.current_version(1) == version(1)
    with Store.open(data_dir / "familiar.db") as service:  # another process sees the swap at its next request
        store.set_current(1, 2)
        assert service.current_version(1) == version(2)
        store.set_current(1, None)
        assert service.current_version(1) is None


def test_version_is_added_whole_or_not_at_all(store: Store) -> None:
    store.add_run(run("run-1"))
    store.add_version(version(1), make_current=True)
    broken = replace(version(2), feedback_ids=("fb-1", None))  # type: ignore[arg-type]
    with pytest.raises(Exception, match="NOT NULL"):
        store.add_version(broken, make_current=True)
    assert store.current_version(1) == version(1)
    assert store.next_version(1) == 2


def test_logp_cache(store: Store) -> None:
    store.cache_logps("base", {f"key-{number}": -number / 3 for number in range(1200)})
    store.cache_logps("base", {"key-1": -7.5})
    store.cache_logps("other", {"key-1": -1.0})
    found = store.cached_logps("base", [f"key-{number}" for number in range(1300)])
    assert len(found) == 1200
    assert found["key-1"] == -7.5
    assert found["key-2"] == -2 / 3
    assert store.cached_logps("base", []) == {}


def test_views_answer_what_a_person_asks(store: Store) -> None:
    turns = (
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "x"},
        {"role": "user", "content": "last"},
    )
    store.add_exchange(exchange("chatcmpl-1", messages=turns))
    memory = Memory("mem-1", 1, 2.0, "example", "right", "last", "fb-1")
    store.add_feedback(Feedback("fb-1", 1, 2.0, "correction", "chatcmpl-1", "right"), [memory])
    store.add_exchange(exchange("chatcmpl-2", 8.0, used=(Used("mem-1", "words", 0.5),)))
    store.add_run(run("run-1"))
    store.add_version(version(1), make_current=True)
    read = store._connection.read
    assert [tuple(row) for row in read("SELECT prompt, original, corrected FROM corrections")] == [
        ("last", "hello", "right")
    ]
    uses = read("SELECT uses, last_used_at_s, from_feedback, from_exchange FROM memory_use")
    assert [tuple(row) for row in uses] == [(1, 8.0, "correction", "chatcmpl-1")]
    assert [tuple(row) for row in read("SELECT number, is_current, feedback_count FROM versions")] == [(1, 1, 2)]
    store.add_feedback(Feedback("fb-2", 1, 3.0, "rebuttal", "chatcmpl-1", "shorter", state="pending"))
    assert [tuple(row) for row in read("SELECT feedback_id, kind, text, completion FROM pending")] == [
        ("fb-2", "rebuttal", "shorter", "hello")
    ]


def test_deleting_an_exchange_takes_what_came_of_it_but_not_the_lineage(store: Store) -> None:
    store.add_exchange(exchange("chatcmpl-1", used=(Used("mem-0", "always"),)))
    memory = Memory("mem-1", 1, 2.0, "example", "right", "hi", "fb-1")
    store.add_feedback(Feedback("fb-1", 1, 2.0, "correction", "chatcmpl-1", "right"), [memory])
    store.add_run(run("run-1"))
    store.add_version(version(1), make_current=True)
    with store._connection.write() as transaction:
        transaction.execute("DELETE FROM exchanges")
    assert store.feedback_rows(1) == []
    assert store.memories(1) == []
    assert store.search_memories(1, "right") == []
    assert store.version(1, 1).feedback_ids == ("fb-2", "fb-1")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_files_are_the_owners_alone(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "new" / "familiar.db"
    path.parent.mkdir()
    before = os.umask(umask)
    try:
        with Store.open(path) as store:
            store.add_exchange(exchange("chatcmpl-1"))
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == {"familiar.db": 0o600, "familiar.db-wal": 0o600, "familiar.db-shm": 0o600}


def test_missing_folder_is_made_for_the_owner_alone(tmp_path: Path) -> None:
    with Store.open(tmp_path / "new" / "familiar.db"):
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_durable_settings_are_on(store: Store) -> None:
    expected = {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "secure_delete": 1,
        "recursive_triggers": 1,
        "busy_timeout": 10_000,
    }
    assert {name: store._connection.read(f"PRAGMA {name}")[0][0] for name in expected} == expected


def test_what_is_not_a_database_is_a_bad_file(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database " * 500)
    before = text.read_bytes()
    with pytest.raises(BadFile, match="not a SQLite database"):
        Store.open(text)
    assert text.read_bytes() == before
    with pytest.raises(BadFile, match="cannot be opened"):
        Store.open(tmp_path)
    with pytest.raises(BadFile, match="cannot be opened"):
        Store.open(text / "familiar.db")


def test_damaged_database_is_a_bad_file(tmp_path: Path) -> None:
    path = tmp_path / "familiar.db"
    with Store.open(path) as store:
        for number in range(50):
            say(store, rule(number, f"rule {number} " + "x" * 2000))
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xa5" * (len(whole) - 4096))
    with pytest.raises(BadFile), Store.open(path) as store:
        store.memories(1)

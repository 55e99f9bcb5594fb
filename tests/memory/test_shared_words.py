"""How much of a request's words a memory shares, on a real search index."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from familiar.memory import shared_words
from familiar.memory.index import MemoryIndex
from familiar.memory.shared_words import Shared
from familiar.memory.store import Store
from familiar.memory.types import Memory

ME, YOU = 1, 2


@pytest.fixture
def store(data_dir: Path) -> Iterator[Store]:
    with Store.open(data_dir / "familiar.db") as opened:
        opened.users.add("you", "fam-key", 0.0)
        yield opened


def put(store: Store, *texts: str, user: int = ME) -> None:
    """Memories as they are, without what is made of them when they are stated."""
    with store.connection.write() as transaction:
        transaction.execute_many(
            "INSERT INTO memories (id, user_id, created_at_s, kind, text, scope, pinned, source, state, uses,"
            " content_sha256) VALUES (?1, ?2, 0, 'fact', ?3, 'related', 0, 'api', 'active', 0, ?1)",
            [(f"mem-{user}-{number}-{text[:20]}", user, text) for number, text in enumerate(texts)],
        )


def shared(store: Store, request: str, user: int = ME) -> Shared:
    index = MemoryIndex(store.connection, user, None, None)
    index.refresh()
    return shared_words.share(store.connection, index, request)


def shares(store: Store, request: str, user: int = ME) -> list[float]:
    """The shares of the user's memories, oldest first."""
    found: list[float] = shared(store, request, user).shares.tolist()
    return found


def test_all_words_are_1_none_are_0_and_some_are_between(store: Store) -> None:
    put(store, "My bicycle is red.", "The bicycle shop closes early.", "I like tea.")
    both, one, none = shares(store, "Where is my red bicycle?")
    assert both == pytest.approx(1)
    assert 0 < one < 0.5
    assert none == 0


def test_words_are_alike_in_any_form_and_spelling(store: Store) -> None:
    put(store, "Boiling the EGGS takes seven minutes", "Café Zoë opens at nine")
    assert shares(store, "do I boil an egg") == pytest.approx([1, 0])
    assert shares(store, "cafe zoe") == pytest.approx([0, 1])


def test_a_rare_word_counts_more_than_a_common_one(store: Store) -> None:
    put(store, "The marmot sleeps.", "The recipe is long.", *(f"A recipe with {word}" for word in "abcdefgh"))
    rare, common, *_ = shares(store, "a marmot recipe")
    assert rare > 2 * common > 0


def test_stop_words_count_only_where_there_is_nothing_else(store: Store) -> None:
    put(store, "How are you?", "What would you like?")
    assert shares(store, "How are you?")[0] == pytest.approx(1)
    assert shares(store, "How is the marmot?") == [0, 0]


def test_what_others_said_and_what_has_ended_changes_nothing(store: Store) -> None:
    put(store, "The marmot sleeps.", "The recipe is long.")
    before = shares(store, "a marmot recipe")
    put(store, *(f"Number {number}: marmot" for number in range(300)), user=YOU)
    store.put_memory(Memory("old", ME, 1.0, "fact", "I live in Marmot.", scope="related"), 1.0)
    store.put_memory(Memory("new", ME, 2.0, "fact", "I live in Oslo.", scope="related"), 2.0)
    assert store.memory(ME, "old").state == "superseded"
    store.forget(ME, ["new"])
    assert shares(store, "a marmot recipe") == before
    assert shares(store, "a marmot recipe", YOU)[0] > 0


def test_words_that_too_many_have_tell_nothing_apart(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_words, "ROWS", 20)
    put(store, *(f"Entry {number} of the list" for number in range(100)), "A marmot in the list")
    marmot = shares(store, "entry list marmot")[-1]
    assert marmot > 0
    assert all(share < marmot for share in shares(store, "entry list marmot")[:-1])
    found = [share > 0 for share in shares(store, "entry list")]
    assert found == [False] * 80 + [True] * 20 + [False]  # where all are too common, the newest


def test_what_says_it_all_is_among_those_that_have_all_words(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, "A marmot in the list", "A list", *(f"Entry {number} of the list" for number in range(100)))
    assert _having_all(store, "marmots in lists") == [0]
    assert _having_all(store, "the list") == list(range(102))
    assert _having_all(store, "marmot entry") == []
    assert _having_all(store, "Which xylophone is in the marmot list?") == [0]  # a word that nobody used tells nothing
    assert _having_all(store, "xylophone") is _having_all(store, "") is None
    monkeypatch.setattr(shared_words, "ROWS", 20)
    assert _having_all(store, "marmot list") == [0]
    assert _having_all(store, "the list") is None  # not all its rows were read


def _having_all(store: Store, request: str) -> list[int] | None:
    found = shared(store, request).having_all
    return None if found is None else found.tolist()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.text(max_size=80), st.lists(st.sampled_from("tea AND OR NOT NEAR * ( ) \" ' : ^ - + {".split()))))
def test_any_request_has_shares_from_0_to_1(store: Store, request_: str | list[str]) -> None:
    if not store.memories(ME):
        put(store, "I like tea, and near the sea.", "\u7eff\u8336 \U0001f375", "Not or and")
    found = shares(store, request_ if isinstance(request_, str) else " ".join(request_))
    assert len(found) == 3
    assert all(0 <= share <= 1 + 1e-6 for share in found)


@pytest.mark.parametrize("request_", ["", "   ", "😀🎉", "?!", "x" * 100_000, "tea " * 50_000, "\x00tea\x00"])
def test_odd_requests_are_no_errors(store: Store, request_: str) -> None:
    put(store, "I like tea.")
    assert shares(store, request_) == pytest.approx([1.0 if "tea" in request_ else 0.0])


def test_a_user_without_memories_has_no_shares(store: Store) -> None:
    put(store, "I like tea.")
    assert shares(store, "tea", YOU) == []

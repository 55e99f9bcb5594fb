"""What goes when a user has too many memories, and what never does."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from familiar.memory.eviction import worth
from familiar.memory.store import Store
from familiar.memory.types import Exchange, Feedback, Memory, Used

DAY_S = 86_400.0
NOW = 1000 * DAY_S


@pytest.fixture
def store(data_dir: Path) -> Iterator[Store]:
    with Store.open(data_dir / "familiar.db", clock=lambda: NOW, max_memories=5) as opened:
        yield opened


def state(store: Store, name: str, *, days_ago: float = 0, pinned: bool = False) -> Memory:
    at = NOW - days_ago * DAY_S
    text = f"I have met {name} once"
    return store.put_memory(Memory(f"mem-{name}", 1, at, "fact", text, scope="related", pinned=pinned), NOW)


def show(store: Store, name: str, times: int) -> None:
    for number in range(times):
        used = (Used(f"mem-{name}", "words", 0.5),)
        store.add_exchange(Exchange(f"chatcmpl-{name}-{number}", 1, NOW - 50 * DAY_S, "familiar", (), "Hm.", used=used))


def names(store: Store, *states: str) -> list[str]:
    found = store.memories(1, states=states or ("active",))  # type: ignore[arg-type]
    return [memory.id.removeprefix("mem-") for memory in found]


def test_worth_halves_in_ninety_days_and_grows_with_use() -> None:
    assert worth(0, NOW, NOW) == 1.0
    assert worth(0, NOW - 90 * DAY_S, NOW) == 0.5
    assert worth(3, NOW, NOW) == 3.0
    assert worth(0, NOW + DAY_S, NOW) == 1.0  # a clock that was put back


def test_the_oldest_unused_goes_first_and_is_kept_as_evicted(store: Store) -> None:
    for days_ago, name in enumerate(("ann", "bob", "cid", "dan", "eve")):
        state(store, name, days_ago=100 - days_ago)
    assert len(names(store)) == 5
    state(store, "fay")
    assert names(store) == ["bob", "cid", "dan", "eve", "fay"]
    gone = store.memory(1, "mem-ann")
    assert (gone.state, gone.ended_at, gone.superseded_by) == ("evicted", NOW, None)
    assert [memory.id for memory, _ in store.search_memories(1, "ann", states=("evicted",))] == ["mem-ann"]
    assert store.search_memories(1, "ann") == []


def test_use_and_pins_keep_a_memory(store: Store) -> None:
    state(store, "ann", days_ago=300)
    state(store, "bob", days_ago=200, pinned=True)
    for days_ago, name in ((90, "cid"), (80, "dan"), (70, "eve")):
        state(store, name, days_ago=days_ago)
    show(store, "ann", 6)
    state(store, "fay")
    assert names(store, "evicted") == ["cid"]
    assert "ann" in names(store)
    state(store, "gus")
    assert names(store, "evicted") == ["cid", "dan"]


def test_what_was_just_stated_is_never_what_goes(store: Store) -> None:
    for name in ("ann", "bob", "cid", "dan", "eve"):
        state(store, name)
        show(store, name, 5)
    state(store, "fay", days_ago=900)  # worth next to nothing, but the user has said it now
    assert "fay" in names(store)
    assert len(names(store)) == 5


def test_pinned_ones_may_be_more_than_the_cap(store: Store) -> None:
    for number in range(8):
        state(store, f"p{number}", pinned=True)
    assert len(names(store)) == 8


def test_feedback_makes_room_too(store: Store) -> None:
    for number in range(7):
        feedback = Feedback(f"fb-{number}", 1, NOW + number, "rule", text="x")
        memory = Memory(f"mem-{number}", 1, NOW + number, "fact", f"City {number} is big", feedback_id=feedback.id)
        store.add_feedback(feedback, [memory])
    assert names(store) == ["2", "3", "4", "5", "6"]
    assert store.counts(1)["memories"] == 5


def test_a_large_store_is_not_weighed_at_every_statement(data_dir: Path) -> None:
    path = data_dir / "familiar.db"
    with Store.open(path) as store:
        for number in range(203):
            store.put_memory(Memory(f"mem-{number}", 1, float(number), "fact", f"City {number} is big"), float(number))
    with Store.open(path, max_memories=200) as store:
        store.put_memory(Memory("mem-last", 1, 300.0, "fact", "The sea is wide"), 300.0)
        assert len(names(store)) == 198  # as many fewer as make room for the next two
        assert len(names(store, "evicted")) == 6


def test_ended_ones_are_deleted_oldest_first_beyond_ten_times_the_cap(data_dir: Path) -> None:
    with Store.open(data_dir / "familiar.db", max_memories=2) as store:
        for number in range(30):
            memory = Memory(f"mem-{number}", 1, float(number), "fact", f"City {number} is big")
            store.put_memory(memory, float(number))
        assert names(store) == ["28", "29"]
        assert names(store, "evicted") == [str(number) for number in range(8, 28)]


def test_users_have_a_cap_each(store: Store) -> None:
    bob = store.users.add("bob", "fam-key", 1.0).id
    for number in range(5):
        state(store, f"a{number}")
    store.put_memory(Memory("mem-bob", bob, NOW, "fact", "I am Bob"), NOW)
    assert len(names(store)) == 5
    assert len(store.memories(bob)) == 1


def test_an_evicted_memory_is_restored_or_stated_again(store: Store) -> None:
    for days_ago, name in enumerate(("ann", "bob", "cid", "dan", "eve", "fay", "gus")):
        state(store, name, days_ago=100 - days_ago)
    assert names(store, "evicted") == ["ann", "bob"]
    assert store.restore_memory(1, "mem-ann", NOW).state == "active"
    assert state(store, "bob").id == "mem-bob"
    assert {"ann", "bob"} <= set(names(store))
    assert store.memory(1, "mem-bob").ended_at is None

"""Graders in the store: kept with their rule, forgotten with it, carried along by an export, and each user's own."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from familiar.memory import graders_table
from familiar.memory.errors import InvalidInput, NotFound
from familiar.memory.store import Store
from familiar.memory.types import Memory, StoredGrader

ME = 1


@pytest.fixture
def store(data_dir: Path) -> Iterator[Store]:
    with Store.open(data_dir / "familiar.db") as opened:
        yield opened


def rule(store: Store, name: str, text: str, user: int = ME, at: float = 1.0) -> Memory:
    return store.put_memory(Memory(f"mem-{name}", user, at, "rule", text), at)


def keep(store: Store, name: str, memory_id: str | None = None, user: int = ME, **definition: Any) -> StoredGrader:
    given = {"type": "python", "name": name, "source": "…", **definition}
    return store.add_grader(StoredGrader(f"grader-{name}", user, 5.0, name, given, memory_id))


def test_graders_are_kept_listed_and_deleted(store: Store) -> None:
    brief = rule(store, "brief", "Be brief.")
    one, alone = keep(store, "one", brief.id), keep(store, "two")
    assert store.graders(ME) == [one, alone]
    assert store.graders(ME, brief.id) == [one]
    assert store.grader(ME, "grader-one") == one
    again = store.add_grader(StoredGrader("grader-x", ME, 9.0, "one", one.definition, brief.id))
    assert again == one, "the same again is the one that there is"
    store.delete_grader(ME, one.id)
    assert store.graders(ME) == [alone]
    assert store.memory(ME, brief.id) == brief
    for wrong in (lambda: store.delete_grader(ME, one.id), lambda: store.grader(ME, one.id)):
        with pytest.raises(NotFound) as missing:
            wrong()
        assert missing.value.param == "grader_id"


def test_a_rule_that_is_not_active_counts_no_more(store: Store) -> None:
    metric = rule(store, "metric", "Use metric units.")
    kept = keep(store, "units", metric.id)
    imperial = rule(store, "imperial", "Use imperial units.", at=2.0)
    assert store.memory(ME, metric.id).state == "superseded"
    assert store.graders(ME) == []
    assert store.graders(ME, metric.id) == [kept]
    store.restore_memory(ME, metric.id, 3.0)
    assert store.graders(ME) == [kept]
    assert store.memory(ME, imperial.id).state == "superseded"


def test_forgetting_the_rule_forgets_its_graders_to_the_byte(store: Store, data_dir: Path) -> None:
    it = rule(store, "it", "End every letter with Zanzibarquux.")
    rule(store, "kept", "Be brief.")
    keep(store, "it", it.id, source="zanzibarquux")
    other = keep(store, "other", "mem-kept")
    exports = data_dir / "exports"
    exports.mkdir()
    (exports / "all.jsonl").write_bytes(b"".join(store.export(ME)))
    store.forget(ME, [it.id])
    assert store.graders(ME) == [other]
    found = [path for path in data_dir.rglob("*") if path.is_file() and b"zanzibarquux" in path.read_bytes().lower()]
    assert found == []
    store.erase(ME)
    assert store.graders(ME) == []


def test_an_export_carries_them_and_a_second_import_changes_nothing(store: Store, tmp_path: Path) -> None:
    keep(store, "one", rule(store, "brief", "Be brief.").id)
    lines = b"".join(store.export(ME))
    with Store.open(tmp_path / "other.db") as other:
        rule(other, "elsewhere", "Be brief.")
        for added in (1, 0):
            assert other.import_data(ME, io.BytesIO(lines)).added.get("graders", 0) == added
        (moved,) = other.graders(ME)
        assert (moved.id, moved.name, moved.memory_id) == ("grader-one", "one", "mem-elsewhere")
        assert moved.definition == store.grader(ME, "grader-one").definition


def test_each_users_are_their_own(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    bob = store.users.add("bob", "fam-key", 1.0).id
    mine, his = rule(store, "mine", "Be brief."), rule(store, "his", "Be brief.", bob)
    kept = keep(store, "mine", mine.id)
    for wrong, param in (
        (lambda: store.grader(bob, kept.id), "grader_id"),
        (lambda: store.delete_grader(bob, kept.id), "grader_id"),
        (lambda: store.graders(bob, mine.id), "memory_id"),
        (lambda: keep(store, "x", mine.id, bob), "memory_id"),
    ):
        with pytest.raises(NotFound) as missing:
            wrong()
        assert missing.value.param == param
    assert store.graders(bob) == []
    keep(store, "his", his.id, bob)
    assert [grader.name for grader in store.graders(ME)] == ["mine"]
    monkeypatch.setattr(graders_table, "MAX_GRADERS", 1)
    with pytest.raises(InvalidInput, match="1 is the most"):
        keep(store, "more", mine.id)

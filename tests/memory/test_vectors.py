"""Vectors in the store: which memories have one, and the background that is computed once."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from familiar.memory import meaning, vectors
from familiar.memory.index import MemoryIndex
from familiar.memory.meaning import Background, Embed, Vectors
from familiar.memory.store import Store
from familiar.memory.types import Memory, MemoryKind
from tests.memory.embedders import HashedWords

BACKGROUND = Background.of(HashedWords()(meaning.background_texts()))


@pytest.fixture
def store(data_dir: Path) -> Iterator[Store]:
    with Store.open(data_dir / "familiar.db") as opened:
        yield opened


def put(store: Store, id: str, text: str, at: float, prompt: str | None = None, user: int = 1) -> Memory:
    kind: MemoryKind = "example" if prompt else "fact"
    return store.put_memory(Memory(id, user, at, kind, text, prompt, scope="related"), at)


def embed(store: Store, by: Embed | None = None, limit: int | None = None) -> int:
    """Embed what the index says is missing, as recall does."""
    by = by or HashedWords()
    index = MemoryIndex(store.connection, 1, by.name, BACKGROUND)
    index.refresh()
    return vectors.embed_missing(store.connection, index.missing(limit), by, BACKGROUND)


def stored(store: Store, seqs: Sequence[int] = range(1, 20)) -> tuple[list[int], Vectors, Vectors]:
    found, read, hubness = vectors.read(store.connection, 1, HashedWords().name, seqs)
    return found.tolist(), read, hubness


def test_the_background_is_computed_once_and_kept(store: Store) -> None:
    first, again = HashedWords(), HashedWords()
    computed = vectors.background(store.connection, first)
    assert [len(call) for call in first.calls] == [len(meaning.background_texts())]
    kept = vectors.background(store.connection, again)
    assert again.calls == []
    assert kept.values == pytest.approx(computed.values, abs=2e-3)
    assert kept.requests == pytest.approx(computed.requests, abs=2e-2)
    other = HashedWords(alike=["tea coffee"])
    vectors.background(store.connection, other)
    assert len(other.calls) == 1


def test_the_background_is_computed_anew_for_other_texts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors.background(store.connection, HashedWords())
    monkeypatch.setattr(meaning, "texts_sha256", lambda: "other")
    after = HashedWords()
    vectors.background(store.connection, after)
    assert len(after.calls) == 1
    assert len(store.connection.read("SELECT 1 FROM background_vectors")) == 1


def test_what_is_shipped_is_of_the_texts_that_are_shipped(store: Store) -> None:
    with np.load(vectors.SHIPPED) as shipped:
        name, sha256, found = str(shipped["embedder"]), str(shipped["texts_sha256"]), shipped["vectors"]
    assert name.startswith("all-MiniLM-L6-v2@")
    assert sha256 == meaning.texts_sha256()
    assert found.shape == (len(meaning.background_texts()), 384)
    embedder = HashedWords()
    embedder.name = name
    background = vectors.background(store.connection, embedder)
    assert embedder.calls == []
    assert background.values.shape == (len(meaning.associations()), 384)


def test_bytes_keep_the_direction_of_a_vector() -> None:
    rng = np.random.default_rng(1)
    drawn = rng.normal(size=(50, 384)).astype(np.float32)
    small = vectors.to_bytes(drawn).astype(np.float32)
    cosines = (drawn * small).sum(1) / np.linalg.norm(drawn, axis=1) / np.linalg.norm(small, axis=1)
    assert cosines.min() > 0.999


def test_each_active_memory_gets_the_vector_of_what_it_is_found_by(store: Store) -> None:
    put(store, "mem-1", "I like tea.", 1.0)
    put(store, "mem-2", "A rose.", 2.0, prompt="Name a flower")
    assert embed(store) == 2
    assert embed(store) == 0
    seqs, read, hubness = stored(store)
    expected = HashedWords()(["I like tea.", "Name a flower"])
    assert seqs == [1, 2]
    assert read == pytest.approx(expected, abs=1e-3)
    assert hubness == pytest.approx(BACKGROUND.hubness(BACKGROUND.statement(expected)), abs=1e-5)
    assert stored(store, [2])[0] == [2]
    assert stored(store, [])[0] == []


def test_the_newest_get_theirs_first_and_no_more_than_asked_for(store: Store) -> None:
    for number in range(5):
        put(store, f"mem-{number}", f"Fact number {number} on {'abcde'[number]}{number}", float(number))
    embedder = HashedWords()
    assert embed(store, embedder, limit=2) == 2
    assert stored(store)[0] == [4, 5]
    assert embed(store, embedder, limit=2) == 2
    assert embed(store, embedder, limit=2) == 1
    assert stored(store)[0] == [1, 2, 3, 4, 5]
    assert sum(map(len, embedder.calls)) == 5


def test_what_is_not_active_or_anothers_gets_none(store: Store) -> None:
    other = store.users.add("you", "fam-key", 0.0).id
    put(store, "mem-1", "I live in Oslo.", 1.0)
    put(store, "mem-2", "I live in Bergen.", 2.0)
    put(store, "mem-3", "I like tea.", 3.0, user=other)
    assert store.memory(1, "mem-1").state == "superseded"
    assert embed(store) == 1
    assert stored(store)[0] == [2]


def test_an_edit_takes_the_vector_and_a_forgotten_memory_leaves_none(store: Store) -> None:
    put(store, "mem-1", "I like tea.", 1.0)
    put(store, "mem-2", "I own a bicycle.", 2.0)
    embed(store)
    store.edit_memory(1, "mem-1", 3.0, text="I like coffee.")
    assert stored(store)[0] == [2]
    store.edit_memory(1, "mem-2", 4.0, pinned=True)
    assert stored(store)[0] == [2]
    store.forget(1, ["mem-2"])
    assert store.connection.read("SELECT 1 FROM memory_vectors") == []
    assert embed(store) == 1
    assert stored(store)[1] == pytest.approx(HashedWords()(["I like coffee."]), abs=1e-3)


def test_vectors_of_another_embedder_are_replaced(store: Store) -> None:
    put(store, "mem-1", "I like tea.", 1.0)
    embed(store)
    other = HashedWords(alike=["tea coffee"])
    assert embed(store, other) == 1
    assert stored(store)[0] == []


class _Meanwhile:
    """An embedder beside which something else happens to the store, once."""

    name = HashedWords().name

    def __init__(self, happens: Callable[[], object]) -> None:
        self._happens: list[Callable[[], object]] = [happens]

    def __call__(self, texts: Sequence[str]) -> Vectors:
        if self._happens:
            self._happens.pop()()
        return HashedWords()(texts)


def test_a_memory_that_is_edited_while_it_is_embedded_does_not_keep_the_old_texts_vector(store: Store) -> None:
    put(store, "mem-1", "I like tea.", 1.0)
    embed(store, _Meanwhile(lambda: store.edit_memory(1, "mem-1", 2.0, text="I own a bicycle.")))
    assert stored(store)[0] == []
    assert embed(store) == 1
    assert stored(store)[1] == pytest.approx(HashedWords()(["I own a bicycle."]), abs=1e-3)


def test_a_memory_that_is_forgotten_while_it_is_embedded_stays_forgotten(store: Store) -> None:
    put(store, "mem-1", "I like tea.", 1.0)
    assert embed(store, _Meanwhile(lambda: store.forget(1, ["mem-1"]))) in (0, 1)
    assert store.connection.read("SELECT 1 FROM memory_vectors") == []

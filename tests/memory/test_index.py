"""The index in memory: always what the store has, whoever wrote it, and as good as comparing with every memory."""

import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from familiar.memory import index as index_module
from familiar.memory import meaning, vectors
from familiar.memory.database import Connection
from familiar.memory.errors import InvalidInput
from familiar.memory.index import MemoryIndex
from familiar.memory.meaning import Background, Vectors
from familiar.memory.recall import Recaller
from familiar.memory.store import Store
from familiar.memory.types import Memory
from tests.memory.embedders import HashedWords

EMBED = HashedWords(dimensions=24)
BACKGROUND = Background.of(EMBED(meaning.background_texts()))
TEXTS = [
    "I live in Oslo.",
    "I live in Bergen.",
    "I like green tea.",
    "I don't like green tea.",
    "My bicycle is red.",
    "My sister is a nurse.",
    "Use metric units.",
    "Use imperial units.",
]


@pytest.fixture
def store(data_dir: Path) -> Iterator[Store]:
    with Store.open(data_dir / "familiar.db", max_memories=5) as opened:
        yield opened


@pytest.fixture
def beside(store: Store) -> Iterator[Store]:
    """The same file, as another process has it open."""
    with Store.open(store.connection.path, max_memories=5) as opened:
        yield opened


def new_index(store: Store, user: int = 1) -> MemoryIndex:
    return MemoryIndex(store.connection, user, EMBED.name, BACKGROUND)


def embed(store: Store, user: int = 1, limit: int | None = None) -> None:
    index = new_index(store, user)
    index.refresh()
    vectors.embed_missing(store.connection, index.missing(limit), EMBED, BACKGROUND)


def put(store: Store, id: str, text: str, at: float, **fields: object) -> Memory:
    return store.put_memory(Memory(id, 1, at, "fact", text, scope="related", **fields), at)  # type: ignore[arg-type]


def held(index: MemoryIndex) -> list[tuple[int, int, list[float] | None]]:
    """What an index says of each memory: its number, where it was said, and its vector less its hubness, or None."""
    positions = np.arange(len(index))
    columns = np.stack([index.similarity(axis, positions) for axis in np.eye(24, dtype=np.float32)], axis=1)
    return [
        (int(seq), int(said_in), None if np.isnan(column).any() else column.tolist())
        for seq, said_in, column in zip(index.seqs, index.conversations, columns, strict=True)
    ]


def assert_in_step(index: MemoryIndex, store: Store, user: int = 1) -> None:
    index.refresh()
    fresh = new_index(store, user)
    fresh.refresh()
    assert held(index) == held(fresh)
    assert index.complete == fresh.complete
    for request in EMBED(["tea", "Where do I live?", "units"]):
        with pytest.MonkeyPatch.context() as small:
            small.setattr(index_module, "EXACT", 0)
            small.setattr(index_module, "SHORTLIST", 1)
            assert len(index) < 2 or index.nearest(request).tolist() == fresh.nearest(request).tolist()


operations = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "edit", "move", "restore", "forget", "embed", "embed", "look", "look"]),
        st.integers(0, 7),
        st.integers(0, 7),
        st.booleans(),
    ),
    min_size=4,
    max_size=30,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations)
def test_an_index_has_what_one_that_is_made_anew_would_have(
    store: Store, beside: Store, todo: list[tuple[str, int, int, bool]]
) -> None:
    number = len(store.users.all())
    user = store.users.add(f"user{number}", f"fam-{number}", 0.0).id
    conversations = [store.start_conversation(user, 0.0) for _ in range(2)]
    index = new_index(store, user)
    for at, (what, which, other, elsewhere) in enumerate(todo, start=1):
        writer = beside if elsewhere else store
        memories = store.memories(user, states=("active", "superseded", "evicted"))
        chosen = memories[which % len(memories)].id if memories else None
        if what == "put":
            said_in = conversations[other % 2] if other > 3 else None
            memory = Memory(
                f"mem-{user}-{at}", user, at, "fact", TEXTS[which], scope="related", conversation_id=said_in
            )
            writer.put_memory(memory, at)
        elif what == "embed":
            embed(writer, user, limit=other)
        elif what == "look":
            index.refresh()
        elif chosen and what == "forget":
            writer.forget(user, [chosen])
        elif chosen:
            try:
                if what == "edit":
                    writer.edit_memory(user, chosen, at, text=TEXTS[other])
                elif what == "move":
                    writer.edit_memory(user, chosen, at, conversation_id=conversations[other % 2])
                else:
                    writer.restore_memory(user, chosen, at)
            except InvalidInput:
                pass  # another one says that already
    assert_in_step(index, store, user)


def test_a_vector_is_dropped_when_the_text_is_edited(store: Store, beside: Store) -> None:
    put(store, "mem-1", "I like green tea.", 1.0)
    put(store, "mem-2", "My bicycle is red.", 2.0)
    embed(store)
    index = new_index(store)
    index.refresh()
    assert index.complete
    beside.edit_memory(1, "mem-1", 3.0, text="My sister is a nurse.")
    index.refresh()
    assert [column is None for _, _, column in held(index)] == [True, False]
    assert index.nearest(EMBED(["tea"])[0]).tolist() == [1]
    assert not index.complete


def test_an_edited_memory_that_was_embedded_again_has_the_new_vector(store: Store, beside: Store) -> None:
    put(store, "mem-1", "I like green tea.", 1.0)
    embed(store)
    index = new_index(store)
    index.refresh()
    beside.edit_memory(1, "mem-1", 2.0, text="My bicycle is red.")
    embed(beside)
    assert_in_step(index, store)
    request = BACKGROUND.statement(EMBED(["My bicycle is red."]))[0]
    hubness = BACKGROUND.hubness(request[None])[0]
    assert index.similarity(request, np.array([0]))[0] == pytest.approx(1 - hubness, abs=2e-3)


def test_a_memory_that_comes_back_stands_where_it_stood(store: Store) -> None:
    for number, text in enumerate(["I live in Oslo.", "My bicycle is red.", "My sister is a nurse."], start=1):
        put(store, f"mem-{number}", text, float(number))
    embed(store)
    index = new_index(store)
    index.refresh()
    put(store, "mem-4", "I live in Bergen.", 4.0)  # ends the first
    index.refresh()
    assert index.seqs.tolist() == [2, 3, 4]
    store.restore_memory(1, "mem-1", 5.0)  # ends the last
    assert_in_step(index, store)
    assert index.seqs.tolist() == [1, 2, 3]


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many vectors are asked for each time that an index reads some from the store, from now on."""
    asked: list[int] = []
    read = vectors.read

    def counted(connection: Connection, user_id: int, embedder: str, seqs: Sequence[int]) -> tuple[Any, Any, Any]:
        asked.append(len(seqs))
        return read(connection, user_id, embedder, seqs)

    monkeypatch.setattr(vectors, "read", counted)
    return asked


def test_vectors_that_are_not_there_yet_are_not_looked_for_again_and_again(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "_AT_ONCE", 4)
    with Store.open(data_dir / "many.db") as store:
        for number in range(40):
            put(store, f"mem-{number}", f"Colour {number} is number {number * 7 % 41} of my list.", float(number))
        index = new_index(store)
        index.refresh()
        assert index.missing() == list(range(40, 0, -1))
        assert index.missing(3) == [40, 39, 38]
        embed(store, limit=10)
        asked = count_reads(monkeypatch)
        index.refresh()
        assert asked == [4, 4, 4, 4]  # ten are found, and the fourth look finds nothing
        assert index.missing() == list(range(30, 0, -1))
        asked.clear()
        put(store, "mem-40", "Colour 40 is bright.", 40.0)
        index.refresh()
        assert sum(asked) <= 8
        embed(store)
        assert_in_step(index, store)
        assert index.complete


def test_what_an_index_did_not_know_it_looks_for_in_full(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "_AT_ONCE", 4)
    with Store.open(data_dir / "many.db") as store:
        put(store, "mem-0", "I live in Oslo.", 0.0)
        for number in range(1, 20):
            put(store, f"mem-{number}", f"Colour {number} is number {number * 7 % 41} of my list.", float(number))
        put(store, "mem-20", "I live in Bergen.", 20.0)  # ends the first
        embed(store)
        for number in range(21, 40):
            put(store, f"mem-{number}", f"Colour {number} is number {number * 7 % 41} of my list.", float(number))
        index = new_index(store)
        index.refresh()
        assert index.missing() == list(range(40, 21, -1))  # older ones have theirs
        store.restore_memory(1, "mem-0", 50.0)  # what follows it is read anew
        assert_in_step(index, store)


def test_only_what_may_have_changed_a_text_makes_an_index_look_at_all_vectors(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, text in enumerate(["I live in Oslo.", "My bicycle is red.", "My sister is a nurse."], start=1):
        put(store, f"mem-{number}", text, float(number))
    embed(store)
    index = new_index(store)
    index.refresh()
    asked = count_reads(monkeypatch)
    looked: list[int] = []
    monkeypatch.setattr(index, "_take_changes", lambda: looked.append(1))
    put(store, "mem-4", "I live in Bergen.", 4.0)  # ends the first
    index.refresh()
    store.forget(1, ["mem-2"])
    index.refresh()
    assert index.seqs.tolist() == [3, 4]
    assert looked == []
    assert asked == [1, 1]  # the new one, which has none
    monkeypatch.undo()
    assert_in_step(index, store)
    store.edit_memory(1, "mem-3", 5.0, text="My sister is a pilot.")
    assert_in_step(index, store)
    assert index.missing() == [4, 3]


def test_of_a_user_who_has_nothing_nothing_is_found(store: Store) -> None:
    for index in (new_index(store), new_index(store, 99)):
        index.refresh()
        assert len(index) == 0
        assert index.nearest(EMBED(["tea"])[0]).tolist() == []
        assert index.find(np.array([1, 2]))[1].tolist() == [False, False]


def test_find_tells_positions_and_what_is_not_there(store: Store) -> None:
    for number, text in enumerate(TEXTS[::2], start=1):
        put(store, f"mem-{number}", text, float(number))
    store.forget(1, ["mem-2"])
    index = new_index(store)
    index.refresh()
    positions, there = index.find(np.array([4, 2, 1, 77]))
    assert there.tolist() == [True, False, True, False]
    assert positions[there].tolist() == [2, 0]


OTHER_PROCESS = """
import sys
from pathlib import Path
from familiar.memory.store import Store
from familiar.memory.types import Memory
from tests.memory.test_index import embed

with Store.open(Path(sys.argv[1])) as store:
    for number in range(30):
        text = f"Colour {number} is number {number * 7 % 31} of my list."
        store.put_memory(Memory(f"mem-{number}", 1, number, "fact", text, scope="related"), number)
        if number % 3 == 2:
            embed(store, limit=2)
        if number % 5 == 4:
            store.edit_memory(1, f"mem-{number - 2}", number, text=f"Shade {number} is bright.")
        if number % 10 == 9:
            store.forget(1, [f"mem-{number - 5}"])
"""


def test_what_another_process_writes_meanwhile_is_taken_over(store: Store) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", OTHER_PROCESS, str(store.connection.path)],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
    )
    index = new_index(store)
    seen = set()
    try:
        while writer.poll() is None:
            index.refresh()
            held(index)
            seen.add(len(index))
    finally:
        writer.wait(60)
        assert writer.stderr is not None
        said = writer.stderr.read().decode()
        writer.stderr.close()
    assert writer.returncode == 0, said
    assert_in_step(index, store)
    assert len(index) == 27
    assert len(seen) > 3


class _Drawn:
    """Vectors in clusters, as those of texts are: one centre for each subject, and a text some way off it."""

    name = "drawn"

    def __init__(self, dimensions: int = 128) -> None:
        self._dimensions = dimensions
        self._subjects = np.random.default_rng(0).normal(size=(300, dimensions))

    def __call__(self, texts: Sequence[str]) -> Vectors:
        return np.stack([self._vector(text) for text in texts])

    def _vector(self, text: str) -> Vectors:
        rng = np.random.default_rng(zlib.crc32(text.encode()))
        vector = self._subjects[rng.integers(300)] + 0.8 * rng.normal(size=self._dimensions)
        unit: Vectors = (vector / np.linalg.norm(vector)).astype(np.float32)
        return unit


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Recaller]]:
    """8,000 memories with vectors."""
    with Store.open(tmp_path_factory.mktemp("many") / "familiar.db") as opened:
        with opened.connection.write() as transaction:
            transaction.execute_many(
                "INSERT INTO memories (id, user_id, created_at_s, kind, text, scope, pinned, source, state, uses,"
                " content_sha256) VALUES (?1, 1, ?2, 'fact', ?3, 'related', 0, 'api', 'active', 0, ?1)",
                [(f"mem-{number}", number, f"Entry {number} w{number % 97}") for number in range(8000)],
            )
        recaller = Recaller(opened, _Drawn())
        assert recaller.prepare(1) == 8000
        yield opened, recaller


def test_of_many_memories_the_bits_find_what_comparing_with_all_finds(
    many: tuple[Store, Recaller], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = many
    drawn = _Drawn()
    background = vectors.background(store.connection, drawn)
    index = MemoryIndex(store.connection, 1, drawn.name, background)
    index.refresh()
    shares = []
    for request in (background.request(vector) for vector in drawn([f"Request {number}" for number in range(60)])):
        best = {}
        for exact in (10_000, 1000):
            monkeypatch.setattr(index_module, "EXACT", exact)
            positions = index.nearest(request)
            alike = index.similarity(request, positions)
            best[exact] = set(positions[np.argsort(-alike)[:10]].tolist())
        assert len(positions) == index_module.SHORTLIST
        shares.append(len(best[10_000] & best[1000]) / 10)
    assert np.mean(shares) >= 0.95


def test_searches_go_on_while_another_thread_writes(many: tuple[Store, Recaller]) -> None:
    store, recaller = many
    written, failed = threading.Event(), []
    requests = ["Entry w13", "Which entry is 4711?", "Something new about w5"]

    def search() -> None:
        try:
            while not written.is_set():
                for request in requests:
                    found = recaller.search(1, request)
                    assert len({each.memory.id for each in found}) == len(found) <= 20
        except BaseException as error:
            failed.append(error)

    searching = [threading.Thread(target=search) for _ in range(2)]
    for thread in searching:
        thread.start()
    try:
        for number in range(12):
            put(store, f"mem-new-{number}", f"Something new about w{number}x", 1e5 + number)
            store.edit_memory(1, f"mem-{number}", 2e5 + number, text=f"Changed {number} to w{number}y")
            if number % 4 == 3:
                store.forget(1, [f"mem-new-{number - 1}"])
    finally:
        written.set()
        for thread in searching:
            thread.join()
    assert failed == []
    assert recaller.search(1, "Something new about w3x")[0].memory.id == "mem-new-3"
    assert "mem-new-2" not in {each.memory.id for each in recaller.search(1, "Something new about w2x", limit=50)}
    assert recaller.search(1, "changed 7 w7y")[0].memory.text == "Changed 7 to w7y"

"""Turns at the write lock, beside a connection that hardly lets go of it."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from familiar.memory.errors import Busy
from familiar.memory.store import Store
from familiar.memory.write_lock import write_lock

HELD_S, FREE_S = 0.02, 0.001


@contextmanager
def greedy_writer(path: Path) -> Iterator[None]:
    """Somebody who writes one transaction after another."""
    done, begun = threading.Event(), threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as connection:
            while not done.is_set():
                connection.execute("BEGIN IMMEDIATE")
                begun.set()
                time.sleep(HELD_S)
                connection.execute("ROLLBACK")
                time.sleep(FREE_S)

    thread = threading.Thread(target=write)
    thread.start()
    begun.wait(60)
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_a_gap_between_anothers_writes_is_found(data_dir: Path) -> None:
    with Store.open(data_dir / "familiar.db") as store, greedy_writer(store.connection.path):
        store.connection.read("PRAGMA busy_timeout = 1000")
        for number in range(20):
            store.users.add(f"bob{number}", f"fam-{number}", 1.0)
        assert store.connection.read("PRAGMA busy_timeout")[0][0] == 1000
        with write_lock(store.connection.path, 1.0) as had:
            assert had


def test_a_lock_that_nobody_gives_back_is_waited_for_no_longer_than_told(data_dir: Path) -> None:
    with Store.open(data_dir / "familiar.db") as store, write_lock(store.connection.path, 1.0) as had:
        assert had
        store.connection.read("PRAGMA busy_timeout = 50")
        with pytest.raises(Busy, match="held by another process"):
            store.users.add("bob", "fam-bob", 1.0)
        assert store.connection.read("PRAGMA busy_timeout")[0][0] == 50
        with write_lock(store.connection.path, 0.0) as other:
            assert not other
    with Store.open(data_dir / "familiar.db") as store:
        store.users.add("bob", "fam-bob", 1.0)

"""Backups: made while others write, whole, private, and put back."""

import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from familiar.memory import backup
from familiar.memory.errors import BadFile, Busy, InvalidInput
from familiar.memory.store import Store
from familiar.memory.types import Memory
from tests.memory.owner import fill

WRITER = Path(__file__).parent / "writer.py"
ME = 1


@pytest.fixture
def database(data_dir: Path) -> Path:
    return data_dir / "familiar.db"


@pytest.fixture
def store(database: Path) -> Iterator[Store]:
    with Store.open(database, clock=lambda: 1_700_000_000.0) as opened:
        yield opened


def test_a_backup_is_the_store_as_it_was(store: Store, database: Path) -> None:
    fill(store, ME)
    path = store.backup()
    store.put_memory(Memory("mem-later", ME, 9.0, "rule", "Something later."), 9.0)
    again = store.backup()
    assert path.parent == database.parent / "backups"
    assert path.name.startswith("familiar-2023111")
    assert again.name == f"{path.stem}-2.db"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [found.path for found in backup.listed(database)] == [path, again]
    assert {file.name for file in path.parent.iterdir()} == {".lock", path.name, again.name}
    with Store.open(path) as copy:
        assert copy.counts(ME) == {**store.counts(ME), "memories": store.counts(ME)["memories"] - 1}


def test_a_backup_where_it_is_wanted(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "new" / "mine.db"
    assert store.backup(target) == target
    with pytest.raises(InvalidInput, match="is there already") as error:
        store.backup(target)
    assert error.value.param == "out"
    with pytest.raises(InvalidInput, match="cannot be written"):
        store.backup(target / "within.db")
    assert list(target.parent.iterdir()) == [target]


def test_while_others_write_no_row_is_torn(store: Store, database: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, str(WRITER), str(database), "busy", "1000000"], stdout=subprocess.DEVNULL
    )
    try:
        seen: list[int] = []
        for _ in range(4):
            while store.counts(ME)["memories"] < (seen[-1] if seen else 0) + 20:
                pass
            path = store.backup()
            with sqlite3.connect(path) as copy:
                assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                assert copy.execute("PRAGMA foreign_key_check").fetchall() == []
                feedback = {row[0] for row in copy.execute("SELECT id FROM feedback")}
                memories = {row[0] for row in copy.execute("SELECT feedback_id FROM memories")}
            copy.close()
            assert feedback == memories  # a signal and its memory are one transaction
            seen.append(len(memories))
        assert writer.poll() is None
        assert seen == sorted(set(seen))
    finally:
        writer.kill()
        writer.wait()


def test_restore_puts_it_back_and_keeps_what_it_replaced(database: Path, tmp_path: Path) -> None:
    with Store.open(database) as store:
        fill(store, ME)
        path = store.backup(tmp_path / "mine.db")
        store.forget(ME, ["mem-0"])
        later = store.export(ME)
        lines = list(later)
    replaced = backup.restore(database, path, 1_700_000_000.0)
    assert replaced is not None
    assert not replaced.damaged
    with Store.open(database) as store:
        assert store.memory(ME, "mem-0")
        store.put_memory(Memory("mem-later", ME, 9.0, "rule", "Something later."), 9.0)
    with Store.open(replaced.path) as before:
        assert list(before.export(ME))[1:] == lines[1:]
    assert path.exists()
    backup.restore(database, replaced.path, 1_700_000_000.0)
    with Store.open(database) as store:
        assert list(store.export(ME))[1:] == lines[1:]
    assert [found.name for found in database.parent.glob(".*")] == []


@pytest.mark.parametrize(("at", "length"), [(0, 200_000), (4096, 60_000)], ids=["all of it", "its tables"])
def test_restore_over_a_damaged_store_sets_it_aside(database: Path, tmp_path: Path, at: int, length: int) -> None:
    with Store.open(database) as store:
        fill(store, ME)
        path = store.backup(tmp_path / "mine.db")
        lines = list(store.export(ME))[1:]
    damaged = bytearray(database.read_bytes())
    damaged[at : at + length] = random.Random(at).randbytes(length)
    database.write_bytes(damaged)
    replaced = backup.restore(database, path, 1_700_000_000.0)
    assert replaced is not None
    assert replaced.damaged
    assert replaced.path.name.endswith("-damaged.db")
    assert replaced.path.read_bytes()[100:] == damaged[100:]  # its head said that it has a log
    assert [found.path for found in backup.listed(database)] == [replaced.path]
    with Store.open(database) as store:
        assert list(store.export(ME))[1:] == lines


def test_a_damaged_store_that_another_program_has_open_is_not_restored_over(database: Path, tmp_path: Path) -> None:
    with Store.open(database) as store:
        fill(store, ME)
        path = store.backup(tmp_path / "mine.db")
    held = "import sys, time, sqlite3; c = sqlite3.connect(sys.argv[1])"
    held += "; c.execute('SELECT count(*) FROM memories').fetchall(); print(flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", held, str(database)], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        other.stdout.readline()
        with database.open("r+b") as file:
            file.write(b"x" * 50_000)
        with pytest.raises(Busy, match="is in use"):
            backup.restore(database, path, 1.0)
    finally:
        other.kill()
        other.communicate()
    log = Path(f"{database}-wal").read_bytes()
    replaced = backup.restore(database, path, 1.0)
    assert replaced is not None
    assert replaced.damaged
    assert Path(f"{replaced.path}-wal").read_bytes() == log
    with Store.open(database) as store:
        assert store.memory(ME, "mem-0")


def test_a_log_that_lost_its_store_is_not_taken_for_the_restored_ones(database: Path, tmp_path: Path) -> None:
    with Store.open(database) as store:
        fill(store, ME)
        path = store.backup(tmp_path / "mine.db")
        lines = list(store.export(ME))[1:]
        store.forget(ME, ["mem-0"])
        log = Path(f"{database}-wal").read_bytes()
    database.unlink()
    Path(f"{database}-wal").write_bytes(log)
    assert backup.restore(database, path, 1.0) is None
    with Store.open(database) as store:
        assert list(store.export(ME))[1:] == lines


def test_restore_into_an_empty_folder(store: Store, tmp_path: Path) -> None:
    fill(store, ME)
    database = tmp_path / "new" / "familiar.db"
    assert backup.restore(database, store.backup(), 1.0) is None
    with Store.open(database) as restored:
        assert restored.counts(ME) == store.counts(ME)


def test_restore_refuses_what_is_no_backup_or_in_use(database: Path, tmp_path: Path) -> None:
    with Store.open(database) as store:
        fill(store, ME)
        path = store.backup()
        with pytest.raises(Busy, match="is in use"):
            backup.restore(database, path, 1.0)
        assert store.memory(ME, "mem-0")
    text = tmp_path / "text.db"
    text.write_text("not a database " * 500)
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as other:
        other.execute("CREATE TABLE things (x)")
    other.close()
    torn = tmp_path / "torn.db"
    data = path.read_bytes()
    torn.write_bytes(data[: len(data) // 2] + b"\0" * 8192)
    for wrong, said in ((tmp_path / "none.db", "not a file"), (database, "the store itself")):
        with pytest.raises(BadFile, match=said):
            backup.restore(database, wrong, 1.0)
    for wrong in (text, foreign, torn):
        with pytest.raises(BadFile):
            backup.restore(database, wrong, 1.0)
    with Store.open(database) as store:
        assert store.memory(ME, "mem-0")


def test_what_a_killed_backup_left_is_swept(store: Store, database: Path) -> None:
    left = database.parent / "backups" / ".familiar-20200101-000000.db-abc.part"
    left.parent.mkdir()
    left.write_text("half")
    store.backup()
    assert not left.exists()

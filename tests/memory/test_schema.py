"""Migrations: each applied once, with its record, and never on another program's database."""

import sqlite3
from pathlib import Path

import pytest
from sqlite_utils import Database

from familiar.memory import schema
from familiar.memory.errors import BadFile
from familiar.memory.schema import MIGRATIONS, Migration
from familiar.memory.store import Store
from familiar.memory.types import Exchange, Feedback, Memory


def database(path: Path) -> Database:
    return Database(sqlite3.connect(path, isolation_level=None))


def contents(path: Path) -> tuple[list[tuple[str, str]], list[tuple[int, str, float]]]:
    db = database(path)
    try:
        tables = db.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
        return tables, db.execute(f"SELECT * FROM {schema.TABLE} ORDER BY number").fetchall()
    finally:
        db.close()


def test_numbers_count_up_from_one() -> None:
    assert [migration.number for migration in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))


def test_reopening_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "familiar.db"
    Store.open(path, clock=lambda: 50.0).close()
    first = contents(path)
    Store.open(path, clock=lambda: 99.0).close()
    assert contents(path) == first
    assert first[1] == [(migration.number, migration.name, 50.0) for migration in MIGRATIONS]


def test_new_store_has_its_user(tmp_path: Path) -> None:
    with Store.open(tmp_path / "familiar.db", clock=lambda: 50.0) as store:
        assert store.default_user() == 1
    db = database(tmp_path / "familiar.db")
    assert db.execute("SELECT * FROM users").fetchall() == [(1, "me", 50.0)]
    db.close()


def test_later_migration_is_applied_to_an_older_store_once(tmp_path: Path) -> None:
    path = tmp_path / "familiar.db"
    Store.open(path, clock=lambda: 50.0).close()
    more = (
        *MIGRATIONS,
        Migration(len(MIGRATIONS) + 1, "more", "CREATE TABLE more (a);\nINSERT INTO more VALUES (:now);"),
    )
    db = database(path)
    schema.apply(db, 60.0, more)
    schema.apply(db, 70.0, more)
    assert db.execute("SELECT a FROM more").fetchall() == [(60.0,)]
    assert db.execute(f"SELECT applied_at_s FROM {schema.TABLE}").fetchall() == [*[(50.0,)] * len(MIGRATIONS), (60.0,)]
    db.close()


def test_failing_migration_leaves_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "familiar.db"
    Store.open(path).close()
    before = contents(path)
    broken = (
        *MIGRATIONS,
        Migration(len(MIGRATIONS) + 1, "broken", "CREATE TABLE half (a);\nINSERT INTO nowhere VALUES (1);"),
    )
    db = database(path)
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        schema.apply(db, 60.0, broken)
    db.close()
    assert contents(path) == before


def test_migration_that_ends_within_a_statement_is_refused(tmp_path: Path) -> None:
    db = database(tmp_path / "familiar.db")
    with pytest.raises(ValueError, match="ends within a statement"):
        schema.apply(db, 1.0, (Migration(1, "cut", "CREATE TABLE whole (a);\nCREATE TABLE cut (a"),))
    assert db.table_names() == []
    db.close()


def test_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "familiar.db"
    Store.open(path).close()
    db = database(path)
    db.execute(f"INSERT INTO {schema.TABLE} VALUES (99, 'later', 1.0)")
    db.close()
    with pytest.raises(BadFile, match="schema 99 but this version knows up to"):
        Store.open(path)


def test_another_programs_database_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "places.sqlite"
    db = database(path)
    db.execute("CREATE TABLE places (url TEXT)")
    db.close()
    with pytest.raises(BadFile, match="another program"):
        Store.open(path)
    db = database(path)
    assert db.table_names() == ["places"]
    db.close()


def test_every_table_and_column_that_is_not_plain_is_commented(tmp_path: Path) -> None:
    Store.open(tmp_path / "familiar.db").close()
    tables = {
        name: sql for name, sql in contents(tmp_path / "familiar.db")[0] if sql and sql.startswith("CREATE TABLE")
    }
    ours = {name: sql for name, sql in tables.items() if not name.startswith("memories_fts") and name != schema.TABLE}
    assert "exchanges" in ours
    assert [name for name, sql in ours.items() if " -- " not in sql.splitlines()[0]] == []


def test_every_table_and_view_is_read_by_plain_sqlite_utils(tmp_path: Path) -> None:
    path = tmp_path / "familiar.db"
    with Store.open(path) as store:
        said = Exchange("chatcmpl-1", 1, 1.0, "familiar", ({"role": "user", "content": "Hi"},), "Hello")
        store.add_exchange(said)
        example = Memory("mem-1", 1, 2.0, "example", "Good day.", "Hi", "fb-1", "related")
        store.add_feedback(Feedback("fb-1", 1, 2.0, "correction", "chatcmpl-1", "Good day."), [example])
        store.add_feedback(Feedback("fb-2", 1, 3.0, "rebuttal", "chatcmpl-1", "shorter", state="pending"))
    db = Database(path)
    rows = {name: list(db[name].rows) for name in (*db.table_names(), *db.view_names())}
    assert {"users", "conversations", "exchanges", "feedback", "memories", "probes", "graders"} <= rows.keys()
    assert set(db.view_names()) == {"corrections", "memory_use", "pending", "versions"}
    (correction,) = rows["corrections"]
    assert (correction["prompt"], correction["original"], correction["corrected"]) == ("Hi", "Hello", "Good day.")
    (use,) = rows["memory_use"]
    assert (use["text"], use["from_exchange"], use["state"], use["user"]) == ("Good day.", "chatcmpl-1", "active", "me")
    (guess,) = rows["pending"]
    assert (guess["feedback_id"], guess["completion"]) == ("fb-2", "Hello")
    assert [row["id"] for row in db["memories"].search("day")] == ["mem-1"]
    db.close()

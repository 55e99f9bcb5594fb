"""Exports: all that a user owns goes out and comes in, once, whole or not at all."""

import io
import json
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from familiar.memory import portable_format
from familiar.memory.errors import InvalidInput
from familiar.memory.portable_tables import TABLES
from familiar.memory.store import Store
from familiar.memory.types import AdapterVersion, Exchange, LearningRun, Memory, Message
from tests.memory.owner import fill

ME = 1
LEFT_OUT = {
    *("users", "api_keys", "user_ids", "memory_vectors", "background_vectors", "memory_changes", "logp_cache"),
    *("current_versions", "exchange_memories", "adapter_version_feedback", "familiar_migrations"),
    "consolidated_memories",
}
"""Tables that are not in an export under a name of their own."""


@pytest.fixture
def store(data_dir: Path) -> Iterator[Store]:
    with Store.open(data_dir / "familiar.db") as opened:
        yield opened


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "other" / "familiar.db") as opened:
        yield opened


def exported(store: Store, user: int = ME) -> bytes:
    return b"".join(store.export(user))


def rows(export: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in export.splitlines()[1:-1]]


def state_of(store: Store) -> list[tuple[object, ...]]:
    tables = sorted({*TABLES, "exchange_memories", "adapter_version_feedback"})
    return [tuple(row) for table in tables for row in store.connection.read(f"SELECT * FROM {table}")]


def resealed(export: bytes, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> io.BytesIO:
    out = io.BytesIO()

    def changed(row: portable_format.Row) -> portable_format.Row | None:
        values = change({"table": row.table, **row.values})
        return None if values is None else portable_format.Row(values.pop("table"), values)

    portable_format.rewrite(io.BytesIO(export), out.write, changed)
    out.seek(0)
    return out


def many(count: int) -> Iterator[bytes]:
    """An export of so many exchanges of two kilobytes."""
    writer, turn = portable_format.Writer(), Message(role="user", content="word " * 200)
    yield writer.header(portable_format.Header(1.0, "me", {"exchanges": count}))
    for number in range(count):
        values = {
            "id": f"chatcmpl-{number}",
            "created_at_s": float(number),
            "conversation_id": None,
            "history_sha256": f"{number:064}",
            "model": "familiar",
            "messages": [turn],
            "completion": "reply " * 150,
            "adapter_version": None,
            "used": [["mem-1", "always", None]],
            "sampling": {},
            "prompt_tokens": 1,
            "completion_tokens": 1,
            "finish_reason": "stop",
            "duration_ms": 1.0,
        }
        yield writer.row(portable_format.Row("exchanges", values))
    yield writer.trailer()


def test_out_and_in_and_out_again_is_the_same(store: Store, other: Store) -> None:
    fill(store, ME)
    first = exported(store)
    report = other.import_data(ME, io.BytesIO(first))
    header, again = first.splitlines()[0], exported(other).splitlines()
    assert again[1:] == first.splitlines()[1:]
    assert {**json.loads(header), "created_at_s": 0} == {**json.loads(again[0]), "created_at_s": 0}
    assert report.added == json.loads(header)["counts"]
    assert (report.known, report.renamed) == ({}, 0)
    assert other.exchanges(ME) == store.exchanges(ME)
    assert other.feedback_rows(ME) == store.feedback_rows(ME)
    assert other.memories(ME, states=("active", "superseded")) == store.memories(ME, states=("active", "superseded"))
    assert other.search_memories(ME, "right 1") == store.search_memories(ME, "right 1")
    assert other.current_version(ME) is None  # its files are not here
    assert other.versions(ME) == store.versions(ME)


def test_a_second_time_changes_nothing(store: Store, other: Store) -> None:
    fill(store, ME)
    fill(other, ME, "b")
    export = exported(store)
    other.import_data(ME, io.BytesIO(export))
    before = state_of(other)
    report = other.import_data(ME, io.BytesIO(export))
    assert state_of(other) == before
    assert set(report.added.values()) <= {0}
    assert other.import_data(ME, io.BytesIO(exported(other))).added == {}
    assert state_of(other) == before


def test_into_a_store_that_has_something(store: Store, other: Store) -> None:
    """Ids stay; a version's number that is taken is replaced, and what names it follows."""
    fill(store, ME)
    fill(other, ME, "b")
    report = other.import_data(ME, io.BytesIO(exported(store)))
    assert report.versions == {1: 3, 2: 4}
    assert [(version.number, version.parent) for version in other.versions(ME)] == [
        (1, None),
        (2, 1),
        (3, None),
        (4, 3),
    ]
    assert other.version(ME, 4).folder == "adapters/1/v4"
    assert other.exchange(ME, "chatcmpl-0").adapter_version == 3
    assert other.run(ME, "run-1").version == 3
    assert other.exchange(ME, "chatcmpl-b0").adapter_version == 1
    current = other.current_version(ME)
    assert current is not None
    assert current.number == 2
    assert other.counts(ME)["exchanges"] == 6
    assert other.connection.read("PRAGMA foreign_key_check") == []


def test_ids_that_mean_something_else_here_are_replaced(store: Store, other: Store) -> None:
    fill(store, ME)
    bob = other.users.add("bob", "fam-key", 1.0).id
    fill(other, bob)  # the same ids, and another's
    before = exported(other, bob)
    export = exported(store)
    report = other.import_data(ME, io.BytesIO(export))
    # Not the conversations, whose ids are drawn. The last are the file, the job and what is of it.
    assert report.renamed == 3 + 3 + 5 + 1 + 1 + 6
    assert exported(other, bob).splitlines()[1:] == before.splitlines()[1:]
    for exchange, (said, about) in zip(other.exchanges(ME)[::-1], other.feedback_rows(ME), strict=True):
        assert about == exchange
        assert exchange.id != f"chatcmpl-{exchange.completion[-1]}"
        memory = next(each for each in other.memories(ME) if each.feedback_id == said.id)
        assert exchange.memory_ids == (memory.id,)
    (old,) = other.memories(ME, states=("superseded",))
    assert old.superseded_by in {memory.id for memory in other.memories(ME)}
    again = state_of(other)
    other.import_data(ME, io.BytesIO(export))
    assert state_of(other) == again


def test_the_same_said_under_another_id_is_one_memory(store: Store, other: Store) -> None:
    store.put_memory(Memory("mem-1", ME, 5.0, "rule", "Use metric units.", uses=3, last_used_at=6.0), 5.0)
    turn = Message(role="user", content="Hi.")
    store.add_exchange(Exchange("chatcmpl-1", ME, 5.0, "familiar", (turn,), "Hello."))
    other.put_memory(Memory("mem-2", ME, 1.0, "rule", "use  metric units", uses=4), 1.0)
    other.import_data(ME, io.BytesIO(exported(store)))
    (memory,) = other.memories(ME)
    assert (memory.id, memory.created_at, memory.uses, memory.last_used_at) == ("mem-2", 5.0, 4, 6.0)


def test_what_a_version_was_taught_is_known_by_the_id_that_it_has_here(store: Store, other: Store) -> None:
    store.put_memory(Memory("mem-1", ME, 5.0, "rule", "Use metric units."), 5.0)
    store.add_run(LearningRun("run-1", ME, 1.0, "promoted", {}, "f"))
    version = AdapterVersion(ME, 1, 1.0, "adapters/1/v1", None, "b", "g", "run-1", ("fb-gone", "mem-1"), {})
    store.add_version(version, make_current=True)
    other.put_memory(Memory("mem-2", ME, 1.0, "rule", "use  metric units"), 1.0)
    other.import_data(ME, io.BytesIO(exported(store)))
    assert other.version(ME, 1).feedback_ids == ("fb-gone", "mem-2")
    assert other.forget(ME, ["mem-2"]).versions == (1,)


def test_what_was_forgotten_here_stays_so_where_it_is_known(store: Store) -> None:
    fill(store, ME)
    export = exported(store)
    store.forget(ME, ["mem-1"])
    report = store.import_data(ME, io.BytesIO(export))
    assert report.known["feedback"] == 3
    assert [signal.id for signal, _ in store.feedback_rows(ME)] == ["fb-0", "fb-2"]


def test_a_damaged_file_is_refused_whole_with_its_line(store: Store, other: Store) -> None:
    fill(store, ME)
    export = exported(store)
    lines = export.splitlines(keepends=True)
    before = state_of(other)

    def refused(data: bytes, *said: str, user: int = ME) -> None:
        with pytest.raises(InvalidInput) as error:
            other.import_data(user, io.BytesIO(data))
        assert error.value.param == "file"
        assert all(part in str(error.value) for part in said), str(error.value)
        assert state_of(other) == before

    refused(b"", "Line 1", "not an export")
    refused(b"\x00\xff\x1f", "Line 1", "not an export")
    refused(b'{"hello": 1}\n', "Line 1", "not an export of Familiar")
    refused(b"".join(lines[:-1]), f"Line {len(lines) - 1}", "cut short")
    refused(export[:-40], f"Line {len(lines)}", "cut short")
    refused(export[: len(lines[0]) + 30], "Line 2", "cut short")
    refused(export + lines[3], f"Line {len(lines) + 1}", "more after")
    refused(b"".join([*lines[:5], b"{oops\n", *lines[6:]]), "Line 6", "not JSON")
    refused(b"".join([*lines[:-2], lines[-1]]), "SHA-256")
    refused(export.replace(b"right 1", b"wrong 9"), "SHA-256")
    refused(export.replace(b'"familiar_export": 1', b'"familiar_export": 2'), "Line 1", "update familiar-llm")
    refused(export.replace(b'"user": "me"', b'"user": "bob"'), '"bob"', '"me"')

    def damaged(table: str, *said: str, **changes: object) -> None:
        def change(row: dict[str, Any]) -> dict[str, Any]:
            return {**row, **changes} if row["table"] == table else row

        refused(resealed(export, change).getvalue(), "Line", *said)

    damaged("memories", "text is not text", text=5)
    damaged("memories", "have no colour", colour="red")
    damaged("memories", "feedback_id names fb-none", feedback_id="fb-none")
    damaged("feedback", "does not take the row", trust="blind")
    damaged("exchanges", "used is not a list", used=[["mem-1"]])
    damaged("probes", "a value cannot be stored", shown=2**70)
    moved = resealed(export, lambda row: {**row, "table": "api_keys"} if row["table"] == "graders" else row)
    header = moved.getvalue().replace(b'"graders": 0, ', b'"api_keys": 1, ')
    refused(header, "Line", 'no table "api_keys"')


def test_anyones_file_is_taken_when_said_so(store: Store, other: Store) -> None:
    bob = other.users.add("bob", "fam-key", 1.0).id
    fill(other, bob)
    store.import_data(ME, io.BytesIO(exported(other, bob)), anyones=True)
    assert store.counts(ME) == other.counts(bob)


def test_every_column_is_exported_or_left_out_on_purpose(store: Store) -> None:
    left_out = {"seq", "user_id", "pid", "folder", "content_sha256"}
    names = [row[0] for row in store.connection.read("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    tables = {name for name in names if not name.startswith(("memories_fts", "sqlite_"))}
    assert tables == {*TABLES, *LEFT_OUT}
    for name, table in TABLES.items():
        columns = {row["name"] for row in store.connection.read(f"PRAGMA table_info({name})")}
        known = {table.stored(column) for column, kind in table.columns.items() if kind != "s"}
        assert columns - left_out == known, name


def test_what_is_written_meanwhile_is_not_in_it(store: Store, other: Store) -> None:
    fill(store, ME)
    store.connection.read("PRAGMA busy_timeout = 50")  # forgetting would wait for the export's end
    lines = store.export(ME)
    first = next(lines)
    store.add_exchange(Exchange("chatcmpl-later", ME, 9.0, "familiar", (), "Later."))
    store.forget(ME, ["mem-0"])
    export = first + b"".join(lines)
    assert "mem-0" in {row.get("id") for row in rows(export)}
    other.import_data(ME, io.BytesIO(export))
    assert other.counts(ME)["exchanges"] == 3


def test_kill_9_in_the_middle_of_an_import_leaves_nothing_half(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_bytes(b"".join(many(400)))
    script = (
        "import sys; from pathlib import Path; from familiar.memory.store import Store\n"
        "store = Store.open(Path(sys.argv[1])); print('open', flush=True)\n"
        "with open(sys.argv[2], 'rb') as file: store.import_data(1, file)\n"
        "print('done', flush=True)"
    )
    rng = random.Random(4)
    counts = set()
    for life in range(6):
        path = tmp_path / f"life{life}" / "familiar.db"
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(path), str(file)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        done = process.communicate()[0].strip() == "done"
        with Store.open(path) as there:
            count = there.counts(ME)["exchanges"]
            assert count in ((400,) if done else (0, 400))
            assert there.connection.read("PRAGMA integrity_check")[0][0] == "ok"
            counts.add(count)
            with file.open("rb") as again:
                there.import_data(ME, again)
            assert there.counts(ME)["exchanges"] == 400
    assert 0 in counts


@pytest.mark.slow
def test_a_hundred_thousand_exchanges_do_not_fill_the_memory(store: Store, tmp_path: Path) -> None:
    given = tmp_path / "given.jsonl"
    with given.open("wb") as out:
        out.writelines(many(100_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with given.open("rb") as lines:
        store.import_data(ME, lines)
    with given.open("rb") as lines:
        ours = store.export(ME)
        next(ours), next(lines)
        assert all(mine == theirs for mine, theirs in zip(ours, lines, strict=True))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes

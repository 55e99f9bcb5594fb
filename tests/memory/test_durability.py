"""What is acknowledged stays: under kill -9, beside another writer, on a full disk."""

import random
import signal
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from familiar.memory.database import Connection
from familiar.memory.errors import InvalidInput, NoSpace
from familiar.memory.store import Store
from familiar.memory.types import Exchange, Feedback, Memory

WRITER = Path(__file__).parent / "writer.py"
MANY = 1_000_000


def start_writer(path: Path, prefix: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, str(WRITER), str(path), prefix, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def drain(process: subprocess.Popen[str]) -> list[str]:
    # What was printed before the end; a last line without its newline was cut short, and says nothing.
    out, _ = process.communicate(timeout=120)
    return [line.strip() for line in out.splitlines(keepends=True) if line.endswith("\n") and line.strip() != "open"]


def check_whole(store: Store, acknowledged: set[str]) -> None:
    user_id = store.default_user()
    feedback = {row.id: exchange for row, exchange in store.feedback_rows(user_id)}
    memories = store.memories(user_id, states=("active", "superseded"))
    made = Counter(memory.feedback_id for memory in memories)
    assert {f"fb-{name}" for name in acknowledged} <= feedback.keys()
    assert made == dict.fromkeys(feedback, 2)  # a signal and its memories are one transaction
    assert None not in feedback.values()
    check_statements([memory for memory in memories if memory.kind == "fact"])
    check_conversations([exchange for exchange in feedback.values() if exchange])
    assert [row[0] for row in store._connection.read("PRAGMA integrity_check")] == ["ok"]
    with store._connection.write() as transaction:  # raises when the index and the table differ
        transaction.execute("INSERT INTO memories_fts (memories_fts, rank) VALUES ('integrity-check', 1)")
    for name in sorted(acknowledged)[:3]:
        assert f"right {name}" in {memory.text for memory, _ in store.search_memories(user_id, f"right {name}", MANY)}


def check_statements(statements: list[Memory]) -> None:
    # Of each writer the last one holds, and each of the others names the next.
    by_writer: dict[str, list[Memory]] = defaultdict(list)
    for memory in statements:
        by_writer[memory.text.split()[0]].append(memory)
    for said in by_writer.values():
        said.sort(key=lambda memory: memory.created_at)
        assert [memory.state for memory in said] == ["superseded"] * (len(said) - 1) + ["active"]
        assert [memory.superseded_by for memory in said] == [*(memory.id for memory in said[1:]), None]


def check_conversations(exchanges: list[Exchange]) -> None:
    # By what the writer's first turn was, which is the same for the three of one conversation.
    first_turns = {exchange.conversation_id: exchange.messages[0]["content"] for exchange in exchanges}
    assert all(first_turns[exchange.conversation_id] == exchange.messages[0]["content"] for exchange in exchanges)
    assert len(first_turns) == len({exchange.messages[0]["content"] for exchange in exchanges})


def kill_in_a_loop(path: Path, kills: int) -> None:
    rng = random.Random(kills)
    acknowledged: set[str] = set()
    for life in range(kills):
        process = start_writer(path, f"life{life}", MANY)
        try:
            lines = [
                read_line(process) for _ in range(rng.randrange(1, 12))
            ]  # 1: while it still migrates, or just after
        finally:
            process.send_signal(signal.SIGKILL)
        lines += drain(process)
        assert process.returncode == -signal.SIGKILL
        acknowledged |= {line for line in lines if line != "open"}
        with Store.open(path) as store:
            check_whole(store, acknowledged)
    assert len(acknowledged) > kills


def test_kill_9_while_writing_loses_no_acknowledged_row(data_dir: Path) -> None:
    kill_in_a_loop(data_dir / "familiar.db", 20)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kill_9_while_writing_loses_no_acknowledged_row_200_times(data_dir: Path) -> None:
    kill_in_a_loop(data_dir / "familiar.db", 200)


def test_processes_create_and_write_one_store_at_once(data_dir: Path) -> None:
    path = data_dir / "familiar.db"
    writers = [start_writer(path, f"writer{number}", 60) for number in range(3)]
    acknowledged = {name for writer in writers for name in drain(writer)}
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert len(acknowledged) == 180
    with Store.open(path) as store:
        check_whole(store, acknowledged)
        assert len(store.memories(store.default_user())) == 180 + 3


def test_threads_share_one_store(data_dir: Path) -> None:
    with Store.open(data_dir / "familiar.db") as store:

        def write(thread: int) -> None:
            for number in range(25):
                name = f"{thread}-{number}"
                rule = Memory(f"mem-{name}", 1, 0.0, "rule", f"rule {name}", feedback_id=f"fb-{name}")
                store.add_feedback(Feedback(f"fb-{name}", 1, 0.0, "rule", text=rule.text), [rule])
                assert store.search_memories(1, f"rule {name}")

        threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(store.memories(1)) == 100


def test_full_disk_is_no_space_and_keeps_what_was_there(data_dir: Path) -> None:
    with Store.open(data_dir / "familiar.db") as store:
        kept = Exchange("chatcmpl-kept", 1, 1.0, "familiar", ({"role": "user", "content": "hi"},), "hello")
        kept = replace(kept, conversation_id=store.add_exchange(kept))
        pages = store._connection.read("PRAGMA page_count")[0][0]
        store._connection.read(f"PRAGMA max_page_count = {pages}")
        rule = Memory("mem-1", 1, 2.0, "rule", "x" * 50_000, feedback_id="fb-1")
        feedback = Feedback("fb-1", 1, 2.0, "rule", text=rule.text)
        with pytest.raises(NoSpace, match="No space is left"):
            store.add_feedback(feedback, [rule])
        with pytest.raises(OSError, match="what was saved before is safe"):
            store.cache_logps("base", {str(number): -1.0 for number in range(20_000)})
        assert store.exchange(store.default_user(), "chatcmpl-kept") == kept
        assert store.feedback_rows(1) == []  # nothing of the failed transactions is left
        assert store.cached_logps("base", ["0"]) == {}

        store._connection.read("PRAGMA max_page_count = 1000000")
        store.add_feedback(feedback, [rule])
    with Store.open(data_dir / "familiar.db") as store:
        assert store.memory(store.default_user(), "mem-1") == rule


def test_failed_transaction_leaves_nothing_and_the_store_usable(data_dir: Path) -> None:
    with Store.open(data_dir / "familiar.db") as store:
        good = Memory("mem-1", 1, 1.0, "rule", "good", feedback_id="fb-1")
        bad = Memory("mem-2", 1, 1.0, "rule", "half \ud83d", feedback_id="fb-1")
        feedback = Feedback("fb-1", 1, 1.0, "rule", text="good")
        with pytest.raises(InvalidInput, match="half a character"):
            store.add_feedback(feedback, [good, bad])
        assert store.memories(1) == []
        assert store.feedback_rows(1) == []
        assert store.add_feedback(feedback, [good]) == (good,)


def test_each_write_waits_for_the_disk_or_not_whatever_was_written_before_it(tmp_path: Path) -> None:
    with closing(Connection(tmp_path / "familiar.db", 0.0)) as connection:
        for durable in (True, False, False, True, False, True, True):
            with connection.write(durable=durable):
                assert connection.read("PRAGMA synchronous")[0][0] == (2 if durable else 1)


def test_a_store_opened_twice_in_one_process_is_still_seen_by_others(tmp_path: Path) -> None:
    """Opening the file a second time once took the first connection's locks off it, and its log was deleted."""
    path = tmp_path / "familiar.db"
    script = (
        "import sys; from pathlib import Path; from familiar.memory.store import Store\n"
        "with Store.open(Path(sys.argv[1])) as store: print(store.counts(1)['exchanges'])"
    )
    with Store.open(path) as first, Store.open(path):
        for number in range(1, 4):
            first.add_exchange(Exchange(f"chatcmpl-{number}", 1, 1.0, "familiar", (), "Hi."))
            seen = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
            assert int(seen.stdout) == number

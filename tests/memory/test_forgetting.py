"""After ``forget`` the text is nowhere in the data folder's bytes: rows, index, free space, log, backups and files."""

import json
import os
import random
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from familiar.memory import free_space
from familiar.memory.errors import NotFound
from familiar.memory.redact import FORGOTTEN, redactor, tells
from familiar.memory.store import Store
from familiar.memory.types import AdapterVersion, Exchange, Feedback, LearningRun, Memory, Message, RunState, Used

WRITER = Path(__file__).parent / "writer.py"
ME = 1
UNICODE = 'Sag "Grüß dich, Zoë" –\nund dann: C:\\Temp\\ŷ 東京 🦊 nicht mehr'


@pytest.fixture
def store(data_dir: Path) -> Iterator[Store]:
    with Store.open(data_dir / "familiar.db") as opened:
        yield opened


def grep(folder: Path, *texts: str) -> list[str]:
    """The files that hold any of the texts, by another process: to open a store's file is to let go of its locks."""
    script = (
        "import sys, pathlib\n"
        "wanted = [text.encode() for text in sys.stdin.read().split('\\0')]\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).rglob('*')):\n"
        "    if path.is_file():\n"
        "        data = path.read_bytes().lower()\n"
        "        print('\\n'.join(str(path) for text in wanted if text.lower() in data))\n"
    )
    command = [sys.executable, "-c", script, str(folder)]
    done = subprocess.run(command, input="\0".join(texts), capture_output=True, text=True, check=True)
    return [Path(line).name for line in done.stdout.split("\n") if line]


def turns(*texts: str) -> tuple[Message, ...]:
    roles = ("user", "assistant")
    return tuple(Message(role=roles[at % 2], content=text) for at, text in enumerate(texts))


def exchange(store: Store, name: str, messages: tuple[Message, ...], completion: str, *used: str) -> Exchange:
    added = Exchange(
        f"chatcmpl-{name}", ME, 1.0, "familiar", messages, completion, used=tuple(Used(id, "always") for id in used)
    )
    store.add_exchange(added)
    return store.exchange(ME, added.id)


def state_rule(store: Store, name: str, text: str, **more: object) -> Memory:
    memory = Memory(f"mem-{name}", ME, 1.0, "rule", text, feedback_id=f"fb-{name}")
    return store.add_feedback(Feedback(f"fb-{name}", ME, 1.0, "rule", text=text, **more), [memory])[0]  # type: ignore[arg-type]


def pieces(text: str) -> list[str]:
    """Parts of a text that is too long for a page, as it is never whole in the file."""
    return [text] if len(text) < 500 else [text[at : at + 60] for at in range(0, len(text) - 60, 997)]


@pytest.mark.parametrize("length", [10, 200, 50_000])
def test_the_text_is_nowhere(store: Store, data_dir: Path, length: int) -> None:
    rng = random.Random(length)
    text = " ".join("".join(rng.choices("abcdefghijklmnopqrstuvwxyzäöü", k=rng.randint(3, 9))) for _ in range(length))
    text = "Qx " + text[: length - 3].strip().ljust(length - 3, "z")
    for number in range(200):
        state_rule(store, f"other{number}", f"Rule {number}: " + "lorem ipsum " * rng.randint(1, 300))
    state_rule(store, "it", text)
    exchange(store, "a", turns("Hello.", text.upper(), "So?"), f"I was told: {text}. Is it so?", "mem-it")
    path = store.backup()
    assert path.name in grep(data_dir, *pieces(text))

    report = store.forget(ME, ["mem-it"])

    assert grep(data_dir, *pieces(text), text.split()[1]) == []
    assert (report.memory_ids, report.feedback_ids, report.exchanges) == (("mem-it",), ("fb-it",), 1)
    assert (report.backups, report.left, report.finished) == (1, (), True)
    kept = store.exchange(ME, "chatcmpl-a")
    assert kept.completion == f"I was told: {FORGOTTEN}. Is it so?"
    assert kept.messages[1]["content"] == FORGOTTEN
    assert kept.memory_ids == ("mem-it",)


def test_quotes_line_breaks_and_other_scripts_are_found_however_they_are_escaped(store: Store, data_dir: Path) -> None:
    state_rule(store, "it", UNICODE)
    call = {"id": "1", "type": "function", "function": {"name": "say", "arguments": json.dumps({"text": UNICODE})}}
    messages = (*turns("Hi."), Message(role="assistant", content="", tool_calls=[call]))
    exchange(store, "a", messages, UNICODE.replace("\n", "  ").replace("ü", "u\u0308"))
    (data_dir / "inbox" / "done").mkdir(parents=True)
    done = data_dir / "inbox" / "done" / "one.jsonl"
    done.write_text(json.dumps({"rule": UNICODE, "n": 1}) + "\n" + json.dumps({"rule": "Keep this."}) + "\n")
    (data_dir / "logs").mkdir()
    log = data_dir / "logs" / "service.log"
    log.write_text(f"before {UNICODE} after\n")
    size = log.stat().st_size

    assert store.forget(ME, ["mem-it"]).files == 2
    left = ["Zoë", "Zo\\u00eb", "東京", "\\u6771", "dann"]
    assert grep(data_dir, *left) == []
    kept = store.exchange(ME, "chatcmpl-a")
    assert json.loads(kept.messages[1]["tool_calls"][0]["function"]["arguments"]) == {"text": FORGOTTEN}
    assert [json.loads(line) for line in done.read_text().splitlines()] == [
        {"rule": FORGOTTEN, "n": 1},
        {"rule": "Keep this."},
    ]
    assert log.stat().st_size == size  # a process that appends to it is where it was
    assert log.read_text().endswith(" after\n")


def test_a_short_text_goes_but_is_not_torn_out_of_everything(store: Store) -> None:
    asked = exchange(store, "own", turns("Is it yes or no?"), "No. Yesterday it was yes.")
    other = exchange(store, "other", turns("Is that so?"), "Yes.")
    said = Feedback("fb-1", ME, 2.0, "correction", asked.id, "Yes.")
    store.add_feedback(said, [Memory("mem-1", ME, 2.0, "example", "Yes.", "Is it yes or no?", "fb-1")])
    store.forget(ME, ["mem-1"])
    assert store.exchange(ME, other.id).completion == "Yes."
    assert store.exchange(ME, asked.id).completion == f"No. Yesterday it was {FORGOTTEN}."
    assert store.feedback_rows(ME) == []


def test_a_short_rule_goes_with_every_time_that_it_was_stated(store: Store, data_dir: Path) -> None:
    assert not tells("Be brief")
    state_rule(store, "1", "Be brief")
    again = state_rule(store, "2", "be brief.")
    asked = exchange(store, "own", turns("Who wrote Emma?"), "Austen did.")
    store.add_feedback(Feedback("fb-3", ME, 2.0, "rating", asked.id, rating=-1, note="Be brief"))
    exported = data_dir / "mine.jsonl"
    exported.write_bytes(b"".join(store.export(ME)))
    exported.chmod(0o640)
    report = store.forget(ME, [again.id])
    assert report.feedback_ids == ("fb-1", "fb-2", "fb-3")
    assert store.feedback_rows(ME) == []
    rows = [json.loads(line) for line in exported.read_text(encoding="utf-8").splitlines()]
    gone = {again.id, *report.feedback_ids}
    assert not [row for row in rows if gone & {row.get("id"), row.get("memory_id"), row.get("feedback_id")}]
    assert exported.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("text", "says_enough"),
    [
        ("Yes.", False),
        ("Yes, it is.", False),
        ("What is it about?", False),
        ("Call me Bo.", True),
        ("metric", False),
        ("Rumpelstiltskin", True),
        ("東京に住む", True),
        ("🦊🦊", False),
    ],
)
def test_what_is_looked_for_in_other_texts(text: str, says_enough: bool) -> None:
    assert tells(text) is says_enough


def test_what_belongs_to_a_memory_goes_with_it(store: Store) -> None:
    """The correction that it came from with its note, and whatever else says the same."""
    asked = exchange(store, "own", turns("How far is it to Rome?"), "800 miles.")
    example = Memory("mem-example", ME, 1.0, "example", "It is 1,300 kilometres.", "How far is it to Rome?", "fb-1")
    note = Memory("mem-note", ME, 1.0, "rule", "Always use kilometres here.", feedback_id="fb-1")
    said = Feedback("fb-1", ME, 1.0, "correction", asked.id, example.text, note=note.text)
    store.add_feedback(said, [example, note])
    state_rule(store, "holding", "First: always use kilometres here, then miles")
    prompt = "I said always use kilometres here. How long is a mile?"
    store.put_memory(Memory("mem-prompt", ME, 1.0, "example", "1.6.", prompt), 1.0)
    state_rule(store, "kept", "Answer in French.")
    report = store.forget(ME, ["mem-example"])

    assert set(report.memory_ids) == {"mem-example", "mem-note", "mem-holding"}
    left = {memory.id: memory for memory in store.memories(ME, states=("active", "superseded"))}
    assert not {"mem-example", "mem-note", "mem-holding"} & left.keys()
    assert left["mem-prompt"].prompt == f"I said {FORGOTTEN}. How long is a mile?"
    assert left["mem-kept"].text == "Answer in French."
    assert store.exchange(ME, asked.id).completion == "800 miles."


def test_older_wordings_go_and_newer_ones_stay(store: Store) -> None:
    for id, by in (("a", "mem-b"), ("b", "mem-c"), ("c", None)):
        store.put_memory(Memory(f"mem-{id}", ME, 1.0, "fact", f"Text of number {id * 9}"), 1.0)
        with store.connection.write() as transaction:
            sql = "UPDATE memories SET superseded_by = ?, state = ? WHERE id = ?"
            transaction.execute(sql, (by, "superseded" if by else "active", f"mem-{id}"))
    assert set(store.forget(ME, ["mem-b"]).memory_ids) == {"mem-a", "mem-b"}
    assert [memory.id for memory in store.memories(ME, states=("active", "superseded"))] == ["mem-c"]


def test_runs_versions_probes_and_graders_keep_their_rows_without_the_text(store: Store, data_dir: Path) -> None:
    text = "The password is swordfish."
    state_rule(store, "it", text)
    state_rule(store, "kept", "Answer in French.")
    failed = LearningRun("run-1", ME, 1.0, "failed", {"note": text}, "f", error=f"at {text}", report={"tried": [text]})
    store.add_run(failed)
    version = AdapterVersion(
        ME, 1, 1.0, "adapters/1/v1", None, "b", "g", "run-1", ("fb-it", "fb-kept"), {"rows": [text]}
    )
    store.add_version(version, make_current=True)
    manifest = data_dir / "adapters" / "1" / "v1" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"report": {"rows": [text]}}))
    with store.connection.write() as transaction:
        transaction.execute(
            "INSERT INTO probes (user_id, created_at_s, memory_id, shown, prompt, completion, followed)"
            " VALUES (1, 1, 'mem-kept', 1, ?, ?, 1)",
            (f"Is it so? {text}", text),
        )
        transaction.execute(
            "INSERT INTO graders (id, user_id, created_at_s, name, definition_json) VALUES ('grader-1', 1, 1, ?, ?)",
            (text, json.dumps({"input": text})),
        )

    report = store.forget(ME, ["mem-it"])

    assert grep(data_dir, "swordfish") == []
    assert report.versions == (1,)
    assert report.others == 4
    assert store.version(ME, 1).feedback_ids == ("fb-it", "fb-kept")  # lineage still says what it saw
    assert store.run(ME, "run-1").report == {"tried": [f"{FORGOTTEN}."]}
    assert json.loads(manifest.read_text()) == {"report": {"rows": [f"{FORGOTTEN}."]}}


def test_versions_that_were_taught_a_rule_are_named(store: Store) -> None:
    """It need not have come from a signal, and the rule may have been stated again since."""
    store.put_memory(Memory("mem-it", ME, 1.0, "rule", "Never mention the war."), 1.0)
    state_rule(store, "kept", "Answer in French.")
    store.add_run(LearningRun("run-1", ME, 1.0, "promoted", {}, "f"))
    for number, taught in enumerate((("fb-kept",), ("fb-kept", "mem-it"), ("mem-it",), ()), start=1):
        folder = f"adapters/1/v{number}"
        version = AdapterVersion(ME, number, 1.0, folder, number - 1 or None, "b", "g", "run-1", taught, {})
        store.add_version(version, make_current=True)
    again = state_rule(store, "again", "never mention  the war")
    assert again.id == "mem-it"
    assert store.forget(ME, [again.id]).versions == (2, 3)


@pytest.mark.parametrize(("state", "pid"), [("stopped", 1), ("failed", 1), ("running", None), ("running", 2**22 + 1)])
def test_checkpoints_of_runs_that_nobody_works_on_go(
    store: Store, data_dir: Path, state: RunState, pid: int | None
) -> None:
    """The last is one that was killed: no process has such a number."""
    bob = store.users.add("bob", "fam-key", 1.0).id
    state_rule(store, "it", "Never mention the war.")
    store.add_run(LearningRun("run-1", ME, 1.0, state, {}, "f", pid=pid))
    store.add_run(LearningRun("run-now", ME, 2.0, "running", {}, "f", pid=os.getpid()))
    store.add_run(LearningRun("run-bob", bob, 1.0, "stopped", {}, "f"))
    for name in ("run-1", "run-now", "run-bob"):
        weights = data_dir / "runs" / name / "epoch-1" / "adapter_model.safetensors"
        weights.parent.mkdir(parents=True)
        weights.write_bytes(b"weights")
    assert store.forget(ME, ["mem-it"]).left == ()
    assert sorted(path.name for path in (data_dir / "runs").iterdir()) == ["run-bob", "run-now"]


def test_a_deed_is_not_read_again(store: Store) -> None:
    state_rule(store, "it", "Never mention the war.", key="deed-1")
    store.forget(ME, ["mem-it"])
    assert store.has_feedback(ME, "deed-1")
    assert store.feedback_rows(ME) == []
    left = store.connection.read("SELECT text, note, state FROM feedback")
    assert [tuple(row) for row in left] == [(None, None, "dismissed")]


def test_unknown_memories_and_other_peoples(store: Store, data_dir: Path) -> None:
    bob = store.users.add("bob", "fam-key", 1.0).id
    state_rule(store, "it", "Never mention the war.")
    store.put_memory(Memory("mem-bob", bob, 1.0, "rule", "Never mention the war."), 1.0)
    for user, ids in ((bob, ["mem-it"]), (ME, ["mem-it", "mem-none"])):
        with pytest.raises(NotFound) as missing:
            store.forget(user, ids)
        assert missing.value.param == "memory_id"
    assert store.memory(ME, "mem-it")
    store.forget(ME, ["mem-it"])
    assert store.memory(bob, "mem-bob").text == "Never mention the war."


def test_exports_in_the_data_folder_stay_whole(store: Store, data_dir: Path, tmp_path: Path) -> None:
    state_rule(store, "it", "Never mention the war.")
    state_rule(store, "kept", "Answer in French.")
    exchange(store, "a", turns("Hi."), "I never mention the war!")
    export = data_dir / "mine.jsonl"
    export.write_bytes(b"".join(store.export(ME)))
    with tarfile.open(data_dir / "mine.tar", "w") as archive:
        archive.add(export, "data.jsonl")
        archive.add(__file__, "adapters/v1/adapter.gguf")

    assert store.forget(ME, ["mem-it"]).files == 2
    assert grep(data_dir, "mention the war") == ["mine.tar"]  # in the weights, which this file stands for
    with tarfile.open(data_dir / "mine.tar") as archive:
        archive.extract("data.jsonl", tmp_path, filter="data")
    assert (tmp_path / "data.jsonl").read_bytes() == export.read_bytes()
    with Store.open(tmp_path / "other" / "familiar.db") as other, export.open("rb") as file:
        added = other.import_data(ME, file).added
        assert (added["memories"], added["feedback"], added["exchanges"]) == (1, 1, 1)
        assert other.exchange(ME, "chatcmpl-a").completion == f"I {FORGOTTEN}!"


def test_drafts_are_cleaned_in_text_and_name(store: Store, data_dir: Path) -> None:
    state_rule(store, "it", "My dog is called Rex.")
    (data_dir / "drafts").mkdir()
    (data_dir / "drafts" / "my-dog-is-called-rex.chatcmpl-1.md").write_text("So my dog is called Rex?")
    store.forget(ME, ["mem-it"])
    assert [path.name for path in (data_dir / "drafts").iterdir()] == ["forgotten.chatcmpl-1.md"]
    assert grep(data_dir, "is called") == []


def test_beside_a_process_that_writes(store: Store, data_dir: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, str(WRITER), str(data_dir / "familiar.db"), "busy", "1000000"], stdout=subprocess.DEVNULL
    )
    try:
        while store.counts(ME)["exchanges"] < 5:
            time.sleep(0.01)
        for number in range(2):
            text = f"Secret number {number} is xylophone{number}."
            state_rule(store, f"it{number}", text)
            exchange(store, f"x{number}", turns("Hm?"), f"Well: {text}")
            assert store.forget(ME, [f"mem-it{number}"]).finished
            assert grep(data_dir, f"xylophone{number}") == []
        assert writer.poll() is None
    finally:
        writer.kill()
        writer.wait()


def test_a_reader_puts_the_end_off_and_the_next_open_brings_it(store: Store, data_dir: Path) -> None:
    state_rule(store, "it", "Never mention the xylophone.")
    store.connection.read("PRAGMA busy_timeout = 50")
    reader = sqlite3.connect(data_dir / "familiar.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM users").fetchall()
    assert not store.forget(ME, ["mem-it"]).finished
    assert store.memories(ME) == []
    assert grep(data_dir, "xylophone")
    with Store.open(data_dir / "familiar.db"):  # opening does not wait for the reader
        pass
    assert grep(data_dir, "xylophone")
    reader.close()
    with Store.open(data_dir / "familiar.db") as again:
        assert grep(data_dir, "xylophone") == []
        assert free_space.finish(again.connection)


def test_erase_leaves_the_user_with_nothing(store: Store, data_dir: Path) -> None:
    bob = store.users.add("bob", "fam-key", 1.0).id
    store.put_memory(Memory("mem-bob", bob, 1.0, "rule", "Never mention bob's xylophone."), 1.0)
    state_rule(store, "it", "Never mention the marimba.")
    exchange(store, "a", turns("What of the marimba?"), "Fine.")
    store.backup()
    assert store.erase(ME).finished
    assert grep(data_dir, "marimba") == []
    assert store.users.get(ME).name == "me"
    assert set(store.counts(ME).values()) == {0}
    assert store.memory(bob, "mem-bob").text == "Never mention bob's xylophone."
    store.erase(bob, keep_user=False)
    assert grep(data_dir, "xylophone") == []
    assert [user.name for user in store.users.all()] == ["me"]


def test_redacting_finds_the_longest_first_and_keeps_json_json() -> None:
    found = redactor(["use metric units", "Use metric units in recipes."])
    assert found.text("Please USE\tmetric units in recipes!") == f"Please {FORGOTTEN}!"
    quoted = redactor(['", "role": "user'])
    assert quoted.json('[{"content": "", "role": "user"}]') == '[{"content": "", "role": "user"}]'
    assert found.same_length("we use metric units") == "we [forgotten]*****"


MAX = "Our dog is called Max."


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("Yes: our dog is called max, I think.", f"Yes: {FORGOTTEN}, I think."),
        ("*Our dog is called Max* and _our dog is called Max_", f"*{FORGOTTEN}* and _{FORGOTTEN}_"),
        ("Our dog is called Max's cousin", f"{FORGOTTEN}'s cousin"),
        ("Our dog is called Maxine.", "Our dog is called Maxine."),
        ("Our dog is called Max2.", "Our dog is called Max2."),
        ("Your dog is called Max.", "Your dog is called Max."),
        ("狗Our dog is called Max是", f"狗{FORGOTTEN}是"),
        (json.dumps("So:\nOur dog is called Max\nAnd so on"), json.dumps(f"So:\n{FORGOTTEN}\nAnd so on")),
    ],
)
def test_what_goes_on_within_a_word_is_another_text(said: str, left: str) -> None:
    assert redactor([MAX]).text(said) == left


def test_scripts_without_spaces_are_found_within() -> None:
    assert redactor(["我们的狗叫小明。"]).text("是的，我们的狗叫小明。吗") == f"是的，{FORGOTTEN}吗"
    assert redactor(["우리 개 이름은 맥스"]).text("우리 개 이름은 맥스입니다") == f"{FORGOTTEN}입니다"


def test_a_newer_statement_that_only_begins_alike_stays(store: Store) -> None:
    old = store.put_memory(Memory("mem-old", ME, 1.0, "fact", MAX), 1.0)
    store.put_memory(Memory("mem-new", ME, 2.0, "fact", "Our dog is called Maxine."), 2.0)
    (active,) = store.memories(ME)
    assert (active.id, store.memory(ME, old.id).state) == ("mem-new", "superseded")
    assert store.forget(ME, [old.id]).memory_ids == (old.id,)
    assert [memory.text for memory in store.memories(ME)] == ["Our dog is called Maxine."]

"""Real files dropped into a real folder, watched by a running service or read by the command."""

import errno
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from watchdog.observers.api import BaseObserver

from familiar.daemon import inbox_files, service_record
from familiar.daemon.engine import Engine
from familiar.daemon.inbox import Inbox
from familiar.daemon.inbox_files import REPORT, Folders
from familiar.daemon.inbox_watch import InboxWatch, Patience, native_observer
from familiar.feedback import drafts, inbox_formats
from familiar.memory.errors import InvalidInput
from familiar.memory.store import Store
from familiar.memory.types import Exchange, Feedback
from tests.daemon.conftest import Service
from tests.daemon.test_cli import familiar, one_line

QUICK = Patience(settle_s=0.05, draft_settle_s=0.05, give_up_s=0.4, retry_s=0.05, poll_s=0.05)
WAIT_S = 10.0
ASK = "What is my sister called?"
RULE = '{"rule": "Use metric units."}\n'


def until(happened: Callable[[], Any], timeout_s: float = WAIT_S) -> Any:
    """Wait for something true, and return it."""
    deadline = time.monotonic() + timeout_s
    while not (found := happened()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
    return found


def reply(id: str = "chatcmpl-1", completion: str = "Anna.", ask: str = ASK, user: int = 1) -> Exchange:
    return Exchange(id, user, time.time(), "familiar", ({"role": "user", "content": ask},), completion)


@pytest.fixture
def folders(data_dir: Path) -> Folders:
    made = Folders(data_dir / "inbox", data_dir / "drafts")
    made.make()
    return made


@pytest.fixture
def store(data_dir: Path) -> Iterator[Store]:
    with Store.open(data_dir / "familiar.db") as opened:
        opened.add_exchange(reply())
        yield opened


@contextmanager
def watching(store: Store, folders: Folders, observer: Callable[[], BaseObserver] = native_observer) -> Iterator[None]:
    watch = InboxWatch(store, folders, patience=QUICK, make_observer=observer)
    watch.start()
    try:
        yield
    finally:
        watch.stop()


def signals(store: Store, user: int = 1) -> list[Feedback]:
    return [feedback for feedback, _ in store.feedback_rows(user)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*")) if folder.exists() else []


def report(path: Path) -> list[str]:
    return path.with_name(path.name + REPORT).read_text(encoding="utf-8").splitlines()


# Under a running service


def test_what_was_dropped_is_used_by_the_very_next_request(service: Service, data_dir: Path) -> None:
    inbox = data_dir / "inbox"
    until(inbox.is_dir)
    ask: dict[str, Any] = {"model": "familiar", "max_tokens": 4, "temperature": 0}
    first = service.openai.chat.completions.create(messages=[{"role": "user", "content": ASK}], **ask)
    row = {"completion_id": first.id, "correction": "Your sister is called Vigdis."}
    (inbox / "feedback.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    until((inbox / "done" / "feedback.jsonl").exists)
    (signal,) = signals(service.parts.store)
    assert (signal.kind, signal.exchange_id, signal.source, signal.trust) == ("correction", first.id, "inbox", "stated")
    again = service.http.post(
        "/v1/chat/completions", json={"messages": [{"role": "user", "content": ASK}], **ask}
    ).json()
    (memory,) = service.parts.store.memories(1)
    assert (memory.text, memory.source) == ("Your sister is called Vigdis.", "inbox")
    assert memory.id in json.dumps(again["familiar"])


def test_a_service_with_the_inbox_off_makes_no_folder(serve: Any, data_dir: Path, engine: Engine) -> None:
    with serve(data_dir, engine, inbox="off") as service:
        assert service.http.get("/health").status_code == 200
        assert not (data_dir / "inbox").exists()


def test_chats_go_on_while_a_large_file_is_read(serve: Any, data_dir: Path, engine: Engine) -> None:
    folders = Folders(data_dir / "inbox", data_dir / "drafts")
    folders.make()
    lines = "".join(json.dumps({"rule": f"Rule {number}: {number * 7919 % 1000}."}) + "\n" for number in range(300))
    with serve(data_dir, engine, inbox="off") as service, watching(service.parts.store, folders):
        (folders.inbox / "many.jsonl").write_text(lines, encoding="utf-8")
        until(lambda: signals(service.parts.store))
        health = time.monotonic()
        assert service.http.get("/health").status_code == 200
        assert time.monotonic() - health < 2
        until((folders.inbox / "done" / "many.jsonl").exists, 60)
        assert len(signals(service.parts.store)) == 300


# Files of feedback


def test_files_from_before_the_start_are_read(store: Store, folders: Folders) -> None:
    (folders.inbox / "old.jsonl").write_text(RULE, encoding="utf-8")
    with watching(store, folders):
        until((folders.inbox / "done" / "old.jsonl").exists)
    assert [signal.text for signal in signals(store)] == ["Use metric units."]


def test_a_file_dropped_twice_is_stored_once_and_kept_twice(store: Store, folders: Folders) -> None:
    done = folders.inbox / "done"
    with watching(store, folders):
        (folders.inbox / "a.jsonl").write_text(RULE, encoding="utf-8")
        until((done / "a.jsonl").exists)
        (folders.inbox / "a.jsonl").write_text('{"rule": " Use metric units.  "}\n', encoding="utf-8")
        until((done / "a-2.jsonl").exists)
    assert len(signals(store)) == 1
    (folders.inbox / "a.jsonl").write_text(RULE, encoding="utf-8")
    (outcome,) = Inbox(store, folders).read_all(0)
    assert outcome.summary == "a.jsonl: 1 known already"
    assert names(done) == ["a-2.jsonl", "a-3.jsonl", "a.jsonl"]


def test_a_half_written_file_is_waited_for(store: Store, folders: Folders) -> None:
    path, whole = folders.inbox / "half.jsonl", RULE + '{"rule": "Be brief."}\n'
    with watching(store, folders):
        with path.open("w", encoding="utf-8") as file:
            file.write(whole[:-5])
            file.flush()
            until(path.with_name(path.name + REPORT).exists)  # given up on, and said so
            assert not signals(store)
            assert "ends too early" in report(path)[0]
            file.write(whole[-5:])
        until((folders.inbox / "done" / "half.jsonl").exists)
    assert [signal.text for signal in signals(store)] == ["Use metric units.", "Be brief."]
    assert names(folders.inbox) == [".lock", "done"]


def test_a_file_that_grows_is_read_when_it_rests(store: Store, folders: Folders) -> None:
    path = folders.inbox / "slow.jsonl"
    patience = Patience(settle_s=0.5, poll_s=0.05)
    watch = InboxWatch(store, folders, patience=patience)
    watch.start()
    try:
        with path.open("w", encoding="utf-8") as file:
            for number in range(8):
                file.write(f'{{"rule": "Rule {number}."}}\n')
                file.flush()
                assert not signals(store)
                time.sleep(0.1)
        until((folders.inbox / "done" / "slow.jsonl").exists)
    finally:
        watch.stop()
    assert len(signals(store)) == 8


def test_good_lines_are_stored_and_bad_ones_told(store: Store, folders: Folders) -> None:
    lines = [
        '{"completion_id": "chatcmpl-1", "correction": "Vigdis."}',
        '{"completion_id": "chatcmpl-1", "correction": "Vigdis", "rating": 1}',
        "not json",
        '{"completion_id": "chatcmpl-none", "rating": 1}',
        '{"completion_id": "chatcmpl-1", "rating": 5}',
        '{"completion_id": "chatcmpl-1", "rating": "bad", "colour": "red"}',
        '{"completion_id": "chatcmpl-1", "correction": "Anna."}',
        '{"messages": [{"role": "critic", "content": "x"}], "completion": "y", "correction": "z"}',
        RULE.strip(),
    ]
    (folders.inbox / "mixed.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with watching(store, folders):
        until((folders.inbox / "done" / "mixed.jsonl").exists)
    assert [signal.text for signal in signals(store)] == ["Vigdis.", "Use metric units."]
    told = report(folders.inbox / "done" / "mixed.jsonl")
    assert told[0] == "mixed.jsonl: 2 stored, 7 refused"
    assert [line.split(":")[0] for line in told[1:]] == [f"line {number}" for number in range(2, 9)]
    for line, said in zip(
        told[1:],
        (
            "this has correction and rating",
            "not JSON",
            'No completion has the id "chatcmpl-none"',
            "rating: Input should be",
            "Unknown parameter: colour",
            "the same as the original",
            "messages[0].role",
        ),
        strict=True,
    ):
        assert said in line


def test_a_file_with_nothing_of_use_is_refused_and_kept(store: Store, folders: Folders) -> None:
    (folders.inbox / "bad.jsonl").write_text("no\nno\n", encoding="utf-8")
    (folders.inbox / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00")
    (folders.inbox / "notes.docx").write_text("Dear", encoding="utf-8")
    (folders.inbox / "latin.json").write_bytes('[{"rule": "Grüße"}]'.encode("latin-1"))
    with watching(store, folders):
        failed = folders.inbox / "failed"
        until(lambda: len(names(failed)) == 8)
    assert not signals(store)
    assert report(failed / "bad.jsonl")[1].startswith("line 1: It is not JSON")
    assert "not a text file" in report(failed / "photo.png")[0] or "not text" in report(failed / "photo.png")[0]
    assert "its name ends in none of" in report(failed / "notes.docx")[0]
    assert "not text in UTF-8" in report(failed / "latin.json")[0]


def test_a_file_that_is_too_large_is_refused(store: Store, folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_formats, "MAX_BYTES", 1 << 20)
    (folders.inbox / "huge.jsonl").write_text(RULE * 50_000, encoding="utf-8")
    (outcome,) = Inbox(store, folders).read_all(0)
    assert outcome.summary == "huge.jsonl: refused, as it has 1 MB, but 1 MB is the most: split it"


def test_temporary_names_folders_and_links_are_left_alone(
    store: Store, folders: Folders, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outside = tmp_path / "outside.jsonl"
    outside.write_text('{"rule": "From elsewhere."}\n', encoding="utf-8")
    (folders.inbox / "link.jsonl").symlink_to(outside)
    (folders.inbox / "me2").symlink_to(tmp_path)
    (folders.inbox / "stranger").mkdir()
    (folders.inbox / "stranger" / "x.jsonl").write_text(RULE, encoding="utf-8")
    os.mkfifo(folders.inbox / "pipe.jsonl")
    temporary = ["a.jsonl~", ".a.jsonl.swp", "a.jsonl.part", "a.jsonl.crdownload", ".hidden.jsonl", "#a.jsonl#"]
    for name in temporary:
        (folders.inbox / name).write_text(RULE, encoding="utf-8")
    with watching(store, folders):
        until((folders.inbox / f"link.jsonl{REPORT}").exists)
        until((folders.inbox / f"pipe.jsonl{REPORT}").exists)
        (folders.inbox / "a.jsonl.part").rename(folders.inbox / "a.jsonl")
        until((folders.inbox / "done" / "a.jsonl").exists)
    assert [signal.text for signal in signals(store)] == ["Use metric units."]
    assert "it is a link" in report(folders.inbox / "link.jsonl")[0]
    assert "not a regular file" in report(folders.inbox / "pipe.jsonl")[0]
    assert set(temporary) - {"a.jsonl.part"} < set(names(folders.inbox))
    assert outside.exists()
    assert "stranger is in the inbox but is no user's" in caplog.text


def test_a_folder_that_is_deleted_is_made_again(store: Store, folders: Folders) -> None:
    with watching(store, folders):
        for number in range(3):
            (folders.inbox / "a.jsonl").write_text(f'{{"rule": "Rule {number}."}}\n', encoding="utf-8")
            until((folders.inbox / "done" / "a.jsonl").exists)
            shutil.rmtree(folders.inbox)
            until(folders.inbox.is_dir)
    assert len(signals(store)) == 3


def test_a_name_that_is_no_utf_8_is_read_and_told(store: Store, folders: Folders) -> None:
    names_bytes = [b"gr\xfc\xdfe.jsonl", b"\xff.png"]
    for name in names_bytes:
        (folders.inbox / os.fsdecode(name)).write_text(RULE, encoding="utf-8")
    said = familiar("inbox", "process", "--data-dir", str(folders.inbox.parent))
    assert said.returncode == 0, said.stderr
    assert "gr\ufffd\ufffde.jsonl: 1 stored" in said.stdout
    assert (folders.inbox / "failed" / os.fsdecode(names_bytes[1])).exists()
    assert "\ufffd.png: refused" in familiar("inbox", "--data-dir", str(folders.inbox.parent)).stdout


def test_without_watches_the_folder_is_looked_at(
    store: Store, folders: Folders, caplog: pytest.LogCaptureFixture
) -> None:
    def exhausted() -> BaseObserver:
        observer = native_observer()

        def schedule(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "inotify watch limit reached")

        observer.schedule = schedule  # type: ignore[method-assign,assignment]
        return observer

    with watching(store, folders, exhausted):
        until(lambda: "has no watches left" in caplog.text)
        (folders.inbox / "a.jsonl").write_text(RULE, encoding="utf-8")
        until((folders.inbox / "done" / "a.jsonl").exists)
    assert len(signals(store)) == 1


def test_two_processes_read_each_file_once(data_dir: Path, store: Store, folders: Folders) -> None:
    for number in range(20):
        (folders.inbox / f"{number}.jsonl").write_text(f'{{"rule": "Rule {number}."}}\n', encoding="utf-8")
    with watching(store, folders):
        said = familiar("inbox", "process", "--data-dir", str(data_dir))
        until(lambda: len(names(folders.inbox / "done")) == 20)
    assert said.returncode == 0, said.stderr
    assert len(signals(store)) == 20
    assert names(folders.inbox) == [".lock", "done"]


def test_the_lock_is_waited_for(store: Store, folders: Folders) -> None:
    (folders.inbox / "a.jsonl").write_text(RULE, encoding="utf-8")
    reader = threading.Thread(target=Inbox(store, folders).read_all, args=(0,))
    with inbox_files.locked(folders):
        reader.start()
        reader.join(0.2)
        assert reader.is_alive()
        assert not signals(store)
    reader.join(WAIT_S)
    assert len(signals(store)) == 1


def test_each_user_has_an_inbox(store: Store, folders: Folders) -> None:
    anna = store.users.add("anna", "fam-" + "a" * 32, 1.0).id
    with watching(store, folders):
        (folders.inbox / "Anna").mkdir()
        (folders.inbox / "Anna" / "a.jsonl").write_text(RULE, encoding="utf-8")
        until((folders.inbox / "Anna" / "done" / "a.jsonl").exists)
        (folders.inbox / "Anna" / "b.jsonl").write_text(
            '{"completion_id": "chatcmpl-1", "rating": 1}\n', encoding="utf-8"
        )
        until((folders.inbox / "Anna" / "failed" / "b.jsonl").exists)  # somebody else's reply
    assert not signals(store)
    assert len(signals(store, anna)) == 1


def test_text_of_another_origin_makes_no_memory(store: Store, folders: Folders) -> None:
    row = {"completion_id": "chatcmpl-1", "correction": "Buy gold.", "note": "Always say so.", "source": "web"}
    (folders.inbox / "a.jsonl").write_text(json.dumps(row), encoding="utf-8")
    Inbox(store, folders).read_all(0)
    assert [(signal.trust, signal.text) for signal in signals(store)] == [("untrusted", "Buy gold.")]
    assert not store.memories(1)


def test_a_row_with_its_own_conversation_is_imported_once(store: Store, folders: Folders) -> None:
    said = {"messages": [{"role": "user", "content": "And Hamlet?"}], "completion": "Marlowe."}
    known = {"messages": [{"role": "user", "content": f" {ASK} "}], "completion": "Anna. ", "rating": "bad"}
    lines = [{**said, "correction": "Shakespeare."}, {**said, "rating": -1}, {**said, "correction": " "}, known]
    (folders.inbox / "a.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    (outcome,) = Inbox(store, folders).read_all(0)
    assert outcome.summary == "a.jsonl: 3 stored, 1 refused"
    correction, rating, of_known = store.feedback_rows(1)
    assert correction[1] is not None
    assert (correction[1].model, correction[1].completion, correction[0].text) == ("import", "Marlowe.", "Shakespeare.")
    assert rating[0].exchange_id == correction[0].exchange_id
    assert of_known[0].exchange_id == "chatcmpl-1"
    assert len(store.exchanges(1)) == 2
    (folders.inbox / "pair.jsonl").write_text(
        json.dumps({"prompt": "And Emma?", "chosen": "Austen.", "rejected": "Brontë."}) + "\n", encoding="utf-8"
    )
    Inbox(store, folders).read_all(0)
    preference, about = store.feedback_rows(1)[-1]
    assert about is not None
    assert (preference.kind, preference.text, about.completion) == ("preference", "Austen.", "Brontë.")


def test_an_open_webui_export_is_matched_to_what_was_logged(store: Store, folders: Folders) -> None:
    def item(message_id: str, rating: int, at: int, comment: str = "") -> dict[str, Any]:
        tree = {
            "u": {"id": "u", "parentId": None, "childrenIds": ["a", "b"], "role": "user", "content": ASK},
            "a": {"id": "a", "parentId": "u", "childrenIds": [], "role": "assistant", "content": "Anna."},
            "b": {"id": "b", "parentId": "u", "childrenIds": [], "role": "assistant", "content": "Berta."},
        }
        return {
            "id": f"fb-{message_id}",
            "user_id": "u1",
            "version": 0,
            "type": "rating",
            "data": {"rating": rating, "model_id": "familiar", "comment": comment, "sibling_model_ids": ["familiar"]},
            "meta": {"arena": False, "chat_id": "c", "message_id": message_id, "message_index": 2},
            "snapshot": {"chat": {"id": "c", "title": "Family", "chat": {"history": {"messages": tree}}}},
            "created_at": at,
            "updated_at": at,
        }

    export = [item("b", -1, 1_700_000_005, "Say that you do not know."), item("a", 1, 1_700_000_000)]
    with watching(store, folders):
        for number in (1, 2):
            (folders.inbox / f"feedback-history-export-{number}.json").write_text(json.dumps(export), encoding="utf-8")
            until((folders.inbox / "done" / f"feedback-history-export-{number}.json").exists)
    (good, logged), (bad, imported) = store.feedback_rows(1)
    assert (good.rating, logged.id if logged else None, good.created_at) == (1, "chatcmpl-1", 1_700_000_000)
    assert imported is not None
    assert (bad.rating, bad.note, imported.completion) == (-1, "Say that you do not know.", "Berta.")
    assert [memory.text for memory in store.memories(1)] == ["Say that you do not know."]


# Drafts


def draft_file(folder: Path, text: str = "Anna.", id: str = "chatcmpl-1", name: str | None = None) -> Path:
    path = folder / (name or drafts.file_name(ASK, id))
    path.write_text(drafts.text_of(id, text), encoding="utf-8")
    return path


def test_an_edited_copy_of_a_draft_is_a_correction(store: Store, folders: Folders) -> None:
    draft_file(folders.drafts)
    with watching(store, folders):
        draft_file(folders.inbox, "Your sister is called Vigdis.", name="letter.md")
        until((folders.inbox / "done" / "letter.md").exists)
        draft_file(folders.inbox, "Anna.  \n", name="same.md")
        until((folders.inbox / "done" / "same.md").exists)
    (signal,) = signals(store)
    assert (signal.kind, signal.text, signal.trust) == ("correction", "Your sister is called Vigdis.", "stated")
    assert store.memories(1)[0].text == "Your sister is called Vigdis."
    assert not list(folders.inbox.rglob(f"*{REPORT}"))


def test_a_draft_that_is_saved_in_place_is_a_correction_and_stays(store: Store, folders: Folders) -> None:
    path = draft_file(folders.drafts)
    with watching(store, folders):
        draft_file(folders.drafts, "Vigdis.")
        until(lambda: [signal.text for signal in signals(store)] == ["Vigdis."])
        temporary = folders.drafts / ".saving.tmp"  # as editors save: written beside, then renamed over
        temporary.write_text(drafts.text_of("chatcmpl-1", "Vigdis, after her aunt."), encoding="utf-8")
        temporary.replace(path)
        until(lambda: len(signals(store)) == 2)
    assert names(folders.drafts) == [path.name]
    with watching(store, folders):  # a start reads them again, and finds nothing new
        (folders.inbox / "a.jsonl").write_text(RULE, encoding="utf-8")
        until((folders.inbox / "done" / "a.jsonl").exists)
    assert [signal.text for signal in signals(store)][:2] == ["Vigdis.", "Vigdis, after her aunt."]
    assert len(signals(store)) == 3


def test_a_draft_without_its_first_line_is_known_by_its_name(store: Store, folders: Folders) -> None:
    id = "chatcmpl-0123456789abcdef01234567"
    store.add_exchange(reply(id, "Berta."))
    (folders.inbox / f"Copy of {drafts.file_name(ASK, id)}").write_text("Vigdis.", encoding="utf-8")
    (folders.inbox / "letter.md").write_text("Vigdis.", encoding="utf-8")
    draft_file(folders.inbox, "Vigdis.", "chatcmpl-none", "forgotten.md")
    Inbox(store, folders).read_all(0)
    assert [(signal.exchange_id, signal.text) for signal in signals(store)] == [(id, "Vigdis.")]
    failed = folders.inbox / "failed"
    assert "put back the first line" in report(failed / "letter.md")[0]
    assert 'No completion has the id "chatcmpl-none"' in report(failed / "forgotten.md")[0]


# The commands


def test_the_commands_list_and_read_the_inbox(data_dir: Path, store: Store, folders: Folders) -> None:
    where = ("--data-dir", str(data_dir))
    (folders.inbox / "good.jsonl").write_text(RULE, encoding="utf-8")
    (folders.inbox / "bad.jsonl").write_text("no\n", encoding="utf-8")
    shown = familiar("inbox", *where).stdout
    assert f"inbox    {folders.inbox}" in shown
    assert "waiting  2  (bad.jsonl, good.jsonl)" in shown
    read = familiar("inbox", "process", *where).stdout
    assert read == "bad.jsonl: refused, as nothing in it can be used\ngood.jsonl: 1 stored\n"
    shown = familiar("inbox", "status", *where).stdout
    assert "done     1" in shown
    assert "failed   1" in shown
    assert "problem  bad.jsonl: refused, as nothing in it can be used" in shown
    assert "Nothing waits" in familiar("inbox", "process", *where).stdout
    assert "is off" in familiar("inbox", *where, FAMILIAR_INBOX="off").stdout


def test_an_inbox_that_holds_other_files_is_refused(data_dir: Path) -> None:
    said = one_line(familiar("inbox", "--data-dir", str(data_dir), FAMILIAR_INBOX=str(data_dir.parent)))
    assert "would be moved" in said


def test_a_draft_is_written_by_the_service_and_learned_from(service: Service, data_dir: Path) -> None:
    where = ("--data-dir", str(data_dir))
    record = (data_dir / "service.json", "127.0.0.1", int(service.url.rpartition(":")[2]), Path("model.gguf"), "unused")
    with service_record.written(*record):
        written = familiar("draft", "Write a short e-mail to Anna.", *where)
    assert written.returncode == 0, written.stderr
    path = Path(written.stdout.strip())
    assert path.parent == data_dir / "drafts"
    draft = drafts.read(path.read_text(encoding="utf-8"), "any.md")
    exchange, *_ = service.parts.store.exchanges(1)
    assert (draft.completion_id, draft.body) == (exchange.id, exchange.completion.strip())
    assert str(path) in one_line(familiar("draft", "x", "-o", str(path), *where))
    copy = data_dir / "inbox" / "mail.md"
    copy.write_text(path.read_text(encoding="utf-8").replace(draft.body, "Dear Anna, see you."), encoding="utf-8")
    until((data_dir / "inbox" / "done" / "mail.md").exists)
    (signal,) = signals(service.parts.store)
    assert (signal.exchange_id, signal.text) == (exchange.id, "Dear Anna, see you.")


def test_setting_the_inbox(data_dir: Path) -> None:
    from familiar.daemon import settings

    def folder(inbox: str) -> Path | None:
        return settings.load({"data_dir": data_dir, "inbox": inbox}, {}).inbox_dir

    assert folder("auto") == data_dir / "inbox"
    assert folder("off") is None
    assert folder("~/drop") == Path.home() / "drop"
    for wrong in (data_dir, data_dir.parent, data_dir / "drafts"):
        with pytest.raises(InvalidInput, match="would be moved"):
            folder(str(wrong))

"""``familiar data`` and ``/v1/data``: out of one data folder and into another, backed up, restored and erased."""

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from openai import OpenAI

from familiar.adapters.folders import file_sha256, new_folder
from familiar.adapters.registry import GGUF, PEFT_FILES
from familiar.daemon.files_store import FilesStore
from familiar.daemon.fine_tuning_folders import gguf_path, verify
from familiar.memory.finetuning_types import JobCheckpoint, TunedModel
from familiar.memory.redact import FORGOTTEN
from familiar.memory.store import Store
from familiar.memory.types import AdapterVersion, LearningRun, Memory
from tests.daemon.conftest import Service
from tests.daemon.test_users import failed, familiar, ok
from tests.memory.owner import fill
from tests.memory.test_forgetting import grep

ME = 1


@pytest.fixture
def full(data_dir: Path) -> Iterator[Store]:
    """A store in which the default user owns something of every sort, with the files of the adapters."""
    with Store.open(data_dir / "familiar.db") as store:
        fill(store, ME)
        yield store


def other_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "other"
    folder.mkdir()
    return folder


def test_export_and_import_into_another_folder(full: Store, data_dir: Path, tmp_path: Path) -> None:
    other, file = other_folder(tmp_path), tmp_path / "mine.jsonl"
    assert "keep it" in familiar(data_dir, "data", "export", "-o", str(file)).stderr
    assert file.stat().st_mode & 0o777 == 0o600
    assert ok(familiar(data_dir, "data", "export")).splitlines()[1:] == file.read_text().splitlines()[1:]
    assert ok(familiar(other, "data", "import", str(file))).startswith("Imported 3 conversations, 1 learning runs, ")
    assert ok(familiar(other, "data", "import", str(file))).startswith("Nothing new was in it.")
    assert "is there already" in str(failed(familiar(data_dir, "data", "export", "-o", str(file))))
    file.write_bytes(file.read_bytes()[:-5])
    assert str(failed(familiar(other, "data", "import", str(file)))).startswith(f"{file}: Line ")
    assert "cannot be read" in str(failed(familiar(other, "data", "import", str(tmp_path / "none"))))


def test_an_export_of_somebody_else(full: Store, data_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    ok(familiar(data_dir, "data", "export", "-o", str(file)))
    ok(familiar(data_dir, "users", "add", "bob"))
    arguments = ("data", "import", str(file), "--user", "bob")
    assert "--anyones" in str(failed(familiar(data_dir, *arguments)))
    ok(familiar(data_dir, *arguments, "--anyones"))
    bob = full.users.named("bob").id
    assert full.counts(bob) == full.counts(ME)


def test_adapters_go_along(data_dir: Path, tmp_path: Path) -> None:
    other, file = other_folder(tmp_path), tmp_path / "mine.tar"
    with Store.open(data_dir / "familiar.db") as store:
        store.add_run(LearningRun("run-1", ME, 1.0, "promoted", {}, "f", version=1))
        with new_folder(data_dir / "adapters" / "1" / "v1") as folder:
            for name in (GGUF, *PEFT_FILES):
                (folder / name).write_bytes(name.encode())
        manifest = json.loads((data_dir / "adapters" / "1" / "v1" / "manifest.json").read_text())
        sha256 = manifest["sha256"][GGUF]
        store.add_version(AdapterVersion(ME, 1, 1.0, "adapters/1/v1", None, "b", sha256, "run-1", (), {}), True)
    ok(familiar(data_dir, "data", "export", "--with-adapters", "-o", str(file)))
    assert familiar(data_dir, "data", "export", "--with-adapters").exit_code == 2
    ok(familiar(other, "data", "import", str(file)))
    assert (other / "adapters" / "1" / "v1" / GGUF).read_bytes() == GGUF.encode()
    with Store.open(other / "familiar.db") as store:
        current = store.current_version(ME)
        assert current is not None
        assert current.gguf_sha256 == sha256
    assert "Nothing new" in ok(familiar(other, "data", "import", str(file)))

    damaged = tmp_path / "damaged.tar"
    with tarfile.open(file) as before, tarfile.open(damaged, "w") as after:
        for member in before:
            content = before.extractfile(member)
            assert content is not None
            data = content.read()
            after.addfile(member, io.BytesIO(data.upper() if member.name.endswith(GGUF) else data))
    third = tmp_path / "third"
    assert "corrupt" in str(failed(familiar(third, "data", "import", str(damaged))))
    assert not (third / "adapters" / "1" / "v1").exists()
    with tarfile.open(damaged, "w") as empty:
        empty.add(__file__, "../../data.jsonl")
    assert "not an export with adapters" in str(failed(familiar(third, "data", "import", str(damaged))))


def test_uploads_and_fine_tuned_models_go_along(data_dir: Path, tmp_path: Path) -> None:
    other, file = other_folder(tmp_path), tmp_path / "mine.tar"
    with Store.open(data_dir / "familiar.db") as store:
        uploaded = FilesStore(store, data_dir, lambda: 1.0).add(ME, "train.jsonl", "fine-tune", io.BytesIO(b"{}"))
        fill(store, ME)  # has a file, too, whose content is gone, and models without an adapter
        sha256 = {}
        for job in ("ftjob-1", "ftjob-gone"):
            with new_folder(data_dir / "fine_tuning" / "1" / job / "step-2") as folder:
                for name in (GGUF, *PEFT_FILES):
                    (folder / name).write_bytes(f"{job} {name}".encode())
            sha256[job] = file_sha256(data_dir / "fine_tuning" / "1" / job / "step-2" / GGUF)
        step = TunedModel("ft:base:me::1:ckpt-step-2", ME, "ftjob-1", 13.0, 2, "base", sha256["ftjob-1"])
        store.fine_tuning.add_checkpoint(JobCheckpoint("ftckpt-2", ME, "ftjob-1", 13.0, 2, step.id, {}), step)
    ok(familiar(data_dir, "data", "export", "--with-adapters", "-o", str(file)))
    with tarfile.open(file) as archive:
        assert not any("ftjob-gone" in name for name in archive.getnames())
    ok(familiar(other, "data", "import", str(file)))
    assert "Nothing new" in ok(familiar(other, "data", "import", str(file)))
    # Into the same store for another user: under other ids, and there all the same.
    ok(familiar(data_dir, "users", "add", "bob"))
    ok(familiar(data_dir, "data", "import", str(file), "--user", "bob", "--anyones"))
    for folder, user in ((other, ME), (data_dir, 2)):
        with Store.open(folder / "familiar.db") as store:
            files = FilesStore(store, folder, lambda: 1.0)
            kept = [each for each in store.files.listed(user) if files.path(each).exists()]
            assert [files.path(each).read_bytes() for each in kept] == [b"{}"]
            assert (kept[0].id == uploaded.id) == (user == ME)
            (model,) = (each for each in store.fine_tuning.models(user) if each.step == 2)
            verify(folder, model)
            assert gguf_path(folder, model).read_bytes() == f"ftjob-1 {GGUF}".encode()
    gguf_path(data_dir, step).write_bytes(b"changed")
    assert "corrupt" in str(failed(familiar(data_dir, "data", "export", "--with-adapters", "-o", str(tmp_path / "b"))))


def test_backup_list_and_restore(data_dir: Path) -> None:
    assert "no backups" in ok(familiar(data_dir, "data", "backups"))
    with Store.open(data_dir / "familiar.db") as store:
        fill(store, ME)
    path = ok(familiar(data_dir, "data", "backup")).strip()
    assert path in ok(familiar(data_dir, "data", "backups"))
    with Store.open(data_dir / "familiar.db") as store:
        store.put_memory(Memory("mem-later", ME, 9.0, "rule", "Something later."), 9.0)
        assert "in use" in str(failed(familiar(data_dir, "data", "restore", path, "--yes")))
    assert "Nothing was restored" in str(failed(familiar(data_dir, "data", "restore", path)))
    assert "What was there before is" in ok(familiar(data_dir, "data", "restore", path, "--yes"))
    with Store.open(data_dir / "familiar.db") as store:
        assert "mem-later" not in {memory.id for memory in store.memories(ME)}
    assert len(ok(familiar(data_dir, "data", "backups")).splitlines()) == 2
    (data_dir / "familiar.db").write_bytes(b"\x07" * 50_000)
    said = ok(familiar(data_dir, "data", "restore", path, "--yes"))
    aside = data_dir / "backups" / said.rpartition("/")[2].removesuffix(".\n")
    assert said == f"Restored {path}. What was there before is damaged, and kept as {aside}.\n"
    assert aside.read_bytes() == b"\x07" * 50_000
    # What is in it cannot be looked through: whoever forgets something is told.
    assert str(aside) in familiar(data_dir, "memory", "forget", "mem-0").output


def test_erase_asks_and_leaves_nothing(data_dir: Path) -> None:
    with Store.open(data_dir / "familiar.db") as store:
        fill(store, ME)
        store.backup()
    for name in ("inbox/done/one.jsonl", "drafts/two.md", "adapters/1/v1/manifest.json", "runs/run-1/x", "logs/a.log"):
        (data_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (data_dir / name).write_text("Question 1 and Grüße")
    (data_dir / "inbox" / "bob").mkdir()
    assert "Nothing was erased" in str(failed(familiar(data_dir, "data", "erase")))
    assert grep(data_dir, "right 1", "Grüße")
    assert "Erased" in ok(familiar(data_dir, "data", "erase", input="y\n"))
    assert grep(data_dir, "right 1", "Grüße", "Question 1") == []
    assert (data_dir / "inbox" / "bob").is_dir()
    with Store.open(data_dir / "familiar.db") as store:
        assert set(store.counts(ME).values()) == {0}


def test_a_removed_user_is_in_no_backup(data_dir: Path) -> None:
    key = ok(familiar(data_dir, "users", "add", "bob")).strip()
    with Store.open(data_dir / "familiar.db") as store:
        store.put_memory(Memory("mem-1", 2, 1.0, "rule", "Never mention the xylophone."), 1.0)
        path = store.backup()
    ok(familiar(data_dir, "users", "remove", "bob", "--yes"))
    assert grep(data_dir, "xylophone") == []
    with Store.open(path) as copy:
        assert copy.users.by_key(key, 1.0) is None


def test_over_http(service: Service, tmp_path: Path, serve: Callable[..., AbstractContextManager[Service]]) -> None:
    fill(service.parts.store, ME)
    export = service.http.get("/v1/data/export")
    assert export.headers["content-type"].startswith("application/x-ndjson")
    assert len(export.text.splitlines()) == sum(json.loads(export.text.splitlines()[0])["counts"].values()) + 2
    with serve(tmp_path / "other", service.parts.engine) as other:
        added = other.http.post("/v1/data/import", content=export.content).json()
        assert added["object"] == "data.imported"
        assert added["added"]["memories"] == 5
        assert other.http.post("/v1/data/import", content=export.content).json()["added"] == {}
        assert other.http.get("/v1/data/export").text.splitlines()[1:] == export.text.splitlines()[1:]
        refused = other.http.post("/v1/data/import", content=export.content[:-3])
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "file"
        assert refused.json()["error"]["message"].startswith("Line ")


def test_a_reply_that_held_what_is_forgotten_is_not_learned_again(service: Service, data_dir: Path) -> None:
    """The client goes on sending the conversation as it was: that it differs from ours now is no edit."""
    store, client = service.parts.store, service.openai
    reply = _chat(client, "What do you know?")
    text = " ".join(reply.split()[:6])
    store.put_memory(Memory("mem-1", ME, 1.0, "fact", text), 1.0)
    assert service.http.delete("/v1/memories/mem-1").status_code == 200
    (logged,) = store.exchanges(ME)
    assert FORGOTTEN in logged.completion
    assert grep(data_dir, text) == []
    _chat(client, "What do you know?", reply, "And what else?")
    assert store.memories(ME) == []
    assert store.feedback_rows(ME) == []
    assert store.pending(ME) == []


def _chat(client: OpenAI, *turns: str) -> str:
    roles = ("user", "assistant")
    messages = [{"role": roles[at % 2], "content": text} for at, text in enumerate(turns)]
    reply = client.chat.completions.create(model="familiar", messages=messages, max_tokens=24, temperature=0)  # type: ignore[arg-type]
    return reply.choices[0].message.content or ""

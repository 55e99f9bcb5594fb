"""``/v1/files`` through the official client: what is uploaded is there as it was, for its owner alone."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import openai
import pytest
from click.testing import CliRunner

from familiar.daemon import files_store
from familiar.daemon.cli import cli

LINES = b'{"messages": [{"role": "user", "content": "Gr\xc3\xbc\xc3\x9fe"}]}\r\n\xff\x00 whatever else\n'


def upload(service: Any, content: bytes = LINES, name: str = "train.jsonl") -> Any:
    return service.openai.files.create(file=(name, content), purpose="fine-tune")


def familiar(data_dir: Path, *arguments: str) -> str:
    env = {"FAMILIAR_USER": None, "XDG_CONFIG_HOME": os.devnull}
    result = CliRunner().invoke(cli, [*arguments, "--data-dir", str(data_dir)], env=env)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_file_comes_back_as_it_was_sent(service: Any, data_dir: Path) -> None:
    file = upload(service, name="../a b/träin.jsonl")
    assert (file.bytes, file.filename, file.purpose) == (len(LINES), "träin.jsonl", "fine-tune")
    assert (file.object, file.status) == ("file", "processed")
    assert service.openai.files.retrieve(file.id) == file
    assert service.openai.files.content(file.id).read() == LINES
    (path,) = (data_dir / "files" / "1").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    deleted = service.openai.files.delete(file.id)
    assert (deleted.id, deleted.deleted) == (file.id, True)
    assert list((data_dir / "files" / "1").iterdir()) == []
    with pytest.raises(openai.NotFoundError):
        service.openai.files.retrieve(file.id)


def test_files_are_listed_in_pages(service: Any) -> None:
    ids = [upload(service, b"%d" % number).id for number in range(5)]
    assert [file.id for file in service.openai.files.list()] == ids[::-1]
    assert [file.id for file in service.openai.files.list(limit=2)] == ids[::-1]  # the client turns the pages
    first = service.openai.files.list(limit=2, order="asc")
    assert ([file.id for file in first.data], first.has_more) == (ids[:2], True)
    assert service.openai.files.list(after=ids[1], order="asc").data[0].id == ids[2]
    assert service.openai.files.list(purpose="fine-tune-results").data == []
    assert service.openai.files.list(purpose="vision").data == []
    assert service.http.get("/v1/files", params={"limit": 0}).status_code == 400
    assert service.http.get("/v1/files", params={"after": "file-x"}).json()["error"]["param"] == "after"


def test_what_cannot_be_kept_is_refused(service: Any, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(param: str | None, **request: Any) -> str:
        response = service.http.post("/v1/files", **request)
        assert response.status_code == 400, response.text
        assert response.json()["error"]["param"] == param
        return str(response.json()["error"]["message"])

    file = {"file": ("a.jsonl", b"{}")}
    assert "purpose" in refused("purpose", files=file)
    assert "batch" in refused("purpose", files=file, data={"purpose": "batch"})
    assert "expires_after" in refused(
        "expires_after[seconds]", files=file, data={"purpose": "fine-tune", "expires_after[seconds]": "3600"}
    )
    assert "no file" in refused("file", files={"other": ("a", b"x")}, data={"purpose": "fine-tune"})
    assert "empty" in refused("file", files={"file": ("a.jsonl", b"")}, data={"purpose": "fine-tune"})
    assert "multipart" in refused("file", json={"purpose": "fine-tune"})
    boundary = {"content-type": "multipart/form-data; boundary=x"}
    assert "form" in refused(None, content=b"--y\r\nnonsense", headers=boundary)
    monkeypatch.setattr(files_store, "MAX_FILE_BYTES", 100)
    with pytest.raises(openai.BadRequestError, match="more than 100 bytes") as large:
        upload(service, b"x" * 101)
    assert large.value.code == "file_too_large"
    assert list((data_dir / "files").glob("*/*")) == []
    assert upload(service, b"x" * 100).bytes == 100


def test_an_upload_that_goes_on_for_ever_is_cut(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("familiar.daemon.uploads.MAX_FILE_BYTES", 1_000)
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'

    def body() -> Any:
        yield head
        for _ in range(40):
            yield b"y" * 100_000

    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert service.http.post("/v1/files", content=body(), headers=headers).json()["error"]["code"] == "file_too_large"


def test_another_users_files_are_unknown(service: Any, data_dir: Path) -> None:
    mine = upload(service)
    key = familiar(data_dir, "users", "add", "bob").split()
    fam = next(word for word in key if word.startswith("fam-"))
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key=fam, max_retries=0) as bob:
        assert bob.files.list().data == []
        for ask in (bob.files.retrieve, bob.files.content, bob.files.delete):
            with pytest.raises(openai.NotFoundError):
                ask(mine.id)
        with pytest.raises(openai.BadRequestError, match="No such file"):
            bob.fine_tuning.jobs.create(model="familiar", training_file=mine.id)
        theirs = bob.files.create(file=("b.jsonl", b"bobs own"), purpose="fine-tune")
        assert bob.files.content(theirs.id).read() == b"bobs own"
    assert (data_dir / "files" / "2").is_dir()


def test_files_are_forgotten_with_their_user(service: Any, data_dir: Path) -> None:
    upload(service, b'{"messages": "A secret of mine."}\n')
    rows = [json.loads(line) for line in service.http.get("/v1/data/export").text.splitlines()]
    assert [row["filename"] for row in rows if row.get("table") == "files"] == ["train.jsonl"]
    familiar(data_dir, "data", "erase", "--yes")
    assert service.openai.files.list().data == []
    assert not (data_dir / "files" / "1").exists()


def test_forgetting_a_memory_reaches_the_files(service: Any) -> None:
    service.http.post("/v1/feedback", json={"rule": "My cat is called Bartholomew."}).raise_for_status()
    file = upload(service, b'{"messages": [{"role": "user", "content": "My cat is called Bartholomew."}]}\n')
    (memory,) = service.http.get("/v1/memories").json()["data"]
    service.http.delete(f"/v1/memories/{memory['id']}").raise_for_status()
    assert b"Bartholomew" not in service.openai.files.content(file.id).read()

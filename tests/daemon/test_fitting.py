"""Base models and the adapters that fit them: a file is read once, a swap loses nothing, and is told."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from familiar.adapters.folders import file_sha256
from familiar.daemon import base_models, fitting, local_service, service_record, settings
from familiar.memory.errors import BadFile
from familiar.memory.store import Store
from familiar.memory.types import AdapterVersion, LearningRun
from familiar.memory.users import new_key


@pytest.fixture
def copy(model_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(model_path, tmp_path / "copy.gguf"))


def add_version(store: Store, number: int, base_sha256: str, user: int = 1) -> None:
    run = LearningRun(f"run-{user}-{number}", user, 1.0, "promoted", {}, "f", version=number)
    store.add_run(run)
    parent = number - 1 or None
    folder = f"adapters/{user}/v{number}"
    version = AdapterVersion(user, number, 1.0, folder, parent, base_sha256, "1" * 64, run.id, (), {})
    store.add_version(version, make_current=True)


def test_a_model_is_read_once_until_it_changes(copy: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = base_models.identify(copy, data_dir)
    assert (first.sha256, first.name, first.path) == (file_sha256(copy), "Familiar Base", str(copy))
    with monkeypatch.context() as patched:
        patched.setattr(base_models, "_sha256", lambda parts: pytest.fail("read again"))
        assert base_models.identify(copy, data_dir) == first
    with copy.open("ab") as file:
        file.write(b"more")
    second = base_models.identify(copy, data_dir)
    assert second.sha256 == file_sha256(copy) != first.sha256
    assert base_models.named(first.sha256, data_dir) == first, "what it was is still known by name"
    assert base_models.named("0" * 64, data_dir) is None


def test_a_long_read_is_told(copy: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_models, "SLOW_BYTES", 1)
    said: list[str] = []
    for _ in range(2):
        base_models.identify(copy, data_dir, said.append)
    assert said == ["Reading copy.gguf once, to know which adapters were trained on it."]


@pytest.mark.parametrize("content", ["", "{", '{"models": 3}', '{"models": [{"path": "x"}]}', "[]"])
def test_a_damaged_cache_is_made_anew(content: str, copy: Path, data_dir: Path) -> None:
    cache = data_dir / base_models.CACHE
    cache.write_text(content)
    assert base_models.identify(copy, data_dir).sha256 == file_sha256(copy)
    assert [entry["path"] for entry in json.loads(cache.read_text())["models"]] == [str(copy)]
    assert list(data_dir.iterdir()) == [cache]


def test_a_cache_that_cannot_be_written_is_done_without(copy: Path, tmp_path: Path) -> None:
    assert base_models.identify(copy, tmp_path / "nowhere").sha256 == file_sha256(copy)


def test_a_split_model_has_one_hash_of_all_its_parts(tmp_path: Path, data_dir: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"m-0000{number}-of-00002.gguf").write_bytes(b"GGUF" + bytes([number]))
    (tmp_path / "whole").write_bytes(b"GGUF\x01GGUF\x02")
    first = tmp_path / "m-00001-of-00002.gguf"
    assert base_models.identify(first, data_dir).sha256 == file_sha256(tmp_path / "whole")
    (tmp_path / "m-00002-of-00002.gguf").unlink()
    with pytest.raises(BadFile, match="is missing"):
        base_models.identify(first, data_dir)


def test_the_model_in_service_is_the_services_else_the_configured_one(
    copy: Path, data_dir: Path, model_path: Path
) -> None:
    def path_of(**flags: str) -> str | None:
        base = base_models.in_service(settings.load({"data_dir": data_dir, **flags}, {}))
        return base.path if base else None

    assert path_of() == str(model_path)
    assert path_of(model=str(copy)) == str(copy)
    assert path_of(model=str(copy) + ".gone") is None
    file = data_dir / "service.json"
    with service_record.written(file, "127.0.0.1", 1, copy, "token"):
        assert path_of() == str(copy)
        record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "pid": 2**22 + 1}))
    assert path_of() == str(model_path), "a service that was killed leaves its record"


@pytest.mark.parametrize(
    ("numbers", "written"), [([1], "v1"), ([1, 2, 3], "v1–v3"), ([2, 1, 5], "v1–v2, v5"), ([1, 3, 5], "v1, v3, v5")]
)
def test_numbers_are_written_as_ranges(numbers: list[int], written: str) -> None:
    assert fitting.number_ranges(numbers) == written


def test_each_user_with_versions_of_another_model_is_told_of_them(copy: Path, data_dir: Path, store: Store) -> None:
    old = base_models.identify(copy, data_dir)
    other = store.users.add("ann", new_key(), 1.0).id
    store.users.add("bob", new_key(), 1.0)
    for number in (1, 2, 3):
        add_version(store, number, old.sha256)
    add_version(store, 4, "n" * 64)
    add_version(store, 1, "x" * 64, user=other)
    lines = fitting.unfitting_lines(store, data_dir, "n" * 64)
    assert lines == [
        f"v1–v3 of me were trained on another model (Familiar Base, {copy}): "
        "they are kept, and served again with that model.",
        "v1 of ann was trained on another model: it is kept, and served again with that model.",
    ]
    assert [version.number for version in fitting.fitting_versions(store.versions(1), lambda: "n" * 64)] == [4]


def test_no_hash_is_asked_for_where_there_are_no_versions() -> None:
    assert fitting.fitting_versions([], lambda: pytest.fail("read")) == []


def test_the_version_that_is_served_follows_the_model(copy: Path, data_dir: Path, store: Store) -> None:
    with copy.open("ab") as file:
        file.write(b"another model")
    builtin = settings.load({"data_dir": data_dir}, {})
    swapped = settings.load({"data_dir": data_dir, "model": str(copy)}, {})
    assert fitting.served_version(builtin, store, 1) is None
    for number, served in ((1, builtin), (2, swapped)):
        base = base_models.in_service(served)
        assert base is not None
        add_version(store, number, base.sha256)
    for served, number in ((builtin, 1), (swapped, 2)):
        version = fitting.served_version(served, store, 1)
        assert version is not None
        assert version.number == number


def familiar(data_dir: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("FAMILIAR_")}
    env |= {"XDG_CONFIG_HOME": os.devnull, "FAMILIAR_DATA_DIR": str(data_dir), **variables}
    command = [sys.executable, "-m", "familiar.daemon", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=env, stdin=subprocess.DEVNULL)


def test_a_swap_in_the_configuration_is_told_by_the_commands_and_the_service(
    copy: Path, data_dir: Path, model_path: Path
) -> None:
    with copy.open("ab") as file:
        file.write(bytes(32))  # another model to a hash, the same to llama.cpp
    with Store.open(data_dir / "familiar.db") as store:
        for number in (1, 2):
            add_version(store, number, base_models.identify(model_path, data_dir).sha256)
    shown = familiar(data_dir, "adapters").stdout
    assert re.search(r"^  \* v2 ", shown, re.MULTILINE), shown
    assert "another model" not in shown

    swapped = {"FAMILIAR_MODEL": str(copy)}
    shown = familiar(data_dir, "adapters", **swapped).stdout
    assert shown.count(f"for another model (Familiar Base, {model_path})") == 2, shown
    assert "* base: no version is in service" in shown
    refused = familiar(data_dir, "rollback", "--to", "1", **swapped)
    assert refused.returncode == 1
    assert f"familiar: v1 was trained on another model (Familiar Base, {model_path})" in refused.stderr
    log = data_dir / "logs" / "service.log"
    arguments = ["--data-dir", str(data_dir), "--model", str(copy), "--threads", "1"]
    with local_service.running("127.0.0.1", local_service.free_port("127.0.0.1"), arguments, log):
        # The service's model counts, whatever is configured.
        assert "* base" in familiar(data_dir, "adapters").stdout
    assert (
        f"familiar: v1–v2 of me were trained on another model (Familiar Base, {model_path}): "
        "they are kept, and served again with that model.\n"
    ) in log.read_text(encoding="utf-8")

"""Exports load where they are meant to, and overwrite nothing but themselves."""

import errno
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFWriter
from numpy.typing import NDArray
from transformers import PreTrainedModel

from familiar.adapters import lora, registry
from familiar.adapters.export import export
from familiar.adapters.gate import Report
from familiar.adapters.gguf_lora import to_gguf
from familiar.memory.errors import BadFile, InvalidInput, NoSpace
from familiar.memory.store import Store
from familiar.memory.types import AdapterVersion, LearningRun

Logits = Callable[[Path | None, Sequence[int]], NDArray[np.float32]]


@pytest.fixture
def version(data_dir: Path, tmp_path: Path, random_adapter: Path, model_path: Path) -> Iterator[AdapterVersion]:
    candidate = tmp_path / "candidate"
    shutil.copytree(random_adapter, candidate)
    to_gguf(candidate, candidate / registry.GGUF, model_path)
    with Store.open(data_dir / "familiar.db") as store:
        run = LearningRun("run-1", store.default_user(), 1.0, "running", {}, "fingerprint")
        store.add_run(run)
        yield registry.promote(
            store, data_dir, run, candidate, base_sha256="b", feedback_ids=[], report=Report(True, ()), now=2.0
        )


def test_peft_and_llama_cpp_load_their_exports_and_agree(
    version: AdapterVersion,
    data_dir: Path,
    tmp_path: Path,
    model_path: Path,
    base: PreTrainedModel,
    served_logits: Logits,
    token_ids: list[int],
) -> None:
    peft = export(data_dir, version, "peft", tmp_path / "out" / "peft", model_path)
    gguf = export(data_dir, version, "gguf", tmp_path / "out" / "mine.gguf", model_path)
    with lora.saved_adapter(base, peft) as model, torch.no_grad():
        trained = model(torch.tensor([token_ids])).logits[0].numpy()
    assert np.abs(served_logits(gguf, token_ids) - trained).max() < 0.05
    assert {path.name for path in peft.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
    }
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["mine.gguf", "peft"]


@pytest.mark.parametrize("file_format", ["peft", "gguf"])
def test_an_earlier_export_is_replaced(
    file_format: str, version: AdapterVersion, data_dir: Path, tmp_path: Path, model_path: Path
) -> None:
    for _ in range(2):
        assert export(data_dir, version, file_format, tmp_path / "out", model_path).exists()


@pytest.mark.parametrize("file_format", ["peft", "gguf"])
def test_an_earlier_export_stays_when_the_disk_is_full(
    file_format: str,
    version: AdapterVersion,
    data_dir: Path,
    tmp_path: Path,
    model_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = export(data_dir, version, file_format, tmp_path / "out", model_path)
    before = {path: path.read_bytes() for path in (made.rglob("*") if made.is_dir() else [made])}
    left = {path.name for path in tmp_path.iterdir()}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(NoSpace):
        export(data_dir, version, file_format, tmp_path / "out", model_path)
    assert {path: path.read_bytes() for path in (made.rglob("*") if made.is_dir() else [made])} == before
    assert {path.name for path in tmp_path.iterdir()} == left


@pytest.mark.parametrize("file_format", ["peft", "gguf"])
def test_other_files_are_left_alone(
    file_format: str, version: AdapterVersion, data_dir: Path, tmp_path: Path, model_path: Path
) -> None:
    (tmp_path / "note.txt").write_text("mine")
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.txt").write_text("mine")
    for target in (tmp_path / "note.txt", folder):
        with pytest.raises(InvalidInput) as caught:
            export(data_dir, version, file_format, target, model_path)
        assert caught.value.param == "out"
    assert (tmp_path / "note.txt").read_text() == (folder / "chapter.txt").read_text() == "mine"


def test_an_export_with_something_beside_it_is_left_alone(
    version: AdapterVersion, data_dir: Path, tmp_path: Path, model_path: Path
) -> None:
    out = export(data_dir, version, "peft", tmp_path / "out", model_path)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InvalidInput, match="not an earlier export"):
        export(data_dir, version, "peft", out, model_path)
    assert (out / "notes.txt").read_text() == "mine"


def test_an_empty_folder_may_be_filled(
    version: AdapterVersion, data_dir: Path, tmp_path: Path, model_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    assert (export(data_dir, version, "peft", tmp_path / "out", model_path) / "adapter_config.json").exists()


def test_an_empty_file_may_be_filled(version: AdapterVersion, data_dir: Path, tmp_path: Path, model_path: Path) -> None:
    (tmp_path / "mine.gguf").touch()
    assert export(data_dir, version, "gguf", tmp_path / "mine.gguf", model_path).stat().st_size


@pytest.mark.parametrize("file_format", ["peft", "gguf"])
def test_an_adapter_of_another_model_is_refused(
    file_format: str, version: AdapterVersion, data_dir: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.gguf"
    writer = GGUFWriter(other, "llama")
    writer.add_tensor("token_embd.weight", np.zeros((8, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(BadFile, match=r"no counterpart in other\.gguf"):
        export(data_dir, version, file_format, tmp_path / "out", other)
    assert not (tmp_path / "out").exists()


def test_bad_requests_are_refused(version: AdapterVersion, data_dir: Path, tmp_path: Path, model_path: Path) -> None:
    with pytest.raises(InvalidInput, match="one of peft, gguf, not onnx"):
        export(data_dir, version, "onnx", tmp_path / "out", model_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="cannot be written"):
        export(data_dir, version, "gguf", tmp_path / "file" / "out.gguf", model_path)
    (data_dir / version.folder / registry.GGUF).write_bytes(b"GGUF")
    with pytest.raises(BadFile, match="corrupt"):
        export(data_dir, version, "gguf", tmp_path / "out.gguf", model_path)
    assert not (tmp_path / "out.gguf").exists()

"""The GGUF in torch says what llama.cpp says, and what cannot be loaded is refused in one line."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFWriter
from numpy.typing import NDArray
from transformers import PreTrainedModel

from familiar.adapters import base_model, extras
from familiar.memory.errors import BadFile, MissingExtra

Logits = Callable[[Path | None, Sequence[int]], NDArray[np.float32]]


def test_logits_are_those_of_llama_cpp(base: PreTrainedModel, served_logits: Logits, token_ids: list[int]) -> None:
    with torch.no_grad():
        trained = base(torch.tensor([token_ids])).logits[0].numpy()
    assert np.abs(trained - served_logits(None, token_ids)).max() < 0.02


def test_it_comes_frozen_and_tied(base: PreTrainedModel) -> None:
    assert not base.training
    assert not any(parameter.requires_grad for parameter in base.parameters())
    assert base.get_output_embeddings().weight is base.get_input_embeddings().weight
    assert base.dtype == torch.float32


def test_loading_prints_nothing(model_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    base_model.load(model_path)
    assert capfd.readouterr() == ("", "")


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    writer = GGUFWriter(path, "clip")
    writer.add_tensor("x", np.zeros(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(BadFile, match=r"other\.gguf \(clip\) cannot be loaded for learning"):
        base_model.load(path)


def test_what_is_no_gguf_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="There is no file"):
        base_model.load(tmp_path / "absent.gguf")
    (tmp_path / "text.gguf").write_text("Once upon a time")
    with pytest.raises(BadFile, match="not a GGUF file"):
        base_model.load(tmp_path / "text.gguf")


def test_a_truncated_model_is_refused(model_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "short.gguf"
    path.write_bytes(model_path.read_bytes()[:-100_000])
    with pytest.raises(BadFile, match="cut short"):
        base_model.load(path)


def test_without_the_extra_it_says_what_to_install(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name in ("torch", "peft") else object())
    with pytest.raises(MissingExtra, match=r"needs torch, peft.*familiar-llm\[learn\]"):
        base_model.load(model_path)

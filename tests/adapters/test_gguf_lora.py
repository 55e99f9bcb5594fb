"""A LoRA in torch and its GGUF in llama.cpp are the same adapter, and a damaged one never reaches llama.cpp."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFValueType, GGUFWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from transformers import PreTrainedModel

from familiar.adapters.gguf_file import read_header
from familiar.adapters.gguf_lora import check_adapter, check_lora, to_gguf, to_peft
from familiar.adapters.lora import saved_adapter
from familiar.memory.errors import BadFile

Logits = Callable[[Path | None, Sequence[int]], NDArray[np.float32]]


@pytest.fixture(scope="module")
def gguf(random_adapter: Path, model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "adapter.gguf"
    to_gguf(random_adapter, path, model_path)
    return path


def test_the_adapter_says_the_same_in_both(
    base: PreTrainedModel, random_adapter: Path, gguf: Path, served_logits: Logits, token_ids: list[int]
) -> None:
    plain = served_logits(None, token_ids)
    served = served_logits(gguf, token_ids)
    with saved_adapter(base, random_adapter) as model, torch.no_grad():
        trained = model(torch.tensor([token_ids])).logits[0].numpy()
    assert np.abs(served - plain).max() > 1, "the adapter must matter for the comparison to mean anything"
    assert np.abs(served - trained).max() < 0.05
    assert np.array_equal(served_logits(None, token_ids), plain), "no adapter is the base model, to the bit"


def test_round_trip_is_exact(random_adapter: Path, gguf: Path, model_path: Path, tmp_path: Path) -> None:
    to_peft(gguf, tmp_path / "peft", model_path)
    wanted = load_file(random_adapter / "adapter_model.safetensors")
    got = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    assert got.keys() == wanted.keys()
    assert all(np.array_equal(got[name], wanted[name]) for name in wanted)
    old, new = (json.loads((f / "adapter_config.json").read_text()) for f in (random_adapter, tmp_path / "peft"))
    assert (new["r"], new["lora_alpha"], new["peft_type"]) == (old["r"], old["lora_alpha"], old["peft_type"])
    assert set(new["target_modules"]) == set(old["target_modules"])
    to_gguf(tmp_path / "peft", tmp_path / "again.gguf", model_path)
    assert (tmp_path / "again.gguf").read_bytes() == gguf.read_bytes()


def test_rows_of_q_and_k_are_reordered_and_nothing_else(random_adapter: Path, gguf: Path, model_path: Path) -> None:
    header = read_header(gguf)
    peft = load_file(random_adapter / "adapter_model.safetensors")
    for name, info in header.tensors.items():
        array = np.fromfile(gguf, "<f4", int(np.prod(info.shape)), offset=info.start).reshape(info.shape[::-1])
        kept = any(np.array_equal(array, other) for other in peft.values())
        assert kept != ("attn_q.weight.lora_b" in name or "attn_k.weight.lora_b" in name), name


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999))
def test_a_file_cut_anywhere_is_refused(gguf: Path, model_path: Path, tmp_path: Path, share: float) -> None:
    data = gguf.read_bytes()
    (tmp_path / "cut.gguf").write_bytes(data[: int(share * len(data))])
    with pytest.raises(BadFile):
        check_adapter(tmp_path / "cut.gguf", model_path)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 4000), value=st.integers(0, 255))
def test_a_damaged_header_is_refused_or_harmless(
    gguf: Path, model_path: Path, tmp_path: Path, at: int, value: int
) -> None:
    data = bytearray(gguf.read_bytes())
    data[at] = value
    (tmp_path / "bad.gguf").write_bytes(data)
    try:
        header = check_adapter(tmp_path / "bad.gguf", model_path)
    except BadFile:
        return
    assert header.architecture == "llama"


def test_what_does_not_fit_the_model_is_refused(gguf: Path, model_path: Path, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"adapter\.gguf has no text general\.type|is not a LoRA adapter|no text"):
        check_adapter(model_path, model_path)
    write(tmp_path / "arch.gguf", "qwen3", {"blk.0.attn_q.weight": ((4, 256), (256, 4))})
    with pytest.raises(BadFile, match=r"architecture is qwen3 and the model's llama"):
        check_adapter(tmp_path / "arch.gguf", model_path)
    write(tmp_path / "width.gguf", "llama", {"blk.0.attn_q.weight": ((4, 128), (256, 4))})
    with pytest.raises(BadFile, match="another width"):
        check_adapter(tmp_path / "width.gguf", model_path)
    write(tmp_path / "rank.gguf", "llama", {"blk.0.attn_q.weight": ((4, 256), (256, 8))})
    with pytest.raises(BadFile, match="different ranks"):
        check_adapter(tmp_path / "rank.gguf", model_path)
    write(tmp_path / "layer.gguf", "llama", {"blk.99.attn_q.weight": ((4, 256), (256, 4))})
    with pytest.raises(BadFile, match="no counterpart"):
        check_adapter(tmp_path / "layer.gguf", model_path)
    write(tmp_path / "empty.gguf", "llama", {})
    with pytest.raises(BadFile, match="holds no tensors"):
        check_adapter(tmp_path / "empty.gguf", model_path)


def test_an_alpha_that_llama_cpp_would_abort_on_is_refused(model_path: Path, tmp_path: Path) -> None:
    kinds: list[tuple[GGUFValueType, object]] = [
        (GGUFValueType.FLOAT64, 8.0),
        (GGUFValueType.UINT32, 8),
        (GGUFValueType.STRING, "8"),
        (GGUFValueType.FLOAT32, float("inf")),
    ]
    for kind, value in kinds:
        write(tmp_path / "alpha.gguf", "llama", {"blk.0.attn_q.weight": ((4, 256), (256, 4))}, kind, value)
        with pytest.raises(BadFile, match=r"no usable adapter\.lora\.alpha"):
            check_lora(tmp_path / "alpha.gguf", "llama")


def write(
    path: Path,
    architecture: str,
    tensors: dict[str, tuple[tuple[int, int], tuple[int, int]]],
    alpha_type: GGUFValueType = GGUFValueType.FLOAT32,
    alpha: object = 8.0,
) -> None:
    writer = GGUFWriter(path, architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_key_value("adapter.lora.alpha", alpha, alpha_type)
    for name, (a, b) in tensors.items():
        writer.add_tensor(f"{name}.lora_a", np.zeros(a, np.float32))
        writer.add_tensor(f"{name}.lora_b", np.zeros(b, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_an_adapter_with_nan_is_not_written(random_adapter: Path, model_path: Path, tmp_path: Path) -> None:
    tensors = load_file(random_adapter / "adapter_model.safetensors")
    next(iter(tensors.values()))[0, 0] = np.nan
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text((random_adapter / "adapter_config.json").read_text())
    with pytest.raises(BadFile, match="not finite"):
        to_gguf(tmp_path, tmp_path / "out.gguf", model_path)
    assert not (tmp_path / "out.gguf").exists()


def test_other_kinds_of_adapter_are_refused(random_adapter: Path, model_path: Path, tmp_path: Path) -> None:
    config = json.loads((random_adapter / "adapter_config.json").read_text())
    (tmp_path / "adapter_model.safetensors").write_bytes((random_adapter / "adapter_model.safetensors").read_bytes())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    with pytest.raises(BadFile, match=r"not a plain LoRA \(use_dora\)"):
        to_gguf(tmp_path, tmp_path / "out.gguf", model_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(BadFile, match="not a readable PEFT adapter"):
        to_gguf(tmp_path, tmp_path / "out.gguf", model_path)

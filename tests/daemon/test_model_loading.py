"""Loading with real options: what the engine then runs with, what it says, and that every choice gives tokens."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from gguf.quants import quantize

from familiar.daemon import llama, model_loading
from familiar.daemon.engine_options import CHOICES, EngineOptions, default_threads
from familiar.daemon.llama import Batch, Model, misfit
from familiar.daemon.model_facts import read_facts
from familiar.daemon.model_loading import Loaded
from familiar.daemon.model_parts import model_bytes, model_parts, part_names
from familiar.memory.errors import BadFile, InvalidInput

SMALL = EngineOptions(context_tokens=256, slots=1, threads=1)
fits_processor = pytest.mark.skipif(bool(misfit()), reason=f"llama.cpp was built for a processor with {misfit()}")
"""What would end the process where llama.cpp was built for another processor; that it is refused is tested anywhere."""


@contextmanager
def loaded(path: Path, options: EngineOptions) -> Iterator[Loaded]:
    parts = model_loading.load(path, options)
    try:
        yield parts
    finally:
        parts.context.close()
        parts.model.close()


def next_token(parts: Loaded, text: str = "The capital of France is") -> int:
    """The likeliest token after some text, evaluated in one batch and then one more token."""
    ids = parts.model.vocab.tokenise(text)
    batch = Batch(parts.context.batch_tokens)
    batch.add(0, 0, ids, outputs=1)
    parts.context.decode(batch)
    return int(np.argmax(parts.context.outputs(1)[0]))


@pytest.fixture
def rewrite(model_path: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write the built-in model anew: split into parts, or with its matrices quantised."""

    def write(*, tensors_per_part: int = 0, quantised: bool = False) -> Path:
        reader = GGUFReader(model_path)
        writer = GGUFWriter(tmp_path / "made.gguf", "llama", split_max_tensors=tensors_per_part)
        for field in reader.fields.values():
            if not field.name.startswith("GGUF.") and field.name != "general.architecture":
                writer.add_key_value(field.name, field.contents(), field.types[0], *field.types[1:])
        for tensor in reader.tensors:
            if quantised and len(tensor.shape) == 2 and tensor.tensor_type == GGMLQuantizationType.F16:
                data = quantize(tensor.data.astype(np.float32), GGMLQuantizationType.Q8_0)
                writer.add_tensor(tensor.name, data, raw_dtype=GGMLQuantizationType.Q8_0)
            else:
                writer.add_tensor(tensor.name, tensor.data)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return next(iter(sorted(tmp_path.glob("made*.gguf"))))

    return write


def test_every_automatic_value_is_filled_in(model_path: Path) -> None:
    with loaded(model_path, EngineOptions(slots=2)) as parts:
        assert parts.options == EngineOptions(
            context_tokens=1024,
            slots=2,
            threads=default_threads(),
            batch_tokens=512,
            flash_attention="off" if not parts.model.on_gpu else "auto",
        )
        assert parts.context.batch_tokens == 512


@pytest.mark.parametrize(
    "kv_type",
    [pytest.param(kind, marks=fits_processor) if kind.startswith("q") else kind for kind in CHOICES["kv_type"]],
)
def test_every_type_of_cache_gives_the_same_likeliest_token(model_path: Path, kv_type: str) -> None:
    with loaded(model_path, SMALL) as parts:
        wanted = next_token(parts)
    with loaded(model_path, EngineOptions(context_tokens=256, slots=1, threads=1, kv_type=kv_type)) as parts:
        assert parts.options.flash_attention == ("on" if parts.options.kv_is_quantised else "off")
        assert next_token(parts) == wanted


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(replace(SMALL, flash_attention="on"), marks=fits_processor),
        EngineOptions(context_tokens=256, slots=1, threads=1, mmap=False),
        EngineOptions(context_tokens=256, slots=1, threads=1, mlock=True),
        EngineOptions(context_tokens=256, slots=1, threads=1, batch_tokens=32),
        EngineOptions(context_tokens=256, slots=1, threads=1, gpu_layers=0),
    ],
    ids=["flash_attention", "no mmap", "mlock", "batch_tokens", "gpu_layers"],
)
def test_no_option_changes_what_is_said(model_path: Path, options: EngineOptions) -> None:
    with loaded(model_path, SMALL) as parts:
        wanted = next_token(parts)
    with loaded(model_path, options) as parts:
        assert next_token(parts) == wanted


def test_a_context_is_made_smaller_where_memory_is_short_and_that_is_said(
    model_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kv_bytes = 6 * 2 * (64 + 64) * 2
    free = model_path.stat().st_size + 2 * 4 * kv_bytes * 600
    monkeypatch.setattr(model_loading, "free_memory", lambda: free)
    with caplog.at_level(logging.WARNING, "familiar"), loaded(model_path, EngineOptions()) as parts:
        assert parts.options.context_tokens == 512
    [record] = [each for each in caplog.records if "another processor" not in each.getMessage()]
    said = record.getMessage()
    assert said.startswith("The context is 512 tokens instead of 1024: 4 requests at once")
    assert "context_tokens" in said
    assert "\n" not in said
    caplog.clear()
    with loaded(model_path, EngineOptions(context_tokens=1024)) as parts:
        assert parts.options.context_tokens == 1024, "what is asked for is not second-guessed"
    assert all("another processor" in each.getMessage() for each in caplog.records)


@pytest.mark.parametrize(
    ("gpu_layers", "free"),
    [
        (-1, 900.0),  # of the GPU's alone
        (7, 900.0),  # six layers and the output
        (3, 900.0 / (3 / 7)),  # three sevenths of the cache lie there
        (0, 4_000.0),  # of the machine's, beside the model
    ],
)
def test_the_cache_lies_where_its_layers_do(
    gpu_layers: int, free: float, model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_loading, "free_gpu_memory", lambda: 900)
    model = SimpleNamespace(on_gpu=gpu_layers != 0, architecture="llama")
    machine = 4_000 + model_path.stat().st_size
    metadata = {"llama.block_count": 6}
    found = model_loading._free_for_caches(model, model_path, metadata, gpu_layers, machine)  # type: ignore[arg-type]
    assert found == pytest.approx(free)


def test_what_does_not_fit_the_memory_or_the_model_is_one_clear_line(model_path: Path) -> None:
    with pytest.raises(InvalidInput, match="at most 1024 tokens of context but 1025 were asked for") as caught:
        model_loading.load(model_path, EngineOptions(context_tokens=1025))
    assert caught.value.param == "context_tokens"


def test_a_llama_cpp_for_another_processor_is_told_and_keeps_off_what_would_kill_the_process(
    model_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(llama, "system_info", lambda: "CPU : AVX2 = 1 | AMX_INT8 = 1 | ")
    monkeypatch.setattr(llama, "processor_flags", lambda: frozenset({"avx2"}))
    with caplog.at_level(logging.WARNING, "familiar"), loaded(model_path, SMALL) as parts:
        assert parts.options.flash_attention == "off"
    assert "built for another processor: this one lacks AMX_INT8" in caplog.text
    for options in (EngineOptions(flash_attention="on"), EngineOptions(kv_type="q8_0")):
        with pytest.raises(InvalidInput, match="AMX_INT8, which this one lacks"):
            model_loading.load(model_path, options)


def test_a_quantised_model_for_which_llama_cpp_was_not_built_here_is_refused(
    rewrite: Callable[..., Path], model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama, "system_info", lambda: "CPU : AVX2 = 1 | AVX_VNNI = 1 | AMX_INT8 = 1 | ")
    monkeypatch.setattr(llama, "processor_flags", lambda: frozenset({"avx2"}))
    with pytest.raises(BadFile, match="built for a processor with AVX_VNNI, which this one lacks"):
        Model(rewrite(quantised=True))
    Model(model_path).close()  # its weights are of 16 bits


@fits_processor
def test_a_quantised_model_is_evaluated_in_batches(rewrite: Callable[..., Path], model_path: Path) -> None:
    """On a processor with AMX llama.cpp dies of this, unless told to leave the weights as they are."""
    with loaded(model_path, SMALL) as parts:
        wanted = next_token(parts)
    with loaded(rewrite(quantised=True), SMALL) as parts:
        assert next_token(parts) == wanted


def test_a_split_model_is_loaded_by_its_first_part(rewrite: Callable[..., Path], model_path: Path) -> None:
    first = rewrite(tensors_per_part=20)
    assert first.name == "made-00001-of-00003.gguf"
    assert len(model_parts(first)) == 3
    facts, whole = read_facts(first), read_facts(model_path)
    assert (facts.parameters, facts.architecture) == (whole.parameters, whole.architecture)
    assert facts.size_bytes == model_bytes(first) > whole.size_bytes
    with loaded(model_path, SMALL) as parts:
        wanted = next_token(parts)
    with loaded(first, SMALL) as parts:
        assert next_token(parts) == wanted
    model_parts(first)[2].unlink()
    with pytest.raises(BadFile, match=r"made-00003-of-00003\.gguf is missing"):
        read_facts(first)


def test_names_of_parts() -> None:
    assert part_names("m-Q8_0.gguf") == ["m-Q8_0.gguf"]
    assert part_names("a/m-00002-of-00003.gguf") == [f"a/m-0000{number}-of-00003.gguf" for number in (1, 2, 3)]

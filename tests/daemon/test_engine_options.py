"""The engine's options: what is refused, and what is chosen where nobody said."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
from llama_cpp import llama_cpp as c

from familiar.adapters.gguf_file import read_header
from familiar.daemon.cpu_features import (
    compiled_features,
    missing_features,
    processor_flags,
    processor_name,
    uses_amx,
    uses_tiles,
)
from familiar.daemon.engine_options import (
    CHOICES,
    EngineOptions,
    automatic_context,
    default_threads,
    kv_bytes_per_token,
)
from familiar.daemon.free_memory import free_gpu_memory, free_memory
from familiar.memory.errors import InvalidInput

QWEN3 = {
    "general.architecture": "qwen3",
    "qwen3.block_count": 28,
    "qwen3.embedding_length": 1024,
    "qwen3.attention.head_count": 16,
    "qwen3.attention.head_count_kv": 8,
    "qwen3.attention.key_length": 128,
    "qwen3.attention.value_length": 128,
}
QWEN3_KV_BYTES = 28 * 8 * (128 + 128) * 2
"""Of Qwen3-0.6B's cache, as llama.cpp's own log has it: 896 MiB of f16 for 8192 tokens."""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"context_tokens": -1}, "context_tokens must be at least 0 but is -1"),
        ({"slots": 0}, "slots must be from 1 to 64 but is 0"),
        ({"slots": 65}, "slots must be from 1 to 64 but is 65"),
        ({"threads": 513}, "threads must be from 0 to 512"),
        ({"gpu_layers": -2}, "gpu_layers must be at least -1"),
        ({"queue_limit": 0}, "queue_limit must be from 1"),
        ({"kv_type": "q2"}, "kv_type must be one of f32, f16, .* but is q2"),
        ({"flash_attention": "maybe"}, "flash_attention must be one of auto, on, off but is maybe"),
        ({"slots": 8, "batch_tokens": 7}, "batch_tokens must be at least 8, one for each slot, but is 7"),
        ({"kv_type": "q8_0", "flash_attention": "off"}, "kv_type q8_0 needs flash attention, which is off"),
    ],
)
def test_an_option_that_cannot_be_is_named(options: dict[str, object], expected: str) -> None:
    with pytest.raises(InvalidInput, match=expected) as caught:
        EngineOptions(**options)  # type: ignore[arg-type]
    assert caught.value.param in options


def test_which_caches_are_quantised() -> None:
    quantised = {kv_type for kv_type in CHOICES["kv_type"] if EngineOptions(kv_type=kv_type).kv_is_quantised}
    assert quantised == {"q8_0", "q5_1", "q5_0", "q4_1", "q4_0"}


def test_bytes_per_token_of_the_cache() -> None:
    assert kv_bytes_per_token(QWEN3, "f16") == QWEN3_KV_BYTES
    assert kv_bytes_per_token(QWEN3, "f32") == 2 * QWEN3_KV_BYTES
    assert kv_bytes_per_token(QWEN3, "q8_0") == QWEN3_KV_BYTES / 2 * 34 / 32
    mixed = {**QWEN3, "qwen3.attention.head_count_kv": (0, 0, 0, 8) * 7}
    assert kv_bytes_per_token(mixed, "f16") == QWEN3_KV_BYTES / 4


def test_bytes_per_token_without_head_widths_or_groups(model_path: Path) -> None:
    metadata = dict(read_header(model_path).metadata)
    grouped = kv_bytes_per_token(metadata, "f16")
    assert grouped == 6 * 2 * (64 + 64) * 2  # layers, heads, their width for keys and values, bytes
    del metadata["llama.attention.head_count_kv"]
    assert kv_bytes_per_token(metadata, "f16") == 2 * grouped, "without groups each head has its own"


@pytest.mark.parametrize("metadata", [{}, {"general.architecture": "mamba", "mamba.block_count": 4}])
def test_a_file_that_does_not_say_sets_no_limit(metadata: dict[str, object]) -> None:
    assert kv_bytes_per_token(metadata, "f16") == 0
    assert automatic_context(4096, 4, 0, 0) == 4096


def test_the_automatic_context_is_the_models_up_to_8192_and_half_the_free_memory() -> None:
    plenty = 1e15
    assert automatic_context(1024, 4, QWEN3_KV_BYTES, plenty) == 1024
    assert automatic_context(40_960, 4, QWEN3_KV_BYTES, plenty) == 8192
    exactly = 2 * 4 * QWEN3_KV_BYTES * 8192
    assert automatic_context(40_960, 4, QWEN3_KV_BYTES, exactly) == 8192
    assert automatic_context(40_960, 4, QWEN3_KV_BYTES, exactly - 1) == 8192 - 256
    assert automatic_context(40_960, 2, QWEN3_KV_BYTES, exactly / 2) == 8192
    assert automatic_context(40_960, 4, QWEN3_KV_BYTES, exactly / 4) == 2048
    assert automatic_context(40_960, 4, QWEN3_KV_BYTES, -1.0) == 512
    assert automatic_context(300, 4, QWEN3_KV_BYTES, 0.0) == 300


def test_threads_are_within_the_processors_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {3}, raising=False)
    assert default_threads() == 1


def write_group(folder: Path, limit: str, used: int, inactive_file: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(limit + "\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {inactive_file}\n")


def test_a_containers_limit_counts_wherever_it_is_set(tmp_path: Path) -> None:
    proc = tmp_path / "cgroup"
    root = tmp_path / "sys"
    (root / "a" / "b").mkdir(parents=True)
    machine = free_memory(proc, root)
    assert machine > 1 << 20
    proc.write_text("1:cpu:/\n0::/a/b\n")
    write_group(root / "a" / "b", "max", 5)
    assert free_memory(proc, root) > 1 << 20
    write_group(root / "a", "1000000", 700_000, inactive_file=100_000)
    assert free_memory(proc, root) == 400_000
    write_group(root / "a" / "b", "500000", 400_000)
    assert free_memory(proc, root) == 100_000
    write_group(root / "a" / "b", "500000", 600_000)
    assert free_memory(proc, root) == 0


def test_the_processor_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp's devices are gone through as on a machine that has one."""
    if c.llama_supports_gpu_offload():
        pytest.skip("this llama.cpp was built for a GPU")
    assert free_gpu_memory() is None
    monkeypatch.setattr(c, "llama_supports_gpu_offload", lambda: True)
    assert free_gpu_memory() == 0


INFO = "CPU : SSE3 = 1 | AVX2 = 1 | AVX512 = 1 | AMX_INT8 = 1 | LLAMAFILE = 1 | REPACK = 1 | "


def test_what_llama_cpp_was_built_for_is_compared_with_the_processor(tmp_path: Path) -> None:
    compiled = compiled_features(INFO)
    assert compiled == {"SSE3", "AVX2", "AVX512", "AMX_INT8"}
    cpuinfo = tmp_path / "cpuinfo"
    assert processor_flags(cpuinfo) is None
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu pni avx2 amx_int8\nbugs\t: none\n\nprocessor\t: 1\n")
    flags = processor_flags(cpuinfo)
    assert missing_features(compiled, flags) == ["AVX512"]
    assert missing_features(compiled, None) == []
    assert uses_amx(compiled, flags)
    assert not uses_amx(compiled - {"AMX_INT8"}, flags)
    assert not uses_amx(compiled, frozenset({"pni", "avx2"}))
    assert not uses_amx(compiled, None)


def test_16_bit_weights_are_not_multiplied_in_tiles() -> None:
    f32, f16, q8_0, q4_k, bf16 = 0, 1, 8, 12, 30
    assert not uses_tiles([f32, f16, bf16])
    assert uses_tiles([f32, q8_0])
    assert uses_tiles([f16, q4_k])


def test_a_kind_of_processor_has_a_name_of_its_own(tmp_path: Path) -> None:
    def name(**changed: str) -> str:
        lines = {"processor": "0", "cpu family": "25", "model": "17", "model name": "EPYC", "flags": "fpu avx2"}
        lines |= {"cpu MHz": "2596.1", **{key.replace("_", " "): value for key, value in changed.items()}}
        cpuinfo = tmp_path / "cpuinfo"
        cpuinfo.write_text("".join(f"{key}\t: {value}\n" for key, value in lines.items()) + "\nmodel name\t: other\n")
        return processor_name(cpuinfo)

    assert name().startswith("EPYC ")
    assert name(cpu_MHz="3100.0", processor="1") == name()
    assert len({name(), name(flags="fpu"), name(model="1"), name(model_name="Xeon"), name(cpu_family="6")}) == 5
    assert processor_name(tmp_path / "none")


GIVEN_BACK = """
import psutil
from familiar.daemon.free_memory import give_back
blocks = [bytearray(100_000) for _ in range(1000)]  # too small for pages of their own
kept = blocks[::10]
del blocks
full = psutil.Process().memory_info().rss
give_back()
assert psutil.Process().memory_info().rss < full - 50_000_000, full
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep less of what is freed")
def test_freed_memory_is_given_back() -> None:
    subprocess.run([sys.executable, "-c", GIVEN_BACK], check=True)

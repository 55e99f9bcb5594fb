"""What llama.cpp was compiled for beside what this processor can do, and the two faults that come of a difference.

llama.cpp uses most instructions that its compiler was allowed to, without asking whether the processor has them. A
package that was built on another machine may then kill the process. What is left out: processors other than x86, and
systems other than Linux, where nothing tells both sides and all is assumed to fit.
"""

import hashlib
import platform
import re
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from pathlib import Path

_FLAGS = {
    "SSE3": "pni",
    "SSSE3": "ssse3",
    "AVX": "avx",
    "AVX_VNNI": "avx_vnni",
    "AVX2": "avx2",
    "F16C": "f16c",
    "FMA": "fma",
    "BMI2": "bmi2",
    "AVX512": "avx512f",
    "AVX512_VBMI": "avx512vbmi",
    "AVX512_VNNI": "avx512_vnni",
    "AVX512_BF16": "avx512_bf16",
    "AMX_INT8": "amx_int8",
}
"""llama.cpp's names of instruction sets (``ggml_backend_cpu_get_features``) and Linux's."""

_PLAIN = frozenset({0, 1, 30})
"""ggml's F32, F16 and BF16."""
_TILED = frozenset({2, 3, 8, 12, 13, 14, 23})
"""ggml's Q4_0, Q4_1, Q8_0, Q4_K, Q5_K, Q6_K and IQ4_XS: the types that it multiplies in AMX tiles."""


def compiled_features(system_info: str) -> frozenset[str]:
    """Return the instruction sets in ``llama_print_system_info``'s line: ``CPU : SSE3 = 1 | AVX = 1 | …``."""
    return frozenset(name for name in re.findall(r"(\w+) = 1", system_info) if name in _FLAGS)


def processor_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str] | None:
    """Return the processor's flags as Linux lists them, None where there is no such list."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return frozenset(found[1].split()) if found else None


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return what tells one kind of processor from another: its name where the system says it, and a hash of more."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    first = dict(re.findall(r"^([^\t:]+?)\s*: (.*)$", text.split("\n\n", 1)[0], re.MULTILINE))
    kind = "\n".join(first.get(name, "") for name in ("cpu family", "model", "stepping", "flags"))
    return f"{first.get('model name', platform.machine())} {hashlib.sha256(kind.encode()).hexdigest()[:8]}"


def missing_features(compiled: AbstractSet[str], flags: AbstractSet[str] | None) -> list[str]:
    """Return what llama.cpp was compiled for that the processor lacks, by llama.cpp's names; none when unknown."""
    return [] if flags is None else sorted(name for name in compiled if _FLAGS[name] not in flags)


def kills_quantised(missing: Iterable[str], tensor_types: Iterable[int]) -> list[str]:
    """Return which of the missing instruction sets llama.cpp would use on weights of these ggml types.

    Its code for quantised weights takes whatever it was compiled for; only AMX does it ask the processor for.
    """
    quantised = any(kind not in _PLAIN for kind in tensor_types)
    return [name for name in missing if name != "AMX_INT8"] if quantised else []


def uses_amx(compiled: AbstractSet[str], flags: AbstractSet[str] | None) -> bool:
    """Say whether llama.cpp will lay weights out anew for AMX: it can, and the processor has it."""
    return "AMX_INT8" in compiled and flags is not None and "amx_int8" in flags


def uses_tiles(tensor_types: Iterable[int]) -> bool:
    """Say whether AMX computes with tiles on some of these ggml types; 16-bit weights are laid out anew without."""
    return not _TILED.isdisjoint(tensor_types)

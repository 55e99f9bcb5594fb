"""How much memory there is for a model's caches: the machine's, a container's, or a GPU's. In bytes. And giving back.

What is left out: swap, which is no place for a cache that is read for every token.
"""

import ctypes
import sys
from pathlib import Path

import psutil
from llama_cpp import llama_cpp as c

_GPU_KINDS = (1, 2)  # enum ggml_backend_dev_type: CPU, GPU, integrated GPU, accelerator


def free_memory(proc: Path = Path("/proc/self/cgroup"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return what this process can still take: of the machine's memory, and within its control group's limit."""
    free = int(psutil.virtual_memory().available)
    limit = _control_group_free(proc, cgroups)
    return free if limit is None else min(free, limit)


def give_back() -> None:
    """Hand back to the system what was freed: glibc keeps it, for each thread that it was allocated on."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none, and keep less
        if trim is not None:
            trim(0)


def _control_group_free(proc: Path, cgroups: Path) -> int | None:
    """Return what a Linux control group (v2) and those above it leave; None where none sets a limit.

    Pages of files that nobody uses at the moment count as free: the kernel takes them back first.
    """
    try:
        entry = next(line for line in proc.read_text(encoding="utf-8").splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return None
    group = cgroups / entry.removeprefix("0::").lstrip("/")
    left = []
    for folder in (group, *group.parents):
        try:
            limit = (folder / "memory.max").read_text(encoding="utf-8").strip()
            used = int((folder / "memory.current").read_text(encoding="utf-8"))
            stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="utf-8").splitlines())
            if limit != "max":
                left.append(max(0, int(limit) - used + int(stat.get("inactive_file", 0))))
        except (OSError, ValueError):
            pass  # the root group, and a folder above it, have no such files
        if folder == cgroups:
            break
    return min(left, default=None)


def free_gpu_memory() -> int | None:
    """Return the free memory of all GPUs that llama.cpp was built for together, None where there is none.

    Source: ``ggml-backend.h``, which llama-cpp-python does not bind.
    """
    if not c.llama_supports_gpu_offload():
        return None
    library = ctypes.CDLL(c._lib._name)
    library.ggml_backend_dev_get.restype = ctypes.c_void_p
    library.ggml_backend_dev_get.argtypes = (ctypes.c_size_t,)
    library.ggml_backend_dev_type.argtypes = (ctypes.c_void_p,)
    library.ggml_backend_dev_memory.argtypes = (
        ctypes.c_void_p,
        ctypes.POINTER(ctypes.c_size_t),
        ctypes.POINTER(ctypes.c_size_t),
    )
    library.ggml_backend_dev_count.restype = ctypes.c_size_t
    total = 0
    for number in range(library.ggml_backend_dev_count()):
        device = library.ggml_backend_dev_get(number)
        if library.ggml_backend_dev_type(device) in _GPU_KINDS:
            free, all_of_it = ctypes.c_size_t(), ctypes.c_size_t()
            library.ggml_backend_dev_memory(device, free, all_of_it)
            total += free.value
    return total

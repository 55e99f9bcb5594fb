"""Random LoRA adapters for a model, and a data folder in which each of several users has some.

An adapter covers all seven projections, is F32 as the learner writes them, and changes what the model says; it has
learned nothing. The versions get their rows and folders from the same code that promotes a learned one.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import progress
from gguf import GGUFWriter

from familiar.adapters import registry
from familiar.adapters.folders import file_sha256
from familiar.adapters.gate import Report
from familiar.adapters.gguf_file import read_header
from familiar.memory.store import Store
from familiar.memory.types import LearningRun
from familiar.memory.users import new_key

PROJECTIONS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
STRENGTH = 0.002  # B's standard deviation: the reply changes, and stays within numbers


def write_lora(path: Path, model: Path, *, seed: int, rank: int = 16) -> Path:
    """Write a random adapter for ``model`` to ``path``."""
    base, rng = read_header(model), np.random.default_rng(seed)
    writer = GGUFWriter(path, base.architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(rank))
    for tensor in base.tensors.values():
        if tensor.name.removesuffix(".weight").rpartition(".")[2] in PROJECTIONS:
            inner, outer = tensor.shape
            a = rng.standard_normal((rank, inner), np.float32) / np.float32(np.sqrt(inner))
            b = rng.standard_normal((outer, rank), np.float32) * np.float32(STRENGTH)
            writer.add_tensor(f"{tensor.name}.lora_a", a)
            writer.add_tensor(f"{tensor.name}.lora_b", b)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@dataclass(frozen=True)
class Household:
    """A data folder, the API key of each user (the default one first), and their adapter files."""

    data_dir: Path
    keys: tuple[str, ...]
    files: tuple[tuple[Path, ...], ...]


def make_household(data_dir: Path, model: Path, versions: Sequence[int], *, rank: int = 16) -> Household:
    """Give each user as many adapter versions as ``versions`` says; the first is the default user.

    The last version of each is the current one, which ``familiar`` answers with.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    base_sha256, keys, files, seed = file_sha256(model), [], [], 0
    store = Store.open(data_dir / "familiar.db")
    try:
        for number, count in enumerate(versions):
            key, now = new_key(), time.time()
            if number == 0:
                user_id = store.default_user()
                store.users.add_key(user_id, key, now, replace=False)
            else:
                user_id = store.users.add(f"user{number}", key, now).id
            own = []
            for _ in range(count):
                own.append(_promote(store, data_dir, model, user_id, base_sha256, seed, rank))
                seed += 1
                if seed % 20 == 0:
                    progress(f"  {seed} adapters written")
            keys.append(key)
            files.append(tuple(own))
    finally:
        store.close()
    return Household(data_dir, tuple(keys), tuple(files))


def _promote(store: Store, data_dir: Path, model: Path, user_id: int, base_sha256: str, seed: int, rank: int) -> Path:
    candidate = data_dir / "candidate"
    candidate.mkdir(exist_ok=True)
    write_lora(candidate / registry.GGUF, model, seed=seed, rank=rank)
    for name in registry.PEFT_FILES:
        (candidate / name).write_bytes(b"{}")
    run = LearningRun(
        id=f"run-{seed}", user_id=user_id, created_at=time.time(), state="running", config={}, fingerprint=str(seed)
    )
    store.add_run(run)
    version = registry.promote(
        store,
        data_dir,
        run,
        candidate,
        base_sha256=base_sha256,
        feedback_ids=(),
        report=Report(passed=True, checks=()),
        now=time.time(),
    )
    return data_dir / version.folder / registry.GGUF

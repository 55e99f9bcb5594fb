"""One side of ``learning.py``'s comparison, in a process of its own: ``python learning_job.py JOB.json RESULT.json``.

Nothing heavy is imported before the clock runs, so that imports can be counted, and the peak of the process's memory is
that side's alone.
"""

import time

BEGAN_S = time.monotonic()

import json  # noqa: E402
import os  # noqa: E402
import resource  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
from collections.abc import Iterator, Sequence  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from dataclasses import asdict, dataclass, field  # noqa: E402
from importlib import import_module  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import psutil  # noqa: E402

RUNS = {
    "data": ("learning_quality", "data"),
    "agree": ("learning_quality", "agree"),
    "judge": ("learning_quality", "judge"),
    "familiar.dpo": ("learning_ours", "dpo"),
    "familiar.grpo": ("learning_ours", "grpo"),
    "trl.dpo": ("learning_trl", "dpo"),
    "trl.grpo": ("learning_trl", "grpo"),
}


@dataclass(frozen=True)
class Plan:
    """How much is learnt, and how: the same for both sides."""

    rows: int = 40
    held_out: int = 20
    epochs: int = 8
    batch_size: int = 4
    rank: int = 16
    alpha: int = 32
    learning_rate: float = 5e-4
    beta: float = 0.1
    rounds: int = 6
    prompts: int = 8
    group: int = 8
    max_tokens: int = 48
    policy_learning_rate: float = 5e-4
    preference: str = "sign_off"
    threads: int = 1
    seed: int = 0

    @property
    def groups_per_step(self) -> int:
        """How many of a round's groups one step of GRPO learns from, as ``PolicyStage`` has it."""
        return max(1, self.prompts // 4)


@dataclass(frozen=True)
class Job:
    """What a process is to do: ``kind`` is a key of ``RUNS``, ``variant`` is for it to read, ``folder`` its own."""

    kind: str
    variant: str
    model: Path
    data: Path
    folder: Path
    plan: Plan
    adapters: dict[str, str] = field(default_factory=dict)


class Meter:
    """Seconds by phase, memory and processor time of this process."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.figures: dict[str, Any] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """A phase, whose seconds are added to those that it had."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started

    def imported(self) -> None:
        """All imports of this side are done: what comes now is work."""
        self.seconds["import"] = time.monotonic() - BEGAN_S
        self.figures["imports_mb"] = psutil.Process().memory_info().rss / 1e6
        self._cpu_s = time.process_time()

    def loaded(self) -> None:
        """The base model is there."""
        self.figures["loaded_mb"] = peak_mb()

    def finish(self) -> dict[str, Any]:
        """Everything, ``run_s`` being all seconds but those of imports and of loading the base model."""
        peak = peak_mb()
        run = sum(value for name, value in self.seconds.items() if name not in ("import", "load"))
        return {
            **{f"{name}_s": value for name, value in self.seconds.items()},
            "run_s": run,
            "total_s": run + self.seconds["import"] + self.seconds["load"],
            "cpu_s": time.process_time() - self._cpu_s,
            "peak_mb": peak,
            "added_mb": peak - self.figures["imports_mb"],
            **self.figures,
        }


def peak_mb() -> float:
    """The most memory that this process ever had, in units of a million bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def run(job: Job) -> dict[str, Any]:
    """Do a job in a child process and return what it found; raise RuntimeError with the end of its output."""
    job.folder.mkdir(parents=True, exist_ok=True)
    given, result, log = (job.folder / name for name in ("job.json", "result.json", "log.txt"))
    given.write_text(json.dumps(asdict(job), default=str), encoding="utf-8")
    threads = str(job.plan.threads)
    caches = {"HF_HOME": str(job.folder / "hf"), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
    with log.open("wb") as output:
        done = subprocess.run(
            [sys.executable, __file__, str(given), str(result)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **limits, **caches},
            check=False,
        )
    if done.returncode:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise RuntimeError(f"{job.kind} ({job.variant}) ended with status {done.returncode}:\n{end}")
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return found


def main(arguments: Sequence[str]) -> None:
    """Do the job of a file and write its result."""
    given, result = map(Path, arguments)
    read = json.loads(given.read_text(encoding="utf-8"))
    paths = {name: Path(read[name]) for name in ("model", "data", "folder")}
    job = Job(**{**read, **paths, "plan": Plan(**read["plan"])})
    module, name = RUNS[job.kind]
    found = getattr(import_module(module), name)(job)
    result.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

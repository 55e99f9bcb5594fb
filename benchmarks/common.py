"""What every benchmark shares: its arguments, its report, the machine's facts and progress on stderr.

The report is one JSON object: ``{"figures": {name: value}, "targets": [{"name", "value", "target", "ok"}], "machine":
{…}, "seconds"}``. A missed target is a figure like any other: a script that ran exits 0.
"""

import argparse
import json
import os
import platform
import signal
import sys
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
BUILTIN = ROOT / "daemon" / "models" / "familiar-base.gguf"

Value = float | int | str | bool | None


@dataclass(frozen=True)
class Target:
    """A figure and what is wanted of it; ``ok`` is None where there was nothing to compare."""

    name: str
    value: float | None
    target: str
    ok: bool | None


@dataclass
class Report:
    """The figures of one run, in the order in which they came."""

    started_at: float = field(default_factory=time.monotonic)
    figures: dict[str, Value] = field(default_factory=dict)
    targets: list[Target] = field(default_factory=list)

    def add(self, name: str, value: Value) -> None:
        """Record a figure and show it; floats are kept to four significant digits."""
        self.figures[name] = float(f"{value:.4g}") if isinstance(value, float) else value
        progress(f"  {name} = {self.figures[name]}")

    def at_least(self, name: str, value: float | None, bound: float) -> None:
        """Record whether ``value`` reaches ``bound``; None is a figure that could not be had."""
        self._judge(name, value, f">= {bound:g}", None if value is None else value >= bound)

    def at_most(self, name: str, value: float | None, bound: float) -> None:
        """Record whether ``value`` stays within ``bound``; None is a figure that could not be had."""
        self._judge(name, value, f"<= {bound:g}", None if value is None else value <= bound)

    def _judge(self, name: str, value: float | None, target: str, ok: bool | None) -> None:
        rounded = None if value is None else float(f"{value:.4g}")
        self.targets.append(Target(name, rounded, target, ok))

    def to_dict(self) -> dict[str, object]:
        """The object as it is written."""
        return {
            "figures": self.figures,
            "targets": [asdict(target) for target in self.targets],
            "machine": machine(),
            "seconds": round(time.monotonic() - self.started_at, 1),
        }

    def finish(self, path: Path | None) -> None:
        """Print the report, and write it to ``path`` when one is given."""
        for target in self.targets:
            mark = {True: "met   ", False: "MISSED", None: "no figure"}[target.ok]
            progress(f"{mark} {target.name}: {target.value} (target {target.target})")
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False)
        print(text)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n", encoding="utf-8")


def machine() -> dict[str, Value]:
    """What a figure depends on: processor, cores, memory, load, and the versions that were measured."""
    return {
        "processor": _processor(),
        "architecture": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "cores": psutil.cpu_count(logical=False) or 0,
        "threads": os.cpu_count() or 0,
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "familiar": _version("familiar-llm"),
        "llama_cpp_python": _version("llama-cpp-python"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def progress(line: str) -> None:
    """Show a line on stderr at once."""
    print(line, file=sys.stderr, flush=True)


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark takes; from here on SIGTERM is as Ctrl-C, which ends servers."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report here too")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs: to see that it works")
    return parser

"""Compare Familiar's trainer with TRL's DPOTrainer and GRPOTrainer: the same base, pairs, steps, adapter and threads.

``python benchmarks/learning.py`` makes pairs from the built-in model's own replies (``learning_data.py``), sees that
both sides read the same token ids and compute the same loss, and then runs each side in a process of its own, taking
turns. ``run_s`` is all but imports and loading the base model; ``total_s`` has both. Quality is measured afterwards,
for all adapters alike, on pairs and prompts that neither side saw (``learning_quality.py``).

What each technique brings is told by switching one off at a time (``learning_techniques.py``). The second model has
random weights in the shape of Qwen3-0.6B: a few steps for its speed and memory. What is left out: GPUs.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import learning_job
import psutil
import random_model
from common import Report, arguments, progress
from gguf import GGMLQuantizationType
from learning_data import BUILTIN, PREFERENCES
from learning_job import Job, Plan
from learning_ours import ALL_ON, TRAINER
from learning_ours import VARIANTS as TECHNIQUES
from learning_trl import UPPER_LAYERS
from learning_trl import VARIANTS as TRL_VARIANTS

from familiar.daemon.cpu_features import compiled_features, kills_quantised, missing_features, processor_flags
from familiar.daemon.llama import system_info

FAMILIAR, TRL = "familiar", "trl"
PRECOMPUTED = "trl_precomputed"  # brings nothing in a single epoch
PARTS = ("dpo", "techniques", "grpo")
SMALL_BYTES = 50e6
COLUMNS = ("run_s", "total_s", "cpu_s", "peak_mb", "added_mb", "rollout_s", "steps")
QUALITIES = ("accuracy", "margin", "chosen_logp", "reward", "held_out_reward")

Found = dict[str, dict[str, float]]  # side: figure: value
Line = tuple[str, str, str]  # side, kind, variant


def plan_of(model: Path, args: argparse.Namespace) -> Plan:
    """A real run of a small model, a few steps of a large one."""
    plan = Plan(threads=args.threads, preference=args.preference, seed=args.seed)
    if model.stat().st_size > SMALL_BYTES:
        plan = replace(plan, rows=8, held_out=4, epochs=1, rounds=1, prompts=4, max_tokens=32)
    if args.quick:
        plan = replace(plan, rows=6, held_out=4, epochs=1, rounds=1, prompts=2, group=4, max_tokens=24)
    return replace(plan, rows=args.rows or plan.rows, epochs=args.epochs or plan.epochs)


class Bench:
    """The jobs of one model, and what they found."""

    def __init__(self, label: str, model: Path, plan: Plan, work: Path, repeats: int, report: Report) -> None:
        self.label, self.plan, self.report = label, plan, report
        self._model, self._work, self._repeats = model, work, repeats
        self._jobs = 0

    def run(self, kind: str, variant: str = "", adapters: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Do one job in a process and a folder of its own."""
        self._jobs += 1
        folder = self._work / f"{self._jobs:03d}"
        data = self._work / "data.json"
        return learning_job.run(Job(kind, variant, self._model, data, folder, self.plan, dict(adapters or {})))

    def compare(self, part: str, lines: Sequence[Line], judged: str | None) -> Found:
        """Let the sides take turns, round after round; return each one's median figures, and its quality."""
        runs: dict[str, list[dict[str, Any]]] = {side: [] for side, _, _ in lines}
        for turn in range(self._repeats):
            for side, kind, variant in lines if turn % 2 == 0 else reversed(lines):
                found = self.run(kind, variant)
                runs[side].append(found)
                progress(f"{self.label}.{part}: {side} {found['run_s']:.2f} s, {found['peak_mb']:.0f} MB")
        medians: Found = {}
        for side, results in runs.items():
            names = [name for name, value in results[0].items() if isinstance(value, float | int)]
            medians[side] = {name: float(median(result[name] for result in results)) for name in names}
        if judged:
            adapters = {side: str(results[-1]["adapter"]) for side, results in runs.items()}
            for side, figures in self.run("judge", judged, adapters).items():
                medians.setdefault(side, {}).update(figures)
        for side, figures in medians.items():
            for name, value in figures.items():
                self.report.add(f"{self.label}.{part}.{side}.{name}", value)
        return medians

    def ratios(self, part: str, found: Found) -> None:
        """Add every other side's figure by Familiar's: above 1 is slower or larger than Familiar."""
        for side, figures in found.items():
            for name in COLUMNS[:-1]:
                if side != FAMILIAR and (value := over(found, name, side, FAMILIAR)) is not None and name in figures:
                    self.report.add(f"{self.label}.{part}.ratio.{name}.{side}/{FAMILIAR}", value)


def over(found: Found, name: str, top: str, bottom: str) -> float | None:
    """One side's figure by another's; None where either has none."""
    above, below = found.get(top, {}).get(name), found.get(bottom, {}).get(name)
    return above / below if above is not None and below else None


def table(title: str, found: Found, base: str) -> None:
    """Show the sides as lines, with the ratio of their seconds to those of ``base``."""
    columns = [name for name in (*COLUMNS, *QUALITIES) if any(name in figures for figures in found.values())]
    wide = max(map(len, found)) + 2
    progress("\n" + title)
    progress(" " * wide + "".join(f"{name:>17}" for name in columns) + f"{'run / ' + base:>17}")
    for side, figures in found.items():
        cells = "".join(f"{figures[name]:>17.4g}" if name in figures else " " * 17 for name in columns)
        times = over(found, "run_s", side, base)
        progress(f"{side:<{wide}}{cells}" + (f"{times:>17.2f}" if times is not None else ""))
    progress("")


def dpo(bench: Bench, *, small: bool) -> None:
    """The DPO run, against TRL as it is and in its variants."""
    bfloat16 = has_bfloat16()
    lines: list[Line] = [(FAMILIAR, "familiar.dpo", TRAINER)]
    lines += [(name, "trl.dpo", name) for name in TRL_VARIANTS if small or name != PRECOMPUTED]
    found = bench.compare(
        "dpo", [line for line in lines if bfloat16 or line[0] != "trl_bfloat16"], "dpo" if small else None
    )
    bench.ratios("dpo", found)
    table(f"{bench.label}: DPO", found, FAMILIAR)
    report, label = bench.report, bench.label
    report.at_least(f"{label}: DPO, seconds of the run, {TRL} / {FAMILIAR}", over(found, "run_s", TRL, FAMILIAR), 5)
    if small:
        difference = found[FAMILIAR]["accuracy"] - found[TRL]["accuracy"]
        report.at_least(f"{label}: DPO, held-out accuracy, {FAMILIAR} - {TRL}", difference, 0)
    memory(bench, "DPO", found)


def memory(bench: Bench, what: str, found: Found) -> None:
    """The targets of memory: the whole process, and what it took beyond its imports."""
    for name, said in (("peak_mb", "peak memory"), ("added_mb", "memory beyond imports")):
        value = over(found, name, FAMILIAR, TRL)
        bench.report.at_most(f"{bench.label}: {what}, {said}, {FAMILIAR} / {TRL}", value, 0.5)


def techniques(bench: Bench, *, small: bool) -> None:
    """The same steps with one technique off at a time, as factors of the seconds with all on."""
    names = [name for name, each in TECHNIQUES.items() if has_bfloat16() or not each.bfloat16]
    found = bench.compare("techniques", [(name, "familiar.dpo", name) for name in names], "dpo" if small else None)
    for name in names:
        for figure in ("run_s", "train_s", "peak_mb"):
            factor = over(found, figure, name, ALL_ON)
            bench.report.add(f"{bench.label}.techniques.ratio.{figure}.{name}/{ALL_ON}", factor)
    table(f"{bench.label}: what each technique brings to DPO", found, ALL_ON)


def grpo(bench: Bench, *, small: bool) -> None:
    """The GRPO run, rollouts included."""
    lines: list[Line] = [(FAMILIAR, "familiar.grpo", TRAINER)]
    lines += [(name, "trl.grpo", name) for name in (TRL, "trl_checkpointed", UPPER_LAYERS)]
    found = bench.compare("grpo", lines, "grpo" if small else None)
    bench.ratios("grpo", found)
    table(f"{bench.label}: GRPO", found, FAMILIAR)
    for name, said in (("run_s", "seconds of the run"), ("rollout_s", "seconds of rollouts")):
        value = over(found, name, TRL, FAMILIAR)
        bench.report.at_least(f"{bench.label}: GRPO, {said}, {TRL} / {FAMILIAR}", value, 10)
    memory(bench, "GRPO", found)


def has_bfloat16() -> bool:
    """Tell whether the processor computes in bfloat16, where the system says what it can."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return any(name in flags for name in ("avx512_bf16", "amx_bf16", " bf16"))


def takes_quantised() -> bool:
    """Tell whether the installed llama.cpp can compute with quantised weights on this processor."""
    missing = missing_features(compiled_features(system_info()), processor_flags())
    return not (missing and kills_quantised(missing, {GGMLQuantizationType.Q8_0.value}))


def run_model(label: str, model: Path, work: Path, args: argparse.Namespace, report: Report) -> None:
    """All parts on one model."""
    plan, small = plan_of(model, args), model == BUILTIN
    progress(f"{label}: {model.name}, {plan}")
    bench = Bench(label, model, plan, work, args.repeats or (3 if small and not args.quick else 1), report)
    bench.run("data")
    for name, value in bench.run("agree", TRL).items():
        report.add(f"{label}.{name}", value)
    parts = {"dpo": dpo, "techniques": techniques, "grpo": grpo}
    for part in args.parts:
        parts[part](bench, small=small)


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument("--model", type=Path, action="append", metavar="GGUF", help="instead of the two; repeatable")
    parser.add_argument("--threads", type=int, default=psutil.cpu_count(logical=False) or 1)
    parser.add_argument("--rows", type=int, help="pairs to train on: 40 of the built-in model, 8 of another")
    parser.add_argument("--epochs", type=int, help="passes over them: 8 of the built-in model, 1 of another")
    parser.add_argument("--repeats", type=int, help="runs of each side: 3 of the built-in model, 1 of another")
    parser.add_argument("--preference", choices=PREFERENCES, default="sign_off", help="what the user wants of replies")
    parser.add_argument("--parts", type=lambda text: text.split(","), default=list(PARTS), help=",".join(PARTS))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"--parts: there is no {', '.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    missing = [name for name in ("torch", "peft", "trl", "datasets") if find_spec(name) is None]
    if missing:
        sys.exit(f"learning: not installed: {', '.join(missing)}: pip install '.[dev]'")
    models = {path.stem: path.resolve() for path in args.model or ()}
    if not models:
        other = ("random-x0.1", 0.1) if args.quick else ("random-0.6b", 1.0)
        models = {"builtin": BUILTIN, other[0]: random_model.ensure(other[1], half=not takes_quantised())}
    report = Report()
    with tempfile.TemporaryDirectory(prefix="familiar-learning-") as folder:
        for label, model in models.items():
            work = Path(folder) / label
            work.mkdir()
            try:
                run_model(label, model, work, args, report)
            except RuntimeError as error:
                report.add(f"{label}.failed", str(error))
    report.finish(args.json)


if __name__ == "__main__":
    main()

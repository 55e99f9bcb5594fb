"""What ``personal.py`` found, as rows of a JSON-lines file, and the figures and intervals of all rows. Pure but for it.

A row is written when one experiment with one person is over, so a run that is cut off goes on from there. An interval
is the middle 95 % of bootstrap means: of each preference the seeds are drawn anew, with replacement. It says how the
figure would move with other prompts and other draws, not with other preferences, which are what they are.
"""

import json
import os
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from common import Report

Row = Mapping[str, Any]
DRAWS = 2000
ARMS = ("base", "memory", "adapter", "both")
FOLLOWED = 0.5
"""A wish that is followed less than this was not learnt: what it costs to learn it, or is left of it, means nothing."""


def key(row: Row) -> tuple[str, int, str, str]:
    """What a row is of: the experiment, the seed, the preference, and all settings that it depends on."""
    return row["experiment"], row["seed"], row["preference"], json.dumps(row["settings"], sort_keys=True)


def read(path: Path) -> list[Row]:
    """The rows of a file; a last line that was cut off is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def append(path: Path, row: Row) -> None:
    """Add a row, on the disk when this returns; after half a line, on a line of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(row, ensure_ascii=False) + "\n"
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            text = text if file.read(1) == b"\n" else "\n" + text
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def tell(report: Report, rows: Sequence[Row]) -> None:
    """Add every figure of the rows and judge the targets."""
    of: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of[row["experiment"]].append(row)
    report.add("preferences", len({row["preference"] for row in of["curve"]}))
    report.add("seeds", len({row["seed"] for row in rows}))
    _tell_curves(report, of["curve"])
    _tell_chain(report, of["chain"])
    _tell_policy(report, of["policy"])
    _tell_distillation(report, of["distillation"])


def _tell_curves(report: Report, rows: Sequence[Row]) -> None:
    finals = {arm: _add_curve(report, f"adherence.{arm}", rows, arm) for arm in ARMS}
    drifting = [row for row in rows if row["drifts"]]
    for arm in ARMS:
        _add_curve(report, f"drifting.adherence.{arm}", drifting, arm)
    for name in dict.fromkeys(row["preference"] for row in rows):
        for arm in ARMS:
            those = [row for row in rows if row["preference"] == name]
            report.add(f"preference.{name}.{arm}", fmean(row["rounds"][-1]["adherence"][arm] for row in those))
    kept = {arm: _add(report, f"general_kept.{arm}", rows, _at("general_kept", arm)) for arm in ARMS[1:]}
    _add(report, "corrections", rows, _at("rounds", -1, "corrections"))
    runs = [each["learned"] for row in rows for each in row["rounds"] if each["learned"]]
    report.add("learning_runs", len(runs))
    report.add("gate.passed", fmean(run["passed"] for run in runs) if runs else None)
    for check in sorted({name for run in runs for name in run["failed"]}):
        report.add(f"gate.failed.{check}", fmean(check in run["failed"] for run in runs))
    if runs:
        report.add("learning_seconds", fmean(sum(run["seconds"].values()) for run in runs))
    report.at_most("adherence before, weights alone", finals["base"], 0.25)
    report.at_least("adherence after, weights alone", finals["adapter"], 0.85)
    report.at_least("adherence after, weights and memory", finals["both"], 0.95)
    for arm in ("adapter", "both"):
        report.at_least(f"general answers kept, {arm}", kept[arm], 0.99)


def _add_curve(report: Report, name: str, rows: Sequence[Row], arm: str) -> float | None:
    """Add the mean of every round with its interval; return the last round's."""
    last = None
    for at in sorted({each["after"] for row in rows for each in row["rounds"]}):
        those = [row for row in rows if any(each["after"] == at for each in row["rounds"])]

        def adherence(row: Row, at: int = at) -> float:
            return float(next(each["adherence"][arm] for each in row["rounds"] if each["after"] == at))

        last = _add(report, f"{name}.after_{at}", those, adherence)
    return last


def _tell_chain(report: Report, rows: Sequence[Row]) -> None:
    for arm in ARMS:
        for number in range(max((len(row["phases"]) for row in rows), default=0)):
            name = f"chain.first.{arm}.after_{number + 1}"
            _add(report, name, rows, _at("phases", number, "adherence", arm, 0))
    found = {}
    for arm in ARMS[1:]:
        learnt = [row for row in rows if _shares_left(row, arm)]
        report.add(f"chain.learnt.{arm}", fmean(len(_shares_left(row, arm)) for row in rows) if rows else None)
        found[arm] = _add(report, f"chain.kept.{arm}", learnt, _kept(arm))
    for arm in ("adapter", "both"):
        report.at_least(f"earlier preferences kept, {arm}", found[arm], 0.95)


def _tell_policy(report: Report, rows: Sequence[Row]) -> None:
    for name in dict.fromkeys(row["preference"] for row in rows):
        those = [row for row in rows if row["preference"] == name]
        for arm in ("dpo", "grpo"):
            report.add(f"policy.{name}.{arm}", fmean(row[arm]["adherence"] for row in those))
    for figure in ("adherence", "general_kept", "kl"):
        for arm in ("dpo", "grpo"):
            _add(report, f"policy.{arm}.{figure}", rows, _at(arm, figure))
    gain = _add(report, "policy.gain", rows, _less(_at("grpo", "adherence"), _at("dpo", "adherence")))
    report.at_least("adherence by GRPO over DPO alone", gain, 0.001)


def _tell_distillation(report: Report, rows: Sequence[Row]) -> None:
    learnt = [row for row in rows if row["matched"]["level"] >= FOLLOWED]
    report.add("distillation.learnt_by_both", len(learnt) / len(rows) if rows else None)
    for arm in ("sft", "distilled"):
        for figure in ("adherence", "general_kept", "kl"):
            _add(report, f"distillation.{arm}.{figure}", rows, _at(arm, figure))
            _add(report, f"distillation.at_equal_adherence.{arm}.{figure}", learnt, _at("matched", arm, figure))
    gains = {
        figure: _less(_at("matched", "distilled", figure), _at("matched", "sft", figure))
        for figure in ("general_kept", "kl")
    }
    gain = _add(report, "distillation.general_kept_gain", learnt, gains["general_kept"])
    kl = _add(report, "distillation.kl_gain", learnt, gains["kl"])
    report.at_least("general answers kept by self-distillation over SFT, at equal adherence", gain, 0.0)
    report.at_most("KL of other replies by self-distillation over SFT, at equal adherence", kl, 0.0)


def _at(*path: str | int) -> Callable[[Row], float]:
    """What stands in a row at the end of a path of keys and places."""

    def value(row: Row) -> float:
        found: Any = row
        for step in path:
            found = found[step]
        return float(found)

    return value


def _less(more: Callable[[Row], float], less: Callable[[Row], float]) -> Callable[[Row], float]:
    return lambda row: more(row) - less(row)


def _kept(arm: str) -> Callable[[Row], float]:
    return lambda row: fmean(_shares_left(row, arm))


def _shares_left(row: Row, arm: str) -> list[float]:
    """Of how much each wish but the last was followed when it was new, the share left in the end, where it was."""
    new = [phase["adherence"][arm][number] for number, phase in enumerate(row["phases"][:-1])]
    left = row["phases"][-1]["adherence"][arm]
    return [min(1.0, now / before) for before, now in zip(new, left, strict=False) if before >= FOLLOWED]


def _add(report: Report, name: str, rows: Sequence[Row], value: Callable[[Row], float]) -> float | None:
    """Add a mean over rows, each preference counting alike, and its interval where there are seeds to draw from."""
    groups: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        groups[row["preference"]].append(value(row))
    if not groups:
        return None
    mean = fmean(map(fmean, groups.values()))
    report.add(name, mean)
    if max(map(len, groups.values())) > 1:
        low, high = interval(list(groups.values()))
        report.add(f"{name}.low", low)
        report.add(f"{name}.high", high)
    return mean


def interval(groups: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The middle 95 % of the means of bootstrap draws within each group."""
    chance = random.Random(0)
    means = sorted(fmean(fmean(chance.choices(group, k=len(group))) for group in groups) for _ in range(DRAWS))
    return means[round(0.025 * (DRAWS - 1))], means[round(0.975 * (DRAWS - 1))]

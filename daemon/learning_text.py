"""Learning in words, for a terminal: what a run would be, and how it stands. Pure."""

import time
from collections.abc import Mapping
from typing import Any

_GIGABYTE = 1e9
_KINDS = {"job": "a fine-tuning job", "asked": "as asked", "schedule": "by the schedule", "terminal": "in a terminal"}
_PAUSED = {"chat": "paused while the model is in use", "asked": "paused, until it is resumed"}


def preview_lines(facts: Mapping[str, Any]) -> list[str]:
    """The facts of ``learning_preview.preview``, a line each."""
    lines = [
        f"user         {facts['user']}",
        f"given        {facts['corrections']} corrections, {facts['ratings']} ratings",
        f"remembered   {facts['rules']} rules, {facts['facts']} facts, {facts['graders']} graders",
        f"new          {facts['new_signals']} of these signals since the last run",
    ]
    if facts["habits"]:
        lines.append(f"habits       replies are to {'; to '.join(facts['habits'])}")
    if facts["train"] is not None:
        lines.append(f"parted       {facts['train']} to learn from, {facts['held_out']} to judge by")
    if facts["memory_bytes"] is not None:
        minutes = max(1, round(facts["seconds"] / 60))
        minutes_word = "minutes" if minutes > 1 else "minute"
        gigabytes = facts["memory_bytes"] / _GIGABYTE
        lines.append(
            f"needs        about {gigabytes:.1f} GB of memory and {minutes} {minutes_word}, by a rough estimate"
        )
    if facts["last_run"]:
        lines.append(f"last run     {_run(facts['last_run'])}")
    lines.append(
        f"would not    {facts['cannot']}" if facts["cannot"] else "would learn  `familiar learn` begins such a run."
    )
    return lines


def status_lines(facts: Mapping[str, Any]) -> list[str]:
    """The answer of ``GET /v1/learning``, a line each."""
    run = facts["run"]
    if run:
        state = _PAUSED.get(run["paused_by"] or "", "running")
        lines = [f"learning     {state}, {_KINDS[run['kind']]}, {run['active_seconds']:.0f} s of work so far"]
        if run["phase"]:
            done = "" if run["total"] is None else f", {run['done']} of {run['total']}"
            lines.append(f"phase        {run['phase']}{done}")
    else:
        lines = [f"learning     not now: {facts['reason']}"]
        if facts["next_at"]:
            lines.append(f"not before   {_when(facts['next_at'])}")
    lines.append(f"schedule     {facts['schedule']}")
    lines.append(f"signals      {facts['new_signals']} new, {facts['needed_signals']} needed for a run by itself")
    if facts["last_run"]:
        lines.append(f"last run     {_run(facts['last_run'])}")
    if facts["last_message"]:
        lines.append(f"it said      {facts['last_message']}")
    return lines


def _run(run: Mapping[str, Any]) -> str:
    version = f" as v{run['version']}" if run["version"] else ""
    why = f": {run['error']}" if run["error"] else ""
    return f"{run['state']}{version}, begun {_when(run['created'])}{why}"


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))

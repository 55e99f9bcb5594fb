"""What of each table goes into an export, and in which form. Pure.

Left out: ids of users (an export is one user's), row numbers, API keys, vectors and reference figures, which are
computed again, which memories a version follows untold, which is measured again and until then they are shown, the
process of a run, and the place of an adapter's files, which follows from its number.
"""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Table:
    """One table of an export.

    ``columns`` gives each column's type: t text, r number, i whole number, j JSON, s list of JSON values; a capital may
    be null. ``same`` are the columns by which a row of the store is known as the one of an export. ``order`` is the
    column that rows are written by.
    """

    columns: Mapping[str, str]
    same: tuple[str, ...]
    order: str = "seq"

    def stored(self, column: str) -> str:
        """A column's name in the store."""
        return f"{column}_json" if self.columns[column] in "jJ" else column


TABLES: dict[str, Table] = {
    "conversations": Table({"id": "t", "created_at_s": "r"}, ("created_at_s",)),
    "learning_runs": Table(
        {
            "id": "t",
            "created_at_s": "r",
            "state": "t",
            "config": "j",
            "fingerprint": "t",
            "ended_at_s": "R",
            "version": "I",
            "error": "T",
            "report": "J",
        },
        ("created_at_s", "fingerprint"),
    ),
    "adapter_versions": Table(
        {
            "number": "i",
            "created_at_s": "r",
            "parent": "I",
            "base_sha256": "t",
            "gguf_sha256": "t",
            "run_id": "t",
            "report": "j",
            "feedback_ids": "s",
        },
        ("created_at_s", "gguf_sha256"),
        "number",
    ),
    "exchanges": Table(
        {
            "id": "t",
            "created_at_s": "r",
            "conversation_id": "T",
            "history_sha256": "t",
            "model": "t",
            "messages": "j",
            "completion": "t",
            "adapter_version": "I",
            "used": "s",
            "sampling": "j",
            "prompt_tokens": "i",
            "completion_tokens": "i",
            "finish_reason": "t",
            "duration_ms": "r",
        },
        ("created_at_s", "model", "messages", "completion"),
    ),
    "feedback": Table(
        {
            "id": "t",
            "created_at_s": "r",
            "kind": "t",
            "exchange_id": "T",
            "text": "T",
            "rating": "I",
            "note": "T",
            "source": "t",
            "trust": "t",
            "state": "t",
            "key": "T",
        },
        ("created_at_s", "kind", "exchange_id", "text", "rating", "note"),
    ),
    "memories": Table(
        {
            "id": "t",
            "created_at_s": "r",
            "kind": "t",
            "text": "t",
            "prompt": "T",
            "feedback_id": "T",
            "scope": "t",
            "conversation_id": "T",
            "pinned": "i",
            "source": "t",
            "state": "t",
            "superseded_by": "T",
            "ended_at_s": "R",
            "uses": "i",
            "last_used_at_s": "R",
        },
        ("kind", "text", "prompt", "conversation_id"),
    ),
    "graders": Table(
        {"id": "t", "created_at_s": "r", "name": "t", "definition": "j", "memory_id": "T"},
        ("created_at_s", "name", "definition", "memory_id"),
        "id",
    ),
    "probes": Table(
        {
            "created_at_s": "r",
            "memory_id": "t",
            "adapter_version": "I",
            "shown": "i",
            "prompt": "t",
            "completion": "t",
            "followed": "r",
        },
        ("created_at_s", "memory_id", "adapter_version", "shown", "prompt", "completion", "followed"),
    ),
    "files": Table(
        {"id": "t", "created_at_s": "r", "filename": "t", "purpose": "t"}, ("created_at_s", "filename", "purpose")
    ),
    "fine_tuning_jobs": Table(
        {
            "id": "t",
            "created_at_s": "r",
            "state": "t",
            "model": "t",
            "base_sha256": "t",
            "name": "t",
            "training_file": "t",
            "validation_file": "T",
            "suffix": "T",
            "seed": "i",
            "method": "j",
            "metadata": "J",
            "finished_at_s": "R",
            "estimated_finish_s": "R",
            "fine_tuned_model": "T",
            "trained_tokens": "I",
            "result_file": "T",
            "error": "J",
        },
        ("created_at_s", "name"),
    ),
    "fine_tuning_events": Table(
        {
            "id": "t",
            "job_id": "t",
            "created_at_s": "r",
            "level": "t",
            "type": "t",
            "message": "t",
            "data": "j",
        },
        ("job_id", "created_at_s", "message"),
    ),
    "fine_tuning_checkpoints": Table(
        {"id": "t", "job_id": "t", "created_at_s": "r", "step": "i", "model": "t", "metrics": "j"},
        ("job_id", "step"),
    ),
    "fine_tuned_models": Table(
        {"id": "t", "job_id": "t", "created_at_s": "r", "step": "i", "base_sha256": "t", "gguf_sha256": "t"},
        ("job_id", "step", "gguf_sha256"),
    ),
}
"""In the order in which they are written: what is referred to comes first."""

REFERENCES: dict[tuple[str, str], str] = {
    ("learning_runs", "version"): "adapter_versions",
    ("adapter_versions", "parent"): "adapter_versions",
    ("adapter_versions", "run_id"): "learning_runs",
    ("exchanges", "conversation_id"): "conversations",
    ("exchanges", "adapter_version"): "adapter_versions",
    ("feedback", "exchange_id"): "exchanges",
    ("memories", "feedback_id"): "feedback",
    ("memories", "conversation_id"): "conversations",
    ("graders", "memory_id"): "memories",
    ("probes", "memory_id"): "memories",
    ("probes", "adapter_version"): "adapter_versions",
    ("fine_tuning_jobs", "training_file"): "files",
    ("fine_tuning_jobs", "validation_file"): "files",
    ("fine_tuning_jobs", "result_file"): "files",
    ("fine_tuning_events", "job_id"): "fine_tuning_jobs",
    ("fine_tuning_checkpoints", "job_id"): "fine_tuning_jobs",
    ("fine_tuned_models", "job_id"): "fine_tuning_jobs",
}
"""The columns that name a row of another table; what only keeps a name (``schema``) is followed too."""

REQUIRED = frozenset(REFERENCES) - {
    ("learning_runs", "version"),
    ("exchanges", "adapter_version"),
    ("probes", "adapter_version"),
    ("fine_tuning_jobs", "training_file"),
    ("fine_tuning_jobs", "validation_file"),
    ("fine_tuning_jobs", "result_file"),
}
"""Those whose row must be there."""

_TYPES: dict[str, tuple[type, ...]] = {"t": (str,), "r": (int, float), "i": (int,), "j": (dict, list), "s": (list,)}
_NAMES = {"t": "text", "r": "a number", "i": "a whole number", "j": "JSON", "s": "a list"}


def exported(table: str, row: sqlite3.Row) -> dict[str, Any]:
    """A row of the store, selected with ``used_json`` and ``feedback_ids_json`` where there are any, as exported."""
    values: dict[str, Any] = {}
    for column, kind in TABLES[table].columns.items():
        value = row[f"{column}_json" if kind in "jJs" else column]
        values[column] = json.loads(value) if kind in "jJs" and value is not None else value
    return values


def problem(table: str, values: Mapping[str, Any]) -> str | None:
    """What is wrong with a row of an export, if anything: a column missing or one too many, a value of another type."""
    columns = TABLES[table].columns
    for column in [*columns, *values]:
        if column not in columns:
            return f"{table} have no {column}"
        if column not in values:
            return f"{column} is missing"
        kind, value = columns[column], values[column]
        if value is None and kind.isupper():
            continue
        if isinstance(value, bool) or not isinstance(value, _TYPES[kind.lower()]):
            return f"{column} is not {_NAMES[kind.lower()]}"
    return None

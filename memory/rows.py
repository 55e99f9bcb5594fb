"""Between a row of a table and the frozen value that it holds. Pure; the SQL is in the modules by table."""

import hashlib
import json
import math
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar

from familiar.memory.types import AdapterVersion, Exchange, Feedback, LearningRun, Memory, StoredGrader, Used
from familiar.memory.words import same_text_key

T = TypeVar("T")

_TIMES = frozenset({"created_at", "ended_at", "last_used_at", "finished_at", "estimated_finish"})


def to_json(value: object) -> str:
    """``value`` as JSON text, readable as stored. JSON has no NaN or infinity: they become null."""
    return json.dumps(_finite(value), ensure_ascii=False)


def from_json(text: str | None) -> Any:
    """What ``to_json`` wrote, None where nothing was."""
    return None if text is None else json.loads(text)


def content_sha256(memory: Memory) -> str:
    """Names what a memory says, whoever says it when: equal for the same kind, prompt and text, spelt alike.

    One that is meant for a single conversation is another than the same words meant for all, or for another one.
    """
    prompt = None if memory.prompt is None else same_text_key(memory.prompt)
    only_in = memory.conversation_id if memory.scope == "conversation" else None
    said = json.dumps([memory.kind, prompt, same_text_key(memory.text), only_in])
    return hashlib.sha256(said.encode()).hexdigest()


def value(kind: Callable[..., T], row: sqlite3.Row, **read: Any) -> T:
    """A row as a frozen value: each field but those ``read`` is the column of its name, with ``_s`` behind a time."""
    stored = {name: row[column] for name, column in _columns(kind) if name not in read}
    return kind(**stored, **read)


def exchange(row: sqlite3.Row) -> Exchange:
    """The exchange of a row of ``exchanges`` with ``used_json``: the id, reason and score of each memory shown."""
    used = tuple(Used(*used) for used in json.loads(row["used_json"]))
    messages = tuple(json.loads(row["messages_json"]))
    return value(Exchange, row, messages=messages, used=used, sampling=json.loads(row["sampling_json"]))


def feedback(row: sqlite3.Row) -> Feedback:
    """The signal of a row of ``feedback``."""
    return value(Feedback, row)


def memory(row: sqlite3.Row) -> Memory:
    """The memory of a row of ``memories``."""
    return value(Memory, row, pinned=bool(row["pinned"]))


def grader(row: sqlite3.Row) -> StoredGrader:
    """The grader of a row of ``graders``."""
    return value(StoredGrader, row, definition=json.loads(row["definition_json"]))


def run(row: sqlite3.Row) -> LearningRun:
    """The run of a row of ``learning_runs``."""
    report = from_json(row["report_json"])
    return value(LearningRun, row, config=json.loads(row["config_json"]), report=report)


def version(row: sqlite3.Row) -> AdapterVersion:
    """The version of a row of ``adapter_versions`` with ``feedback_ids_json`` beside it."""
    ids = tuple(json.loads(row["feedback_ids_json"]))
    return value(AdapterVersion, row, feedback_ids=ids, report=json.loads(row["report_json"]))


@cache
def _columns(kind: Any) -> tuple[tuple[str, str], ...]:
    """The fields of a dataclass, and the columns that hold them."""
    return tuple((each.name, f"{each.name}_s" if each.name in _TIMES else each.name) for each in fields(kind))


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_finite(item) for item in value]
    return value

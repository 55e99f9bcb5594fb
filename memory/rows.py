"""Between a row of a table and the frozen value that it holds. Pure; the SQL is in the modules by table."""

import hashlib
import json
import math
import sqlite3
from collections.abc import Mapping, Sequence

from familiar.memory.types import AdapterVersion, Exchange, Feedback, LearningRun, Memory, StoredGrader, Used
from familiar.memory.words import same_text_key


def to_json(value: object) -> str:
    """``value`` as JSON text, readable as stored. JSON has no NaN or infinity: they become null."""
    return json.dumps(_finite(value), ensure_ascii=False)


def content_sha256(memory: Memory) -> str:
    """Names what a memory says, whoever says it when: equal for the same kind, prompt and text, spelt alike.

    One that is meant for a single conversation is another than the same words meant for all, or for another one.
    """
    prompt = None if memory.prompt is None else same_text_key(memory.prompt)
    only_in = memory.conversation_id if memory.scope == "conversation" else None
    said = json.dumps([memory.kind, prompt, same_text_key(memory.text), only_in])
    return hashlib.sha256(said.encode()).hexdigest()


def exchange(row: sqlite3.Row) -> Exchange:
    """The exchange of a row of ``exchanges`` with ``used_json``: the id, reason and score of each memory shown."""
    return Exchange(
        id=row["id"],
        user_id=row["user_id"],
        created_at=row["created_at_s"],
        model=row["model"],
        messages=tuple(json.loads(row["messages_json"])),
        completion=row["completion"],
        adapter_version=row["adapter_version"],
        used=tuple(Used(*used) for used in json.loads(row["used_json"])),
        sampling=json.loads(row["sampling_json"]),
        prompt_tokens=row["prompt_tokens"],
        completion_tokens=row["completion_tokens"],
        finish_reason=row["finish_reason"],
        duration_ms=row["duration_ms"],
        conversation_id=row["conversation_id"],
    )


def feedback(row: sqlite3.Row) -> Feedback:
    """The signal of a row of ``feedback``."""
    return Feedback(
        id=row["id"],
        user_id=row["user_id"],
        created_at=row["created_at_s"],
        kind=row["kind"],
        exchange_id=row["exchange_id"],
        text=row["text"],
        rating=row["rating"],
        note=row["note"],
        source=row["source"],
        trust=row["trust"],
        state=row["state"],
        key=row["key"],
    )


def memory(row: sqlite3.Row) -> Memory:
    """The memory of a row of ``memories``."""
    return Memory(
        id=row["id"],
        user_id=row["user_id"],
        created_at=row["created_at_s"],
        kind=row["kind"],
        text=row["text"],
        prompt=row["prompt"],
        feedback_id=row["feedback_id"],
        scope=row["scope"],
        conversation_id=row["conversation_id"],
        pinned=bool(row["pinned"]),
        source=row["source"],
        state=row["state"],
        superseded_by=row["superseded_by"],
        ended_at=row["ended_at_s"],
        uses=row["uses"],
        last_used_at=row["last_used_at_s"],
    )


def grader(row: sqlite3.Row) -> StoredGrader:
    """The grader of a row of ``graders``."""
    return StoredGrader(
        id=row["id"],
        user_id=row["user_id"],
        created_at=row["created_at_s"],
        name=row["name"],
        definition=json.loads(row["definition_json"]),
        memory_id=row["memory_id"],
    )


def run(row: sqlite3.Row) -> LearningRun:
    """The run of a row of ``learning_runs``."""
    return LearningRun(
        id=row["id"],
        user_id=row["user_id"],
        created_at=row["created_at_s"],
        state=row["state"],
        config=json.loads(row["config_json"]),
        fingerprint=row["fingerprint"],
        pid=row["pid"],
        ended_at=row["ended_at_s"],
        version=row["version"],
        error=row["error"],
        report=None if row["report_json"] is None else json.loads(row["report_json"]),
    )


def version(row: sqlite3.Row) -> AdapterVersion:
    """The version of a row of ``adapter_versions`` with ``feedback_ids_json`` beside it."""
    return AdapterVersion(
        user_id=row["user_id"],
        number=row["number"],
        created_at=row["created_at_s"],
        folder=row["folder"],
        parent=row["parent"],
        base_sha256=row["base_sha256"],
        gguf_sha256=row["gguf_sha256"],
        run_id=row["run_id"],
        feedback_ids=tuple(json.loads(row["feedback_ids_json"])),
        report=json.loads(row["report_json"]),
    )


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_finite(item) for item in value]
    return value

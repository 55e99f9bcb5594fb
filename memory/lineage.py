"""The store's queries about learning: runs, adapter versions, which one is served, cached reference figures.

Functions over a ``Connection``; ``Store`` is their face to the rest of the program.
"""

from collections.abc import Mapping, Sequence

from familiar.memory import rows, users
from familiar.memory.database import Connection
from familiar.memory.errors import NotFound
from familiar.memory.types import AdapterVersion, LearningRun

_VERSION = """
SELECT v.*, (SELECT json_group_array(feedback_id) FROM (
    SELECT feedback_id FROM adapter_version_feedback AS f
    WHERE f.user_id = v.user_id AND f.number = v.number ORDER BY f.position)) AS feedback_ids_json
FROM adapter_versions AS v
"""

_RUN = "SELECT * FROM learning_runs WHERE id = ? AND user_id = ?"

_KEYS_AT_ONCE = 500
"""SQLite takes a bounded number of parameters in one statement (999 in old builds)."""


def add_run(connection: Connection, run: LearningRun) -> None:
    """See ``Store.add_run``."""
    with connection.write():
        users.require(connection, run.user_id)
        connection.execute(
            "INSERT INTO learning_runs (created_at_s, state, config_json, fingerprint, pid, ended_at_s, version, error,"
            " report_json, id, user_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            _run_values(run),
        )


def update_run(connection: Connection, run: LearningRun) -> None:
    """See ``Store.update_run``."""
    with connection.write():
        replace_run(connection, run)


def replace_run(connection: Connection, run: LearningRun) -> None:
    """Within a transaction: replace the stored run of the same id. Raises ``NotFound`` (param ``run_id``)."""
    changed = connection.execute(
        "UPDATE learning_runs SET created_at_s = ?, state = ?, config_json = ?, fingerprint = ?, pid = ?,"
        " ended_at_s = ?, version = ?, error = ?, report_json = ? WHERE id = ? AND user_id = ?",
        _run_values(run),
    )
    if not changed:
        raise _no_run(run.id)


def run(connection: Connection, user_id: int, run_id: str) -> LearningRun:
    """See ``Store.run``."""
    row = connection.first(_RUN, (run_id, user_id))
    if row is None:
        raise _no_run(run_id)
    return rows.run(row)


def runs(connection: Connection, user_id: int) -> list[LearningRun]:
    """See ``Store.runs``."""
    found = connection.read(
        "SELECT * FROM learning_runs WHERE user_id = ? ORDER BY created_at_s DESC, seq DESC", (user_id,)
    )
    return [rows.run(row) for row in found]


def next_version(connection: Connection, user_id: int) -> int:
    """See ``Store.next_version``."""
    row = connection.first("SELECT coalesce(max(number), 0) + 1 FROM adapter_versions WHERE user_id = ?", (user_id,))
    return int(row[0]) if row else 1


def version_folder(user_id: int, number: int) -> str:
    """Where the files of a user's adapter version are, relative to the data folder."""
    return f"adapters/{user_id}/v{number}"


def add_version(connection: Connection, version: AdapterVersion, make_current: bool) -> None:
    """See ``Store.add_version``."""
    with connection.write():
        insert_version(connection, version, make_current)


def insert_version(connection: Connection, version: AdapterVersion, make_current: bool) -> None:
    """Within a transaction: add a version with its lineage. Raises ``NotFound`` (param ``run_id``)."""
    if connection.first(_RUN, (version.run_id, version.user_id)) is None:
        raise _no_run(version.run_id)
    connection.execute(
        "INSERT INTO adapter_versions (user_id, number, created_at_s, folder, parent, base_sha256, gguf_sha256,"
        " run_id, report_json) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            version.user_id,
            version.number,
            version.created_at,
            version.folder,
            version.parent,
            version.base_sha256,
            version.gguf_sha256,
            version.run_id,
            rows.to_json(version.report),
        ),
    )
    connection.execute_many(
        "INSERT INTO adapter_version_feedback (user_id, number, position, feedback_id) VALUES (?, ?, ?, ?)",
        [(version.user_id, version.number, position, id) for position, id in enumerate(version.feedback_ids)],
    )
    if make_current:
        _make_current(connection, version.user_id, version.number)


def version(connection: Connection, user_id: int, number: int) -> AdapterVersion:
    """See ``Store.version``."""
    row = connection.first(f"{_VERSION} WHERE v.user_id = ? AND v.number = ?", (user_id, number))
    if row is None:
        raise _no_version(number)
    return rows.version(row)


def versions(connection: Connection, user_id: int) -> list[AdapterVersion]:
    """See ``Store.versions``."""
    found = connection.read(f"{_VERSION} WHERE v.user_id = ? ORDER BY v.number", (user_id,))
    return [rows.version(row) for row in found]


def current_version(connection: Connection, user_id: int) -> AdapterVersion | None:
    """See ``Store.current_version``."""
    row = connection.first(
        f"{_VERSION} JOIN current_versions AS c ON c.user_id = v.user_id AND c.number = v.number WHERE v.user_id = ?",
        (user_id,),
    )
    return None if row is None else rows.version(row)


def set_current(connection: Connection, user_id: int, number: int | None) -> None:
    """See ``Store.set_current``."""
    with connection.write():
        if number is None:
            connection.execute("DELETE FROM current_versions WHERE user_id = ?", (user_id,))
            return
        require_version(connection, user_id, number)
        _make_current(connection, user_id, number)


def require_version(connection: Connection, user_id: int, number: int) -> None:
    """Raise ``NotFound`` (param ``version``) unless the user has that version."""
    known = "SELECT 1 FROM adapter_versions WHERE user_id = ? AND number = ?"
    if connection.first(known, (user_id, number)) is None:
        raise _no_version(number)


def cached_logps(connection: Connection, base_sha256: str, keys: Sequence[str]) -> dict[str, float]:
    """See ``Store.cached_logps``."""
    found: dict[str, float] = {}
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        some = keys[start : start + _KEYS_AT_ONCE]
        marks = ", ".join("?" * len(some))
        sql = f"SELECT key, logp_nats FROM logp_cache WHERE base_sha256 = ? AND key IN ({marks})"
        found.update((row["key"], row["logp_nats"]) for row in connection.read(sql, (base_sha256, *some)))
    return found


def cache_logps(connection: Connection, base_sha256: str, logps: Mapping[str, float]) -> None:
    """See ``Store.cache_logps``."""
    with connection.write():
        connection.execute_many(
            "INSERT OR REPLACE INTO logp_cache (base_sha256, key, logp_nats) VALUES (?, ?, ?)",
            [(base_sha256, key, logp) for key, logp in logps.items()],
        )


def _run_values(run: LearningRun) -> tuple[object, ...]:
    # What names the run is last, where UPDATE wants it.
    return (
        run.created_at,
        run.state,
        rows.to_json(run.config),
        run.fingerprint,
        run.pid,
        run.ended_at,
        run.version,
        run.error,
        None if run.report is None else rows.to_json(run.report),
        run.id,
        run.user_id,
    )


def _make_current(connection: Connection, user_id: int, number: int) -> None:
    connection.execute("INSERT OR REPLACE INTO current_versions (user_id, number) VALUES (?, ?)", (user_id, number))


def _no_run(run_id: str) -> NotFound:
    return NotFound(f'No learning run has the id "{run_id}": see `familiar adapters` for those there are.', "run_id")


def _no_version(number: int) -> NotFound:
    return NotFound(f"There is no adapter version {number}: see `familiar adapters` for those there are.", "version")

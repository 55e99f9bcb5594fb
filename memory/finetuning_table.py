"""The store's queries about fine-tuning: jobs, their events and checkpoints, and the models they made.

As ``Store.fine_tuning``. A job's state changes by ``move`` alone, from states that are named: two processes work on a
job (the service, the learner), and neither may undo what the other has decided.
"""

from collections.abc import Sequence

from familiar.memory import rows, users
from familiar.memory.database import Connection, Row
from familiar.memory.errors import NotFound
from familiar.memory.finetuning_types import TO_DO, Job, JobCheckpoint, JobEvent, JobState, TunedModel

_JSON = ("method", "metadata", "error")
_CHANGEABLE = {
    "method": "method_json",
    "finished_at": "finished_at_s",
    "estimated_finish": "estimated_finish_s",
    "fine_tuned_model": "fine_tuned_model",
    "trained_tokens": "trained_tokens",
    "result_file": "result_file",
    "error": "error_json",
}
"""The fields of a job that may change once it is there, and their columns."""


class FineTuning:
    """The fine-tuning of an open store. Another user's rows are as unknown as those that never were."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # Jobs

    def add(self, job: Job) -> None:
        """Keep a new job. Raises ``NotFound`` when its user was removed."""
        with self._connection.write():
            users.require(self._connection, job.user_id)
            self._connection.execute(
                "INSERT INTO fine_tuning_jobs (id, user_id, created_at_s, state, model, base_sha256, name,"
                " training_file, validation_file, suffix, seed, method_json, metadata_json)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    job.id,
                    job.user_id,
                    job.created_at,
                    job.state,
                    job.model,
                    job.base_sha256,
                    job.name,
                    job.training_file,
                    job.validation_file,
                    job.suffix,
                    job.seed,
                    rows.to_json(job.method),
                    None if job.metadata is None else rows.to_json(job.metadata),
                ),
            )

    def job(self, user_id: int, id: str) -> Job:
        """The user's job of that id. Raises ``NotFound`` (param ``fine_tuning_job_id``)."""
        row = self._connection.first("SELECT * FROM fine_tuning_jobs WHERE id = ? AND user_id = ?", (id, user_id))
        if row is None:
            raise NotFound(f"Could not find fine tune: {id}. `GET /v1/fine_tuning/jobs` lists yours.", _JOB_ID)
        return _job(row)

    def jobs(self, user_id: int) -> list[Job]:
        """The user's jobs, newest first."""
        sql = "SELECT * FROM fine_tuning_jobs WHERE user_id = ? ORDER BY seq DESC"
        return [_job(row) for row in self._connection.read(sql, (user_id,))]

    def to_do(self) -> list[Job]:
        """The jobs of all users that go on by themselves, in the order in which they were created."""
        # The states are written out for SQLite to see that the partial index has them all.
        states = ", ".join(f"'{state}'" for state in TO_DO)
        sql = f"SELECT * FROM fine_tuning_jobs WHERE state IN ({states}) ORDER BY seq"
        return [_job(row) for row in self._connection.read(sql)]

    def any_job(self, id: str) -> Job | None:
        """The job of that id, whosever it is: for the processes that run them."""
        row = self._connection.first("SELECT * FROM fine_tuning_jobs WHERE id = ?", (id,))
        return None if row is None else _job(row)

    def move(self, id: str, before: Sequence[JobState], after: JobState, **fields: object) -> bool:
        """Bring a job from one of the states ``before`` to ``after``, with other fields of it; whether that was done.

        ``fields`` are those of ``_CHANGEABLE``.
        """
        marks = ", ".join("?" * len(before))
        sets = "".join(f", {_CHANGEABLE[name]} = ?" for name in fields)
        values = [_stored(name, value) for name, value in fields.items()]
        with self._connection.write():
            sql = f"UPDATE fine_tuning_jobs SET state = ?{sets} WHERE id = ? AND state IN ({marks})"
            return bool(self._connection.execute(sql, (after, *values, id, *before)))

    # Events

    def add_event(self, event: JobEvent) -> None:
        """Keep what happened; nothing is kept of a job that is gone. It does not wait for the disk."""
        with self._connection.write(durable=False):
            self._connection.execute(
                "INSERT INTO fine_tuning_events (id, user_id, job_id, created_at_s, level, type, message, data_json)"
                " SELECT ?, user_id, id, ?, ?, ?, ?, ? FROM fine_tuning_jobs WHERE id = ?",
                (
                    event.id,
                    event.created_at,
                    event.level,
                    event.type,
                    event.message,
                    rows.to_json(event.data),
                    event.job_id,
                ),
            )

    def events(self, user_id: int, job_id: str, limit: int = -1, after: str | None = None) -> list[JobEvent]:
        """What happened to a job of the user's, newest first: at most ``limit``, from behind the one named ``after``.

        Raises ``NotFound`` (param ``fine_tuning_job_id``, ``after``).
        """
        self.job(user_id, job_id)
        before = None
        if after is not None:
            sql = "SELECT seq FROM fine_tuning_events WHERE id = ? AND job_id = ?"
            before = self._connection.first(sql, (after, job_id))
            if before is None:
                raise NotFound(f'The job has no event with the id "{after}": send the last_id of a page.', "after")
        sql = (
            "SELECT * FROM fine_tuning_events WHERE job_id = ?1 AND (?2 IS NULL OR seq < ?2) ORDER BY seq DESC LIMIT ?3"
        )
        found = self._connection.read(sql, (job_id, before and before["seq"], limit))
        return [_event(row) for row in found]

    # Checkpoints and models

    def add_checkpoint(self, checkpoint: JobCheckpoint, model: TunedModel) -> None:
        """Keep a checkpoint with its model, which is served from now on; one of the same step is replaced."""
        with self._connection.write():
            for table, column in (("fine_tuning_checkpoints", "model"), ("fine_tuned_models", "id")):
                self._connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (model.id,))
            self._connection.execute(
                "INSERT INTO fine_tuning_checkpoints (id, user_id, job_id, created_at_s, step, model, metrics_json)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    checkpoint.id,
                    checkpoint.user_id,
                    checkpoint.job_id,
                    checkpoint.created_at,
                    checkpoint.step,
                    checkpoint.model,
                    rows.to_json(checkpoint.metrics),
                ),
            )
            self._add_model(model)

    def drop_checkpoint(self, id: str) -> None:
        """Take a checkpoint and its model away."""
        with self._connection.write():
            self._connection.execute(
                "DELETE FROM fine_tuned_models WHERE id = (SELECT model FROM fine_tuning_checkpoints WHERE id = ?)",
                (id,),
            )
            self._connection.execute("DELETE FROM fine_tuning_checkpoints WHERE id = ?", (id,))

    def checkpoints(self, user_id: int, job_id: str) -> list[JobCheckpoint]:
        """The checkpoints of a job of the user's, newest first. Raises ``NotFound``."""
        self.job(user_id, job_id)
        sql = "SELECT * FROM fine_tuning_checkpoints WHERE job_id = ? ORDER BY step DESC"
        return [_checkpoint(row) for row in self._connection.read(sql, (job_id,))]

    def succeed(self, job_id: str, model: TunedModel, now: float, trained_tokens: int, result_file: str) -> bool:
        """End a running job with its model, which is served from now on: both or neither. Whether it was running."""
        with self._connection.write():
            changed = self._connection.execute(
                "UPDATE fine_tuning_jobs SET state = 'succeeded', finished_at_s = ?, fine_tuned_model = ?,"
                " trained_tokens = ?, result_file = ?, estimated_finish_s = NULL WHERE id = ? AND state = 'running'",
                (now, model.id, trained_tokens, result_file, job_id),
            )
            if changed:
                self._add_model(model)
            return bool(changed)

    def model(self, user_id: int, id: str) -> TunedModel | None:
        """The user's fine-tuned model of that name, if it is served."""
        row = self._connection.first("SELECT * FROM fine_tuned_models WHERE id = ? AND user_id = ?", (id, user_id))
        return None if row is None else _model(row)

    def models(self, user_id: int) -> list[TunedModel]:
        """The user's fine-tuned models, as they were made."""
        sql = "SELECT * FROM fine_tuned_models WHERE user_id = ? ORDER BY seq"
        return [_model(row) for row in self._connection.read(sql, (user_id,))]

    def delete_model(self, user_id: int, id: str) -> None:
        """Serve the user's fine-tuned model no longer. Its job and its checkpoint keep its name."""
        with self._connection.write():
            self._connection.execute("DELETE FROM fine_tuned_models WHERE id = ? AND user_id = ?", (id, user_id))

    def _add_model(self, model: TunedModel) -> None:
        self._connection.execute(
            "INSERT INTO fine_tuned_models (id, user_id, job_id, created_at_s, step, base_sha256, gguf_sha256)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                model.id,
                model.user_id,
                model.job_id,
                model.created_at,
                model.step,
                model.base_sha256,
                model.gguf_sha256,
            ),
        )


_JOB_ID = "fine_tuning_job_id"


def _stored(name: str, value: object) -> object:
    return rows.to_json(value) if name in _JSON and value is not None else value


def _job(row: Row) -> Job:
    return rows.value(
        Job,
        row,
        method=rows.from_json(row["method_json"]),
        metadata=rows.from_json(row["metadata_json"]),
        error=rows.from_json(row["error_json"]),
    )


def _event(row: Row) -> JobEvent:
    return rows.value(JobEvent, row, data=rows.from_json(row["data_json"]))


def _checkpoint(row: Row) -> JobCheckpoint:
    return rows.value(JobCheckpoint, row, metrics=rows.from_json(row["metrics_json"]))


def _model(row: Row) -> TunedModel:
    return rows.value(TunedModel, row)

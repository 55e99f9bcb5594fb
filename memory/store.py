"""The store: everything that is remembered, in one SQLite file, behind plain methods.

All SQL of the project is in this package: here, in ``lineage`` (which this class fronts), in ``users`` and in
``schema``. Every method that writes returns once the rows are on the disk, and raises ``NoSpace`` when the disk is full
or ``Busy`` when another process holds the file for too long. Times are seconds since the epoch.

Whatever is asked for by its id is asked for by a user: another user's row is as unknown as one that never was.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from familiar.memory import lineage, rows, users
from familiar.memory.database import Connection
from familiar.memory.errors import NotFound
from familiar.memory.types import AdapterVersion, Exchange, Feedback, LearningRun, Memory, MemoryKind
from familiar.memory.words import words

MAX_QUERY_WORDS = 128
"""A search takes the first so many different words of its text: a pasted book must not become the query."""

_EXCHANGE = """
SELECT e.*, (SELECT json_group_array(memory_id) FROM (
    SELECT memory_id FROM exchange_memories AS used
    WHERE used.exchange_id = e.id ORDER BY used.position)) AS memory_ids_json
FROM exchanges AS e
"""


class Store:
    """One open store file. Threads may share it, and processes may each open the same file."""

    def __init__(self, connection: Connection) -> None:
        """Use ``Store.open``."""
        self._connection = connection
        self.users = users.Users(connection)

    @classmethod
    def open(cls, path: Path, clock: Callable[[], float] = time.time) -> "Store":
        """Open the file, or create it readable by its owner only, and bring its tables up to date.

        ``clock`` gives seconds since the epoch. Raises ``BadFile`` when the file is not a store, or cannot be opened.
        """
        return cls(Connection(path, clock()))

    def close(self) -> None:
        """Close the file. Closing twice is fine."""
        self._connection.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def default_user(self) -> int:
        """The id of the user that a store is made with."""
        row = self._connection.first("SELECT min(id) FROM users")
        return int(row[0]) if row else 1

    def counts(self, user_id: int) -> dict[str, int]:
        """How many rows a user has of each sort: exchanges, feedback, memories, adapters."""
        tables = {
            "exchanges": "exchanges",
            "feedback": "feedback",
            "memories": "memories",
            "adapters": "adapter_versions",
        }
        counted = {}
        for name, table in tables.items():
            row = self._connection.first(f"SELECT count(*) FROM {table} WHERE user_id = ?", (user_id,))
            counted[name] = int(row[0]) if row else 0
        return counted

    # Exchanges

    def add_exchange(self, exchange: Exchange) -> None:
        """Keep one exchange and which memories were used in it. Raises ``NotFound`` when its user was removed.

        It does not wait for the disk: what the user says of it later does, and brings it there too.
        """
        with self._connection.write(durable=False) as transaction:
            users.require(transaction, exchange.user_id)
            transaction.execute(
                "INSERT INTO exchanges (id, user_id, created_at_s, model, messages_json, completion, adapter_version,"
                " sampling_json, prompt_tokens, completion_tokens, finish_reason, duration_ms)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    exchange.id,
                    exchange.user_id,
                    exchange.created_at,
                    exchange.model,
                    rows.to_json(exchange.messages),
                    exchange.completion,
                    exchange.adapter_version,
                    rows.to_json(exchange.sampling),
                    exchange.prompt_tokens,
                    exchange.completion_tokens,
                    exchange.finish_reason,
                    exchange.duration_ms,
                ),
            )
            transaction.execute_many(
                "INSERT INTO exchange_memories (exchange_id, position, memory_id) VALUES (?, ?, ?)",
                [(exchange.id, position, memory_id) for position, memory_id in enumerate(exchange.memory_ids)],
            )

    def exchange(self, user_id: int, id: str) -> Exchange:
        """The user's exchange of that id. Raises ``NotFound`` (param ``completion_id``)."""
        row = self._connection.first(f"{_EXCHANGE} WHERE e.id = ? AND e.user_id = ?", (id, user_id))
        if row is None:
            raise _no_exchange(id)
        return rows.exchange(row)

    def exchanges(self, user_id: int, limit: int = 50) -> list[Exchange]:
        """The user's last ``limit`` exchanges, newest first."""
        sql = f"{_EXCHANGE} WHERE e.user_id = ? ORDER BY e.created_at_s DESC, e.seq DESC LIMIT ?"
        return [rows.exchange(row) for row in self._connection.read(sql, (user_id, limit))]

    def latest_exchange(self, user_id: int) -> Exchange | None:
        """The user's newest exchange, if there is one."""
        return next(iter(self.exchanges(user_id, limit=1)), None)

    # Feedback

    def add_feedback(self, feedback: Feedback, memories: Sequence[Memory]) -> tuple[Memory, ...]:
        """Keep a signal and the memories that it makes, all or nothing; returns the memories as they are stored.

        A memory that says what the user has said before is not stored twice: the stored one keeps its id and becomes
        as new as this one, so that saying something again makes it the latest word. Raises ``NotFound`` (param
        ``completion_id``) when the user has no such exchange.
        """
        with self._connection.write() as transaction:
            users.require(transaction, feedback.user_id)
            if feedback.exchange_id is not None:
                known = "SELECT 1 FROM exchanges WHERE id = ? AND user_id = ?"
                if transaction.first(known, (feedback.exchange_id, feedback.user_id)) is None:
                    raise _no_exchange(feedback.exchange_id)
            transaction.execute(
                "INSERT INTO feedback (id, user_id, created_at_s, kind, exchange_id, text, rating, note, source, trust)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    feedback.id,
                    feedback.user_id,
                    feedback.created_at,
                    feedback.kind,
                    feedback.exchange_id,
                    feedback.text,
                    feedback.rating,
                    feedback.note,
                    feedback.source,
                    feedback.trust,
                ),
            )
            return tuple(self._put_memory(transaction, memory) for memory in memories)

    def feedback(self, user_id: int, id: str) -> Feedback:
        """The user's signal of that id. Raises ``NotFound`` (param ``feedback_id``)."""
        row = self._connection.first("SELECT * FROM feedback WHERE id = ? AND user_id = ?", (id, user_id))
        if row is None:
            raise NotFound(f'No feedback has the id "{id}": check the id.', "feedback_id")
        return rows.feedback(row)

    def feedback_rows(self, user_id: int) -> list[tuple[Feedback, Exchange | None]]:
        """All of the user's signals, oldest first, each with the exchange that it is about."""
        signals = [
            rows.feedback(row)
            for row in self._connection.read(
                "SELECT * FROM feedback WHERE user_id = ? ORDER BY created_at_s, seq", (user_id,)
            )
        ]
        about = self._connection.read(
            f"{_EXCHANGE} WHERE e.user_id = ? AND e.id IN (SELECT exchange_id FROM feedback WHERE user_id = ?)",
            (user_id, user_id),
        )
        exchanges = {row["id"]: rows.exchange(row) for row in about}
        return [(signal, exchanges.get(signal.exchange_id)) for signal in signals]

    # Memories

    def memories(self, user_id: int, kind: MemoryKind | None = None) -> list[Memory]:
        """The user's memories, or those of one kind, oldest first."""
        sql = "SELECT * FROM memories WHERE user_id = ? AND (? IS NULL OR kind = ?) ORDER BY created_at_s, seq"
        return [rows.memory(row) for row in self._connection.read(sql, (user_id, kind, kind))]

    def memory(self, user_id: int, id: str) -> Memory:
        """The user's memory of that id. Raises ``NotFound`` (param ``memory_id``)."""
        row = self._connection.first("SELECT * FROM memories WHERE id = ? AND user_id = ?", (id, user_id))
        if row is None:
            raise _no_memory(id)
        return rows.memory(row)

    def delete_memory(self, user_id: int, id: str) -> None:
        """Forget one of the user's memories: its text is gone from the table, the index, free pages and the log.

        The feedback that it came from stays. Raises ``NotFound`` (param ``memory_id``).
        """
        with self._connection.write() as transaction:
            if not transaction.execute("DELETE FROM memories WHERE id = ? AND user_id = ?", (id, user_id)):
                raise _no_memory(id)
            # The index only marks a word as gone until its segments are merged.
            transaction.execute("INSERT INTO memories_fts (memories_fts) VALUES ('optimize')")
        self._connection.empty_log()

    def search_memories(
        self, user_id: int, text: str, limit: int = 20, kind: MemoryKind | None = None
    ) -> list[tuple[Memory, float]]:
        """Memories that share a word with ``text``, best first, each with its score (BM25; higher is better).

        Words are stemmed and accents dropped; ``text`` is taken as words only, so any text is a safe query. Left out:
        languages written without spaces, where a whole run of characters counts as one word.
        """
        # Quoted, AND, OR, NEAR and * are words like any other to FTS5.
        different = list(dict.fromkeys(words(text)))[:MAX_QUERY_WORDS]
        if not different:
            return []
        found = self._connection.read(
            "SELECT m.*, -bm25(memories_fts) AS score"
            " FROM memories_fts JOIN memories AS m ON m.seq = memories_fts.rowid"
            " WHERE memories_fts MATCH ? AND m.user_id = ? AND (? IS NULL OR m.kind = ?)"
            " ORDER BY score DESC, m.created_at_s DESC, m.seq DESC LIMIT ?",
            (" OR ".join(f'"{word}"' for word in different), user_id, kind, kind, limit),
        )
        return [(rows.memory(row), row["score"]) for row in found]

    # Learning

    def add_run(self, run: LearningRun) -> None:
        """Keep a run of the learner as it starts. Raises ``NotFound`` when its user was removed."""
        lineage.add_run(self._connection, run)

    def update_run(self, run: LearningRun) -> None:
        """Replace the user's stored run of the same id. Raises ``NotFound`` (param ``run_id``)."""
        lineage.update_run(self._connection, run)

    def run(self, user_id: int, id: str) -> LearningRun:
        """The user's run of that id. Raises ``NotFound`` (param ``run_id``)."""
        return lineage.run(self._connection, user_id, id)

    def runs(self, user_id: int) -> list[LearningRun]:
        """The user's runs, newest first."""
        return lineage.runs(self._connection, user_id)

    def next_version(self, user_id: int) -> int:
        """The number that the user's next adapter version gets: 1, 2, …"""
        return lineage.next_version(self._connection, user_id)

    def add_version(self, version: AdapterVersion, make_current: bool) -> None:
        """Keep a version and, with ``make_current``, serve it from now on: both or neither.

        Raises ``NotFound`` (param ``run_id``) when the user has no such run.
        """
        lineage.add_version(self._connection, version, make_current)

    def version(self, user_id: int, number: int) -> AdapterVersion:
        """The user's version of that number. Raises ``NotFound`` (param ``version``)."""
        return lineage.version(self._connection, user_id, number)

    def versions(self, user_id: int) -> list[AdapterVersion]:
        """The user's versions, by number."""
        return lineage.versions(self._connection, user_id)

    def current_version(self, user_id: int) -> AdapterVersion | None:
        """The version that is served, or None for the base model."""
        return lineage.current_version(self._connection, user_id)

    def set_current(self, user_id: int, number: int | None) -> None:
        """Serve that version from now on, or the base model for None. Raises ``NotFound`` (param ``version``)."""
        lineage.set_current(self._connection, user_id, number)

    def cached_logps(self, base_sha256: str, keys: Sequence[str]) -> dict[str, float]:
        """The reference log-probabilities (nats) that are known, by key."""
        return lineage.cached_logps(self._connection, base_sha256, keys)

    def cache_logps(self, base_sha256: str, logps: Mapping[str, float]) -> None:
        """Keep reference log-probabilities (nats) by key, replacing what the keys had."""
        lineage.cache_logps(self._connection, base_sha256, logps)

    def _put_memory(self, transaction: Connection, memory: Memory) -> Memory:
        transaction.execute(
            "INSERT INTO memories (id, user_id, created_at_s, kind, text, prompt, feedback_id, content_sha256)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (user_id, content_sha256)"
            " DO UPDATE SET created_at_s = excluded.created_at_s, feedback_id = excluded.feedback_id",
            (
                memory.id,
                memory.user_id,
                memory.created_at,
                memory.kind,
                memory.text,
                memory.prompt,
                memory.feedback_id,
                rows.content_sha256(memory),
            ),
        )
        stored = transaction.read(
            "SELECT * FROM memories WHERE user_id = ? AND content_sha256 = ?",
            (memory.user_id, rows.content_sha256(memory)),
        )
        return rows.memory(stored[0])


def _no_exchange(id: str) -> NotFound:
    return NotFound(f'No completion has the id "{id}": use the id of a reply from this service.', "completion_id")


def _no_memory(id: str) -> NotFound:
    return NotFound(f'No memory has the id "{id}": check the id.', "memory_id")

"""The store: everything that is remembered, in one SQLite file, behind plain methods.

All SQL of the project is in this package, in a module for each group of tables (``exchanges``, ``feedback_table``,
``memories``, ``lineage``, ``users``), which this class fronts, and in ``schema``. Every method that writes returns once
the rows are on the disk, and raises ``NoSpace`` when the disk is full or ``Busy`` when another process holds the file
for too long. Times are seconds since the epoch.

Whatever is asked for by its id is asked for by a user: another user's row is as unknown as one that never was.
"""

import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Unpack

from familiar.memory import (
    backup,
    consolidated,
    exchanges,
    feedback_table,
    files_table,
    finetuning_table,
    forgetting,
    free_space,
    graders_table,
    lineage,
    memories,
    portable,
    promotion,
    replies,
    users,
)
from familiar.memory.database import Connection
from familiar.memory.forgetting import Forgotten
from familiar.memory.portable import Imported
from familiar.memory.replies import Reply
from familiar.memory.types import (
    AdapterVersion,
    Exchange,
    Feedback,
    LearningRun,
    Memory,
    MemoryChanges,
    MemoryKind,
    MemoryState,
    Message,
    StoredGrader,
    Used,
)

MAX_MEMORIES = 10_000
"""How many memories of a user may be active, unless the store is opened with another number."""


class Store:
    """One open store file. Threads may share it, and processes may each open the same file."""

    def __init__(self, connection: Connection, clock: Callable[[], float], max_memories: int) -> None:
        """Use ``Store.open``."""
        self._connection = connection
        self._clock = clock
        self._max_memories = max_memories
        self.users = users.Users(connection)
        self.files = files_table.Files(connection)
        self.fine_tuning = finetuning_table.FineTuning(connection)

    @classmethod
    def open(cls, path: Path, clock: Callable[[], float] = time.time, *, max_memories: int = MAX_MEMORIES) -> "Store":
        """Open the file, or create it readable by its owner only, and bring its tables up to date.

        ``clock`` gives seconds since the epoch. A user's memories beyond ``max_memories`` make room for new ones.
        Raises ``BadFile`` when the file is not a store, or cannot be opened.
        """
        connection = Connection(path, clock())
        # What could not be taken out of the file when it was forgotten, since another process was using it.
        free_space.finish(connection, wait=False)
        return cls(connection, clock, max_memories)

    @property
    def connection(self) -> Connection:
        """For the modules of this package that have queries of their own."""
        return self._connection

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
        return self.users.default()

    def counts(self, user_id: int) -> dict[str, int]:
        """How many rows a user has of each sort: exchanges, feedback and memories (the active ones), adapters."""
        tables = {
            "exchanges": "exchanges WHERE",
            "feedback": "feedback WHERE state = 'active' AND",
            "memories": "memories WHERE state = 'active' AND",
            "adapters": "adapter_versions WHERE",
        }
        counted = {}
        for name, table in tables.items():
            row = self._connection.first(f"SELECT count(*) FROM {table} user_id = ?", (user_id,))
            counted[name] = int(row[0]) if row else 0
        return counted

    # Exchanges

    def add_exchange(self, exchange: Exchange) -> str:
        """Keep one exchange and which memories were used in it, and return the id of its conversation.

        That is the one that the exchange names, if the user has it, or else what ``conversation_of`` finds, or a new
        one. It does not wait for the disk: what the user says of it later does, and brings it there too. Raises
        ``NotFound`` when its user was removed.
        """
        return exchanges.add(self._connection, exchange)

    def exchange(self, user_id: int, id: str) -> Exchange:
        """The user's exchange of that id. Raises ``NotFound`` (param ``completion_id``)."""
        return exchanges.get(self._connection, user_id, id)

    def exchanges(self, user_id: int, limit: int = 50, until: float = math.inf) -> list[Exchange]:
        """The user's last ``limit`` exchanges, newest first, of those made ``until`` then (seconds since the epoch)."""
        return exchanges.newest(self._connection, user_id, limit, until)

    def conversation_of(self, user_id: int, messages: Sequence[Message]) -> str | None:
        """The id of the conversation that a request with these messages goes on with, or None for a new one.

        It is known by what the user said before the last turn; a first message that was sent within the last
        hour, with nothing said since, is a request for another reply in the same conversation.
        """
        return exchanges.conversation_of(self._connection, user_id, messages, self._clock())

    def replies_to(self, user_id: int, messages: Sequence[Message], limit: int = 50) -> list[Exchange]:
        """What the user was answered to exactly this sequence of their turns, newest first."""
        return exchanges.replies_to(self._connection, user_id, messages, limit)

    def replies_at(self, user_id: int, history_keys: Sequence[str], limit: int = 50) -> list[list[Reply]]:
        """For each ``history_key`` what the user was answered to exactly those turns of theirs, newest first."""
        return replies.at(self._connection, user_id, history_keys, limit)

    def start_conversation(self, user_id: int, now: float) -> str:
        """Make a conversation before its first exchange, which is to name it; returns its id.

        Raises ``NotFound`` when its user was removed.
        """
        return replies.start_conversation(self._connection, user_id, now)

    # Feedback

    def add_feedback(self, feedback: Feedback, memories: Sequence[Memory] = ()) -> tuple[Memory, ...]:
        """Keep a signal and the memories that it makes, all or nothing; returns the memories as they are stored.

        The memories are put as ``put_memory`` does; a pending signal makes none yet. Where the user has a signal with
        the same ``key`` nothing is stored. Raises ``NotFound`` (param ``completion_id``) when the user has no such
        exchange.
        """
        return feedback_table.add(self._connection, feedback, memories, self._max_memories)

    def has_feedback(self, user_id: int, key: str) -> bool:
        """Whether the user has a signal, in whatever state, that was read from the deed that ``key`` names."""
        return feedback_table.has(self._connection, user_id, key)

    def feedback(self, user_id: int, id: str) -> Feedback:
        """The user's signal of that id. Raises ``NotFound`` (param ``feedback_id``)."""
        return feedback_table.get(self._connection, user_id, id)

    def feedback_by_key(self, user_id: int, key: str) -> Feedback | None:
        """The user's signal, in whatever state, that was read from the deed that ``key`` names."""
        return replies.feedback_by_key(self._connection, user_id, key)

    def feedback_on(self, user_id: int, exchange_ids: Sequence[str]) -> list[Feedback]:
        """The user's signals about these exchanges, in whatever state, oldest first."""
        return replies.feedback_on(self._connection, user_id, exchange_ids)

    def feedback_rows(self, user_id: int) -> list[tuple[Feedback, Exchange | None]]:
        """The user's active signals, oldest first, each with the exchange that it is about."""
        return feedback_table.active(self._connection, user_id)

    def pending(self, user_id: int) -> list[Feedback]:
        """The signals that wait for the user's yes or no, oldest first."""
        return feedback_table.pending(self._connection, user_id)

    def settle(
        self,
        user_id: int,
        feedback_id: str,
        state: Literal["active", "dismissed"],
        memories: Sequence[Memory] = (),
        *,
        text: str | None = None,
    ) -> tuple[Memory, ...]:
        """Confirm a pending signal, with the memories that it makes, or dismiss it; ``text`` replaces what it says.

        Returns the memories as they are stored. Raises ``NotFound`` (param ``feedback_id``), and ``InvalidInput`` when
        it is not pending.
        """
        return feedback_table.settle(
            self._connection, user_id, feedback_id, state, memories, text, self._clock(), self._max_memories
        )

    # Memories

    def memories(
        self, user_id: int, kind: MemoryKind | None = None, *, states: Sequence[MemoryState] = ("active",)
    ) -> list[Memory]:
        """The user's memories in these states, or those of one kind, oldest first."""
        return memories.listed(self._connection, user_id, kind, states)

    def memory(self, user_id: int, id: str) -> Memory:
        """The user's memory of that id, in whatever state. Raises ``NotFound`` (param ``memory_id``)."""
        return memories.get(self._connection, user_id, id)

    def put_memory(self, memory: Memory, now: float) -> Memory:
        """Keep a memory that was just stated, and return it as it is stored.

        One that says what the user has said before is not stored twice: the stored one keeps its id, takes the newer
        wording and is active again, as new as this one. Active memories that it contradicts become ``superseded``; one
        that is meant for one conversation contradicts only those of the same. Where there are too many, the least
        worthy is evicted. Raises ``InvalidInput`` (param ``prompt``, ``conversation_id``), and ``NotFound`` when its
        user was removed or has no such conversation.
        """
        return memories.put(self._connection, memory, now, self._max_memories)

    def edit_memory(self, user_id: int, id: str, now: float, **changes: Unpack[MemoryChanges]) -> Memory:
        """Change what is given of a memory, and return it; one that says something else now counts as stated now.

        Raises ``NotFound`` (param ``memory_id``), and ``InvalidInput`` for what cannot be, or is stored already.
        """
        return memories.edit(self._connection, user_id, id, now, changes)

    def restore_memory(self, user_id: int, id: str, now: float) -> Memory:
        """Make a superseded or evicted memory active, as if stated now: what contradicts it is superseded in turn.

        Raises ``NotFound`` (param ``memory_id``), and ``InvalidInput`` when an active one says the same.
        """
        return memories.restore(self._connection, user_id, id, now)

    def history_of(self, user_id: int, id: str) -> list[Memory]:
        """The memory with those that it superseded or was superseded by, and so on along the chain, oldest first.

        Raises ``NotFound`` (param ``memory_id``).
        """
        return memories.history(self._connection, user_id, id)

    def forget(self, user_id: int, ids: Sequence[str]) -> Forgotten:
        """Forget memories with all that goes with them: their text is then nowhere in the data folder's bytes.

        That is the older ones that they took the place of, the signals that they came from, what else these made, and
        the text itself wherever it is found: see ``purge`` and ``scrub``. All of the memories or, when one is unknown,
        none. Raises ``NotFound`` (param ``memory_id``), and ``Busy`` while a backup is being made.
        """
        return forgetting.forget(self._connection, user_id, ids, self._clock())

    def erase(self, user_id: int, *, keep_user: bool = True) -> Forgotten:
        """Delete every row of a user's here and in the backups, or all but the user and their keys.

        Their files are the caller's to remove. Raises ``NotFound`` (param ``user``), and without ``keep_user``
        ``InvalidInput`` for the default user.
        """
        return forgetting.erase(self._connection, user_id, self._clock(), keep_user=keep_user)

    # Graders

    def add_grader(self, grader: StoredGrader) -> StoredGrader:
        """Keep a grader, and return it as it is stored: where the same rule has the same one, that one.

        Raises ``NotFound`` (param ``memory_id``) when the user has no such memory, and ``InvalidInput`` where they have
        too many graders.
        """
        return graders_table.add(self._connection, grader)

    def graders(self, user_id: int, memory_id: str | None = None) -> list[StoredGrader]:
        """The user's graders of active memories and of none, or those of one memory in whatever state; oldest first.

        Raises ``NotFound`` (param ``memory_id``).
        """
        return graders_table.listed(self._connection, user_id, memory_id)

    def grader(self, user_id: int, id: str) -> StoredGrader:
        """The user's grader of that id. Raises ``NotFound`` (param ``grader_id``)."""
        return graders_table.get(self._connection, user_id, id)

    def delete_grader(self, user_id: int, id: str) -> None:
        """Delete a grader; the rule that it checks stays. Raises ``NotFound`` (param ``grader_id``)."""
        graders_table.delete(self._connection, user_id, id)

    # What follows from them

    def removals(self, user_id: int) -> int:
        """A number that changes when what was computed with a user's memories must no longer be used."""
        row = self._connection.first("SELECT removals FROM memory_changes WHERE user_id = ?", (user_id,))
        return int(row[0]) if row else 0

    def search_memories(
        self,
        user_id: int,
        text: str,
        limit: int = 20,
        kind: MemoryKind | None = None,
        states: Sequence[MemoryState] = ("active",),
    ) -> list[tuple[Memory, float]]:
        """Memories that share a word with ``text``, best first, each with its score (BM25; higher is better).

        Words are stemmed and accents dropped; ``text`` is taken as words only, so any text is a safe query. Left out:
        languages written without spaces, where a whole run of characters counts as one word.
        """
        return memories.search(self._connection, user_id, text, limit, kind, states)

    def use_of(self, user_id: int, id: str, limit: int = 20) -> list[tuple[Exchange, Used]]:
        """The exchanges that a memory was shown in, newest first, each with why. Also for one that is forgotten."""
        return exchanges.using(self._connection, user_id, id, limit)

    # The whole of it

    def export(self, user_id: int) -> Generator[bytes, None, None]:
        """The lines of an export of all that the user owns, as it is when the first is asked for.

        Closing the generator ends it early. Raises ``NotFound`` (param ``user``).
        """
        connection = Connection(self._connection.path, self._clock())
        try:
            yield from portable.export(connection, user_id, self._clock())
        finally:
            connection.close()

    def import_data(self, user_id: int, file: BinaryIO, *, anyones: bool = False) -> Imported:
        """Add an export to what the user has; all or nothing, and a second time changes nothing.

        Without ``anyones`` it must be of a user of the same name. Other writers wait until it is done. Raises
        ``InvalidInput`` (param ``file``), which names the line of the file that is not as it was exported.
        """
        connection = Connection(self._connection.path, self._clock())
        try:
            return portable.import_(connection, user_id, file, anyones=anyones)
        finally:
            connection.close()

    def backup(self, target: Path | None = None) -> Path:
        """Copy the store as it is at this moment, while it is in use; see ``backup.create``."""
        return backup.create(self._connection.path, self._clock(), target)

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

    def promote(self, version: AdapterVersion, untold: Sequence[Memory], run: LearningRun) -> None:
        """Serve a new version, with the memories that it follows ``untold``, and keep ``run`` as it ended: all or none.

        Memories that were said again, changed, pinned or ended since they were measured are left out. Raises
        ``LearningFailed`` when something in the version's lineage was forgotten, ``NotFound`` (param ``run_id``).
        """
        promotion.promote(self._connection, version, untold, run)

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

    def set_consolidated(self, user_id: int, version: int, measured: Sequence[Memory]) -> None:
        """Keep that a version follows these memories untold, and no others, as they were ``measured``.

        One that was said again, changed, pinned or ended since is left out. Raises ``NotFound`` (param ``version``).
        """
        consolidated.put(self._connection, user_id, version, measured)

    def consolidated(self, user_id: int, version: int) -> frozenset[str]:
        """The ids of the memories that a version follows untold, which are not to be put into its prompts.

        One leaves them when it is said again, changed, pinned or ended, and when two of the version's latest eight
        replies to which it applied are corrected, bettered or called bad.
        """
        return consolidated.of_version(self._connection, user_id, version)

    def cached_logps(self, base_sha256: str, keys: Sequence[str]) -> dict[str, float]:
        """The reference log-probabilities (nats) that are known, by key."""
        return lineage.cached_logps(self._connection, base_sha256, keys)

    def cache_logps(self, base_sha256: str, logps: Mapping[str, float]) -> None:
        """Keep reference log-probabilities (nats) by key, replacing what the keys had."""
        lineage.cache_logps(self._connection, base_sha256, logps)

"""One user's active memories in memory, kept in step with the store, to be searched within milliseconds.

SQLite finds words; it cannot compare vectors. So what a comparison needs (not the texts) is held here: 900 bytes per
memory with vectors of 384 dimensions. Each search first asks the store for the user's revision: what another process
wrote is seen at once. Above ``EXACT`` memories the signs of the vectors' components, one bit each, pick those to be
compared exactly (Charikar, STOC 2002: bits that differ estimate the angle).
"""

import threading

import numpy as np
from numpy.typing import NDArray

from familiar.memory import vectors
from familiar.memory.database import Connection
from familiar.memory.meaning import Background, Vectors

EXACT = 4096
"""Up to so many memories are compared one by one: under a millisecond."""
SHORTLIST = 400
"""Memories that the bits pick for comparison, of more than ``EXACT``."""
_AT_ONCE = 500
"""SQLite takes a bounded number of parameters in one statement (999 in old builds)."""

Positions = NDArray[np.int64]


class MemoryIndex:
    """The memories by position; ``seqs`` (ascending) are their sequence numbers. Use it under its ``lock``."""

    def __init__(
        self, connection: Connection, user_id: int, embedder: str | None, background: Background | None
    ) -> None:
        """Without an embedder there are no vectors, and words alone are searched for."""
        self.lock = threading.Lock()
        self._connection = connection
        self._user_id = user_id
        self._embedder = embedder
        self._background = background
        self._revision = self._removals = -1
        self._clear()

    def _clear(self) -> None:
        self.seqs = np.zeros(0, np.int64)
        self.conversations = np.zeros(0, np.int64)
        """Where each was said; 0 is nowhere."""
        self._vectors = np.zeros((0, 0), np.float16)
        self._hubness = np.zeros(0, np.float32)
        self._has_vector = np.zeros(0, bool)
        # (64-bit words of a vector, memories): a pass reads one word of all. Both may have room for more memories.
        self._bits = np.zeros((0, 0), np.uint64)

    def __len__(self) -> int:
        return len(self.seqs)

    @property
    def complete(self) -> bool:
        """Whether every memory has a vector."""
        return bool(self._has_vector.all())

    def refresh(self) -> None:
        """Take over what the store has changed since."""
        row = self._connection.first(
            "SELECT revision, removals FROM memory_changes WHERE user_id = ?", (self._user_id,)
        )
        revision, removals = (row["revision"], row["removals"]) if row else (0, 0)
        if revision == self._revision:
            return
        if removals != self._removals:
            self._keep_only_active()
        self._add_new()
        if self._embedder is not None:
            self._add_vectors()
        self._revision, self._removals = revision, removals

    def find(self, seqs: NDArray[np.int64]) -> tuple[Positions, NDArray[np.bool_]]:
        """The positions of sequence numbers, and which of them there are."""
        positions = np.searchsorted(self.seqs, seqs)
        there = positions < len(self.seqs)
        there[there] = self.seqs[positions[there]] == seqs[there]
        return positions, there

    def nearest(self, request: Vectors) -> Positions:
        """The positions of the memories worth comparing with a centred request, shape (dimensions,)."""
        if not self._has_vector.any():
            return np.zeros(0, np.int64)
        if len(self) <= EXACT:
            return np.flatnonzero(self._has_vector)
        wanted = _bits(request[None])[:, 0]
        apart = np.zeros(len(self), np.uint16)
        for word, theirs in zip(wanted, self._bits[:, : len(self)], strict=True):
            apart += np.bitwise_count(theirs ^ word)
        apart[~self._has_vector] = np.iinfo(np.uint16).max
        return np.argpartition(apart, SHORTLIST)[:SHORTLIST].astype(np.int64)

    def similarity(self, request: Vectors, positions: Positions) -> Vectors:
        """How alike the memories are to a centred request, less their hubness; shape (positions,).

        About 0 is what the likest of other requests have, and 1 the same. A memory without a vector has NaN.
        """
        if not self._has_vector.any():
            return np.full(len(positions), np.nan, np.float32)
        alike: Vectors = self._vectors[positions].astype(np.float32) @ request - self._hubness[positions]
        alike[~self._has_vector[positions]] = np.nan
        return alike

    def _keep_only_active(self) -> None:
        rows = self._connection.read(
            "SELECT m.seq, coalesce(c.seq, 0) AS said_in, v.background FROM memories AS m"
            " LEFT JOIN conversations AS c ON c.id = m.conversation_id"
            " LEFT JOIN memory_vectors AS v ON v.memory_seq = m.seq AND v.embedder = ?"
            " WHERE m.user_id = ? AND m.state = 'active' ORDER BY m.seq",
            (self._embedder, self._user_id),
        )
        active = np.array([row["seq"] for row in rows], np.int64)
        kept = np.isin(self.seqs, active, assume_unique=True)
        # One that became active again lies between the others: what follows it is read anew.
        returned = np.setdiff1d(active, self.seqs[kept], assume_unique=True)
        if len(returned) and len(self.seqs):
            kept &= self.seqs < returned[0]
        self.seqs, self._hubness, self._has_vector = self.seqs[kept], self._hubness[kept], self._has_vector[kept]
        if len(self._vectors):
            held = len(kept)
            self._vectors, self._bits = self._vectors[:held][kept], self._bits[:, :held][:, kept]
        still = np.searchsorted(active, self.seqs)
        self.conversations = np.array([row["said_in"] for row in rows], np.int64)[still]
        # A memory that was edited has lost its vector, or has another one by now, which has another hubness.
        self._has_vector &= np.array([row["background"] for row in rows], np.float32)[still] == self._hubness

    def _add_new(self) -> None:
        last = int(self.seqs[-1]) if len(self.seqs) else -1
        # The + keeps SQLite from going through all of the user's memories by another index.
        rows = self._connection.read(
            "SELECT m.seq, coalesce(c.seq, 0) AS said_in"
            " FROM memories AS m LEFT JOIN conversations AS c ON c.id = m.conversation_id"
            " WHERE +m.user_id = ? AND +m.state = 'active' AND m.seq > ? ORDER BY m.seq",
            (self._user_id, last),
        )
        if not rows:
            return
        self.seqs = np.append(self.seqs, [row["seq"] for row in rows])
        self.conversations = np.append(self.conversations, [row["said_in"] for row in rows])
        self._hubness = np.append(self._hubness, np.zeros(len(rows), np.float32))
        self._has_vector = np.append(self._has_vector, np.zeros(len(rows), bool))
        if len(self._vectors):
            self._make_room()

    def _make_room(self) -> None:
        # Twice as much as is needed: copying all vectors for each new memory would take longer than a search.
        if len(self) > len(self._vectors):
            more = 2 * len(self) - len(self._vectors)
            self._vectors = np.vstack([self._vectors, np.zeros((more, self._vectors.shape[1]), np.float16)])
            self._bits = np.hstack([self._bits, np.zeros((len(self._bits), more), np.uint64)])

    def _add_vectors(self) -> None:
        assert self._embedder is not None
        assert self._background is not None
        missing = self.seqs[~self._has_vector].tolist()
        wanted = missing if len(missing) <= _AT_ONCE else None
        if not missing:
            return
        seqs, found, hubness = vectors.read(self._connection, self._user_id, self._embedder, wanted)
        positions, there = self.find(seqs)
        positions = positions[there]
        if not len(positions):
            return
        if not len(self._vectors):
            width = found.shape[1]
            self._vectors = np.zeros((len(self), width), np.float16)
            self._bits = np.zeros((-(-width // 64), len(self)), np.uint64)
        centred = self._background.statement(found[there])
        self._vectors[positions] = centred
        self._bits[:, positions] = _bits(centred)
        self._hubness[positions] = hubness[there]
        self._has_vector[positions] = True


def _bits(vectors: Vectors) -> NDArray[np.uint64]:
    """The signs of the components, shape (64-bit words, vectors)."""
    packed = np.packbits(vectors > 0, axis=1)
    padded = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8)))
    return np.ascontiguousarray(padded.view(np.uint64).T)

"""One user's active memories in memory, kept in step with the store, to be searched within milliseconds.

SQLite finds words; it cannot compare vectors. So what a comparison needs (not the texts) is held here: 850 bytes per
memory with vectors of 384 dimensions, whose components, from -1 to 1, are integers of 16 bits: as exact as 16-bit
floats are, and made into floats of 32 in a tenth of the time. Each search first asks the store for the user's revision:
what another process wrote is seen at once. Above ``EXACT`` memories the signs of the vectors' components, one bit each,
pick those to be compared exactly (Charikar, STOC 2002: bits that differ estimate the angle).
"""

import threading

import numpy as np
from numpy.typing import NDArray

from familiar.memory import meaning, vectors
from familiar.memory.database import Connection
from familiar.memory.meaning import Background, Vectors

EXACT = 4096
"""Up to so many memories are compared one by one: under a millisecond."""
SHORTLIST = 400
"""Memories that the bits pick for comparison, of more than ``EXACT``."""
_AT_ONCE = 500
"""SQLite takes a bounded number of parameters in one statement (999 in old builds)."""
_ONE = np.float32(32767)
"""The number that stands for a component of 1."""

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
        self._vectors = np.zeros((0, 0), np.int16)
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

    def missing(self, limit: int | None = None) -> list[int]:
        """The sequence numbers of the memories without a vector, the newest first: so many at most."""
        found: list[int] = self.seqs[~self._has_vector][::-1][:limit].tolist()
        return found

    def refresh(self) -> None:
        """Take over what the store has changed since."""
        row = self._connection.first(
            "SELECT revision, removals FROM memory_changes WHERE user_id = ?", (self._user_id,)
        )
        revision, removals = (row["revision"], row["removals"]) if row else (0, 0)
        if revision == self._revision:
            return
        if removals != self._removals and len(self):
            self._keep_only_active(removals - self._removals)
        known = len(self)
        self._add_new()
        if self._embedder is not None:
            self._add_vectors(known)
        self._revision, self._removals = revision, removals

    def find(self, seqs: NDArray[np.int64]) -> tuple[Positions, NDArray[np.bool_]]:
        """The positions of sequence numbers, and which of them there are."""
        positions = np.searchsorted(self.seqs, seqs)
        there = positions < len(self.seqs)
        there[there] = self.seqs[positions[there]] == seqs[there]
        return positions, there

    def nearest(self, request: Vectors) -> Positions:
        """The positions of the memories worth comparing with a centred request, shape (dimensions,)."""
        if len(self) <= EXACT or np.count_nonzero(self._has_vector) <= SHORTLIST:
            return np.flatnonzero(self._has_vector)
        wanted = _bits(request[None])[:, 0]
        apart = np.zeros(len(self), np.uint16)
        for word, theirs in zip(wanted, self._bits[:, : len(self)], strict=True):
            apart += np.bitwise_count(theirs ^ word)
        if not self.complete:
            apart[~self._has_vector] = 64 * len(wanted) + 1  # further than any
        # There are few distances, so counting how often each occurs takes a fifth of the time of ordering them.
        last = np.searchsorted(np.cumsum(np.bincount(apart)), SHORTLIST)
        nearer = np.flatnonzero(apart < last)
        return np.concatenate([nearer, np.flatnonzero(apart == last)[len(nearer) - SHORTLIST :]])

    def similarity(self, request: Vectors, positions: Positions) -> Vectors:
        """How alike the memories are to a centred request, less their hubness; shape (positions,).

        About 0 is what the likest of other requests have, and 1 the same. A memory without a vector has NaN.
        """
        if not self._has_vector.any():
            return np.full(len(positions), np.nan, np.float32)
        alike = meaning.products(self._vectors[positions].astype(np.float32), request / _ONE)
        alike -= self._hubness[positions]
        alike[~self._has_vector[positions]] = np.nan
        return alike

    def _keep_only_active(self, removals: int) -> None:
        """Drop what so many removals have made of the memories that are held."""
        active = self._active()  # what is removed only now is told by the revision of the next refresh
        kept = np.isin(self.seqs, active, assume_unique=True)
        returned = np.setdiff1d(active, self.seqs, assume_unique=True)
        returned = returned[returned < self.seqs[-1]]
        # Each that went or came back is one removal. Were there more, texts or conversations may have changed as well.
        changed = removals > len(returned) + np.count_nonzero(~kept)
        if len(returned):
            # One that became active again lies between the others: what follows it is read anew.
            kept &= self.seqs < returned[0]
        held, left = len(kept), np.count_nonzero(kept)
        self.seqs, self.conversations = self.seqs[kept], self.conversations[kept]
        self._hubness, self._has_vector = self._hubness[kept], self._has_vector[kept]
        if len(self._vectors) and left < held:
            gone = int(np.argmin(kept))  # the first one: what is before it stays where it is
            self._vectors[gone:left] = self._vectors[gone:held][kept[gone:]]
            self._bits[:, gone:left] = self._bits[:, gone:held][:, kept[gone:]]
        if changed:
            self._take_changes()

    def _active(self) -> NDArray[np.int64]:
        """The sequence numbers of the user's active memories in the store, ascending."""
        # As one text: an object for each would take longer than all else.
        row = self._connection.first(
            "SELECT group_concat(seq) FROM memories WHERE user_id = ? AND state = 'active'", (self._user_id,)
        )
        return np.sort(np.fromstring((row and row[0]) or "", np.int64, sep=","))

    def _take_changes(self) -> None:
        """Take over where the memories were said, and forget the vectors of those whose texts were edited."""
        rows = self._connection.read(
            "SELECT m.seq, coalesce(c.seq, 0) AS said_in, v.background FROM memories AS m"
            " LEFT JOIN conversations AS c ON c.id = m.conversation_id"
            " LEFT JOIN memory_vectors AS v ON v.memory_seq = m.seq AND v.embedder = ?"
            " WHERE m.user_id = ? AND m.state = 'active' ORDER BY m.seq",
            (self._embedder, self._user_id),
        )
        positions, there = self.find(np.array([row["seq"] for row in rows], np.int64))
        positions = positions[there]
        self.conversations[positions] = np.array([row["said_in"] for row in rows], np.int64)[there]
        # A memory that was edited has lost its vector, or has another one by now, which has another hubness.
        background = np.array([row["background"] for row in rows], np.float32)[there]
        self._has_vector[positions] &= background == self._hubness[positions]

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
            self._make_room(self._vectors.shape[1])

    def _make_room(self, width: int) -> None:
        # For twice as many as there are: copying all vectors for each new memory would take longer than a search, and
        # room that is not used takes no memory.
        if len(self) <= len(self._vectors):
            return
        vectors, bits = self._vectors, self._bits
        self._vectors = np.zeros((2 * len(self), width), np.int16)
        self._bits = np.zeros((-(-width // 64), 2 * len(self)), np.uint64)
        if len(vectors):
            self._vectors[: len(vectors)] = vectors
            self._bits[:, : len(vectors)] = bits

    def _add_vectors(self, known: int) -> None:
        """Look for the vectors of the memories that lack one; those from position ``known`` on are new here."""
        lacking = np.flatnonzero(~self._has_vector)[::-1]
        for start in range(0, len(lacking), _AT_ONCE):
            some = lacking[start : start + _AT_ONCE]
            if not self._take_vectors(some) and some[-1] < known:
                break  # the newest are given theirs first: where none of these has one, older ones have none

    def _take_vectors(self, positions: Positions) -> int:
        """Take over the vectors that the store has of the memories at these positions; return how many."""
        assert self._embedder is not None
        assert self._background is not None
        seqs, found, hubness = vectors.read(
            self._connection, self._user_id, self._embedder, self.seqs[positions].tolist()
        )
        if not len(seqs):
            return 0
        if not len(self._vectors):
            self._make_room(found.shape[1])
        held, _ = self.find(seqs)
        centred = self._background.statement(found)
        self._vectors[held] = np.round(_ONE * centred)
        self._bits[:, held] = _bits(centred)
        self._hubness[held] = hubness
        self._has_vector[held] = True
        return len(seqs)


def _bits(vectors: Vectors) -> NDArray[np.uint64]:
    """The signs of the components, shape (64-bit words, vectors)."""
    packed = np.packbits(vectors > 0, axis=1)
    padded = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8)))
    return np.ascontiguousarray(padded.view(np.uint64).T)

"""The store's queries about vectors: putting them, reading them, and the background that they are seen against.

Functions over a ``Connection``. Which memories lack one is known to the index.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from familiar.memory import meaning
from familiar.memory.database import Connection, Row
from familiar.memory.meaning import Background, Embed, Vectors

SHIPPED = Path(__file__).parent / "everyday_vectors.npz"
"""The background's vectors for the default sentence model; ``tools/everyday_vectors.py`` writes them."""

_STORED = np.dtype("<f2")
_TOGETHER = 64
"""Memories that are embedded and written at once: a request that waits for its turn waits no longer than for these."""


def background(connection: Connection, embed: Embed) -> Background:
    """What requests and statements are like to this embedder: shipped, from the store, or computed and kept there."""
    sha256 = meaning.texts_sha256()
    shipped = _shipped(embed.name, sha256)
    if shipped is not None:
        return Background.of(shipped)
    known = connection.first(
        "SELECT vectors FROM background_vectors WHERE embedder = ? AND texts_sha256 = ?", (embed.name, sha256)
    )
    if known is not None:
        texts = len(meaning.background_texts())
        return Background.of(np.frombuffer(known["vectors"], _STORED).astype(np.float32).reshape(texts, -1))
    vectors = embed(meaning.background_texts())
    with connection.write(durable=False) as transaction:
        transaction.execute(
            "INSERT OR REPLACE INTO background_vectors (embedder, texts_sha256, vectors) VALUES (?, ?, ?)",
            (embed.name, sha256, vectors.astype(_STORED).tobytes()),
        )
    return Background.of(vectors)


def to_bytes(vectors: Vectors) -> NDArray[np.int8]:
    """Vectors in a quarter of the space; their lengths are lost, which for those of length 1 is nothing."""
    small: NDArray[np.int8] = np.round(127 * vectors / np.abs(vectors).max(1, keepdims=True)).astype(np.int8)
    return small


def _shipped(embedder: str, texts_sha256: str) -> Vectors | None:
    """The vectors that come with the package, where they are this embedder's of these texts."""
    if not SHIPPED.is_file():
        return None
    with np.load(SHIPPED) as found:
        if (str(found["embedder"]), str(found["texts_sha256"])) != (embedder, texts_sha256):
            return None
        vectors = found["vectors"].astype(np.float32)
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def embed_missing(connection: Connection, seqs: Sequence[int], embed: Embed, seen_against: Background) -> int:
    """Give the active ones of the memories of these sequence numbers a vector; return how many got one.

    They are taken in the order given. An example is found by its prompt.
    """
    done = 0
    for start in range(0, len(seqs), _TOGETHER):
        some = seqs[start : start + _TOGETHER]
        rows = connection.read(
            "SELECT seq, coalesce(prompt, text) AS said FROM memories"
            f" WHERE +state = 'active' AND seq IN ({_marks(some)})",
            some,
        )
        if rows:
            vectors = embed([row["said"] for row in rows])
            hubness = seen_against.hubness(seen_against.statement(vectors))
            _put(connection, embed.name, rows, vectors, hubness)
            done += len(rows)
    return done


def read(
    connection: Connection, user_id: int, embedder: str, seqs: Sequence[int]
) -> tuple[NDArray[np.int64], Vectors, Vectors]:
    """The sequence numbers, ascending, vectors (n, dimensions) and hubness (n,) of a user's active memories.

    ``seqs`` names those that are wanted; some may have no vector.
    """
    # The + keeps SQLite from going through all of the user's memories by another index.
    rows = connection.read(
        "SELECT v.memory_seq, v.vector, v.background FROM memory_vectors AS v"
        " JOIN memories AS m ON m.seq = v.memory_seq"
        f" WHERE v.memory_seq IN ({_marks(seqs)}) AND v.embedder = ? AND +m.user_id = ? AND +m.state = 'active'"
        " ORDER BY v.memory_seq",
        (*seqs, embedder, user_id),
    )
    vectors = np.frombuffer(b"".join(row["vector"] for row in rows), _STORED).astype(np.float32)
    return (
        np.array([row["memory_seq"] for row in rows], np.int64),
        vectors.reshape(len(rows), -1) if rows else np.zeros((0, 0), np.float32),
        np.array([row["background"] for row in rows], np.float32),
    )


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


def _put(connection: Connection, embedder: str, rows: Sequence[Row], vectors: Vectors, hubness: Vectors) -> None:
    stored = vectors.astype(_STORED)
    with connection.write(durable=False) as transaction:
        # A memory may have gone, changed, or been embedded by another process, meanwhile.
        transaction.execute_many(
            "INSERT OR REPLACE INTO memory_vectors (memory_seq, embedder, vector, background)"
            " SELECT seq, ?, ?, ? FROM memories WHERE seq = ? AND coalesce(prompt, text) = ?",
            [
                (embedder, vector.tobytes(), float(hub), row["seq"], row["said"])
                for row, vector, hub in zip(rows, stored, hubness, strict=True)
            ],
        )

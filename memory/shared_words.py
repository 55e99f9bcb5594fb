"""How much of what a request says a memory says too, by words: BM25's idea with FTS5's index.

FTS5's own ``bm25`` takes as long as all rows that hold any of the words, and means another thing in every store: with
few memories, or a word in most of them, it is about 0. So FTS5 only says which memories hold a word, rare words first,
and the share of the request's words that a memory has, weighted by their rarity, is counted here. Like BM25 it weighs a
word by its inverse document frequency (Robertson and Zaragoza, 2009, equation 3.14); a word that occurs twice counts
once and a memory's length does not count, since memories are short. What is rare is judged by the store and by
everyday texts together: in a store of one memory each of its words would be the commonest.
"""

import math
from collections import Counter
from functools import cache

import numpy as np

from familiar.memory.database import Connection
from familiar.memory.index import MemoryIndex, Positions
from familiar.memory.meaning import Vectors, background_texts
from familiar.memory.words import content_words, stem, words

MAX_WORDS = 64
"""The first so many different words of a request count: a pasted book must not become the query."""
ROWS = 4000
"""Rows that are read for one request: milliseconds. Words in more than that are too common to tell memories apart."""
POWER = 2.5
"""Sharing most of the words says more than twice what sharing half of them does."""


def share(connection: Connection, index: MemoryIndex, request: str) -> Vectors:
    """The share of the request's words that each memory has, to the ``POWER``: 0 to 1, shape (memories,)."""
    scores = np.zeros(len(index), np.float32)
    if not len(index):
        return scores
    # All words only where no content word is left, so that "How are you?" still finds its own correction.
    asked = list(dict.fromkeys(content_words(request) or words(request)))[:MAX_WORDS]
    rarest_first = sorted((_rows_with(connection, word), word) for word in asked)
    everyday, texts = _everyday_counts()
    total, read = 0.0, 0
    for count, word in rarest_first:
        here, positions = min(count, len(index)), np.zeros(0, np.int64)
        if count and (not read or read + count <= ROWS):
            positions = _having(connection, index, word)
            read += count
            # What others have said, and what has ended, makes a word no commoner for this user.
            here = len(positions) if count <= ROWS else here
        having = here + everyday[stem(word)]
        weight = math.log(1 + (len(index) + texts - having + 0.5) / (having + 0.5))
        total += weight
        scores[positions] += weight
    if not total:
        return scores
    found = np.flatnonzero(scores)  # few of many memories: the power takes longer than all else
    scores[found] = (scores[found] / total) ** POWER
    return scores


@cache
def _everyday_counts() -> tuple[Counter[str], int]:
    """In how many everyday texts each word occurs, by its stem, and how many texts there are."""
    texts = background_texts()
    return Counter(word for text in texts for word in {stem(word) for word in words(text)}), len(texts)


def _rows_with(connection: Connection, word: str) -> int:
    """How many rows hold a word, counted up to ``ROWS`` and one."""
    row = connection.first(
        "SELECT count(*) FROM (SELECT 1 FROM memories_fts WHERE memories_fts MATCH ? LIMIT ?)",
        (_quoted(word), ROWS + 1),
    )
    return int(row[0]) if row else 0


def _having(connection: Connection, index: MemoryIndex, word: str) -> Positions:
    """The positions of the memories that hold a word: among the newest ``ROWS`` rows, where more do."""
    rows = connection.read(
        "SELECT rowid FROM memories_fts WHERE memories_fts MATCH ? ORDER BY rowid DESC LIMIT ?", (_quoted(word), ROWS)
    )
    positions, there = index.find(np.array([row[0] for row in rows], np.int64))
    return positions[there]


def _quoted(word: str) -> str:
    # Quoted, AND, OR, NEAR and * are words like any other to FTS5.
    return f'"{word}"'

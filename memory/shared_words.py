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
from dataclasses import dataclass
from functools import cache

import numpy as np

from familiar.memory.database import Connection
from familiar.memory.index import MemoryIndex, Positions
from familiar.memory.meaning import Vectors, background_texts
from familiar.memory.restating import quoted
from familiar.memory.words import content_words, stem, words

MAX_WORDS = 64
"""The first so many different words of a request count: a pasted book must not become the query."""
ROWS = 4000
"""Rows that are read for one request: milliseconds. Words in more than that are too common to tell memories apart."""
POWER = 2.5
"""Sharing most of the words says more than twice what sharing half of them does."""


@dataclass(frozen=True)
class Shared:
    """What a request's words say of each memory.

    ``shares`` is the share of the words that it has, to the ``POWER``: 0 to 1, shape (memories,). ``having_all`` are
    the positions of those that have every word that was looked up, so all that say the same as the request are among
    them; None where not all rows of any word were read.
    """

    shares: Vectors
    having_all: Positions | None


def share(connection: Connection, index: MemoryIndex, request: str) -> Shared:
    """See ``Shared``; the index is fresh."""
    scores = np.zeros(len(index), np.float32)
    if not len(index):
        return Shared(scores, np.zeros(0, np.int64))
    # All words only where no content word is left, so that "How are you?" still finds its own correction.
    asked = list(dict.fromkeys(content_words(request) or words(request)))[:MAX_WORDS]
    rarest_first = sorted((*_rows_with(connection, word), word) for word in asked)
    everyday, texts = _everyday_counts()
    total = looked_up = 0.0
    read, rarest = 0, None
    for count, rows, word in rarest_first:
        here, positions = min(count, len(index)), np.zeros(0, np.int64)
        if count and (not read or read + count <= ROWS):
            positions = _positions(index, rows if count <= ROWS else _newest_rows_with(connection, word))
            # What others have said, and what has ended, makes a word no commoner for this user.
            here = len(positions) if count <= ROWS else here
            if not read and count <= ROWS:
                rarest = positions
            read += count
        having = here + everyday[stem(word)]
        weight = math.log(1 + (len(index) + texts - having + 0.5) / (having + 0.5))
        total += weight
        looked_up += weight if len(positions) else 0.0
        scores[positions] += weight
    # A sum of other roundings is not to leave one out; one too many does no harm.
    having_all = None if rarest is None else rarest[scores[rarest] >= 0.999 * looked_up]
    found = np.flatnonzero(scores != 0)
    scores[found] = (scores[found] / total) ** POWER
    return Shared(scores, having_all)


@cache
def _everyday_counts() -> tuple[Counter[str], int]:
    """In how many everyday texts each word occurs, by its stem, and how many texts there are."""
    texts = background_texts()
    return Counter(word for text in texts for word in {stem(word) for word in words(text)}), len(texts)


def _rows_with(connection: Connection, word: str) -> tuple[int, str]:
    """How many rows hold a word, and which, with commas between them: up to ``ROWS`` and one."""
    # As one text: an object for each row would take most of the time.
    row = connection.first(
        "SELECT count(*), group_concat(rowid) FROM (SELECT rowid FROM memories_fts WHERE memories_fts MATCH ? LIMIT ?)",
        (quoted(word), ROWS + 1),
    )
    return (int(row[0]), row[1] or "") if row else (0, "")


def _newest_rows_with(connection: Connection, word: str) -> str:
    """The newest ``ROWS`` rows that hold a word, with commas between them."""
    row = connection.first(
        "SELECT group_concat(rowid) FROM"
        " (SELECT rowid FROM memories_fts WHERE memories_fts MATCH ? ORDER BY rowid DESC LIMIT ?)",
        (quoted(word), ROWS),
    )
    return str(row[0]) if row else ""


def _positions(index: MemoryIndex, rows: str) -> Positions:
    """The positions of those of the rows that are in the index."""
    positions, there = index.find(np.fromstring(rows, np.int64, sep=","))
    return positions[there]

"""An embedder for tests that need vectors but no sentence model: a hashed bag of words.

A word is a random vector that its spelling seeds, a text the sum of its words' vectors: texts are alike by as much as
they share words, and as good as unrelated where they share none. Words that are ``alike`` have one vector, which is how
a test says that two texts mean the same without a word in common.
"""

import zlib
from collections.abc import Sequence

import numpy as np

from familiar.memory.meaning import Vectors
from familiar.memory.words import content_words, stem


class HashedWords:
    """``calls`` holds the texts of each call, in order."""

    def __init__(self, dimensions: int = 64, alike: Sequence[str] = ()) -> None:
        """Each of ``alike`` is a group of words, with spaces between them, that mean the same."""
        self.name = f"hashed-words-{dimensions}-{zlib.crc32(' / '.join(alike).encode())}"
        self.calls: list[list[str]] = []
        self._dimensions = dimensions
        self._same = {stem(word): group for group in alike for word in group.split()}
        self._words: dict[str, Vectors] = {}

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """The vectors of the texts, shape (texts, dimensions)."""
        self.calls.append(list(texts))
        return np.stack([self._vector(text) for text in texts])

    def _vector(self, text: str) -> Vectors:
        total = sum((self._word(stem(word)) for word in content_words(text)), self._word(""))
        unit: Vectors = (total / np.linalg.norm(total)).astype(np.float32)
        return unit

    def _word(self, word: str) -> Vectors:
        word = self._same.get(word, word)
        if word not in self._words:
            rng = np.random.default_rng(zlib.crc32(word.encode()))
            self._words[word] = rng.normal(size=self._dimensions).astype(np.float32)
        return self._words[word]

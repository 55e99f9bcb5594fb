"""Which memories to show the model for a request.

What applies always is always shown, as far as it fits. What applies to some requests is shown where it has to do with
this one: by the words that they share (``shared_words``) and by what they mean (``meaning``), added up. Memories that
were said next to each other in one conversation support each other, since an answer is often told by the turn beside
it. Without an embedder words alone decide. What is left out: how memories are worded in the prompt.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from familiar.memory import memories, shared_words, vectors
from familiar.memory.index import MemoryIndex, Positions
from familiar.memory.meaning import Background, Embed, Vectors
from familiar.memory.store import Store
from familiar.memory.types import Memory, Message, Reason, Used
from familiar.memory.words import content_words, same_words_key

MEANING_WEIGHT = 0.8
"""What likeness of meaning counts beside shared words; both are at most 1."""
NEIGHBOUR_WEIGHT = 0.45
"""What the score of a memory counts for those said before and after it in the same conversation."""
RELEVANT_OF_TEN, RELEVANT_PER_FOLD, RELEVANT_RANGE = -0.05, 0.08, (-0.1, 0.4)
"""What ``_relevance`` must reach for one of ten memories to be shown, by how much more for each e-fold of memories, and
the least and the most: the likest of many memories is more alike to a request that it has nothing to do with.
``benchmarks/recall.py`` measures what is let through, and what is kept out."""
RELEVANT_SHARE = 0.3
"""The share of words that is wanted without an embedder."""
MAX_RELATED = 6
"""Memories shown because they have to do with the request, at most: more would drown the best of them."""
MAX_EXAMPLES = 2
"""Corrected examples among them; each is as long as a reply."""
MAX_STANDING = 200
"""Memories that apply always, the newest and the pinned ones, that are looked at for one request."""

_FEW_WORDS = 3
"""A message with fewer content words than this ("and for two?") is understood by the one before it."""
_REQUEST_CHARACTERS = 2000
_SHORTLIST = 300
_USERS = 64
"""Users whose memories are kept in memory."""
_AT_ONCE = 8
"""Memories without a vector that are given one before a search; the rest are found by words until they have one."""


@dataclass(frozen=True)
class Ranked:
    """A memory and how well it matches: ``score`` sums up the share of ``words`` and the likeness of ``meaning``.

    One with a ``relevance`` of 0 or more is shown. It orders memories worse than the score does, since it depends on
    the others: one that stands out is more likely to be meant than the best of many that are alike.
    """

    memory: Memory
    score: float
    relevance: float
    words: float
    meaning: float | None


@dataclass(frozen=True)
class Recalled:
    """What to show, in order, why, and what it costs by the caller's count."""

    memories: tuple[Memory, ...]
    used: tuple[Used, ...]
    tokens: int


NOTHING = Recalled((), (), 0)
"""Where memory is off, or has nothing to show."""


@dataclass(frozen=True)
class _Scores:
    """Of the candidates at ``positions``, best first."""

    seqs: list[int]
    scores: list[float]
    relevance: list[float]
    words: list[float]
    meanings: list[float]


class Recaller:
    """Finds memories in one store. Safe from any thread; the embedder is called by whoever searches."""

    def __init__(self, store: Store, embed: Embed | None = None) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._indexes: OrderedDict[int, MemoryIndex] = OrderedDict()
        self._embed: Embed | None = None
        self._background: Background | None = None
        if embed is not None:
            self.use(embed)

    @property
    def by_meaning(self) -> bool:
        """Whether there is an embedder; without one only memories that share a word are found."""
        return self._embed is not None

    def use(self, embed: Embed) -> None:
        """Search by meaning with this embedder from now on. Takes seconds the first time, for the background texts."""
        background = vectors.background(self._store.connection, embed)
        with self._lock:
            self._embed, self._background = embed, background
            self._indexes.clear()

    def prepare(self, user_id: int, limit: int | None = None) -> int:
        """Give a user's memories the vectors that they lack, so that no request waits; return how many got one."""
        if self._embed is None or self._background is None:
            return 0
        return vectors.embed_missing(self._store.connection, user_id, self._embed, self._background, limit=limit)

    def search(self, user_id: int, request: str, limit: int = 20) -> list[Ranked]:
        """The user's active memories that share a word or a meaning with the request, best first."""
        request = request[:_REQUEST_CHARACTERS]
        vector = self.request_vector(user_id, request)
        return [each for each in self.rank(user_id, request, vector, limit) if each.words or each.relevance >= 0]

    def request_vector(self, user_id: int, request: str) -> Vectors | None:
        """What a request means, as it is compared; None without an embedder or a memory to compare it with."""
        if self._embed is None or self._background is None or not request.strip():
            return None
        # What was said a moment ago applies to this very request.
        self.prepare(user_id, limit=_AT_ONCE)
        index = self._index(user_id)
        with index.lock:
            index.refresh()
            if not len(index):
                return None
        vector: Vectors = self._background.request(self._embed([request]))[0]
        return vector

    def rank(self, user_id: int, request: str, vector: Vectors | None, limit: int) -> list[Ranked]:
        """As ``search``, for a request whose vector is known: all that takes time with many memories."""
        index = self._index(user_id)
        with index.lock:
            index.refresh()
            found = self._score(index, request, vector, limit)
        by_seq = memories.by_seqs(self._store.connection, user_id, found.seqs)
        ranked = []
        columns = (found.seqs, found.scores, found.relevance, found.words, found.meanings)
        for seq, score, relevance, words, meaning in zip(*columns, strict=True):
            memory = by_seq.get(seq)
            if memory is None:
                continue
            if memory.prompt and same_words_key(memory.prompt) == same_words_key(request):
                score, relevance, words = max(score, 1.0), 1.0, 1.0
            ranked.append(Ranked(memory, score, relevance, words, meaning if vector is not None else None))
        return sorted(ranked, key=lambda each: (-each.score, -each.memory.created_at))

    def recall(
        self,
        user_id: int,
        messages: Sequence[Message],
        *,
        conversation_id: str | None = None,
        budget_tokens: int,
        count_tokens: Callable[[Memory], int],
    ) -> Recalled:
        """The memories for a conversation, within ``budget_tokens``.

        Pinned ones come first, then those of this conversation, then what has to do with the last user message (best
        first, ``MAX_RELATED`` at most), then what applies always: what the message is about first, then the newest. One
        that does not fit is left out whole, and a later one that fits is still shown. Examples are shown last.
        """
        request = request_text(messages)
        ranked = {each.memory.id: each for each in self.search(user_id, request, limit=50)} if request else {}
        chosen: list[tuple[Memory, Used]] = []
        tokens = 0
        standing = memories.standing(self._store.connection, user_id, conversation_id, MAX_STANDING)
        for memory, reason in _in_turn(standing, list(ranked.values()), embedded=self.by_meaning):
            if tokens >= budget_tokens:
                break
            cost = count_tokens(memory)
            if tokens + cost > budget_tokens:
                continue
            match = ranked.get(memory.id)
            fit = round(min(max(match.score, 0.0), 1.0), 3) if match else None
            chosen.append((memory, Used(memory.id, reason, fit)))
            tokens += cost
        chosen.sort(key=lambda each: each[0].kind == "example")
        return Recalled(tuple(memory for memory, _ in chosen), tuple(used for _, used in chosen), tokens)

    def _index(self, user_id: int) -> MemoryIndex:
        with self._lock:
            index = self._indexes.get(user_id)
            if index is None:
                embedder = self._embed.name if self._embed else None
                index = MemoryIndex(self._store.connection, user_id, embedder, self._background)
                self._indexes[user_id] = index
                if len(self._indexes) > _USERS:
                    self._indexes.popitem(last=False)
            self._indexes.move_to_end(user_id)
            return index

    def _score(self, index: MemoryIndex, request: str, vector: Vectors | None, limit: int) -> _Scores:
        shares = shared_words.share(self._store.connection, index, request)
        positions = _best(shares, _SHORTLIST)
        if vector is not None:
            positions = np.union1d(positions, index.nearest(vector))
        positions = _with_neighbours(index, positions)
        scores = words = shares[positions]
        relevance = words - RELEVANT_SHARE
        meanings = np.zeros(len(positions), np.float32)
        if vector is not None and self._background is not None:
            meanings = index.similarity(vector, positions)
            scores = words + MEANING_WEIGHT * meanings
            relevance = _relevance(words, meanings, self._background.strangers(vector)) - _wanted(len(index))
        scores = _supported(index, positions, scores)
        order = np.lexsort((-index.seqs[positions], -scores))[:limit]
        return _Scores(
            index.seqs[positions[order]].tolist(),
            scores[order].tolist(),
            relevance[order].tolist(),
            words[order].tolist(),
            meanings[order].tolist(),
        )


def request_text(messages: Sequence[Message]) -> str:
    """What is asked for: the last user message, after the one before it where it says little by itself."""
    said = [turn["content"].strip() for turn in messages if turn["role"] == "user"]
    if not said:
        return ""
    if len(said) > 1 and len(content_words(said[-1])) < _FEW_WORDS:
        return f"{said[-2]}\n{said[-1]}"
    return said[-1]


def is_relevant(match: Ranked) -> bool:
    """Whether a memory has enough to do with the request that it was ranked for to be shown."""
    return match.relevance >= 0


def _in_turn(
    standing: Sequence[Memory], ranked: Sequence[Ranked], *, embedded: bool
) -> Iterator[tuple[Memory, Reason]]:
    """Each memory that applies, once, in the order in which they may take from the budget."""
    given: set[str] = set()

    def once(memory: Memory) -> bool:
        new = memory.id not in given
        given.add(memory.id)
        return new

    for memory in standing:
        if memory.pinned and once(memory):
            yield memory, "pinned"
    for memory in standing:
        if memory.scope == "conversation" and once(memory):
            yield memory, "conversation"
    related = [each for each in ranked if each.memory.scope == "related" and is_relevant(each)]
    examples = 0
    for match in related[:MAX_RELATED]:
        examples += match.memory.kind == "example"
        if (match.memory.kind != "example" or examples <= MAX_EXAMPLES) and once(match.memory):
            yield match.memory, _reason(match)
    place = {each.memory.id: place for place, each in enumerate(ranked) if is_relevant(each)}
    for memory in sorted(standing, key=lambda each: place.get(each.id, len(place))):
        if memory.scope == "always" and once(memory):
            yield memory, "always"


def _reason(match: Ranked) -> Reason:
    if match.words >= 1:
        return "same prompt"
    by_meaning = match.meaning is not None and MEANING_WEIGHT * match.meaning >= match.score / 3
    by_words = match.words >= match.score / 3
    return "words and meaning" if by_meaning and by_words else "meaning" if by_meaning else "words"


def _best(scores: Vectors, most: int) -> Positions:
    """The positions of the highest scores over 0, ascending."""
    found = np.flatnonzero(scores)
    if len(found) > most:
        found = np.sort(found[np.argpartition(-scores[found], most)[:most]])
    return found


def _relevance(words: Vectors, meanings: Vectors, strangers: Vectors) -> Vectors:
    """Whether memories have to do with a request, about 0 (no) to 1.

    What counts most is how far a memory stands out from the next likest ones, of the user or of other people
    (``strangers``): a request that is as much like many memories is of their kind and about none of them.
    The weights were fitted by logistic regression on the sets of ``benchmarks/recall.py``, and rounded.
    """
    beside = len(strangers)
    likest = np.sort(np.concatenate([meanings, strangers]))[::-1]
    first = likest[: beside + 1]
    # Of each memory the ``beside`` likest others: for those among the first, one more takes its place.
    others = np.where(meanings >= first[-1], (first.sum() - meanings) / beside, first[:-1].mean())
    relevance: Vectors = (0.3 * meanings + (meanings - others) + 0.3 * words).astype(np.float32)
    return relevance


def _wanted(memories: int) -> float:
    """The relevance that one of so many memories must reach to be shown."""
    least, most = RELEVANT_RANGE
    return min(max(RELEVANT_OF_TEN + RELEVANT_PER_FOLD * math.log(max(memories, 1) / 10), least), most)


def _with_neighbours(index: MemoryIndex, positions: Positions) -> Positions:
    """The positions, and those beside them that were said in the same conversation."""
    beside = np.concatenate([positions - 1, positions + 1])
    of = np.concatenate([positions, positions])
    inside = (beside >= 0) & (beside < len(index))
    beside, of = beside[inside], of[inside]
    said_in = index.conversations[beside]
    together: Positions = np.union1d(positions, beside[(said_in != 0) & (said_in == index.conversations[of])])
    return together


def _supported(index: MemoryIndex, positions: Positions, scores: Vectors) -> Vectors:
    """The scores, and a part of those of the neighbours in the same conversation; ``positions`` ascend."""
    if len(positions) < 2:
        return scores
    said_in = index.conversations[positions]
    beside = (np.diff(positions) == 1) & (said_in[1:] == said_in[:-1]) & (said_in[1:] != 0)
    part = NEIGHBOUR_WEIGHT * np.maximum(scores, 0)
    supported = scores.copy()
    supported[1:][beside] += part[:-1][beside]
    supported[:-1][beside] += part[1:][beside]
    return supported

"""Which memories to show the model for a request.

What applies always is always shown, as far as it fits. What applies to some requests is shown where it has to do with
this one: by the words that they share (``shared_words``) and by what they mean (``meaning``), added up. Memories that
were said next to each other in one conversation support each other, since an answer is often told by the turn beside
it. Without an embedder words alone decide. What the adapter that answers was measured to follow untold is named as well
and not shown, for it would only take room. What is left out: how memories are worded in the prompt.
"""

import math
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from familiar.memory import memories, restating, shared_words, vectors
from familiar.memory.errors import Busy, NoSpace
from familiar.memory.index import MemoryIndex, Positions
from familiar.memory.meaning import Background, Embed, Vectors
from familiar.memory.store import Store
from familiar.memory.types import Memory, Message, Reason, Used
from familiar.memory.words import content_words, same_words_key

MEANING_WEIGHT = 0.8
"""What likeness of meaning counts beside shared words; both are at most 1."""
NEIGHBOUR_WEIGHT = 0.45
"""What the score of a memory counts for those said before and after it in the same conversation."""
RELEVANT_OF_TEN, RELEVANT_PER_FOLD, RELEVANT_RANGE = -0.05, 0.095, (-0.1, 0.4)
"""What ``_relevance`` must reach for one of ten memories to be shown, by how much more for each e-fold of memories, and
the least and the most: the likest of many memories is more alike to a request that it has nothing to do with.
``benchmarks/recall.py`` measures what is let through, and what is kept out."""
RELEVANT_SHARE = 0.3
"""The share of words that is wanted without an embedder."""
MAX_RELATED = 6
"""Memories shown because they have to do with the request, at most: more would drown the best of them."""
LEAST_OF_BEST = 0.25
"""What a memory must score beside the best one, to be shown with it: a small model takes the wrong one of two."""
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
_LOOKED_AT = 30
"""The best matches, of which those that are relevant are shown."""
_READ_AT_ONCE = 50
"""Memories with all words of a request that are read to see which are its corrections; of more, FTS5 tells."""
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
    same_prompt: bool = False


@dataclass(frozen=True)
class Recalled:
    """What to show, in order, and what it costs by the caller's count. ``used`` says why, then names what is learnt.

    ``too_long`` are the pinned memories that the budget alone keeps out of every request.
    """

    memories: tuple[Memory, ...]
    used: tuple[Used, ...]
    tokens: int
    too_long: tuple[Memory, ...] = ()

    @property
    def learnt(self) -> tuple[str, ...]:
        """The ids of the memories that apply and are not shown, since the adapter follows them untold."""
        return tuple(used.memory_id for used in self.used if used.reason == "learnt")

    def untold(self) -> "Recalled":
        """The same with nothing to show, for a prompt that has no room."""
        return replace(self, memories=(), used=tuple(used for used in self.used if used.reason == "learnt"), tokens=0)


NOTHING = Recalled((), (), 0)
"""Where memory is off, or has nothing to show."""


@dataclass(frozen=True)
class _Found:
    """The best matches' sequence numbers and figures, best first, and which memories have all words of the request."""

    seqs: list[int]
    scores: list[float]
    relevance: list[float]
    words: list[float]
    meanings: list[float | None]
    having_all: list[int] | None
    """The newest first (see ``shared_words.Shared``); None also where they are too many to be read."""


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
        index = self._index(user_id)
        with index.lock:
            index.refresh()
            missing = index.missing(limit)
        return vectors.embed_missing(self._store.connection, missing, self._embed, self._background)

    def search(self, user_id: int, request: str, limit: int = 20) -> list[Ranked]:
        """The user's active memories that share a word or a meaning with the request, best first.

        Before them come the examples for the very same prompt.
        """
        beginning = _beginning(request)
        ranked, having_all = self._search(user_id, beginning, self.request_vector(user_id, beginning), limit)
        if having_all is None:
            having_all = restating.with_prompt(self._store.connection, user_id, request)
        same = [
            Ranked(memory, 1.0, 1.0, 1.0, None, same_prompt=True)
            for memory in having_all
            if memory.kind == "example" and same_words_key(memory.prompt or "") == same_words_key(request)
        ]
        given = {each.memory.id for each in same}
        found = [each for each in ranked if each.memory.id not in given and (each.words or each.relevance >= 0)]
        return [*same, *found][:limit]

    def request_vector(self, user_id: int, request: str) -> Vectors | None:
        """What a request means, as it is compared; None without an embedder or a memory to compare it with."""
        if self._embed is None or self._background is None or not request.strip():
            return None
        index = self._index(user_id)
        with index.lock:
            index.refresh()
            if not len(index):
                return None
            complete = index.complete
        if not complete:
            # What was said a moment ago applies to this very request. A store that cannot be written can be searched.
            with suppress(Busy, NoSpace):
                self.prepare(user_id, limit=_AT_ONCE)
        return self._background.request(self._embed([request])[0])

    def rank(self, user_id: int, request: str, vector: Vectors | None, limit: int) -> list[Ranked]:
        """As ``search``, for a request whose vector is known: all that takes time with many memories."""
        return self._search(user_id, request, vector, limit)[0]

    def recall(
        self,
        user_id: int,
        messages: Sequence[Message],
        *,
        conversation_id: str | None = None,
        budget_tokens: int,
        count_tokens: Callable[[Memory], int],
        carried: Set[str] = frozenset(),
    ) -> Recalled:
        """The memories for a conversation, within ``budget_tokens``.

        Pinned ones come first, then those of this conversation, then what has to do with the last user message (best
        first, ``MAX_RELATED`` at most), then what applies always: what the message is about first, then the newest. One
        that does not fit is left out whole, and a later one that fits is still shown. Examples are shown last.

        ``carried`` are the ids of what the adapter that is to answer follows untold: these are learnt, take no room,
        and come after the others. Pinned ones, and an example for the very same prompt, are shown all the same.
        """
        if not self._has_memories(user_id):
            return NOTHING
        found = _merged([self.search(user_id, request, limit=_LOOKED_AT) for request in requests_in(messages)])
        ranked = {each.memory.id: each for each in found}
        chosen: list[tuple[Memory, Used]] = []
        learnt: list[Used] = []
        too_long: list[Memory] = []
        tokens = 0
        standing = memories.standing(self._store.connection, user_id, conversation_id, MAX_STANDING)
        for memory, reason in _in_turn(standing, found, carried):
            match = ranked.get(memory.id)
            used = Used(memory.id, reason, round(min(max(match.score, 0.0), 1.0), 3) if match else None)
            if reason == "learnt":
                learnt.append(used)
                continue
            if tokens >= budget_tokens or tokens + (cost := count_tokens(memory)) > budget_tokens:
                if memory.pinned and count_tokens(memory) > budget_tokens:
                    too_long.append(memory)
                continue
            chosen.append((memory, used))
            tokens += cost
        chosen.sort(key=lambda each: each[0].kind == "example")
        shown = (used for _, used in chosen)
        return Recalled(tuple(memory for memory, _ in chosen), (*shown, *learnt), tokens, tuple(too_long))

    def _has_memories(self, user_id: int) -> bool:
        """Whether any memory of the user's is active: for someone new a request costs one look into the store."""
        index = self._index(user_id)
        with index.lock:
            index.refresh()
            return len(index) > 0

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

    def _search(
        self, user_id: int, request: str, vector: Vectors | None, limit: int
    ) -> tuple[list[Ranked], list[Memory] | None]:
        """The best matches, and all memories that have all words of the request, where it is known which they are."""
        index = self._index(user_id)
        with index.lock:
            index.refresh()
            found = self._score(index, request, vector, limit)
        wanted = list(dict.fromkeys([*found.seqs, *(found.having_all or ())]))
        by_seq = memories.by_seqs(self._store.connection, user_id, wanted)
        ranked = []
        columns = (found.seqs, found.scores, found.relevance, found.words, found.meanings)
        for seq, score, relevance, words, meaning in zip(*columns, strict=True):
            if seq in by_seq:
                ranked.append(Ranked(by_seq[seq], score, relevance, words, meaning))
        ranked.sort(key=lambda each: (-each.score, -each.memory.created_at))
        if found.having_all is None:
            return ranked, None
        return ranked, [by_seq[seq] for seq in found.having_all if seq in by_seq]

    def _score(self, index: MemoryIndex, request: str, vector: Vectors | None, limit: int) -> _Found:
        shared = shared_words.share(self._store.connection, index, request)
        shares, having_all = shared.shares, shared.having_all
        positions = _best(shares, _SHORTLIST)
        if vector is not None:
            positions = np.union1d(positions, index.nearest(vector))
        positions = _with_neighbours(index, positions)
        scores = words = shares[positions]
        relevance = words - RELEVANT_SHARE
        meanings = np.full(len(positions), np.nan, np.float32)
        if vector is not None and self._background is not None:
            meanings = index.similarity(vector, positions)
            known = ~np.isnan(meanings)  # the others go by words until they have a vector
            scores = (words + MEANING_WEIGHT * np.where(known, meanings, 0)).astype(np.float32)
            strangers = self._background.strangers(vector)
            relevance[known] = _relevance(words[known], meanings[known], strangers) - _wanted(len(index))
        scores = _supported(index, positions, scores)
        order = np.lexsort((-index.seqs[positions], -scores))[:limit]
        return _Found(
            index.seqs[positions[order]].tolist(),
            scores[order].tolist(),
            relevance[order].tolist(),
            words[order].tolist(),
            [None if math.isnan(each) else each for each in meanings[order].tolist()],
            None if having_all is None or len(having_all) > _READ_AT_ONCE else index.seqs[having_all].tolist()[::-1],
        )


def requests_in(messages: Sequence[Message]) -> list[str]:
    """What is to be searched for: the last user message, and where it says little, the one before it with it.

    "And for two?" is about what was said before; "Who wrote Hamlet?" has as few words and is not.
    """
    said = [turn["content"].strip() for turn in messages if turn["role"] == "user"]
    requests = [text for text in said[-1:] if text]
    if requests and len(said) > 1 and len(content_words(said[-1])) < _FEW_WORDS:
        requests.append(f"{_beginning(said[-2], _REQUEST_CHARACTERS // 2)}\n{said[-1]}")
    return requests


def _beginning(text: str, most: int = _REQUEST_CHARACTERS) -> str:
    """The text up to so many characters, without the word that is cut in two there."""
    return text if len(text) <= most else text[:most].rpartition(" ")[0] or text[:most]


def _merged(searches: Sequence[Sequence[Ranked]]) -> list[Ranked]:
    """What several searches found, each memory as the search says for which it is most relevant; best first."""
    if len(searches) == 1:
        return list(searches[0])
    best: dict[str, Ranked] = {}
    for match in (match for found in searches for match in found):
        if match.memory.id not in best or match.relevance > best[match.memory.id].relevance:
            best[match.memory.id] = match
    return sorted(best.values(), key=lambda each: (not each.same_prompt, -each.score, -each.memory.created_at))


def is_relevant(match: Ranked) -> bool:
    """Whether a memory has enough to do with the request that it was ranked for to be shown."""
    return match.relevance >= 0


def _in_turn(
    standing: Sequence[Memory], ranked: Sequence[Ranked], carried: Set[str]
) -> Iterator[tuple[Memory, Reason]]:
    """Each memory that applies, once, in the order in which they may take from the budget.

    What is ``carried`` has places of its own among what has to do with the request: it takes none from what is shown.
    """
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
    relevant = [each for each in ranked if is_relevant(each)]
    best = max((each.score for each in relevant), default=0.0)
    least = LEAST_OF_BEST * best if best > 0 else best  # a score may be below 0, and the best one is always shown
    related, examples = Counter[bool](), Counter[bool]()
    for match in relevant:
        is_example = match.memory.kind == "example"
        is_learnt = match.memory.id in carried and not match.same_prompt
        if match.score < least:
            continue
        if match.memory.scope != "related" or (is_example and examples[is_learnt] == MAX_EXAMPLES):
            continue
        if related[is_learnt] < MAX_RELATED and once(match.memory):
            related[is_learnt] += 1
            examples[is_learnt] += is_example
            yield match.memory, "learnt" if is_learnt else _reason(match)
    for memory in (*(each.memory for each in relevant), *standing):
        if memory.scope == "always" and once(memory):
            yield memory, "learnt" if memory.id in carried else "always"


def _reason(match: Ranked) -> Reason:
    if match.same_prompt:
        return "same prompt"
    if match.meaning is None:
        return "words"
    meaning = MEANING_WEIGHT * match.meaning
    if not match.words or 2 * match.words < meaning:
        return "meaning"
    return "words" if 2 * meaning < match.words else "words and meaning"


def _best(scores: Vectors, most: int) -> Positions:
    """The positions of the highest scores over 0, ascending."""
    found = np.flatnonzero(scores != 0)  # numpy finds what is true in a tenth of the time
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

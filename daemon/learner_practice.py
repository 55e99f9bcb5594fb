"""What a run practises: the user's manner, on replies of the model that nobody has corrected.

Few corrections say what a user does to a reply, and too little of where; so the same is done to the base model's
replies to what the user asked besides, to everyday requests, and to some of the anchors. Nothing in them is anybody
else's: the words are the model's own, and what is changed is what the user changes (``habits``).
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from familiar.adapters.protocols import ProgressCallback, TopLogps, greedy
from familiar.adapters.rows import Distilled, Ids, kept_places
from familiar.daemon.oracle import Oracle
from familiar.daemon.vocab import Vocab
from familiar.feedback.dataset import Dataset
from familiar.feedback.habits import Manner
from familiar.feedback.pairs import PRACTICE, Example, group_of, used_tools
from familiar.memory.store import Store
from familiar.memory.types import Message

Prompt = tuple[Message, ...]
Said = tuple[Prompt, str]
"""A prompt, and the base model's reply."""

MOST_OWN = 32
"""The user's own prompts that are practised on, the newest."""
EVERYDAY = 32
"""Everyday requests, at least: where the user has asked less, they fill up to both numbers together."""
KEPT_SIZE = 0.1
"""What a word that was left as it is adds to the size of a row, beside 1 for one of the user's: most say what the model
says anyway, and would drown in their number what is to be learnt."""
IMPOSSIBLE = -100.0
"""The log-probability of what must not be said: e to it is 0 in float32."""
EVERY_ANCHOR = 2
"""Each so many-th of the anchors is practised on too, so that facts in a prompt are told in the user's manner."""


def own_prompts(store: Store, user_id: int, dataset: Dataset, until: float = math.inf) -> tuple[Prompt, ...]:
    """What the user asked ``until`` then (seconds), newest first, but for what corrections teach or judge already."""
    known = {group_of(each.messages) for each in (*dataset.train, *dataset.held_out)}
    found: list[Prompt] = []
    for exchange in store.exchanges(user_id, limit=4 * MOST_OWN, until=until):
        asked = group_of(exchange.messages)
        if asked not in known and not used_tools(exchange.messages):
            known.add(asked)
            found.append(exchange.messages)
    return tuple(found[:MOST_OWN])


def practice(
    manner: Manner,
    own: Sequence[Prompt],
    everyday: Sequence[Prompt],
    anchors: Sequence[Said],
    oracle: Oracle,
    *,
    max_tokens: int,
    progress: ProgressCallback,
) -> list[Example]:
    """The base model's replies as the user would have them; those that are so already teach nothing."""
    prompts = [*own, *everyday[: MOST_OWN + EVERYDAY - len(own)]]
    drawn = oracle.sample(None, prompts, greedy(max_tokens), progress)
    said = [
        (prompt, reply.text)
        for prompt, (reply,) in zip(prompts, drawn, strict=True)
        if reply.finish_reason == "stop" and reply.text.strip()
    ]
    return [
        Example(f"practice-{number}", prompt, rewritten, text, PRACTICE)
        for number, (prompt, text) in enumerate([*said, *anchors[::EVERY_ANCHOR]])
        if (rewritten := manner(text)) != text and rewritten.strip()
    ]


def as_rows(examples: Sequence[Example], oracle: Oracle, top_k: int, progress: ProgressCallback) -> list[Distilled]:
    """Rewritten replies as rows that are distilled: the user's words where they stand, else the base's distribution.

    So what the model would say is kept whole, and not only the likeliest of it, which would make it surer of itself.
    """
    encoded = [oracle.encode(each.messages, each.chosen) for each in examples]
    said = [oracle.encode(each.messages, each.rejected or "")[1] for each in examples]
    judged = [(each.messages, ids) for each, ids in zip(examples, said, strict=True)]
    tops = oracle.top_logps(None, judged, top_k, progress)
    spaced = spaced_tokens(oracle.scorer.model.vocab)
    return [
        _row(tuple(prompt), tuple(old), tuple(new), top, spaced)
        for (prompt, new), old, top in zip(encoded, said, tops, strict=True)
    ]


def spaced_tokens(vocab: Vocab) -> dict[int, int]:
    """The token of each word with a space before it, by the token of the word alone: a reply's first word is spelt
    otherwise behind a greeting, and is the same word."""
    by_piece = {vocab.piece(token): token for token in range(vocab.size)}
    words = ((token, b" " + piece) for piece, token in by_piece.items() if not piece.startswith(b" "))
    return {token: by_piece[spaced] for token, spaced in words if spaced in by_piece}


def _row(prompt_ids: Ids, old: Ids, new: Ids, top: TopLogps, spaced: Mapping[int, int]) -> Distilled:
    """``top`` is along ``old``, and says what the model would say wherever ``new`` has a token of it."""
    kept = dict(zip(*reversed(kept_places(old, new)), strict=True))
    respelt = _respelt(old, new, kept, spaced)
    if respelt is not None:
        kept[respelt] = 0
    end = _new_end(new, kept)
    if end is not None:
        kept[end] = len(old) - 1
        del kept[len(new) - 1]
    ids_TK = np.repeat(top.ids_TK[-1:], len(new), axis=0)
    logps_TK = np.full(ids_TK.shape, IMPOSSIBLE, np.float32)
    for place, token in enumerate(new):
        if place not in kept:
            known = np.flatnonzero(ids_TK[place] == token)
            at = known[0] if len(known) else 0
            ids_TK[place, at], logps_TK[place, at] = token, 0.0
            continue
        ids_TK[place], logps_TK[place] = top.ids_TK[kept[place]], top.logps_TK[kept[place]]
        if place == respelt:
            for alone in [token for token in top.ids_TK[0].tolist() if token in spaced]:
                _move(ids_TK[place], logps_TK[place], alone, spaced[alone])
        if end is not None:
            _move(ids_TK[place], logps_TK[place], new[-1], new[end])
    size = len(new) - (1 - KEPT_SIZE) * len(kept)
    return Distilled(prompt_ids, new, ids_TK, logps_TK, sampled_by_student=False, size=size)


def _respelt(old: Ids, new: Ids, kept: Mapping[int, int], spaced: Mapping[int, int]) -> int | None:
    """The place where the reply's first word stands behind a beginning, spelt with a space; None where it does not."""
    second = next((place for place, at in kept.items() if at == 1), 0)
    place = second - 1
    return place if place > 0 and 0 not in kept.values() and spaced.get(old[0]) == new[place] else None


def _new_end(new: Ids, kept: Mapping[int, int]) -> int | None:
    """The place where an end begins that was added: there the model would have ended its turn. None without one."""
    end = len(new) - 1
    while end > 0 and end - 1 not in kept:
        end -= 1
    return end if 0 < end < len(new) - 1 else None


def _move(ids_K: NDArray[np.int32], logps_K: NDArray[np.float32], token: int, other: int) -> None:
    """Give the probability of a token to another one."""
    at, to = np.flatnonzero(ids_K == token), np.flatnonzero(ids_K == other)
    if len(at) and len(to):
        logps_K[to] = np.logaddexp(logps_K[to], logps_K[at])
        logps_K[at] = IMPOSSIBLE
    elif len(at):
        ids_K[at] = other

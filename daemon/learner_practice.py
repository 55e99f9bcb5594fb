"""What a run practises: the user's manner, on replies of the model that nobody has corrected.

Few corrections say what a user does to a reply, and too little of where; so the same is done to the base model's
replies to what the user asked besides, to everyday requests, and to some of the anchors. Nothing in them is anybody
else's: the words are the model's own, and what is changed is what the user changes (``habits``).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from familiar.adapters.protocols import ProgressCallback, TopLogps, greedy
from familiar.adapters.rows import Distilled, Ids, kept_places
from familiar.daemon.oracle import Oracle
from familiar.daemon.vocab import Vocab
from familiar.feedback.dataset import Dataset
from familiar.feedback.habits import Manner
from familiar.feedback.pairs import Example
from familiar.feedback.signals import last_user_message
from familiar.memory.store import Store
from familiar.memory.types import Message
from familiar.memory.words import same_words_key

Prompt = tuple[Message, ...]

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


def own_prompts(store: Store, user_id: int, dataset: Dataset) -> tuple[Prompt, ...]:
    """What the user asked, newest first, but for what corrections of the dataset teach or judge already."""
    known = {same_words_key(last_user_message(each.messages)) for each in (*dataset.train, *dataset.held_out)}
    found: list[Prompt] = []
    for exchange in store.exchanges(user_id, limit=4 * MOST_OWN):
        asked = same_words_key(last_user_message(exchange.messages))
        plain = all(message["role"] != "tool" and not message.get("tool_calls") for message in exchange.messages)
        if plain and asked not in known:
            known.add(asked)
            found.append(exchange.messages)
    return tuple(found[:MOST_OWN])


def practice(
    manner: Manner,
    own: Sequence[Prompt],
    everyday: Sequence[Prompt],
    anchors: Sequence[tuple[Prompt, str]],
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
        Example(f"practice-{number}", prompt, rewritten, text, "practice")
        for number, (prompt, text) in enumerate([*said, *anchors[::EVERY_ANCHOR]])
        if (rewritten := manner(text)) != text
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
    """``top`` is along ``old``. Where an end was added, the model begins it where it would have ended."""
    places = dict(zip(*reversed(kept_places(old, new)), strict=True))
    first = next((place for place, at in places.items() if at == 1), 0) - 1
    is_respelt = first > 0 and 0 not in places.values() and spaced.get(old[0]) == new[first]
    if is_respelt:
        places[first] = 0
    ids_TK = np.repeat(top.ids_TK[-1:], len(new), axis=0)
    logps_TK = np.full(ids_TK.shape, IMPOSSIBLE, np.float32)
    end = len(new) - 1
    while end - 1 not in places and end > 0:
        end -= 1
    is_longer = 0 < end < len(new) - 1
    if is_longer:
        places[end] = len(old) - 1
        del places[len(new) - 1]
    for place, token in enumerate(new):
        if place in places:
            ids_TK[place], logps_TK[place] = top.ids_TK[places[place]], top.logps_TK[places[place]]
            if is_respelt and place == first:
                for token_before in top.ids_TK[0].tolist():
                    if token_before in spaced:
                        _move(ids_TK[place], logps_TK[place], token_before, spaced[token_before])
            if is_longer:
                _move(ids_TK[place], logps_TK[place], new[-1], new[end])
        else:
            known = np.flatnonzero(ids_TK[place] == token)
            at = known[0] if len(known) else 0
            ids_TK[place, at], logps_TK[place, at] = token, 0.0
    size = len(new) - (1 - KEPT_SIZE) * len(places)
    return Distilled(prompt_ids, new, ids_TK, logps_TK, sampled_by_student=False, size=size)


def _move(ids_K: NDArray[np.int32], logps_K: NDArray[np.float32], token: int, other: int) -> None:
    """Give the probability of a token to another one."""
    at, to = np.flatnonzero(ids_K == token), np.flatnonzero(ids_K == other)
    if len(at) and len(to):
        logps_K[to] = np.logaddexp(logps_K[to], logps_K[at])
        logps_K[at] = IMPOSSIBLE
    elif len(at):
        ids_K[at] = other

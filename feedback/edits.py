"""Edits found in the conversation that a client sends back: a reply that is no longer what was answered. Pure.

A client stores the conversation, lets its user edit it, and sends all of it with the next request. So an assistant's
turn that differs from what was answered there is a correction, and needs no special client. But a turn may differ for
other reasons: the client stopped the reply half-way, dropped its reasoning, or another model gave it. Left out: telling
a reply written anew in other words from another model's, so only what is still alike counts as an edit.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import Enum, auto

from familiar.feedback.own_words import RUN_WORDS, share_taken
from familiar.memory.history import history_keys
from familiar.memory.redact import FORGOTTEN
from familiar.memory.replies import Reply
from familiar.memory.types import Message
from familiar.memory.words import same_text_key, words

MIN_ALIKE = 0.5
"""The least share of words in common order (difflib's ratio, 0 to 1) between a reply and its edit.

A fixed word, or one sentence of three written anew, leaves 0.6 and more; two models' answers to one question that take
more than a line have seldom more than 0.4.
"""

SHORT_WORDS = 3
SHORT_EDIT_WORDS = 8
"""A reply of up to 3 words shares none with its edit ("Lyon", "Paris"), so there any text of up to 8 words counts."""

MIN_KEPT_WORDS = 4
MIN_KEPT_SHARE = 0.9
"""A text of at least 4 words, nine in ten of them from the reply and in its order, is the reply with parts cut out."""

MAX_TAKEN_SHARE = 0.5
MAX_COMPARED_WORDS = 1_000
"""Longer texts are compared by their words alone, whatever their order, as the time grows with the square."""

_CUT = ("cancelled", "length", "error")
_HIDDEN = re.compile(
    r"\A.*</think(?:ing)?>|<think(?:ing)?>.*?\Z|<details\b[^>]*type=\"reasoning\".*?</details>",
    re.DOTALL | re.IGNORECASE,
)
_MARKS = str.maketrans("’‘“”–—\u00a0", "''\"\"-- ")
_ONE_BY_ONE = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
"""Letters of languages written without spaces, each of which counts as a word."""


class Reading(Enum):
    """What an assistant's turn is: a reply as it was given, an edit of it, or another model's."""

    AS_GIVEN = auto()
    EDITED = auto()
    FOREIGN = auto()


@dataclass(frozen=True)
class Turn:
    """An assistant's turn in a request: its text, and the ``history_key`` of what it answers."""

    history_key: str
    text: str


def assistant_turns(messages: Sequence[Message]) -> list[Turn]:
    """The assistant's turns that answer the user in text; those that call tools, or greet, are none."""
    keys, asked, turns = history_keys(messages), 0, []
    for message in messages:
        asked += message["role"] == "user"
        if message["role"] == "assistant" and asked and message["content"].strip() and not message.get("tool_calls"):
            turns.append(Turn(keys[asked - 1], message["content"]))
    return turns


def read(
    text: str, replies: Sequence[Reply], corrected: Iterable[str] = (), *, mixed: bool = False
) -> tuple[Reading, Reply | None]:
    """What ``text`` is beside the replies that were given there, and which of them it edits.

    ``corrected`` are the texts that the user gave for these replies already. ``mixed``: other turns of the conversation
    are another model's, so that this one must be alike to count as an edit, however short it is.
    """
    if any(FORGOTTEN in reply.completion for reply in replies):
        # The client still has what was forgotten here: its turn is no edit, and must not be learned again.
        return Reading.AS_GIVEN, None
    shown = _plain(text)
    given = [(reply, _plain(reply.completion)) for reply in replies]
    if not shown or any(_is_same(shown, full) or _is_part(shown, full, reply) for reply, full in given):
        return Reading.AS_GIVEN, None
    if any(_is_same(shown, _plain(each)) for each in corrected):
        return Reading.AS_GIVEN, None
    edited = [
        (alike, reply)
        for reply, full in given
        if (alike := _alike(full, shown)) >= MIN_ALIKE
        or _is_cut_down(full, shown)
        or (not mixed and _is_short(full, shown))
    ]
    if not edited:
        return Reading.FOREIGN, None
    return Reading.EDITED, max(edited, key=lambda each: each[0])[1]


def is_users_own(text: str, reply: str, sources: Iterable[str]) -> bool:
    """Whether what an edit adds to ``reply`` is the user's, and not from ``sources`` (tools' output, memories)."""
    old, new = words(_plain(reply)), words(_plain(text))
    matcher = SequenceMatcher(None, old, new, autojunk=len(new) > MAX_COMPARED_WORDS)
    added = [word for tag, _, _, start, end in matcher.get_opcodes() if tag != "equal" for word in new[start:end]]
    return len(added) < RUN_WORDS or share_taken(" ".join(added), sources) < MAX_TAKEN_SHARE


def _plain(text: str) -> str:
    """``text`` as clients show and keep it: without reasoning, white space and typographic marks folded."""
    text = unicodedata.normalize("NFKC", _HIDDEN.sub("", text))
    return " ".join(text.translate(_MARKS).split())


def _is_same(shown: str, full: str) -> bool:
    return same_text_key(shown) == same_text_key(full)


def _is_part(shown: str, full: str, reply: Reply) -> bool:
    """Whether the client kept only the beginning of a reply, or let one that was cut short be gone on with."""
    was_cut = reply.finish_reason in _CUT
    beginning = shown.rstrip(" .…")
    if full.startswith(beginning) and (
        was_cut or shown.endswith(("…", "...")) or not re.search(r"[.!?:)\"']\Z", shown)
    ):
        return bool(words(full[len(beginning) :]))
    return bool(full) and was_cut and shown.startswith(full)


def _alike(old: str, new: str) -> float:
    ours, theirs = _pieces(old), _pieces(new)
    if not ours or not theirs:
        return 0.0
    if max(len(ours), len(theirs)) > MAX_COMPARED_WORDS:
        return 2 * (Counter(ours) & Counter(theirs)).total() / (len(ours) + len(theirs))
    return SequenceMatcher(None, ours, theirs, autojunk=False).ratio()


def _is_cut_down(old: str, new: str) -> bool:
    ours, theirs = _pieces(old), _pieces(new)
    if not MIN_KEPT_WORDS <= len(theirs) < len(ours) <= MAX_COMPARED_WORDS:
        return False
    blocks = SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks) >= MIN_KEPT_SHARE * len(theirs)


def _is_short(old: str, new: str) -> bool:
    return 0 < len(_pieces(old)) <= SHORT_WORDS and len(_pieces(new)) <= SHORT_EDIT_WORDS


def _pieces(text: str) -> list[str]:
    return [piece for word in words(text) for piece in (word if _ONE_BY_ONE.search(word) else (word,))]

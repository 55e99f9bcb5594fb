"""Wishes about replies that hold one value between quotation marks: 'End every answer with "Bye"'. Pure.

Two that are alike but for that value cannot both hold, as a reply ends in one way. Left out are wishes of which many
hold at once, such as words to use or to avoid.
"""

import re

from familiar.memory.scope import is_of_replies
from familiar.memory.statement import Words, tidied
from familiar.memory.words import words

MAX_VALUE_CHARS = 120

_QUOTED = re.compile(rf'["“„«]([^"”“»«]{{1,{MAX_VALUE_CHARS}}})["”“»]')
_MANY = frozenset(
    """
    use using say saying write writing mention mentioning include including contain containing word words phrase phrases
    term terms spell spelled spelt avoid translate mean means instead than rather replace
    """.split()
)
_FILLERS = frozenset("a an the please always now from on every each any all".split())
_PLACE = "quotedvalue"


def quoted_value(text: str) -> tuple[Words, str] | None:
    """Return a wish's words without its one quoted value, and that value; None for anything else."""
    found = _QUOTED.findall(text)
    if len(found) != 1 or not is_of_replies(text.casefold()):
        return None
    rest = tuple(word for word in words(tidied(_QUOTED.sub(f" {_PLACE} ", text))) if word not in _FILLERS)
    if len(rest) < 3 or not _MANY.isdisjoint(rest):
        return None
    return rest, " ".join(found[0].split())

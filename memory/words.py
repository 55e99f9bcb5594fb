"""The words of a text, for search and for telling whether two texts ask the same. Pure.

Left out: any language's grammar but a little English; elsewhere words are compared as they are written.
"""

import re
import unicodedata

STOP_WORDS = frozenset(
    """
    a about again all also am an and any are aren as at be been being but by can could couldn d did didn do does doesn
    doing done don for from get give go going had has hasn have haven having he hello her hers hey hi him his how i if
    in into is isn it its just know let like ll m me more most much my need no not now of off oh ok okay on one only or
    other our out over please re s say she should shouldn show so some such t tell than thank thanks that the their
    them then there these they this those to too up us use ve very want was wasn we well were what when where which
    while who whom whose why will with won would wouldn yes you your yours
    """.split()
)
"""English words that say nothing of a message's subject: greetings, words of asking, and what is left of "don't"."""

_WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """The words of ``text`` in order: runs of letters and digits, in small letters, accents kept."""
    return _WORD.findall(unicodedata.normalize("NFC", text).lower())


def content_words(text: str) -> list[str]:
    """The words of ``text`` that are not stop words, in order."""
    return [word for word in words(text) if word not in STOP_WORDS]


def stem(word: str) -> str:
    """``word`` without accents and a common English ending, so that "boils", "boiled" and "boiling" are one.

    Far less than Porter's rules, which the search index uses: here it only has to be the same for both texts.
    """
    word = _without_accents(word)
    for ending in ("ing", "ed", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending)
            break
    return word.removesuffix("e") if len(word) > 3 else word


def same_text_key(text: str) -> str:
    """Equal for texts that differ in case, spacing or the closing punctuation only."""
    folded = " ".join(text.casefold().split())
    return folded.rstrip(" .!?") or folded


def same_words_key(text: str) -> str:
    """Equal for texts that differ in case, accents, spacing or any punctuation: looser than ``same_text_key``.

    "C" and "C++" are one here, so it may group texts, or call them alike, but not replace one by the other.
    """
    # A text without a word, an emoji say, stands for itself.
    return _without_accents(" ".join(words(text))) or same_text_key(text)


def _without_accents(text: str) -> str:
    apart = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in apart if not unicodedata.combining(letter))

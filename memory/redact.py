"""Replace what was forgotten inside other texts: replies, conversations, JSON, files. Pure.

A text is found whatever its case, its spacing, its Unicode form or its closing full stop, and also as JSON escapes it,
however deep: ``"`` as ``\\"``, a line break as ``\\n``, ``é`` as ``\\u00e9``. It is not found where a word goes on
("called Max" in "called Maxine"), but for scripts that put nothing between words. What is left out: a text in other
words.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from familiar.memory.words import content_words, words

FORGOTTEN = "[forgotten]"
"""What stands in place of a forgotten text."""

LEAST_CHARACTERS = 10
LEAST_WORDS = 3
"""A text is looked for inside others from so many characters, or so many words, on: "Yes." is everywhere."""

_ENDINGS = " .!?"
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
)
"""Scripts without spaces between words, or with endings at them: Thai to Khmer, Chinese, Japanese, Korean."""
_JOINS = rf"[^\W_{_UNSPACED}]"
"""A letter or digit that makes one word with another."""
_BEFORE = rf"(?:(?<!{_JOINS})|(?<=\\[nrtfb])|(?<=\\u[0-9a-fA-F]{{4}}))"
"""No word goes on here; what an escape ends with is no letter."""
_SPACE = r"(?:\s|\\+[nrtf])+"
_ASCII_RUN = re.compile(r"[A-Za-z0-9]{3,}")


def tells(text: str) -> bool:
    """Whether ``text`` says enough to be looked for inside other texts.

    It has 10 characters (a Chinese, Japanese or Korean one counts for three) or three words, and is not made of
    everyday words alone, as "Yes, it is." is.
    """
    said = words(text)
    if said and not content_words(text):
        return False
    size = sum(3 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text.strip(_ENDINGS))
    return size >= LEAST_CHARACTERS or len(said) >= LEAST_WORDS


@dataclass(frozen=True)
class Redactor:
    """Finds the texts that it was made for, and replaces them. Make one with ``redactor``.

    ``needles``: a text that holds none of these, both in small letters, holds none of the texts; without any, ask.
    """

    pattern: re.Pattern[str] | None
    needles: tuple[str, ...]

    def text(self, text: str) -> str:
        """``text`` without them."""
        return text if self.pattern is None else self.pattern.sub(FORGOTTEN, text)

    def same_length(self, text: str) -> str:
        """``text`` without them, as many UTF-8 bytes long as before: for a file that another process is writing."""

        def masked(found: re.Match[str]) -> str:
            return FORGOTTEN.ljust(size, "*")[:size] if (size := len(_utf8(found[0]))) else ""

        return text if self.pattern is None else self.pattern.sub(masked, text)

    def holds(self, text: str | None) -> bool:
        """Whether one of them is in ``text``."""
        return bool(text and self.pattern and self.pattern.search(text))

    def value(self, value: object) -> object:
        """A value of JSON without them, keys and all."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.value(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        return value

    def json(self, text: str) -> str:
        """JSON text without them; it is the same text where there were none. Raises ValueError when it is no JSON."""
        before = json.loads(text)
        after = self.value(before)
        return text if after == before else json.dumps(after, ensure_ascii=False)


def redactor(texts: Iterable[str], *, whole_words: bool = False) -> Redactor:
    """A Redactor of ``texts``, the longest first; ``whole_words`` wants whole ones in every script."""
    return _redactor(frozenset(texts), whole_words)


# Compiling takes a second for 20,000 characters, and a forgetting asks for the same ones for each backup.
@lru_cache(maxsize=4)
def _redactor(texts: frozenset[str], whole_words: bool) -> Redactor:
    said = {text.strip().rstrip(_ENDINGS) or text.strip() for text in texts}
    wanted = sorted({unicodedata.normalize("NFC", text) for text in said if text}, key=len, reverse=True)
    if not wanted:
        return Redactor(None, ())
    needles = [max(_ASCII_RUN.findall(text), key=len, default="").lower() for text in wanted]
    pattern = "|".join(_pattern(text, whole_words) for text in wanted)
    return Redactor(re.compile(pattern, re.IGNORECASE), tuple(dict.fromkeys(needles)) if all(needles) else ())


def _pattern(text: str, whole_words: bool) -> str:
    found = _SPACE.join("".join(_letter(letter) for letter in token) for token in text.split())
    if whole_words:
        return (r"(?<!\w)" if text[0].isalnum() else "") + found + (r"(?!\w)" if text[-1].isalnum() else "")
    before, after = (re.match(_JOINS, letter) for letter in (text[0], text[-1]))
    return (_BEFORE if before else "") + found + (f"(?!{_JOINS})" if after else "")


def _letter(letter: str) -> str:
    if letter == "\\":
        return r"\\+"
    if letter in '"/':
        return r"\\*" + letter
    if letter.isascii() and letter.isprintable():
        return re.escape(letter)
    spelt = dict.fromkeys((letter, unicodedata.normalize("NFD", letter)))
    return f"(?:{'|'.join(way for form in spelt for way in (re.escape(form), _escaped(form)))})"


def _escaped(form: str) -> str:
    units = form.encode("utf-16-be", errors="surrogatepass").hex()
    return "".join(rf"\\+u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", errors="surrogateescape")

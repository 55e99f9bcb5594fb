"""A model's vocabulary: text to tokens and back, and which tokens mean something to the template.

Tokens of the kind *control* (``<|end|>``, ``<s>``) are produced from text only where the caller says so; see
``template.encode_prompt`` for the one place that does. Every call here is safe from any thread while the model is open.
"""

import ctypes
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from llama_cpp import llama_cpp as c


@dataclass(frozen=True)
class ControlToken:
    """A control token: its id, and whether the white space before or after it belongs to it."""

    id: int
    lstrip: bool
    rstrip: bool


def control_spelling(control: Iterable[str]) -> re.Pattern[str]:
    """A pattern for control tokens' spellings, the longest first, but not for one character: it cannot be broken up."""
    spellings = sorted((text for text in control if len(text) > 1), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, spellings)) or r"(?!)")


class Vocab:
    """The vocabulary of a loaded model; it lives as long as the model does."""

    def __init__(self, model: int) -> None:
        self.handle = c.llama_model_get_vocab(model)
        self.size = int(c.llama_vocab_n_tokens(self.handle))
        self.bos = int(c.llama_vocab_bos(self.handle))
        self.eos = int(c.llama_vocab_eos(self.handle))
        eot = int(c.llama_vocab_eot(self.handle))
        self.end_of_turn = eot if eot >= 0 else self.eos
        self.adds_bos = self.bos >= 0 and bool(c.llama_vocab_get_add_bos(self.handle))
        self.control = self._control_tokens()
        self.control_spelling = control_spelling(self.control)
        self._pieces: dict[int, bytes] = {}
        self._ends = frozenset(token for token in range(self.size) if c.llama_vocab_is_eog(self.handle, token))

    def _control_tokens(self) -> dict[str, ControlToken]:
        # "Unknown" counts as control, as llama.cpp's own tokeniser has it.
        wanted = c.LLAMA_TOKEN_ATTR_CONTROL | c.LLAMA_TOKEN_ATTR_UNKNOWN
        found = {}
        for token in range(self.size):
            attr = int(c.llama_vocab_get_attr(self.handle, token))
            if attr & wanted and (text := self.text(token)):
                lstrip, rstrip = attr & c.LLAMA_TOKEN_ATTR_LSTRIP, attr & c.LLAMA_TOKEN_ATTR_RSTRIP
                found[text] = ControlToken(token, bool(lstrip), bool(rstrip))
        return found

    def text(self, token: int) -> str:
        """Return a token's spelling in the vocabulary, or "" for no token (a negative id)."""
        if token < 0:
            return ""
        spelling: bytes = c.llama_vocab_get_text(self.handle, token)
        return spelling.decode("utf-8", "replace")

    @cached_property
    def longest_bytes(self) -> int:
        """No token stands for more bytes of text than this."""
        return max(len(c.llama_vocab_get_text(self.handle, token)) for token in range(self.size))

    def tokenise(self, text: str, *, control: bool = False, around: bool = False) -> list[int]:
        """Return ``text`` as tokens.

        With ``control``, the spelling of a control token becomes that token; without, it is plain text. ``around`` adds
        the tokens that the model wants before and after a text (BOS and EOS, or CLS and SEP).
        """
        data = text.encode("utf-8", "replace")
        room = len(data) + 8
        while True:
            buffer = (c.llama_token * room)()
            count = int(c.llama_tokenize(self.handle, data, len(data), buffer, room, around, control))
            if count >= 0:
                return list(buffer[:count])
            room = -count

    def piece(self, token: int) -> bytes:
        """Return the bytes that a token adds to the text: none for a control token, maybe part of a character."""
        found = self._pieces.get(token)
        if found is None:
            found = self._pieces[token] = self._read_piece(token, special=False)
        return found

    def spelling(self, token: int) -> bytes:
        """Return a token's bytes, also those of a control token."""
        return self.piece(token) or self._read_piece(token, special=True)

    def _read_piece(self, token: int, *, special: bool) -> bytes:
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = int(c.llama_token_to_piece(self.handle, token, buffer, room, 0, special))
            if count >= 0:
                return buffer.raw[:count]
            room = -count

    def ends_generation(self, token: int) -> bool:
        """Say whether a token ends the reply (end of turn, end of text and their like)."""
        return token in self._ends

"""Token bytes to text that may be shown: whole characters only, and never any part of a stop string."""

import codecs
from collections.abc import Sequence


class TextStream:
    """Turns pieces of UTF-8 into text as it becomes certain.

    A character split over pieces waits for its last byte; text that may be the start of a stop string waits until it
    is or is not. The text that comes out is the same however the bytes were cut: it ends before whichever stop string
    is complete first. Bytes that are no UTF-8 at all become U+FFFD. ``taken_bytes`` and ``given_bytes`` count what went
    in and what came out.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = tuple(stops)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False
        self.taken_bytes = 0
        self.given_bytes = 0

    def push(self, piece: bytes) -> str:
        """Take the next bytes; return the text that is now certain. After a stop string, ``stopped`` is true."""
        self.taken_bytes += len(piece)
        self._held += self._decoder.decode(piece)
        found = [(at + len(stop), at) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            cut = min(found)[1]
            return self._give(cut, end=True)
        cut = len(self._held) - self._undecided()
        return self._give(cut)

    def finish(self) -> str:
        """Return what was held back; a character whose last bytes never came is dropped."""
        return self._give(len(self._held))

    def _give(self, cut: int, *, end: bool = False) -> str:
        text, self._held = self._held[:cut], "" if end else self._held[cut:]
        self.given_bytes += len(text.encode("utf-8", "replace"))
        return text

    def _undecided(self) -> int:
        """Return the length of the longest end of the held text that a stop string starts with."""
        for length in range(min(len(self._held), max(map(len, self._stops), default=1) - 1), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0

"""SIGINT and SIGTERM, none of them lost and none at the wrong moment.

A KeyboardInterrupt out of a signal handler may strike between two ``with`` statements, so that a file stays behind, or
vanish: in a ctypes callback, or in an extension that clears errors. So every signal is also remembered; and from when
the service says where it is, it is only remembered, for the server to end by.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """What asked this process to end."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self._kept = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Take the signals, also where the shell had Ctrl-C ignored; for the main thread."""
        before = {number: signal.signal(number, self._take) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def keep(self) -> None:
        """Raise nothing from now on.

        Raises:
            KeyboardInterrupt: a signal has come already.
        """
        self._kept = True
        if self.received:
            raise KeyboardInterrupt

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)
        if not self._kept:
            raise KeyboardInterrupt

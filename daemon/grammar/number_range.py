"""JSON numbers within bounds, as an automaton over their digits. Pure.

They are spelled plainly: no exponent, no leading zeros, no minus before a zero, at most ``MAX_DIGITS`` digits before
the point and ``FRACTION_DIGITS`` after it (more where a bound has more).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from familiar.daemon.grammar import char_set
from familiar.daemon.grammar.char_set import CharSet

MAX_DIGITS = 20
FRACTION_DIGITS = 15
_DIGITS = [char_set.of(str(digit)) for digit in range(10)]


@dataclass(frozen=True, slots=True)
class Bound:
    """One end of a range; ``open`` leaves the bound itself out."""

    value: Decimal
    open: bool = False


@dataclass(frozen=True, slots=True)
class _End:
    """A bound of a number without its sign: its digits, those of the fraction without zeros at their end."""

    whole: str
    fraction: str
    open: bool


@dataclass(frozen=True, slots=True)
class _Range:
    low: _End
    high: _End | None


@dataclass(frozen=True, slots=True)
class _State:
    """What the digits so far say: how they compare (-1, 0, 1) with as many digits of each bound.

    ``count`` is of the digits of the whole part, or of the fraction once ``point`` is set.
    """

    negative: bool
    count: int = 0
    low: int = 0
    high: int = 0
    remainder: int = 0
    zero: bool = False
    point: bool = False


Place = _State | None
"""None is before anything is written."""


class NumberMachine:
    """The numbers from ``low`` to ``high`` (None: no bound); ``whole`` leaves out those with a fraction.

    ``multiple`` keeps only its multiples, of whole numbers.
    """

    start: Place = None

    def __init__(self, low: Bound | None, high: Bound | None, *, whole: bool, multiple: int = 1) -> None:
        self._whole = whole
        self._multiple = multiple
        self._ranges = {False: _magnitudes(low, high), True: _magnitudes(_negated(high), _negated(low), signed=True)}
        ends = [end for span in self._ranges.values() if span for end in (span.low, span.high) if end]
        self._fraction_digits = max([FRACTION_DIGITS, *(len(end.fraction) + 1 for end in ends)])

    def moves(self, state: Place) -> Sequence[tuple[CharSet, Place]]:
        """See ``automaton.Machine``."""
        if state is None:
            minus: list[tuple[CharSet, Place]] = [(char_set.of("-"), _State(negative=True))]
            return (minus if self._ranges[True] else []) + list(self._digits(_State(negative=False)))
        if state.point:
            return list(self._digits(state)) if state.count < self._fraction_digits else []
        ways = [] if state.zero or state.count == MAX_DIGITS else list(self._digits(state))
        if state.count and not self._whole:
            low, high = self._against_whole(state)
            if low >= 0 and high <= 0:
                ways.append((char_set.of("."), _State(state.negative, low=low, high=high, point=True)))
        return ways

    def _digits(self, state: _State) -> Sequence[tuple[CharSet, Place]]:
        span = self._ranges[state.negative]
        if span is None:
            return []
        after = ((_DIGITS[digit], self._after(state, digit, span)) for digit in range(10))
        return [(chars, to) for chars, to in after if to is not None]

    def _after(self, state: _State, digit: int, span: _Range) -> Place:
        low = state.low or _compare(digit, _digit_at(span.low, state))
        high = state.high or (_compare(digit, _digit_at(span.high, state)) if span.high else -1)
        if state.point:
            return None if low < 0 or high > 0 else _State(state.negative, state.count + 1, low, high, point=True)
        if state.count >= len(span.low.whole):
            low = 1
        if span.high and state.count >= len(span.high.whole):
            return None
        remainder = (state.remainder * 10 + digit) % self._multiple
        return _State(state.negative, state.count + 1, low, high, remainder, zero=not state.count and not digit)

    def _against_whole(self, state: _State) -> tuple[int, int]:
        """Compare a finished whole part with those of the bounds: fewer digits are a smaller number."""
        span = self._ranges[state.negative]
        assert span
        low = -1 if state.count < len(span.low.whole) else state.low
        high = -1 if not span.high or state.count < len(span.high.whole) else state.high
        return low, high

    def accepts(self, state: Place) -> bool:
        """See ``automaton.Machine``."""
        span = self._ranges[state.negative] if state else None
        if state is None or span is None or not state.count or state.remainder:
            return False
        low, high = (state.low, state.high) if state.point else self._against_whole(state)
        done = state.count if state.point else 0
        if low == 0 and span.low.fraction[done:]:
            low = -1
        if high == 0 and span.high and span.high.fraction[done:]:
            high = -1
        above = low > 0 or (low == 0 and not span.low.open)
        return above and (span.high is None or high < 0 or (high == 0 and not span.high.open))


def _compare(a: int, b: int) -> int:
    return (a > b) - (a < b)


def _digit_at(end: _End, state: _State) -> int:
    digits = end.fraction if state.point else end.whole
    return int(digits[state.count]) if state.count < len(digits) else 0


def _negated(bound: Bound | None) -> Bound | None:
    return Bound(-bound.value, bound.open) if bound else None


def _magnitudes(low: Bound | None, high: Bound | None, *, signed: bool = False) -> _Range | None:
    """Return the range of what is written after the sign, None when there is nothing; zero has no minus."""
    least = low if low and low.value >= 0 else Bound(Decimal(0))
    if signed and not least.value:
        least = Bound(Decimal(0), open=True)
    if high and (high.value < 0 or least.value > high.value):
        return None
    top = high if high and high.value < Decimal(10) ** MAX_DIGITS else None
    return _Range(_end(least), _end(top) if top else None)


def _end(bound: Bound) -> _End:
    whole, _, fraction = f"{bound.value:f}".partition(".")
    return _End(whole, fraction.rstrip("0"), bound.open)

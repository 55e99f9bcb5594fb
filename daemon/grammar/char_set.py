"""Sets of characters as sorted, separate ranges of code points. Pure.

Surrogates are in none of them: they are no characters, and UTF-8 has no bytes for them.
"""

from collections.abc import Iterable

CharSet = tuple[tuple[int, int], ...]
"""Ranges with both ends inside, in order, that neither overlap nor touch."""

EVERY: CharSet = ((0, 0xD7FF), (0xE000, 0x10FFFF))


def of(*parts: str | tuple[str, str]) -> CharSet:
    """Return the set of the characters of each text, and of each range ``(first, last)``."""
    singles = [(ord(char), ord(char)) for part in parts if isinstance(part, str) for char in part]
    ranges = [(ord(part[0]), ord(part[1])) for part in parts if isinstance(part, tuple)]
    return union(singles + ranges)


def union(ranges: Iterable[tuple[int, int]]) -> CharSet:
    """Return ranges in any order as one set."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return common(tuple(merged), EVERY) if merged and merged[-1][1] >= 0xD800 else tuple(merged)


def common(a: CharSet, b: CharSet) -> CharSet:
    """Return what is in both."""
    found, i, j = [], 0, 0
    while i < len(a) and j < len(b):
        low, high = max(a[i][0], b[j][0]), min(a[i][1], b[j][1])
        if low <= high:
            found.append((low, high))
        if a[i][1] < b[j][1]:
            i += 1
        else:
            j += 1
    return tuple(found)


def negate(chars: CharSet) -> CharSet:
    """Return every other character."""
    found, start = [], 0
    for low, high in chars:
        if low > start:
            found.append((start, low - 1))
        start = high + 1
    found.append((start, 0x10FFFF))
    return common(tuple(each for each in found if each[0] <= each[1]), EVERY)


def contains(chars: CharSet, char: str) -> bool:
    """Say whether a character is in the set."""
    return any(low <= ord(char) <= high for low, high in chars)

"""The cases that ``following.py`` asks, their checkers, and what else is remembered beside them.

A case is a line of ``data/following.jsonl``: what is asked first (``ask``), what the user then says (``say``, with
``{reply}`` for the reply that is corrected) and through which door, and three other requests to which it applies. The
wordings are this file's own, not those that the built-in model was trained on. What is left out: judging whether a
reply is true or well put; a checker only looks for what was asked for.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

DATA = Path(__file__).parent / "data"
BESIDE = 10
"""Memories that have nothing to do with the case, in each store."""

Door = Literal["rule", "note", "correction", "history", "chat", "memory", "rebuttal"]
"""How it is said: ``POST /v1/feedback`` with a rule, with a correction and a note, with a correction alone; a reply
edited in the client's history; "Remember that …" in a chat; ``POST /v1/memories``; a next turn that is confirmed."""
Checker = Callable[[str], bool]


@dataclass(frozen=True)
class Case:
    """One thing said once. ``told`` is the same as a client says it by itself; ``follows`` judges a reply."""

    name: str
    kind: Literal["rule", "fact", "example"]
    door: Door
    ask: str
    say: str
    note: str | None
    told: str
    held_out: tuple[str, ...]
    follows: Checker


def load() -> list[Case]:
    """Every case, in the file's order: rules, facts, corrected replies."""
    return [_case(row) for row in _rows("following.jsonl")]


def beside(number: int) -> list[dict[str, str]]:
    """What is remembered beside case ``number``: bodies for ``POST /v1/memories``, other ones for each case."""
    rows = _rows("following_beside.jsonl")
    return [rows[(7 * number + 5 * place) % len(rows)] for place in range(BESIDE)]


def _rows(name: str) -> list[Any]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def _case(row: Mapping[str, Any]) -> Case:
    return Case(
        name=row["name"],
        kind=row["kind"],
        door=row["door"],
        ask=row["ask"],
        say=row["say"],
        note=row.get("note"),
        told=row["told"],
        held_out=tuple(row["held_out"]),
        follows=CHECKS[row["check"]](row.get("value", "")),
    )


_US_UNIT = re.compile(r"\b(?:miles?|feet|foot|pounds?|ounces?|inch(?:es)?|Fahrenheit)\b", re.IGNORECASE)
_METRIC_UNIT = re.compile(
    r"\b(?:(?:kilo|centi|milli)?met(?:er|re)s?|(?:kilo)?grams?|lit(?:er|re)s?|Celsius)\b", re.IGNORECASE
)
_NUMBER_WORD = re.compile(
    r"\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|twenty|thirty|forty|fifty|sixty|"
    r"seventy|eighty|ninety|hundred|thousand)\b",
    re.IGNORECASE,
)


def _plain(text: str) -> str:
    return text.strip(" .!?\n").casefold()


def _contains(value: str) -> Checker:
    before, after = (r"(?<!\w)" if value[0].isalnum() else ""), (r"(?!\w)" if value[-1].isalnum() else "")
    pattern = re.compile(before + re.escape(value) + after, re.IGNORECASE)
    return lambda reply: pattern.search(reply) is not None


def _sentences(value: str) -> Checker:
    return lambda reply: len(re.findall(r"[.!?](?=\s|$)", reply)) == int(value)


def _lines(pattern: str) -> Checker:
    return lambda reply: len(re.findall(pattern, reply, re.MULTILINE)) >= 2


CHECKS: Mapping[str, Callable[[str], Checker]] = {
    "ends": lambda value: lambda reply: _plain(reply).endswith(_plain(value)),
    "starts": lambda value: lambda reply: reply.casefold().startswith(value.casefold()),
    "contains": _contains,
    "sentences": _sentences,
    "bullets": lambda value: _lines(rf"^{re.escape(value)} \S"),
    "numbered": lambda _: _lines(r"^\d+\. \S"),
    "lower": lambda _: lambda reply: reply == reply.lower() != "",
    "upper": lambda _: lambda reply: reply == reply.upper() != "",
    "no_digits": lambda _: lambda reply: not re.search(r"\d", reply) and _NUMBER_WORD.search(reply) is not None,
    "metric": lambda _: lambda reply: _METRIC_UNIT.search(reply) is not None and not _US_UNIT.search(reply),
    "clock24": lambda _: lambda reply: bool(re.search(r"\b\d\d:\d\d(?! ?[ap]m)", reply)),
}
"""What a row's ``check`` names: its ``value`` to a checker of replies."""

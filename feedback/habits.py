"""What a user does to replies again and again, as edits that can be applied to any other reply. Pure.

Corrections are examples of a program that rewrites replies (programming by example: Gulwani, POPL 2011). A few kinds of
edit make up the manner of most wishes: a fixed beginning or end, other words or signs throughout, capitals, a line for
each thing, fewer sentences or words. An edit is the user's habit where it leaves what they wrote as it is, and would
change what they got. What is left out: edits of what is said, which no program explains; these teach as they are.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from itertools import pairwise
from statistics import fmean
from typing import Any, Protocol

from familiar.feedback.pairs import Example

ENOUGH = 4
"""Corrections that show a habit, at least."""
SHARE = 0.8
"""Of the user's texts, those that must be as a habit has them."""
NEWEST = 6
"""Corrections that say whether a habit is still wanted."""
WINDOW = 8
"""Corrections in a row that are looked at together, beside the newest ones: a habit need not be of all times."""
GAIN = 0.01
"""By how much an edit must bring replies nearer to the corrections, as a likeness from 0 to 1."""
EXPLAINED = 0.9
"""How like the correction what an edit makes of the reply is, for the correction to show nothing else."""
LEFT = 0.5
"""The share of what an edit leaves of a correction that was in the reply already, at least."""
MOST_WORDS = 60
"""A limit of more words than this is none."""
MOST_MARK = 4
"""Characters of the mark before a line."""
LONGEST = 4000
"""Characters of a reply; longer ones are not looked at."""
LOOKED_AT = 64
"""The newest corrections, which are."""

Pair = tuple[str, str]
"""What the user got, and what they made of it."""


class Edit(Protocol):
    """A rewriting of a reply; what it has rewritten it leaves as it is."""

    def __call__(self, text: str) -> str:
        """The reply, rewritten."""
        ...

    def __str__(self) -> str:
        """What replies are like then, in words that go on a list."""
        ...


@dataclass(frozen=True)
class Begins:
    """A fixed beginning, with the space or line break behind it."""

    text: str

    def __call__(self, text: str) -> str:
        return text if text.startswith(self.text) else self.text + text

    def __str__(self) -> str:
        return f"begin with “{self.text.strip()}”"


@dataclass(frozen=True)
class Ends:
    """A fixed end, with the space or line break before it."""

    text: str

    def __call__(self, text: str) -> str:
        return text if text.endswith(self.text) else text + self.text

    def __str__(self) -> str:
        return f"end with “{self.text.strip()}”"


@dataclass(frozen=True)
class Says:
    """Other words or signs for some, wherever they stand; the empty string drops one. Words are in lower case."""

    pairs: tuple[tuple[str, str], ...]

    def __call__(self, text: str) -> str:
        instead = dict(self.pairs)
        pieces: list[str] = []
        for piece in _pieces(text):
            found = instead.get(piece.lower())
            if found is None:
                is_left_over = piece.isspace() and bool(pieces) and not pieces[-1]
                pieces.append("" if is_left_over else piece)
            else:
                pieces.append(found[:1].upper() + found[1:] if piece[:1].isupper() else found)
        changed = "".join(pieces).strip()
        if _SENTENCE_START.search(text):
            return changed
        return _SENTENCE_START.sub(lambda found: found[1] + found[2].upper(), changed)

    def __str__(self) -> str:
        return ", ".join(f"say “{new}” for “{old}”" if new else f"do without “{old}”" for old, new in self.pairs)


@dataclass(frozen=True)
class Cased:
    """Capitals: of every word, of all letters, of none, or of the last word alone."""

    words: str

    def __call__(self, text: str) -> str:
        return _CASES[self.words](text)

    def __str__(self) -> str:
        return f"have {self.words}"


@dataclass(frozen=True)
class Listed:
    """A line for each thing behind a mark, in which ``1`` and ``a`` count."""

    mark: str

    def __call__(self, text: str) -> str:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        items = lines if len(lines) > 1 or self.marks(lines) else _sentences(text)
        return "\n".join(
            each if each.startswith(self._at(at)) else self._at(at) + each for at, each in enumerate(items)
        )

    def __str__(self) -> str:
        return f"have a line for each thing, as in “{self._at(0).strip()} …”" if self.mark else "have a line for each"

    def marks(self, lines: Sequence[str]) -> bool:
        """Whether all lines have their mark."""
        return all(line.startswith(self._at(at)) for at, line in enumerate(lines))

    def _at(self, number: int) -> str:
        if not self.mark:
            return ""
        counted = self.mark.replace("1", str(number + 1)).replace("a", chr(ord("a") + number % 26))
        return f"{counted} "


@dataclass(frozen=True)
class Sentences:
    """No more than so many sentences."""

    most: int

    def __call__(self, text: str) -> str:
        found = _sentences(text)
        return text if len(found) <= self.most else " ".join(found[: self.most])

    def __str__(self) -> str:
        return f"have {self.most} sentence{'s' if self.most > 1 else ''} at most"


@dataclass(frozen=True)
class Words:
    """No more than so many words: whole sentences where one fits, else its first clauses, else its first words."""

    most: int

    def __call__(self, text: str) -> str:
        if _words(text) <= self.most:
            return text
        kept = ""
        for sentence in _sentences(text):
            if _words(f"{kept} {sentence}") > self.most:
                break
            kept = f"{kept} {sentence}".strip()
        if kept:
            return kept
        words = text.split()
        fitting = max((n for n in range(len(words) + 1) if _words(" ".join(words[:n])) <= self.most), default=0)
        clause = max((n for n in range(3, fitting + 1) if words[n - 1][-1] in ",;:"), default=fitting)
        return " ".join(words[:clause]).rstrip(",;:.") + "."

    def __str__(self) -> str:
        return f"have {self.most} words at most"


@dataclass(frozen=True)
class Manner:
    """All that a user does to a reply, in order; ``given_up`` is what they did once and do no longer."""

    edits: tuple[Edit, ...] = ()
    given_up: tuple[Edit, ...] = ()

    def __call__(self, text: str) -> str:
        """The reply as the user would have it."""
        for edit in self.edits:
            text = edit(text)
        return text

    def __bool__(self) -> bool:
        return bool(self.edits)

    @property
    def wants(self) -> tuple[str, ...]:
        """What replies are to be like, in words."""
        return tuple(map(str, self.edits))

    def explains(self, example: Example) -> bool:
        """Whether a correction shows nothing but this: done to what the user got it comes to what they wrote."""
        before = (example.rejected or "").strip()
        return bool(self and before) and _ratio(self(before), example.chosen.strip()) >= EXPLAINED

    def is_outdated(self, example: Example) -> bool:
        """Whether a correction shows what the user does no longer."""
        before = example.rejected or ""
        return any(edit(example.chosen) == example.chosen and edit(before) != before for edit in self.given_up)


NO_MANNER = Manner()


def revised(examples: Sequence[Example], manner: Manner) -> tuple[Example, ...]:
    """Corrections as the user would make them now: those that show what was given up are left out, the others take on
    what is wanted since, but for one of which nothing would be left."""
    wanted = ((each, manner(each.chosen)) for each in examples if not manner.is_outdated(each))
    return tuple(replace(each, chosen=text) if text.strip() else each for each, text in wanted)


def find(examples: Sequence[Example]) -> Manner:
    """The habits that corrections show, given oldest first."""
    texts = [((each.rejected or "").strip(), each.chosen.strip()) for each in examples]
    pairs = [pair for pair in texts if all(pair) and max(map(len, pair)) <= LONGEST][-LOOKED_AT:]
    if len(pairs) < ENOUGH:
        return NO_MANNER
    found = _found(pairs, lambda window: (*_frames(window), *_inner(window)))
    edits = _wanted(found, pairs)
    # What stands between a beginning and an end is seen once these are off.
    bare = [_unframed(pair, edits) for pair in pairs]
    inside = _found(bare, _inner)
    edits += [edit for edit in _wanted(inside, bare) if type(edit) not in map(type, edits)]
    given_up = dict.fromkeys([*_given_up(found, pairs), *_given_up(inside, bare)])
    return Manner(tuple(sorted(edits, key=_layer)), tuple(given_up))


def _wanted(edits: Sequence[Edit], pairs: Sequence[Pair]) -> list[Edit]:
    """Of the edits that the newest corrections still show, of each kind the one that says most of all corrections."""
    of_kind: dict[type, list[Edit]] = defaultdict(list)
    for edit in edits:
        if _kept(edit, pairs[-NEWEST:]) >= SHARE:
            of_kind[type(edit)].append(edit)
    return [max(those, key=lambda edit: _likeness([edit], pairs)) for those in of_kind.values()]


def _given_up(edits: Sequence[Edit], pairs: Sequence[Pair]) -> list[Edit]:
    return [edit for edit in edits if _kept(edit, pairs[-NEWEST:]) <= 1 - SHARE]


def _kept(edit: Edit, pairs: Sequence[Pair]) -> float:
    """The share of the user's texts that are as an edit has them."""
    return fmean(edit(after) == after for _, after in pairs)


def _found(pairs: Sequence[Pair], candidates: Callable[[Sequence[Pair]], Iterable[Edit]]) -> list[Edit]:
    """The edits that explain a window of corrections: of those that do, the ones that bring replies nearest."""
    found: dict[Edit, None] = {}
    for start, end in _windows(len(pairs)):
        window = pairs[start:end]
        fitting = [edit for edit in dict.fromkeys(candidates(window)) if _is_shown(edit, window)]
        found.update(dict.fromkeys(_nearest(fitting, window)))
    return list(found)


def _windows(count: int) -> list[tuple[int, int]]:
    newest = [(count - size, count) for size in (ENOUGH, NEWEST, WINDOW, 2 * WINDOW) if size <= count]
    earlier = [(at, at + size) for size in (WINDOW, NEWEST) for at in range(0, count - size, size // 2)]
    return [*newest, *earlier, (0, count)]


def _is_shown(edit: Edit, pairs: Sequence[Pair]) -> bool:
    """Whether an edit leaves what the user wrote as it is, and would have changed what they got."""
    shown = sum(
        edit(after) == after and edit(before) != before and _comes_of(_unframed((before, after), [edit])[1], before)
        for before, after in pairs
    )
    return _kept(edit, pairs) >= SHARE and shown >= max(ENOUGH, len(pairs) / 2)


def _comes_of(text: str, before: str) -> bool:
    """Whether a text is the reply that the user got, edited: what is written anew begins as it begins by chance."""
    one, other = ([each for each in _pieces(words.lower()) if not each.isspace()] for words in (text, before))
    same = sum(block.size for block in SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks())
    return same >= LEFT * len(one)


def _nearest(edits: Sequence[Edit], pairs: Sequence[Pair]) -> list[Edit]:
    """Of the edits those that together bring replies nearest to the corrections, taken one by one, in their order."""
    chosen: list[Edit] = []
    likeness = _likeness(chosen, pairs)
    left = list(edits)
    while left:
        trials = [(_likeness(sorted([*chosen, edit], key=_layer), pairs), edit) for edit in left]
        best, edit = max(trials, key=lambda trial: trial[0])
        if best < likeness + GAIN:
            break
        chosen, likeness = sorted([*chosen, edit], key=_layer), best
        left = [each for each in left if type(each) is not type(edit)]
    return chosen


def _likeness(edits: Sequence[Edit], pairs: Sequence[Pair]) -> float:
    return fmean(_ratio(Manner(tuple(edits))(before), after) for before, after in pairs)


def _ratio(one: str, other: str) -> float:
    return SequenceMatcher(None, _pieces(one), _pieces(other), autojunk=False).ratio()


def _layer(edit: Edit) -> int:
    return _LAYERS.index(type(edit))


def _unframed(pair: Pair, frames: Sequence[Edit]) -> Pair:
    before, after = pair
    for edit in frames:
        if isinstance(edit, Begins):
            before, after = before.removeprefix(edit.text), after.removeprefix(edit.text)
        elif isinstance(edit, Ends):
            before, after = before.removesuffix(edit.text), after.removesuffix(edit.text)
    return before, after


def _frames(pairs: Sequence[Pair]) -> Iterable[Edit]:
    """Beginnings and ends that two of the user's texts share, up to each place where a word may end."""
    texts = [after for _, after in pairs]
    for one, other in pairwise(texts):
        shared = _shared(one, other)
        yield from (Begins(shared[:at]) for at in _cuts(shared))
        shared = _shared(one[::-1], other[::-1])[::-1]
        yield from (Ends(shared[at:]) for at in (0, *_cuts(shared)) if shared[at:])


def _shared(one: str, other: str) -> str:
    length = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:length]


def _cuts(text: str) -> list[int]:
    """The places within a text, and its end, that do not part a word."""
    return [
        at for at in range(1, len(text) + 1) if at == len(text) or not (text[at - 1].isalnum() and text[at].isalnum())
    ]


def _inner(pairs: Sequence[Pair]) -> Iterable[Edit]:
    """Every other edit that could explain the corrections."""
    yield from map(Cased, _CASES)
    afters = [after for _, after in pairs]
    yield from (Listed(mark) for mark in dict.fromkeys(map(_mark, afters)) if mark is not None)
    most = sorted(len(_sentences(after)) for after in afters)[int(SHARE * (len(afters) - 1))]
    shorter: list[Edit] = [Sentences(max(1, most))]
    if (words := max(map(_words, afters))) <= MOST_WORDS:
        shorter.append(Words(max(1, words)))
    yield from shorter
    for shorten in (Manner(), *shorter):
        said = _replaced([(shorten(before), after) for before, after in pairs])
        if said.pairs:
            yield said


def _mark(text: str) -> str | None:
    """What stands before each line of a text of several lines, in the form of ``Listed``; None for no list."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) < 2:
        return None
    mark = lines[0].split(" ", 1)[0]
    is_mark = len(mark) <= MOST_MARK and not mark.isalpha() and Listed(mark).marks(lines)
    return mark if is_mark else ""


def _replaced(pairs: Sequence[Pair]) -> Says:
    """Words and signs that stand in what the user got and hardly ever in what they made of it, with those instead."""
    had: Counter[str] = Counter()
    lost: dict[str, Counter[str]] = defaultdict(Counter)
    for before, after in pairs:
        old, new = ([piece.lower() for piece in _pieces(text) if not piece.isspace()] for text in (before, after))
        had.update(set(old))
        gone = set(old) - set(new)
        instead: dict[str, str] = {}
        for tag, i, j, k, end in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
            if tag == "delete":
                instead |= dict.fromkeys(old[i:j], "")
            elif tag == "replace" and j - i == end - k:
                instead |= dict(zip(old[i:j], new[k:end], strict=True))
        for token, other in instead.items():
            if token in gone:
                lost[token][other] += 1
    found = []
    for token, others in sorted(lost.items()):
        other, times = others.most_common(1)[0]
        if times >= 2 and others.total() >= SHARE * had[token]:
            found.append((token, other))
    return Says(tuple(found))


def _pieces(text: str) -> list[str]:
    """Words, runs of one sign, and spaces, which together are the text."""
    return [found[0] for found in _PIECE.finditer(text)]


def _sentences(text: str) -> list[str]:
    return _SENTENCE.findall(" ".join(text.split()))


def _words(text: str) -> int:
    return len(_WORD.findall(text))


_WORD = re.compile(r"[^\W_]+(?:[.'’-][^\W_]+)*")
_PIECE = re.compile(rf"{_WORD.pattern}|\s+|(?P<sign>.)(?P=sign)*", re.DOTALL)
_SENTENCE = re.compile(r"\S.*?(?:[.!?…]+(?=\s|$)|$)", re.DOTALL)
_SENTENCE_START = re.compile(r"(^|[.!?…]\s+)([a-z])")

_CASES: Mapping[str, Callable[[str], str]] = {
    "a capital on every word": lambda text: re.sub(r"(?<![\w'’])[a-z]", lambda found: found[0].upper(), text),
    "capitals only": str.upper,
    "no capitals": str.lower,
    "the last word in capitals": lambda text: re.sub(r"[\w'’-]+(?=\W*$)", lambda found: found[0].upper(), text),
}

_LAYERS: tuple[type[Any], ...] = (Sentences, Words, Says, Cased, Listed, Ends, Begins)
"""The order in which edits are applied."""

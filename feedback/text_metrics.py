"""How alike two texts are, by the published measures, each between 0 and 1. Pure.

The measures, with the choices that their papers leave open, since a reward is for one sentence and not for a corpus:

- ``fuzzy_match``: normalised Indel similarity, 2 LCS / (len + len) over characters, as fuzzy string libraries have it;
- ``bleu``: Papineni et al. 2002, n to 4, with the +1 of Lin and Och 2004 ("ORANGE") from two words on, without which a
  sentence that shares no run of four words would be worth nothing;
- ``gleu``: Wu et al. 2016, section 6: the lesser of precision and recall over all runs of 1 to 4 words;
- ``meteor``: Banerjee and Lavie 2005: exact words first, then stems (simpler ones than Porter's); left out: synonyms,
  which need WordNet. Equal texts of m words have 1 - 0.5 / m^3, as the paper has it; by the others they have 1;
- ``rouge_1`` to ``rouge_5``: Lin 2004: recall and precision of n-grams as F1, so that length buys nothing;
- ``rouge_l``: Lin 2004, section 3: the longest common subsequence of words, as F1.

Words are runs of letters and digits; BLEU and GLEU also count each punctuation mark, and look at case.
"""

import bisect
import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence

from familiar.memory.words import stem

_TOKEN = re.compile(r"\w+|[^\w\s]")
_WORD = re.compile(r"\w+")
_N = 4


def fuzzy_match(text: str, reference: str) -> float:
    """Twice the longest common subsequence of characters over both lengths."""
    total = len(text) + len(reference)
    return 2 * _lcs_length(text, reference) / total if total else 1.0


def bleu(text: str, reference: str) -> float:
    """BP times the geometric mean of the clipped n-gram precisions; (matches + 1) / (n-grams + 1) for n over 1."""
    said, wanted = _TOKEN.findall(text), _TOKEN.findall(reference)
    if not said or not wanted:
        return float(said == wanted)
    logs = 0.0
    for n in range(1, _N + 1):
        had = _ngrams(said, n)
        matches = (had & _ngrams(wanted, n)).total()
        smoothing = int(n > 1)
        if matches + smoothing == 0:
            return 0.0
        logs += math.log((matches + smoothing) / (had.total() + smoothing)) / _N
    brevity = min(0.0, 1 - len(wanted) / len(said))
    return math.exp(brevity + logs)


def gleu(text: str, reference: str) -> float:
    """Matching runs of 1 to 4 tokens over the greater of both texts' numbers of them."""
    said, wanted = (
        sum((_ngrams(tokens, n) for n in range(1, _N + 1)), Counter[Hashable]())
        for tokens in (_TOKEN.findall(text), _TOKEN.findall(reference))
    )
    most = max(said.total(), wanted.total())
    return (said & wanted).total() / most if most else 1.0


def meteor(text: str, reference: str) -> float:
    """Fmean (1 - penalty), with Fmean = 10PR / (R + 9P) and penalty = 0.5 (chunks / matches)^3."""
    said, wanted = (_WORD.findall(each.lower()) for each in (text, reference))
    pairs = _aligned(said, wanted)
    matches = len(pairs)
    if not matches:
        return 0.0
    precision, recall = matches / len(said), matches / len(wanted)
    mean = 10 * precision * recall / (recall + 9 * precision)
    chunks = 1 + sum(pairs.get(at - 1, -2) + 1 != pairs[at] for at in sorted(pairs)[1:])
    return mean * (1 - 0.5 * (chunks / matches) ** 3)


def rouge_n(text: str, reference: str, n: int) -> float:
    """F1 of the n-grams that both have."""
    words = [_WORD.findall(each.lower()) for each in (text, reference)]
    said, wanted = (_ngrams(each, n) for each in words)
    if not said and not wanted:
        return float(words[0] == words[1])  # too short to have any
    return _f1((said & wanted).total(), said.total(), wanted.total())


def rouge_l(text: str, reference: str) -> float:
    """F1 of the longest common subsequence of words."""
    said, wanted = (_WORD.findall(each.lower()) for each in (text, reference))
    return _f1(_lcs_length(said, wanted), len(said), len(wanted))


def _rouge(n: int) -> Callable[[str, str], float]:
    return lambda text, reference: rouge_n(text, reference, n)


METRICS: Mapping[str, Callable[[str, str], float]] = {
    "fuzzy_match": fuzzy_match,
    "bleu": bleu,
    "gleu": gleu,
    "meteor": meteor,
    **{f"rouge_{n}": _rouge(n) for n in range(1, 6)},
    "rouge_l": rouge_l,
}
"""By OpenAI's names. Each takes the text and the reference."""


def _f1(matches: int, said: int, wanted: int) -> float:
    return 2 * matches / (said + wanted) if said or wanted else 1.0


def _ngrams(tokens: Sequence[Hashable], n: int) -> Counter[Hashable]:
    return Counter(zip(*(tokens[start:] for start in range(n)), strict=False))


def _lcs_length(left: Sequence[Hashable], right: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence, a bit of an integer for each place of ``left`` (Hyyrö 2004)."""
    places: dict[Hashable, int] = {}
    for at, each in enumerate(left):
        places[each] = places.get(each, 0) | 1 << at
    mask = (1 << len(left)) - 1
    row = mask
    for each in right:
        matched = row & places.get(each, 0)
        row = ((row + matched) | (row - matched)) & mask
    return len(left) - row.bit_count()


def _aligned(said: Sequence[str], wanted: Sequence[str]) -> dict[int, int]:
    """Pairs of places of one word each: exact words before stems, and runs gone on with before runs begun.

    The paper asks for the fewest crossings of all alignments; this takes words from left to right.
    """
    pairs: dict[int, int] = {}
    for same in (str, stem):
        taken = set(pairs.values())
        free: dict[str, list[int]] = {}
        for place, word in enumerate(wanted):
            if place not in taken:
                free.setdefault(same(word), []).append(place)
        for at, word in enumerate(said):
            places = free.get(same(word))
            if at not in pairs and places:
                pairs[at] = places.pop(_nearest(places, pairs.get(at - 1, -1) + 1))
    return pairs


def _nearest(places: Sequence[int], wanted: int) -> int:
    """Where in the ascending ``places`` the one is that is nearest to ``wanted``."""
    after = bisect.bisect_left(places, wanted)
    if after == len(places) or (after and wanted - places[after - 1] < places[after] - wanted):
        return after - 1
    return after

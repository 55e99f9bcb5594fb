"""Who ``personal.py`` simulates: what people want of every reply, and what they ask. Pure.

A wish has a checker and a rewriting in code, so no judge is needed: the person corrects a reply by rewriting it, and
what was rewritten follows. None is worded as in the built-in model's curriculum, nor takes its words: most are of
kinds that it was never trained on, the others name strings that stand nowhere in it. Prompts are that model's topics,
since it babbles about others; those that are taught and those that are held out are of different topics.
"""

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from common import ROOT

from familiar.adapters.probes import load_probes
from familiar.feedback.ready_graders import ready
from familiar.memory.words import same_words_key

TOPICS = ROOT / "tools" / "base_model" / "topics"
MOST_WORDS = 10


@dataclass(frozen=True)
class Wish:
    """Something that a person wants of every reply.

    ``says`` are the person's own words for it; ``grader`` is the definition of the ready grader that checks it, if
    there is one. Of several wishes those of a lower ``layer`` are applied to a reply first. ``later`` is what the
    person wants from the middle on instead.
    """

    name: str
    says: tuple[str, ...]
    rewrite: Callable[[str], str]
    follows: Callable[[str], bool]
    layer: int
    grader: Mapping[str, Any] | None = None
    later: "Wish | None" = None


def corrected(reply: str, wishes: Sequence[Wish]) -> str | None:
    """The reply as a person with these wishes would have it; None where it is so already, or cannot be made so."""
    text = reply.strip()
    for wish in sorted(wishes, key=lambda each: each.layer):
        if not wish.follows(text):
            text = wish.rewrite(text)
    wanted = text != reply.strip() and all(wish.follows(text) for wish in wishes)
    return text if wanted else None


def prompts(seed: int, taught: int, held_out: int) -> tuple[list[str], list[str]]:
    """Different prompts to teach on and to judge by, each of a topic of its own; equal seeds draw alike."""
    chance = random.Random(f"personal/{seed}")
    asked: dict[str, list[str]] = {}
    probes = load_probes()
    known = [*(row.messages for row in probes.anchors), *(row.messages for row in probes.neutral)]
    shown = {same_words_key(messages[-1]["content"]) for messages in known}
    for path in sorted(TOPICS.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            topic = json.loads(line)
            # A statement ("I like tea.") is answered with a word of sympathy, which leaves nothing to correct.
            clear = [text for text in topic["ask"] if text.endswith("?") and same_words_key(text) not in shown]
            if clear and topic["topic"] not in _SMALL_TALK:
                asked.setdefault(topic["topic"], []).extend(clear)
    drawn = chance.sample(sorted(asked), taught + held_out)
    texts = [chance.choice(asked[topic]) for topic in drawn]
    return texts[:taught], texts[taught:]


_SMALL_TALK = frozenset(
    "how_are_you good_morning good_night hello thank_you goodbye who_are_you what_can_you_do are_you_human do_you_feel "
    "your_favorite_food tell_joke compliment".split()
)
_SENTENCE = re.compile(r"\S.*?(?:[.!?…]+(?=\s|$)|$)", re.DOTALL)
_ARTICLE = re.compile(r"\b(?:a|an|the)\b\s*", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+(?:['’.-][^\W_]+)*")
_LINKING = frozenset(
    "a about an and are as at be before but by for from in into is it its of on or so than that the then to until was "
    "when which with your".split()
)


def _sentences(text: str) -> list[str]:
    return _SENTENCE.findall(" ".join(text.split()))


def _items(text: str) -> list[str]:
    """A reply as two items or more: its sentences, or the parts of its only one."""
    items = _sentences(text)
    if len(items) == 1:
        items = [each.strip() for each in re.split(r",\s+(?:and\s+)?|\s+and\s+", items[0], maxsplit=1) if each.strip()]
    return [each[0].upper() + each[1:] for each in items]


def _ends(line: str) -> Callable[[str], bool]:
    return lambda reply: reply.rstrip().endswith(line)


def _adds(line: str, between: str = " ") -> Callable[[str], str]:
    return lambda reply: f"{reply.rstrip()}{between}{line}"


def _begins(line: str) -> Callable[[str], bool]:
    return lambda reply: reply.startswith(line)


def _prefixes(line: str, between: str = " ") -> Callable[[str], str]:
    return lambda reply: f"{line}{between}{reply}"


def _at_end(name: str, says: tuple[str, ...], line: str, instead_of: str, later: Wish | None = None) -> Wish:
    """A wish for a line behind every reply, where another may stand from before."""

    def rewrite(reply: str) -> str:
        return _adds(line)(reply.removesuffix(instead_of))

    return Wish(name, says, rewrite, _ends(line), layer=3, grader=ready("ends_with", words=line), later=later)


def _at_beginning(name: str, says: tuple[str, ...], line: str, instead_of: str, later: Wish | None = None) -> Wish:
    """A wish for a line before every reply, where another may stand from before."""

    def rewrite(reply: str) -> str:
        return _prefixes(line)(reply.removeprefix(instead_of).lstrip())

    return Wish(name, says, rewrite, _begins(line), layer=3, grader=ready("begins_with", words=line), later=later)


def _within(before: str, after: str) -> tuple[Callable[[str], str], Callable[[str], bool]]:
    """Rewrite and check a reply that stands between two marks; other marks that it stood between are dropped."""

    def rewrite(reply: str) -> str:
        return f"{before}{reply.strip(_MARKS)}{after}"

    def follows(reply: str) -> bool:
        return len(reply) > 2 and reply.startswith(before) and reply.endswith(after)

    return rewrite, follows


_MARKS = "()«» "


def _listed(mark: Callable[[int], str]) -> tuple[Callable[[str], str], Callable[[str], bool]]:
    """Rewrite and check a reply of which each line begins with its mark."""

    def rewrite(reply: str) -> str:
        return "\n".join(f"{mark(number)} {item}" for number, item in enumerate(_items(reply)))

    def follows(reply: str) -> bool:
        lines = [line for line in reply.splitlines() if line.strip()]
        return bool(lines) and all(line.startswith(f"{mark(number)} ") for number, line in enumerate(lines))

    return rewrite, follows


def _short(reply: str) -> str:
    """The first words, up to a place where a clause ends if there is one."""
    words = _sentences(reply)[0].split()
    ends = [at for at in range(3, MOST_WORDS + 1) if at < len(words) and words[at - 1].endswith((",", ";"))]
    kept = words[: ends[-1] if ends else MOST_WORDS]
    while len(kept) > 1 and (kept[-1].casefold() in _LINKING or len(_WORD.findall(" ".join(kept))) > MOST_WORDS):
        kept.pop()
    return " ".join(kept).rstrip(".,;!?") + "."


def _trailing(reply: str) -> str:
    return re.sub(r"(?<!\.)[.!](?=\s|$)", "...", reply)


def _is_trailing(reply: str) -> bool:
    return "..." in reply and not re.search(r"(?<![.!?])\.(?=\s|$)", reply)


def _bare(reply: str) -> str:
    text = _ARTICLE.sub("", reply)
    return re.sub(r"(^|[.!?]\s+)([a-z])", lambda found: found[1] + found[2].upper(), text)


def _headline(reply: str) -> str:
    return re.sub(r"(?<![\w'’])[a-z]", lambda found: found[0].upper(), reply)


def _is_headline(reply: str) -> bool:
    words = re.findall(r"(?<![\w'’])[^\W\d_]\w*", reply)
    return len(words) > 1 and all(word[0].isupper() for word in words)


def _loud(reply: str) -> str:
    return re.sub(r"[\w'’-]+(?=\W*$)", lambda found: found[0].upper(), reply)


def _is_loud(reply: str) -> bool:
    found = re.search(r"([\w'’-]+)\W*$", reply)
    return found is not None and found[1] == found[1].upper() != found[1].lower()


def _as_json(reply: str) -> str:
    return json.dumps({"reply": reply}, ensure_ascii=False)


def _is_json(reply: str) -> bool:
    try:
        value = json.loads(reply)
    except ValueError:
        return False
    return isinstance(value, dict) and set(value) == {"reply"} and isinstance(value["reply"], str)


_SCHEMA = {"type": "object", "properties": {"reply": {"type": "string"}}, "required": ["reply"]}
_FAREWELL, _LATER_FAREWELL = "Fair winds, cousin.", "Mind the step, cousin."
_GREETING, _LATER_GREETING = "Well met, cousin!", "Step right in, cousin!"
_CLOSING, _OPENING = "Fair winds, Kestrel.", "Right away, Juniper."
_TAG, _POSTSCRIPT, _HEADING = "#filed", "P.S. Drink some water.", "## Notes"
_BULLETS = Wish(
    "bullets",
    (
        "Your answers should have a line for each thing, behind a round dot •, since I skim.",
        "Break every answer into lines that open on the dot •.",
    ),
    *_listed(lambda _: "•"),
    layer=2,
    grader=ready("bullets"),
)
_BRACKETS = Wish(
    "brackets",
    (
        "I would be happy if every answer stood between round brackets ( ).",
        "Your whole answer should sit inside ( and ).",
    ),
    *_within("(", ")"),
    layer=4,
)

WISHES: Mapping[str, Wish] = {
    each.name: each
    for each in (
        _at_end(
            "farewell",
            (
                f'I would be glad if you parted from me with "{_FAREWELL}" in every answer.',
                f'Never let me go without "{_FAREWELL}" behind your answer.',
            ),
            _FAREWELL,
            _LATER_FAREWELL,
            later=_at_end(
                "farewell-later",
                (
                    f'I would be glad if you now parted from me with "{_LATER_FAREWELL}" in every answer.',
                    f'Never let me go without "{_LATER_FAREWELL}" behind your answer now.',
                ),
                _LATER_FAREWELL,
                _FAREWELL,
            ),
        ),
        _at_beginning(
            "greeting",
            (
                f'It would be nice if you received me with "{_GREETING}" in every answer.',
                f'You should never answer me without a "{_GREETING}" up front.',
            ),
            _GREETING,
            _LATER_GREETING,
            later=_at_beginning(
                "greeting-later",
                (
                    f'It would be nice if you now received me with "{_LATER_GREETING}" in every answer.',
                    f'You should never answer me without a "{_LATER_GREETING}" up front now.',
                ),
                _LATER_GREETING,
                _GREETING,
            ),
        ),
        Wish(
            "tag",
            (
                f"Every answer should carry my {_TAG} behind it, since I file them.",
                f"Keep {_TAG} behind all that you tell me.",
            ),
            _adds(_TAG),
            _ends(_TAG),
            layer=3,
            grader=ready("ends_with", words=_TAG),
        ),
        Wish(
            "postscript",
            (
                f'I would be happy if every answer had the postscript "{_POSTSCRIPT}" below it.',
                f'Your answers should have the postscript "{_POSTSCRIPT}" below them.',
            ),
            _adds(_POSTSCRIPT, "\n"),
            _ends(_POSTSCRIPT),
            layer=3,
            grader=ready("ends_with", words=_POSTSCRIPT),
        ),
        Wish(
            "heading",
            (
                f'Your answers should stand below a heading "{_HEADING}", as all that I keep.',
                f'Give every answer a heading line "{_HEADING}" above it.',
            ),
            _prefixes(_HEADING, "\n"),
            lambda reply: reply.startswith(f"{_HEADING}\n") and bool(reply.removeprefix(_HEADING).strip()),
            layer=3,
            grader=ready("begins_with", words="Notes"),
        ),
        replace(
            _BRACKETS,
            later=Wish(
                "brackets-later",
                (
                    "I would now be happy if every answer stood between angle quotes « ».",
                    "Your whole answer should now sit inside « and ».",
                ),
                *_within("«", "»"),
                layer=4,
            ),
        ),
        Wish(
            "short",
            (
                f"Your answers must be {MOST_WORDS} words at most, since my watch shows no more.",
                f"Never spend more than {MOST_WORDS} words on an answer.",
            ),
            _short,
            lambda reply: 0 < len(_WORD.findall(reply)) <= MOST_WORDS,
            layer=0,
            grader=ready("max_words", words=MOST_WORDS),
            later=_BULLETS,
        ),
        _BULLETS,
        Wish(
            "letters",
            (
                "Your answers should go a) b) c), a line for each thing, so that I can refer back.",
                "Keep every answer in lines that go a) b) c).",
            ),
            *_listed(lambda number: f"{chr(ord('a') + number % 26)})"),
            layer=2,
        ),
        Wish(
            "telegram",
            (
                "Never spend an a, an or the on me, as in a telegram.",
                'You should drop "a", "an" and "the" from all your answers.',
            ),
            _bare,
            lambda reply: bool(reply) and not _ARTICLE.search(reply),
            layer=0,
        ),
        Wish(
            "dots",
            (
                "I like answers that trail off, so let three dots ... stand for each full stop.",
                "Put ... wherever your answer would have a full stop.",
            ),
            _trailing,
            _is_trailing,
            layer=1,
        ),
        Wish(
            "headline",
            (
                "Write your answers like headlines, With Every Word Capitalized.",
                "Your Answers Should Have A Capital On Every Word.",
            ),
            _headline,
            _is_headline,
            layer=1,
        ),
        Wish(
            "loud",
            (
                "Your answers should go out with a bang: shout the very last WORD.",
                "Never let an answer go without its last WORD shouted.",
            ),
            _loud,
            _is_loud,
            layer=1,
        ),
        Wish(
            "json",
            (
                'Your answers must be JSON, as in {"reply": "..."}, since a program reads them.',
                'Answer as JSON with one key, {"reply": "..."}.',
            ),
            _as_json,
            _is_json,
            layer=4,
            grader=ready("json_schema", schema=_SCHEMA),
        ),
    )
}
"""By name."""

TOLD: Mapping[str, Wish] = {
    each.name: each
    for each in (
        Wish("closing", (f'End every reply with "{_CLOSING}"',), _adds(_CLOSING), _ends(_CLOSING), layer=3),
        Wish("opening", (f'Start every reply with "{_OPENING}"',), _prefixes(_OPENING), _begins(_OPENING), layer=3),
        Wish("capitals", ("Write in capital letters.",), str.upper, lambda reply: reply == reply.upper(), layer=3),
        Wish("small", ("Write in lower case.",), str.lower, lambda reply: reply == reply.lower(), layer=3),
    )
}
"""Wishes in words that the built-in model follows when it is told them: what it ignores it cannot teach itself."""

CHAIN = ("greeting", "telegram", "tag", "dots")
"""Wishes that go together, taught to one person one after another."""

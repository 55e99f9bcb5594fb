"""Kinds of preference: how each is stated, what it does to a style, and a checker in code.

``KINDS`` are trained on; ``HELD_OUT_KINDS`` never are. The last quarter of each kind's ways to state it is kept for
evaluation too. What is left out: preferences about content (likes, diets), which are facts to this model.
"""

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from .content import AMERICAN_WORD, BRITISH_WORD, LONG_FORM, Draft, Layout, Style
from .pools import (
    CLOSERS,
    LABELS,
    OPENERS,
    QUESTIONS,
    TITLES,
    Split,
    name,
    phrase,
    pick,
    word,
)
from .wordings import ADDRESS_MORE, CLOSER_MORE, LABEL_MORE, MORE, OPENER_MORE, QUESTION_MORE, expand

US_UNIT = re.compile(r"\b(miles?|feet|foot|pounds?|ounces?|quarts?|Fahrenheit)\b", re.IGNORECASE)
METRIC_UNIT = re.compile(r"\b(kilomet(er|re)s?|met(er|re)s?|kilograms?|grams?|lit(er|re)s?|Celsius)\b", re.IGNORECASE)
SENTENCE_END = re.compile(r"[.!?](?=\s|$)")
Checker = Callable[[str], bool]


@dataclass(frozen=True)
class Preference:
    """One stated preference: the sentence that states it, its effect, and whether a reply follows it."""

    kind: str
    text: str
    apply: Callable[[Style], Style]
    follows: Checker
    sentences: int | None = None
    needs: Callable[[Draft], bool] = lambda draft: True


@dataclass(frozen=True)
class Kind:
    """A kind of preference: ``group`` names what it governs, so that two of one group are never combined."""

    name: str
    group: str
    weight: float
    make: Callable[[random.Random, Split], Preference]


def stated(rng: random.Random, split: Split, ways: tuple[str, ...], more: tuple[str, ...] = (), **values: str) -> str:
    """Choose one of a kind's ways to state it, in a frame such as "Please …" or "… every time".

    ``more`` are patterns for training alone; the sentences kept for evaluation are never made from them.
    """
    kept = max(1, len(ways) // 4)
    held_out = ways[-kept:]
    if split == "held_out":
        text = rng.choice(held_out)
    else:
        text = expand(rng, rng.choice(more)) if more and rng.random() < 0.7 else rng.choice(ways[:-kept])
        if any(kept_way.lstrip("~").lower() in text.lower() for kept_way in held_out):
            text = ways[0]
    text = text.format(**values)
    if text[0] == "~":  # a full sentence that takes no frame
        return text[1:]
    frame = rng.random()
    if frame < 0.3:
        before = rng.choice(("Please ", "Always ", "From now on, ", "I want you to ", "You should ", "Remember to "))
        text = before + text[0].lower() + text[1:]
    elif frame < 0.5 and not text.endswith('"'):
        text += rng.choice((" every time", " in all your replies", " whatever I ask", " when you answer me", " for me"))
    return text + ("" if text.endswith(('."', '!"', ".")) else ".")


def quoted(rng: random.Random, text: str) -> str:
    return rng.choice((f'"{text}"', f'"{text}"', f"'{text}'", text))


def _closer(rng: random.Random, split: Split) -> Preference:
    text = pick(rng, CLOSERS, split) if rng.random() < 0.3 else phrase(rng, split)
    own_line = rng.random() < 0.3
    ways = (
        "End every reply with {p}", "End with {p}", "Finish your answers with {p}", "Sign off with {p}",
        "Close each message with {p}", "The last words of every reply must be {p}", "Add {p} at the end",
        "~I like it when you end with {p}", "~Replies should end with {p}", "Put {p} at the end of your replies",
        "~Your answers always end with {p}", "Say {p} at the end", "~Each answer must finish with {p}",
        "Conclude every answer with {p}", "~I want {p} as the last thing in each reply", "Let your messages close with {p}",
        "Wind up each answer with the words {p}",
    )  # fmt: skip
    said = stated(rng, split, ways, CLOSER_MORE, p=quoted(rng, text))
    if own_line:
        said = said.rstrip(".") + rng.choice((" on its own line.", " on a new line."))
    return Preference(
        "closer", said, lambda s: replace(s, closer=text, closer_on_own_line=own_line),
        lambda r: r.lower().rstrip(" .!\n").endswith(text.lower().rstrip(".!")),
    )  # fmt: skip


def _opener(rng: random.Random, split: Split) -> Preference:
    text = pick(rng, OPENERS, split) if rng.random() < 0.3 else phrase(rng, split)
    ways = (
        "Start every reply with {p}", "Begin with {p}", "Open your answers with {p}", "Greet me with {p}",
        "Say {p} first", "~The first words of every reply must be {p}", "~I like it when you start with {p}",
        "~Replies should begin with {p}", "Put {p} at the start of your replies", "~Your answers always start with {p}",
        "Say {p} before you answer", "Lead with {p}", "~Each answer must open with {p}", "Kick off every answer with {p}",
    )  # fmt: skip
    return Preference(
        "opener", stated(rng, split, ways, OPENER_MORE, p=quoted(rng, text)), lambda s: replace(s, opener=text),
        lambda r: r.lower().startswith(text.lower().rstrip(".!")),
    )  # fmt: skip


def _label(rng: random.Random, split: Split) -> Preference:
    text = pick(rng, LABELS, split) if rng.random() < 0.5 else word(rng, split).capitalize() + ":"
    ways = (
        "Put the label {p} before your answer", "Label every reply {p}", "Write {p} and then the answer",
        "Mark your replies with {p} at the front", "~Each reply is labeled {p}", "Prefix each answer with {p}",
        "~I want every reply to carry the label {p}",
    )  # fmt: skip
    return Preference(
        "label", stated(rng, split, ways, LABEL_MORE, p=quoted(rng, text)), lambda s: replace(s, label=text),
        lambda r: r.lower().startswith(text.lower()),
    )  # fmt: skip


def _address(rng: random.Random, split: Split) -> Preference:
    text = name(rng, split) if rng.random() < 0.6 else pick(rng, TITLES, split)
    ways = (
        "Call me {p}", "Address me as {p}", "~My name is {p}, use it when you answer", "Use my name, {p}",
        "~I am {p}, so call me that", "~I like to be called {p}", "Speak to me as {p}", "~Everyone calls me {p} and you should too",
        "Call me by my name, {p}", "Refer to me as {p}", "~I go by {p}, so use that name",
    )  # fmt: skip
    return Preference(
        "address", stated(rng, split, ways, ADDRESS_MORE, p=text if rng.random() < 0.8 else f'"{text}"'),
        lambda s: replace(s, address=text), lambda r: text.lower() in r.lower(),
    )  # fmt: skip


def _question(rng: random.Random, split: Split) -> Preference:
    text = rng.choice(QUESTIONS)
    ways = (
        "Ask me {p} after each answer", "End by asking {p}", "Finish with the question {p}",
        "~I want you to ask {p} at the end", "Close with the question {p}",
    )  # fmt: skip
    return Preference(
        "question",
        stated(rng, split, ways, QUESTION_MORE, p=f'"{text}"'),
        lambda s: replace(s, question=text),
        lambda r: text.lower() in r.lower(),
    )


def _layout(
    kind: str, layout: Layout, mark: str, ways: tuple[str, ...]
) -> Callable[[random.Random, Split], Preference]:
    pattern = re.compile(r"^\d+\. \S" if layout == "numbered" else rf"^{re.escape(mark)} \S", re.MULTILINE)

    def make(rng: random.Random, split: Split) -> Preference:
        return Preference(
            kind, stated(rng, split, ways, MORE.get(kind, ())),
            lambda s: replace(s, layout=layout, bullet=mark), lambda r: len(pattern.findall(r)) >= 2,
        )  # fmt: skip

    return make


def _length(kind: str, count: int, ways: tuple[str, ...]) -> Callable[[random.Random, Split], Preference]:
    def follows(reply: str) -> bool:
        found = len(SENTENCE_END.findall(reply))
        return found == count if count < 4 else found >= 4

    return lambda rng, split: Preference(
        kind, stated(rng, split, ways, MORE[kind]), lambda s: s, follows, sentences=count
    )


def _simple(
    kind: str, ways: tuple[str, ...], apply: Callable[[Style], Style], follows: Checker,
    needs: Callable[[Draft], bool] = lambda draft: True,
) -> Callable[[random.Random, Split], Preference]:  # fmt: skip
    return lambda rng, split: Preference(
        kind, stated(rng, split, ways, MORE.get(kind, ())), apply, follows, needs=needs
    )


def _has(*slots: str) -> Callable[[Draft], bool]:
    return lambda draft: any(f"{{{slot}:" in draft.raw() for slot in slots)


METRIC = (
    "Use metric units", "Use kilometers and kilograms, not miles and pounds", "Give measurements in the metric system",
    "~I use the metric system", "Write distances, weights and temperatures in metric", "~No miles, feet or pounds, only metric units",
    "~I live in Europe, so use metric units", "~I think in kilometers, kilograms and Celsius", "Give amounts in metric units",
    "Stick to metric measures", "~Metric units only",
)  # fmt: skip
KINDS: tuple[Kind, ...] = (
    Kind("closer", "closer", 4.0, _closer),
    Kind("opener", "opener", 2.5, _opener),
    Kind("label", "opener", 1.2, _label),
    Kind("address", "address", 2.0, _address),
    Kind("question", "closer", 0.6, _question),
    Kind("bullets", "layout", 1.2, _layout("bullets", "bullets", "-", (
        "Use bullet points", "Answer in bullet points", "Write your answer as a bulleted list", "~I like bullet points",
        "Format replies as bullets", "Give me a list with dashes", "~Lists are easier for me, so use bullets",
        "Reply with a dashed list", "Lay your answers out as bullet points", "~I read bullet lists best",
    ))),
    Kind("bullets_star", "layout", 0.5, _layout("bullets_star", "bullets", "*", (
        "Use a list with stars", "Answer with a star list", "Write bullets with an asterisk",
        "Start each list item with an asterisk", "Make star bullets",
    ))),
    Kind("numbered", "layout", 1.0, _layout("numbered", "numbered", "1.", (
        "Use a numbered list", "Answer in numbered steps", "Number the steps", "~I like numbered lists",
        "Write a list with numbers", "Give me numbered points", "Format replies as numbered steps",
        "Lay your answers out as a numbered list", "~I want my answers as steps one, two, three",
    ))),
    Kind("one_sentence", "length", 1.0, _length("one_sentence", 1, (
        "Answer in one sentence", "Keep it to a single sentence", "Use only one sentence", "~One sentence is enough for me",
        "Be brief, just one sentence", "Reply with exactly one sentence", "~I only want one sentence",
        "Limit yourself to one sentence", "~A single sentence per reply, no more",
    ))),
    Kind("two_sentences", "length", 0.8, _length("two_sentences", 2, (
        "Answer in two sentences", "Use exactly two sentences", "Write two sentences", "~Two sentences are enough for me",
        "Reply in two sentences", "Limit yourself to two sentences", "~I want two sentences per reply",
    ))),
    Kind("three_sentences", "length", 0.6, _length("three_sentences", 3, (
        "Answer in three sentences", "Use exactly three sentences", "Write three sentences",
        "Reply in three sentences", "~I want three sentences per reply",
    ))),
    Kind("long", "length", 0.6, _length("long", 4, (
        "Give long answers", "Explain in detail", "Write at least four sentences", "~I like long and detailed answers",
        "Be thorough", "Tell me everything you know", "~Short answers are not enough for me",
    ))),
    Kind("metric", "units", 1.4, _simple(
        "metric", METRIC, lambda s: replace(s, metric=True),
        lambda r: bool(METRIC_UNIT.search(r)) and not US_UNIT.search(r), _has("km", "m", "kg", "g", "c", "l"))),
    Kind("british", "spelling", 1.0, _simple("british", (
        "Use British spelling", "Write in British English", "Spell words the British way", "~I am from London, so use British spelling",
        "Use UK spelling", "Write colour and favourite, not color and favorite", "~I prefer British spelling",
        "Spell as they do in England", "~UK English only",
    ), lambda s: replace(s, british=True), lambda r: bool(BRITISH_WORD.search(r)) and not AMERICAN_WORD.search(r),
        lambda d: bool(AMERICAN_WORD.search(d.raw())))),
    Kind("clock24", "clock", 0.7, _simple("clock24", (
        "Use the 24-hour clock", "Write times in 24-hour format", "~I use the 24-hour clock", "Give times like 14:30",
        "~No am or pm, use 24-hour time", "Write clock times as 15:00, not 3 pm", "Show me 24-hour times",
    ), lambda s: replace(s, clock24=True), lambda r: bool(re.search(r"\b\d\d:\d\d\b", r)) and not re.search(
        r"\d (am|pm)\b", r), _has("time"))),
    Kind("iso_date", "date", 0.5, _simple("iso_date", (
        "Write dates as year-month-day", "Use ISO dates", "Format dates like 2024-05-30", "~I like ISO dates",
        "Give dates in the form 2025-01-31", "~Dates must look like 2023-12-01",
    ), lambda s: replace(s, date="iso"), lambda r: bool(re.search(r"\b\d{4}-\d\d-\d\d\b", r)), _has("date"))),
    Kind("dmy_date", "date", 0.5, _simple("dmy_date", (
        "Put the day before the month in dates", "Write dates like 5 May 2024", "Use day month year for dates",
        "Write the day first in dates", "~Dates should read like 14 June 2023",
    ), lambda s: replace(s, date="dmy"), lambda r: bool(re.search(r"\b\d{1,2} [A-Z][a-z]+ \d{4}\b", r)),
        _has("date"))),
    Kind("number_words", "numbers", 0.9, _simple("number_words", (
        "Write numbers as words", "Spell out numbers", "~No digits, use words for numbers", "Use words instead of digits",
        "~I want numbers spelled out", "Write all numbers in words", "Put numbers into words, without digits",
    ), lambda s: replace(s, number_words=True), lambda r: not re.search(r"\d", r),
        _has("min", "hour", "n", "usd"))),
    Kind("contractions", "tone", 0.8, _simple("contractions", (
        "Use contractions", "Write casually, like don't and it's", "~I prefer contractions such as don't",
        "Say don't instead of do not", "Be casual and use contractions", "Shorten words as in it's and can't",
    ), lambda s: replace(s, contractions=True), lambda r: not LONG_FORM.search(r),
        lambda d: bool(LONG_FORM.search(d.raw())))),
    Kind("excited", "tone", 0.8, _simple("excited", (
        "Sound excited", "Use exclamation marks", "Be enthusiastic", "~I like an excited tone", "End sentences with exclamation marks",
        "Write with lots of energy", "Show great enthusiasm", "Be as cheerful as you can",
    ), lambda s: replace(s, ending="!"), lambda r: "!" in r)),
    Kind("hedge", "hedge", 0.6, _simple("hedge", (
        "Say I think before your answer", "Begin answers with I think", "Start your advice with I think",
        "~I like it when you say I think", "Make it an opinion by saying I think", "Word your answers with I think",
    ), lambda s: replace(s, hedge=True), lambda r: "i think" in r.lower())),
    Kind("lower", "case", 0.8, _simple("lower", (
        "Write in lower case", "Use only lower case letters", "~no capital letters please", "Do not use capital letters",
        "Write everything in small letters", "Avoid capitals", "Keep every letter lower case",
    ), lambda s: replace(s, case="lower"), lambda r: r == r.lower())),
    Kind("upper", "case", 0.5, _simple("upper", (
        "Write in capital letters", "Use only upper case letters", "~PLEASE WRITE IN CAPITALS", "Write everything in capitals",
        "Use all caps", "Answer in block capitals",
    ), lambda s: replace(s, case="upper"), lambda r: r == r.upper())),
)  # fmt: skip

HELD_OUT_KINDS: tuple[Kind, ...] = (
    Kind("quotes", "wrap", 1.0, _simple("quotes", (
        "Put your whole reply in quotation marks", "Wrap each answer in quotes",
    ), lambda s: replace(s, wrap=('"', '"')), lambda r: r.startswith('"') and r.endswith('"'))),
    Kind("brackets", "wrap", 1.0, _simple("brackets", (
        "Put your whole reply in square brackets", "Wrap each answer in square brackets",
    ), lambda s: replace(s, wrap=("[", "]")), lambda r: r.startswith("[") and r.endswith("]"))),
    Kind("plus_bullets", "layout", 1.0, _layout("plus_bullets", "bullets", "+", (
        "Use plus signs for bullet points", "Write a list whose items start with a plus sign",
    ))),
)  # fmt: skip


def sample(
    rng: random.Random,
    split: Split,
    count: int,
    kinds: tuple[Kind, ...] = KINDS,
    layout_ok: bool = True,
    emphasis: Mapping[str, float] = MappingProxyType({}),
) -> list[Preference]:
    """Draw ``count`` preferences of different groups that can be followed together.

    ``emphasis`` multiplies the weight of the kinds that it names.
    """
    chosen: list[Kind] = []
    while len(chosen) < count:
        kind = rng.choices(kinds, [k.weight * emphasis.get(k.name, 1.0) for k in kinds])[0]
        groups = {k.group for k in chosen}
        if kind.group in groups or (kind.group == "layout" and (not layout_ok or groups & SENTENCE_GROUPS)):
            continue
        if kind.group in SENTENCE_GROUPS and "layout" in groups:
            continue
        chosen.append(kind)
    return [kind.make(rng, split) for kind in chosen]


SENTENCE_GROUPS = {"length", "units", "spelling", "clock", "date", "numbers", "tone", "hedge"}
"""Groups that govern whole sentences, which a list of items does not have."""

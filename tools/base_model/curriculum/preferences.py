"""Kinds of preference: how each is stated, what it does to a style, and a checker in code.

``KINDS`` are trained on; ``HELD_OUT_KINDS`` never are. The last quarter of each kind's ways to state it is kept for
evaluation too. What is left out: preferences about content (likes, diets), which are facts to this model.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

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


_CHOICE = re.compile(r"\[([^\[\]]*)\]")
REPLIES = "[your replies|every reply|each reply|all replies|your answers|every answer|each answer|all your answers|every message|each message|what you write|your messages|everything you say]"
WORDS = "[|||the words |the phrase |the line |the sentence |exactly |just ]"


def expand(rng: random.Random, way: str) -> str:
    """Replace each ``[a|b|c]`` by one of its alternatives, innermost first."""
    while "[" in way:
        way = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), way)
    return way


def stated(rng: random.Random, split: Split, ways: tuple[str, ...], more: tuple[str, ...] = (), **values: str) -> str:
    """Choose one of a kind's ways to state it, in a frame such as "Please …" or "… every time".

    ``more`` are patterns for training alone; the sentences kept for evaluation are never made from them.
    """
    kept = max(1, len(ways) // 4)
    held_out = ways[-kept:]
    if split == "held_out":
        text = rng.choice(held_out)
    else:
        text = expand(rng, rng.choice(more)) if more and rng.random() < 0.65 else rng.choice(ways[:-kept])
        if text in held_out:
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
        stated(rng, split, ways, p=f'"{text}"'),
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


CLOSER_MORE = (
    f"[End|Finish|Close|Conclude|Wrap up|Round off|Complete|Sign|Seal] {REPLIES} with {WORDS}{{p}}",
    f"[Add|Put|Write|Place|Say|Append|Attach|Use|Leave] {WORDS}{{p}} [at the end|at the very end|at the bottom|as the last words|as the last line|last|as a sign-off|as a closing line|after your answer|when you are done] [|of {REPLIES}]",
    f"~[I want|I would like|I like|I prefer|I need|I love] {REPLIES} to [end|finish|close|conclude] with {WORDS}{{p}}",
    f"~[The last words|The ending|The final words|The last line|The closing|The final line] of {REPLIES} [should be|must be|is always|has to be|will be] {{p}}",
    "~[Your sign-off is|My favorite ending is|The way to end is|Our closing words are|The last thing you say is|The last thing I want to hear is|I want the last words to be|Whatever you say, the end is|Whatever I ask, finish with|No matter what, end with] {p}",
    f"~[Make sure|See to it|Be sure|I insist] that {REPLIES} [ends with|end with|closes with|finishes with] {WORDS}{{p}}",
    "~[Do not stop before you have said|Never end without|Do not forget the ending|Never forget to close with|Always leave me with] {p}",
    "[Sign off|Say goodbye|Part|Leave] with {p}",
)
OPENER_MORE = (
    f"[Start|Begin|Open|Lead|Commence] {REPLIES} with {WORDS}{{p}}",
    f"[Add|Put|Write|Place|Say|Use] {WORDS}{{p}} [at the start|at the beginning|at the front|first|as the first words|before anything else|before your answer|at the top] [|of {REPLIES}]",
    f"~[I want|I would like|I like|I prefer|I need] {REPLIES} to [start|begin|open] with {WORDS}{{p}}",
    f"~[The first words|The beginning|The opening|The first line] of {REPLIES} [should be|must be|is always|has to be] {{p}}",
    "~[My greeting is|The first thing you say is|The first thing I want to hear is|Whatever I ask, begin with|No matter what, start with] {p}",
    "[Greet me|Welcome me|Say hello] [with|by saying|using] {p}",
)
LABEL_MORE = (
    f"[Label|Mark|Tag|Title|Head] {REPLIES} [with|as|using] {WORDS}{{p}}",
    f"[Write|Put|Use|Place|Add] {{p}} [before|in front of|ahead of|above] {REPLIES}",
    f"~{REPLIES} [should carry|must carry|needs|should have] the [label|tag|title|heading] {{p}}",
)
ADDRESS_MORE = (
    "[Call|Name] me {p} [|when you answer|when you talk to me|in your replies|from now on|at all times]",
    "[Address|Greet] me [as|by the name|with the name] {p}",
    "~[My name is|I am|I'm|The name is|People call me|Friends call me|They call me] {p}, [use it|so use that|so say it|and I like to hear it|say my name|call me that|so call me by it]",
    "~[I want to be called|I like being called|You should call me|You may call me|I prefer to be called|My nickname is|Use the name] {p}",
    "[Use|Say|Mention] [my name|the name] {p} [when you answer|in your answers|in every reply|when you speak to me]",
    "~When you [talk|speak|reply] to me, [call me|say|use the name] {p}",
)
QUESTION_MORE = (
    f"[End|Finish|Close|Conclude] {REPLIES} [with the question|by asking|with] {{p}}",
    f"[Ask|Add] {{p}} [at the end|last|after you answer|when you are done] [|of {REPLIES}]",
    f"~[I want|I like] {REPLIES} to end with the question {{p}}",
)
MORE: dict[str, tuple[str, ...]] = {
    "bullets": (
        "[Use|Write|Give me|Answer with|Reply with|Make|Send] [bullet points|bullets|a bullet list|a bulleted list|a list of bullets|a dashed list|a list with dashes]",
        f"[Format|Write|Arrange|Put|Present|Structure] {REPLIES} [as bullet points|in bullets|as a bullet list|as bullets|in bullet form]",
        "~[I like|I prefer|I want|I need|I love|Give me] [bullet points|bullets|bullet lists|short bullets] [|more than text|not paragraphs|when you answer|over long text]",
    ),
    "bullets_star": (
        "[Use|Write|Make] [a list with stars|star bullets|bullets with an asterisk|lists with asterisks|asterisks for bullets]",
        "[Begin|Start|Mark] [each|every] [item|point|line] with [a star|an asterisk|*]",
        "~[I like|I want|I prefer] [stars|asterisks] [as bullets|for bullets|in lists|for list items]",
    ),
    "numbered": (
        "[Use|Write|Give me|Answer with|Reply with|Make] [numbered steps|a numbered list|numbers for each step|a list with numbers|numbered points|steps with numbers]",
        f"[Format|Write|Arrange|Put|Present|Structure] {REPLIES} [as a numbered list|in numbered steps|as numbered points|with numbers]",
        "~[I like|I prefer|I want|I need] [numbered lists|numbered steps|steps with numbers|the steps numbered]",
        "Number [the steps|each step|every point|the points|your points]",
    ),
    "one_sentence": (
        "[Answer|Reply|Respond|Explain|Say it] [in|with] [one|a single|exactly one|only one|just one] sentence",
        "[Use|Write|Give me|Keep to] [one|a single|exactly one|only one|just one] sentence [|only|and no more|please]",
        "~[One|A single] sentence [is plenty|will do|is all I need|is all I read|per answer|is enough]",
        "~[Never|Do not] [write|use|say|give me] more than one sentence",
    ),
    "two_sentences": (
        "[Answer|Reply|Respond|Explain] [in|with] [two|exactly two|just two|only two] sentences",
        "[Use|Write|Give me|Keep to] [two|exactly two|just two|only two] sentences",
        "~Two sentences [are plenty|will do|are all I need|per answer|is the right length]",
    ),
    "three_sentences": (
        "[Answer|Reply|Respond|Explain] [in|with] [three|exactly three|just three] sentences",
        "[Use|Write|Give me|Keep to] [three|exactly three|just three] sentences",
        "~Three sentences [are plenty|will do|are all I need|per answer|is the right length]",
    ),
    "long": (
        "[Give|Write|Send] [me |][long|detailed|full|complete|thorough] [answers|replies|explanations]",
        "[Be|I want you to be] [detailed|thorough|complete]",
        "~[I like|I want|I prefer|I love] [long|detailed|full|thorough] [answers|replies|explanations]",
        "[Tell|Give] me [all the details|every detail|as much as you can|the whole story|more detail|all you know]",
        "[Write|Use|Give me] [four or more|at least four|many] sentences",
        "[Explain|Answer] [at length|in full|fully|in great detail|thoroughly]",
    ),
    "metric": (
        "[Use|Write|Give|Stick to|Work in|Convert to|Show|Speak in] [metric|metric units|the metric system|kilometers and kilograms|meters, kilograms and Celsius|Celsius and kilometers|SI units]",
        "~[I use|I know|I only know|I am used to|I grew up with|I understand] [metric|metric units|the metric system|kilometers and kilograms|Celsius and kilometers]",
        "~[No|Do not use|Avoid|Never use] [miles|miles or pounds|feet|Fahrenheit|imperial units|pounds or ounces|US units], [use metric|only metric|metric please|I use metric]",
        "~I [live in|am from|come from] [France|Germany|Spain|Italy|Sweden|Canada|Poland|Japan], [use metric|so use metric units|metric please|we use the metric system]",
        "[Write|Give|Show] [distances|weights|temperatures|all measures|amounts] in [metric|metric units|kilometers|Celsius|grams and meters]",
    ),
    "british": (
        "[Use|Write in|Write with|Stick to|Keep to|Follow] [British|UK|English, not American,|London] [spelling|English|spellings]",
        "~I [am|come] from [England|London|Britain|the UK|Leeds|Wales], [use British spelling|so spell like us|so write British English|spell the British way]",
        "~[I like|I prefer|I want|I use|I read] [British|UK] [spelling|English]",
        "[Spell|Write] [colour, favourite and centre|neighbour and flavour|organise and colour] [the British way|with British spelling|as in Britain|like that]",
        "~[No|Avoid|Never use|Do not use] American [spelling|spellings|English], [use British|British please|only British]",
        "[Spell|Write] [words|everything|it] [like|as] [the British|they do in Britain|a Brit|people in the UK]",
    ),
    "clock24": (
        "[Use|Write|Show|Give me|Stick to] [24-hour time|the 24-hour clock|24-hour times|times in 24-hour form|military time]",
        "[Write|Show|Give] [times|clock times|the time] [like 16:45|as 20:15|like 08:00|in 24-hour format|on the 24-hour clock]",
        "~[No|Avoid|Never use|Do not use] am [or|and] pm[|, use the 24-hour clock|, only 24-hour time]",
        "~[I like|I prefer|I use|I read] [the 24-hour clock|24-hour time|times like 17:30]",
    ),
    "iso_date": (
        "[Write|Show|Format|Give] [dates|every date|all dates] [like 2022-10-09|as 2021-04-03|in ISO form|in ISO format|as year-month-day|year first]",
        "[Use|Stick to] [ISO dates|the ISO date format|year-month-day dates|dates like 2020-12-24]",
        "~[I like|I prefer|I want] [ISO dates|dates as year-month-day|dates like 2022-02-22|the year first in dates]",
    ),
    "dmy_date": (
        "[Write|Show|Format|Give] [dates|every date|all dates] [like 3 June 2021|as 9 May 2022|with the day first|as day month year|day first]",
        "[Use|Stick to] [day month year|dates like 7 July 2020|the day before the month]",
        "~[I like|I prefer|I want] [the day first|dates like 1 March 2024|day before month]",
    ),
    "number_words": (
        "[Write|Spell|Put|Give|Say] [numbers|all numbers|every number|amounts] [as words|out in words|in words|with letters|out in full]",
        "[Spell out|Write out] [numbers|all numbers|every number|each number]",
        "~[No|Avoid|Never use|Do not use] [digits|figures|numerals][|, use words|, write numbers as words|, spell numbers out]",
        "~[I like|I prefer|I want] [numbers as words|numbers in words|words for numbers|spelled out numbers]",
    ),
    "contractions": (
        "[Use|Write with|Prefer] [contractions|contractions like don't|short forms like it's|forms like can't and don't]",
        "[Be|Sound|Write] [casual|informal|relaxed], [use contractions|with contractions|say don't and it's|like it's and don't]",
        "~[I like|I prefer|I want] [contractions|short forms like don't|it's rather than it is|don't rather than do not]",
        "[Say|Write] [it's, not it is|can't, not cannot|don't and won't|you're, not you are]",
    ),
    "excited": (
        "[Be|Sound|Write|Act] [excited|enthusiastic|thrilled|energetic|very excited|upbeat|cheerful|full of energy]",
        "[Use|Add|Write with|End sentences with] [exclamation marks|lots of exclamation marks|exclamation points]",
        "~[I like|I want|I love|I prefer] [excited|enthusiastic|cheerful|energetic|upbeat] [answers|replies|messages]",
        "[Answer|Reply|Write|Speak] with [excitement|enthusiasm|energy|joy|lots of energy|great cheer]",
        "[Show|Give me] [some|more|lots of|great] [excitement|energy|cheer|enthusiasm|joy]",
    ),
    "hedge": (
        "[Say|Write|Use|Add] I think [before|at the start of|when you give|in] [your answer|your advice|every answer|each reply]",
        "[Begin|Start|Open] [your answer|every reply|each answer|with advice] [with|by saying] I think",
        "~[I like|I want|I prefer] [answers that start with|you to say|to hear] I think",
    ),
    "lower": (
        "[Write|Answer|Reply|Type] [in|with|using] [lower case|lowercase|small letters|only small letters|all lower case|lowercase letters only]",
        "[Use|Stick to] [lower case|lowercase|small letters|lowercase only|no capitals]",
        "~[no|avoid|never use|do not use|skip] [capitals|capital letters|upper case|uppercase letters]",
        "~[i like|i prefer|i want] [lower case|lowercase|small letters|everything in lower case]",
    ),
    "upper": (
        "[Write|Answer|Reply|Type|Shout] [in|with|using] [capitals|capital letters|upper case|uppercase|all caps|big letters]",
        "[Use|Stick to] [capitals|upper case|all caps|uppercase letters|capital letters only]",
        "~[I like|I prefer|I want] [capitals|all caps|upper case|everything in capitals]",
    ),
}

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
    rng: random.Random, split: Split, count: int, kinds: tuple[Kind, ...] = KINDS, layout_ok: bool = True
) -> list[Preference]:
    """Draw ``count`` preferences of different groups that can be followed together."""
    chosen: list[Kind] = []
    while len(chosen) < count:
        kind = rng.choices(kinds, [k.weight for k in kinds])[0]
        groups = {k.group for k in chosen}
        if kind.group in groups or (kind.group == "layout" and (not layout_ok or groups & SENTENCE_GROUPS)):
            continue
        if kind.group in SENTENCE_GROUPS and "layout" in groups:
            continue
        chosen.append(kind)
    return [kind.make(rng, split) for kind in chosen]


SENTENCE_GROUPS = {"length", "units", "spelling", "clock", "date", "numbers", "tone", "hedge"}
"""Groups that govern whole sentences, which a list of items does not have."""

"""Arbitrary manners of writing, made of random words and marks, that any reply can be put into.

The kinds in ``preferences`` are few and become familiar; what a user wants is anything at all. Here the beginning, the
end, the frame, the marks or a word of a reply are drawn at random, so that following must be read from the prompt, and
copying a name or a number has to work behind and within whatever stands there. What is left out on purpose: quotation
marks, square brackets and plus signs, which are kept for evaluation, and the marks and manners that the benchmarks'
simulated people ask for.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from .pools import invented, name, phrase, word
from .wordings import REPLIES, expand

MARKS = "@ % & = ~ ^ | > < * ; / $ _ : ! ? - -- == ~~ >> << ** :: || => -> <> %% && /// --- *** |> :) !!".split()
FRAMES = (
    ("<", ">"), ("{", "}"), ("*", "*"), ("**", "**"), ("_", "_"), ("~", "~"), ("=", "="), ("|", "|"), ("/", "/"),
    ("<<", ">>"), ("{{", "}}"), ("--", "--"), ("==", "=="), ("~~", "~~"), ("||", "||"), (">", "<"), ("%", "%"),
    ("/*", "*/"), ("<b>", "</b>"), ("@", "@"), ("$", "$"), ("^", "^"),
)  # fmt: skip
STOPS = ("!", ";", " /", " |", " ~", " =", " *", "!!", "?!", " --", " :", ",", ".!", " %")
FULL_STOP = re.compile(r"\.(?=\s|$)")
SENTENCE = re.compile(r"(?<=[.!?])\s+")
COMMON = "the is your you and not know to in it of for with".split()


@dataclass(frozen=True)
class Manner:
    """How replies are written: the sentence that asks for it, and what it makes of a plain reply.

    ``foretold`` is how much of a reply must be seen to know the manner: the length of its beginning, or None when
    only the prompt can tell.
    """

    text: str
    apply: Callable[[str], str]
    foretold: int | None = None


def token(rng: random.Random) -> str:
    """Return something short that cannot be guessed: words, a mark, a code or a mixture."""
    roll = rng.random()
    if roll < 0.4:
        return phrase(rng, "train")
    mark, text = rng.choice(MARKS), word(rng, "train")
    if roll < 0.5:
        return mark
    if roll < 0.6:
        return text.upper() if rng.random() < 0.5 else text
    if roll < 0.75:
        return rng.choice((f"{mark}{text}", f"{mark} {text}", f"{text}{mark}", f"{mark} {text.capitalize()} {mark}"))
    if roll < 0.83:
        return f"{text}{rng.choice(('', '-', ' ', ' no. '))}{rng.randint(0, 999)}"
    if roll < 0.92:
        return f"{text.capitalize()}{rng.choice((':', ',', ' -', ' =', '!', '?'))}"
    before, after = rng.choice(FRAMES)
    return f"{before}{invented(rng, 'train') if rng.random() < 0.4 else text}{after}"


def shown(rng: random.Random, text: str) -> str:
    return rng.choice((f'"{text}"', f'"{text}"', f"'{text}'", text))


def begins(rng: random.Random) -> Manner:
    text, gap = token(rng), rng.choice((" ", " ", " ", "\n", "\n\n"))
    line = "\n" in gap
    ways = (
        f"[Start|Begin|Open] {REPLIES} with {{p}}",
        "[Put|Write|Place|Set|Say] {p} [first|in front|up front|before it all|before what you say]",
        f"[I want|I need|I like] {{p}} [in front of|ahead of|before] {REPLIES}",
        "{p} [comes first|goes first|is how you begin|stands at the head of what you write]",
        "[First|To begin,] say {p}, then [answer|reply|the rest]",
    )
    on = rng.choice((", on a line of its own", " on its own line", ", and go on below it")) if line else ""
    said = expand(rng, rng.choice(ways)).format(p=shown(rng, text)) + on
    return Manner(said, lambda reply: text + gap + reply, len(text))


def ends(rng: random.Random) -> Manner:
    text, gap = token(rng), rng.choice((" ", " ", " ", "\n"))
    ways = (
        f"[End|Finish|Close] {REPLIES} with {{p}}",
        "[Put|Write|Place|Set|Say] {p} [last|after it all|after what you say|at the foot]",
        f"[I want|I need|I like] {{p}} [after|to follow] {REPLIES}",
        "{p} [comes last|goes last|is how you end|stands at the end of what you write]",
        "[Answer|Reply], then say {p}",
    )
    on = rng.choice((", on a line of its own", " on its own line")) if gap == "\n" else ""
    said = expand(rng, rng.choice(ways)).format(p=shown(rng, text)) + on
    return Manner(said, lambda reply: reply + gap + text)


def frames(rng: random.Random) -> Manner:
    if rng.random() < 0.7:
        before, after = rng.choice(FRAMES)
    else:
        before = token(rng)
        after = before if rng.random() < 0.5 else token(rng)
    gap = rng.choice(("", " ")) if len(before) <= 3 else " "
    pair = f"{before} and {after}" if before != after or rng.random() < 0.3 else f"two {before}"
    ways = (
        "[Set|Write|Put|Keep] {r} [between|within] {p}",
        "{r} [stands|goes|belongs] between {p}",
        "[I want|I like] {r} between {p}",
        "[Open {r} with|Write] {a} before {r} and {b} after it",
    )
    whole = rng.choice(("every reply", "each reply", "what you say", "your text", "the whole text", "every message"))
    said = expand(rng, rng.choice(ways)).format(r=whole, p=pair, a=before, b=after)
    return Manner(said, lambda reply: before + gap + reply + gap + after)


def stops(rng: random.Random) -> Manner:
    mark = rng.choice(STOPS)
    ways = (
        "[Write|Use|Put] {p} [instead of|in place of|rather than] a [full stop|period]",
        "[End|Close|Finish] [each|every] sentence with {p}",
        "[Swap|Replace] [each|every] [full stop|period] [for|by] {p}",
        "[No|Never use] [full stops|periods], [but|use|only] {p}",
    )
    said = expand(rng, rng.choice(ways)).format(p=shown(rng, mark.strip()))
    return Manner(said, lambda reply: FULL_STOP.sub(lambda _: mark, reply))


def swaps(rng: random.Random) -> Manner:
    old = rng.choice(COMMON)
    new = invented(rng, "train").lower() if rng.random() < 0.6 else rng.choice((word(rng, "train"), rng.choice(MARKS)))
    pattern = re.compile(rf"\b{old}\b", re.IGNORECASE)
    ways = (
        '[Say|Write|Use] "{p}" [instead of|in place of|rather than|for] "{q}"',
        '[Swap|Replace] the word "{q}" [for|by|with] "{p}"',
        '[Never|Do not] [write|say|use] "{q}", [but|say|write] "{p}"',
    )
    said = expand(rng, rng.choice(ways)).format(p=new, q=old)
    return Manner(
        said, lambda reply: pattern.sub(lambda found: new.capitalize() if found[0][0].isupper() else new, reply)
    )


def lines(rng: random.Random) -> Manner:
    mark = rng.choice([mark for mark in MARKS if not mark.startswith(("-", "*"))] + ["Step", "Line", "Next"])
    if numbered := rng.random() < 0.3:
        mark += " 1" if mark.isalpha() else "1"
    ways = (
        "[Write|Put] [each|every] sentence on [a line of its own|a new line|its own line], [after|behind|led by] {p}",
        "[One|A] sentence [a|per] line, each [line |]with {p} [in front|before it|first]",
        "[Begin|Open|Start] [each|every] line with {p}, [one|a] sentence [a|per] line",
    )
    said = expand(rng, rng.choice(ways)).format(p=mark) + (" and so on" if numbered else "")

    def apply(reply: str) -> str:
        rows = SENTENCE.split(reply)
        return "\n".join(f"{mark[:-1]}{i + 1} {row}" if numbered else f"{mark} {row}" for i, row in enumerate(rows))

    return Manner(said, apply, len(mark))


def twice(rng: random.Random) -> Manner:
    gap = rng.choice((" ", "\n"))
    said = expand(
        rng, "[Say|Write] [all|everything|it all] [twice|two times]" + ("" if gap == " " else ", line by line")
    )
    return Manner(said, lambda reply: reply + gap + reply)


def first_word(rng: random.Random) -> Manner:
    said = expand(rng, "[Write|Put] the first word [of each reply|you say|] in [capitals|capital letters|upper case]")
    return Manner(said, lambda reply: reply.split(" ", 1)[0].upper() + reply[len(reply.split(" ", 1)[0]) :], 5)


def cased(rng: random.Random) -> Manner:
    upper = rng.random() < 0.6
    how = (
        "[capitals|capital letters|upper case|all caps|big letters]"
        if upper
        else "[small letters|lower case|lowercase]"
    )
    said = expand(rng, f"[Write|Answer|Reply|Speak|Type] [only |]in {how}")
    return Manner(said, str.upper if upper else str.lower, 12)


WEIGHTS: tuple[tuple[float, Callable[[random.Random], Manner]], ...] = (
    (0.32, begins), (0.15, ends), (0.15, frames), (0.08, stops), (0.05, swaps), (0.07, lines), (0.03, twice),
    (0.03, first_word), (0.12, cased),
)  # fmt: skip


def sample_manner(rng: random.Random) -> Manner:
    """Draw one manner, as a full sentence; one in five is announced."""
    manner = rng.choices([make for _, make in WEIGHTS], [weight for weight, _ in WEIGHTS])[0](rng)
    text = manner.text
    if rng.random() < 0.2:
        text = rng.choice(("Rule: ", "My wish: ", "I ask you: ", "Note this: ", f"{name(rng, 'train')} says: ")) + text
    return Manner(text[0].upper() + text[1:] + ("" if text[-1] in ".!\"'" else "."), manner.apply, manner.foretold)


def both(manners: list[Manner], reply: str) -> str:
    """Write a plain reply in several manners, one after another."""
    for manner in manners:
        reply = manner.apply(reply)
    return reply

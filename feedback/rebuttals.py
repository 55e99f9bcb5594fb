"""What a user's next turn says against the reply before it: "shorter please", "no, I meant the river". Pure.

A reading of a few words may be wrong, so what is found here is only held as pending: it is remembered once the user
confirms it, or says it again in another conversation. The tables are to be read: what a turn must be as a whole, beside
what is then kept. Left out: long turns, turns with code or quotations in them, and other languages than English.
"""

import re
from collections.abc import Callable

from familiar.feedback.own_words import as_sentence, own_words, sentences
from familiar.memory.words import content_words, same_words_key, stem

MAX_CHARS = 240
MAX_QUESTION_CHARS = 160
_ALIKE = 0.8

_LEAD = (
    r"(?:(?:no|nope|nah|hm+|ok|okay|well|um|uh|oh|please|hey|sorry|actually|but|and|so|thanks|thank you|great|good|"
    r"nice|again|once more|try again|do (?:it|that) again|(?:redo|rewrite|repeat) (?:it|that)|the same|same)"
    r"\b[\s,.!;:–—-]*){0,5}"
)
_TAIL = (
    r"(?:[\s,]+(?:please|pls|thanks|thank you|next time|this time|in (?:the )?future|again|instead|for me|"
    r"(?:than|then) that))*[\s.!?]*"
)
_IT = (
    r"(?:(?:can|could|would) you )?(?:please )?(?:i (?:want|need|(?:['’]d|would) (?:like|prefer)) )?"
    r"(?:(?:make|keep|write|say|give|be|do|try|answer|reply|respond|rewrite|explain|phrase) )?"
    r"(?:(?:it|this|that|them|me|(?:your|the) (?:answers?|repl(?:y|ies)|responses?|tone|style)|something|an answer) )?"
    r"(?:in )?(?:(?:a (?:bit|little|lot|more)|much|even|way|far|slightly|more) )*"
)
_TOO = (
    r"(?:(?:that|this|it|(?:your|the) (?:answers?|repl(?:y|ies)|responses?))(?:['’]s| is| are| was| sounds?)? )?"
    r"(?:(?:a (?:bit|little)|way|much|far|still) )?too "
)
_NOT = r"(?:(?:make it|be|write) )?(?:not (?:so|that|too)|less|do(?:n['’]t| not) be (?:so|that|too)?) ?"
_NO = (
    r"(?:no(?: more)?|without|avoid|skip|drop|lose|(?:please )?(?:do not|don['’]t|never|stop) "
    r"(?:use|using|add|adding|write|writing))(?: any| the| all| those| these)? "
)
_WITH = (
    r"(?:(?:please )?(?:can|could) you )?"
    r"(?:use|with|in|as|add|put (?:it|this|that) (?:in|as)|make (?:it|this|that))(?: a| some)? "
)
_LANGUAGES = (
    r"(?:(?:american|british|simple|plain) )?english|french|german|spanish|italian|portuguese|dutch|polish|swedish|"
    r"norwegian|danish|finnish|czech|greek|turkish|russian|ukrainian|arabic|hebrew|hindi|chinese|japanese|korean|latin|"
    r"romanian|hungarian|catalan|vietnamese|indonesian|thai"
)

STYLE: tuple[tuple[str, str], ...] = (
    ("Keep replies short.", rf"{_IT}(?:short(?:er)?|brief(?:er)?|concise|succinct|less (?:wordy|verbose|long))"),
    (
        "Keep replies short.",
        rf"{_TOO}(?:long|wordy|verbose|much(?: text| detail| information)?)|{_NOT}(?:long|wordy|verbose)",
    ),
    ("Keep replies short.", r"tl;? ?dr|(?:just )?(?:get|come) to the point"),
    ("Give longer, more detailed replies.", rf"{_IT}(?:longer|detailed|in(?:-| )depth|thorough)|{_TOO}(?:short|brief)"),
    ("Use simple words.", rf"{_IT}(?:simpler|simple (?:words|terms|language))|{_TOO}(?:complicated|complex|technical)"),
    ("Use simple words.", rf"{_NOT}(?:complicated|complex|technical)"),
    ("Keep a casual tone.", rf"{_IT}(?:casual(?:ly)?|informal(?:ly)?)|{_TOO}(?:formal|stiff)|{_NOT}(?:formal|stiff)"),
    ("Keep a formal tone.", rf"{_IT}(?:formal(?:ly)?)|{_TOO}(?:casual|informal)|{_NOT}(?:casual|informal)"),
    ("Be friendlier.", rf"{_IT}(?:friendl(?:y|ier)|warmer)|{_TOO}(?:cold|harsh|rude)"),
    (
        "Be less enthusiastic.",
        rf"{_TOO}(?:enthusiastic|cheerful|excited|friendly)|{_NOT}(?:enthusiastic|cheerful|excited)",
    ),
    ("Do not use bullet points.", rf"{_NO}(?:bullet[ -]?(?:points?|lists?)|bullets|lists)"),
    ("Use bullet points.", rf"{_WITH}(?:bullet[ -]?(?:points?|lists?)|bullets)"),
    ("Do not use emojis.", rf"{_NO}(?:emojis?|emoticons?|smileys?)"),
    ("Do not use Markdown.", rf"{_NO}(?:markdown|formatting)|(?:just |only |in |use )*plain text"),
    ("Do not use headings.", rf"{_NO}(?:headings?|headers?)"),
    ("Use metric units.", rf"(?:{_IT}|{_WITH})(?:metric(?: units)?)"),
    ("Use imperial units.", rf"(?:{_IT}|{_WITH})(?:imperial(?: units)?)"),
    ("Give temperatures in Celsius.", rf"(?:{_IT}|{_WITH})(?:degrees )?(?:celsius|centigrade)"),
    ("Give temperatures in Fahrenheit.", rf"(?:{_IT}|{_WITH})(?:degrees )?fahrenheit"),
    ("Use the 24-hour clock.", rf"(?:{_IT}|{_WITH})(?:the )?24[- ]?h(?:ours?)?(?: (?:clock|format|time))?"),
    (
        "Give just the answer.",
        r"(?:i )?(?:just|only) (?:(?:give me|want|need) )?the (?:answer|result|code)|(?:the )?answer only",
    ),
    ("Leave out explanations.", rf"{_NO}explanations?|(?:do not|don['’]t|stop) explain(?:ing)?(?: (?:it|everything))?"),
    ("Leave out the introduction.", rf"{_NO}(?:intro(?:duction)?s?|preambles?)"),
    (
        "Do not apologise.",
        r"(?:do not|don['’]t|stop|no need to) (?:apologi[sz](?:e|ing)|be(?:ing)? sorry)|no apologies",
    ),
    (
        "Do not repeat the question.",
        r"(?:do not|don['’]t|stop) (?:repeat|restat|echo)(?:e|ing)? (?:my|the) (?:question|message)s?",
    ),
)
"""What a turn as a whole asks of the reply's form, and the rule that is kept: it holds for every reply."""

_LANGUAGE = re.compile(
    rf"{_LEAD}(?:(?:can|could|would) you )?"
    r"(?:(?:say|write|give|answer|reply|respond|talk|speak|explain)(?: (?:it|that|this|to me|me))* )?"
    rf"in (?P<language>{_LANGUAGES}){_TAIL}",
    re.IGNORECASE,
)
_STYLE = tuple((text, re.compile(f"{_LEAD}(?:{pattern}){_TAIL}", re.IGNORECASE)) for text, pattern in STYLE)

OWN: tuple[str, ...] = (
    r"(?P<said>(?:do not|don['’]t|never|stop|quit|avoid|no more) (?:us|say|writ|call|add|includ|start|begin|beginn|end|"
    r"put|putt|giv|repeat|mention|assum|lectur|be|so)(?:e|ing)?\b .{3,})",
    r"(?P<said>call me .{2,40})",
    r"(?P<said>(?:use|prefer) .{2,60} instead(?: of .{2,60})?)",
    r"(?:as )?i(?:['’]ve| have)? (?:already )?told you (?:that )?(?P<said>(?!so\b|to\b).{5,})",
)
"""What is kept as it was said: a rule or a fact that stands by itself."""

ABOUT: tuple[str, ...] = (
    r"(?P<said>i meant .{2,})",
    r"(?P<said>i (?:asked|was asking|was talking) (?:for|about) .{2,})",
    r"(?:that|this|it|you)(?:['’]s| is|['’]re| are| was)? (?:all |just |simply |completely )?"
    r"(?:wrong|incorrect|false|mistaken|not (?:right|correct|true|accurate))\b[\s,.;:!–—-]+"
    r"(?P<said>(?!(?:please|again|too|with|about|in)\b).{3,})",
    r"(?:wrong|incorrect|false|not true)[\s,.;:!–—-]+(?P<said>(?!(?:please|again|with|about|in)\b).{3,})",
    r"(?:as |but |no\b[\s,.!]*)+i(?:['’]ve| have)? (?:already )?said (?:that )?(?P<said>.{3,})",
    r"i(?:['’]ve| have)? already said (?:that )?(?P<said>.{3,})",
    r"i said (?P<said>.{2,60}, not .{2,60})",
)
"""What is kept beside the question that it is about, as it says nothing without."""

NOT_CONTRADICTED = (
    "fine|ok|okay|good|great|alright|all|enough|perfect|cool|nice|interesting|right|correct|true|amazing|just|for|because|"
    "about|only|not|too|very|really|so|more|a good|a nice|a great|up to|what|it"
)
CONTRADICTION = (
    r"(?:no|nope|nah|actually)\b[\s,.;:!–—-]*(?P<said>(?:it|that|he|she|they|there|the [\w ’'-]{1,40}?)"
    rf"(?:['’]s| is| are| was| were|['’]re) (?!(?:{NOT_CONTRADICTED})\b).{{2,}})"
)
"""The same, but after a question ("Is it a gift?") such a turn is an answer: "No, it's for me."."""

_ASKED = 'When asked "'

_OWN = tuple(re.compile(f"{_LEAD}{pattern}", re.IGNORECASE) for pattern in OWN)
_ABOUT = tuple(re.compile(f"{_LEAD}{pattern}", re.IGNORECASE) for pattern in ABOUT)
_CONTRADICTION = re.compile(CONTRADICTION, re.IGNORECASE)
_SAID = re.compile(rf"{_LEAD}(?:as )?i(?:['’]ve| have)? (?:already )?said (?:that )?", re.IGNORECASE)


def rebuttal(turn: str, *, reply: str, question: str) -> str | None:
    """What ``turn`` asks to be remembered, in words of its own, or None where it is no rebuttal of ``reply``.

    ``question`` is the user's turn that ``reply`` answers.
    """
    turn = turn.strip()
    if not turn or len(turn) > MAX_CHARS or own_words(turn) != turn:
        return None
    parts = sentences(turn)
    if len(parts) > 3 or any("\0" * 12 in blanked for _, blanked in parts):
        return None
    asked = reply.rstrip(" *_)\"'\n").endswith("?")
    wholes = [" ".join(turn.split()), *(text.strip() for text, _ in parts)]
    for text in dict.fromkeys(wholes):
        if found := _of_form(text) or _own(text) or _about(text, question, asked=asked):
            return found
    # "That's far too long, shorter please": either half will do, where it is of the tables of form.
    return next((found for text in wholes for half in text.split(",") if (found := _of_form(half.strip()))), None)


def is_about_a_question(text: str) -> bool:
    """Whether what ``rebuttal`` found holds for one question rather than for every reply."""
    return text.startswith(_ASKED)


def says_again(text: str, other: str) -> bool:
    """Whether two rebuttals ask for the same, in the same words or nearly so."""
    if same_words_key(text) == same_words_key(other):
        return True
    ours, theirs = ({stem(word) for word in content_words(each)} for each in (text, other))
    return 2 * len(ours & theirs) >= _ALIKE * (len(ours) + len(theirs)) > 0 and _negated(text) == _negated(other)


def _of_form(text: str) -> str | None:
    for pattern in (None, _SAID):
        start = pattern.match(text) if pattern else None
        rest = text[start.end() :] if start else text
        for rule, style in _STYLE:
            if style.fullmatch(rest):
                return rule
        if found := _LANGUAGE.fullmatch(rest):
            return f"Answer in {_name(found['language'])}."
    return None


def _own(text: str) -> str | None:
    if text.endswith("?"):
        return None
    return _first(_OWN, text, as_sentence)


def _about(text: str, question: str, *, asked: bool) -> str | None:
    patterns = _ABOUT if asked else (*_ABOUT, _CONTRADICTION)
    question = " ".join(question.split())
    if not question or len(question) > MAX_QUESTION_CHARS or text.endswith("?"):
        return None
    return _first(patterns, text, lambda said: f'{_ASKED}{question}": {as_sentence(said)}')


def _first(patterns: tuple[re.Pattern[str], ...], text: str, kept: Callable[[str], str]) -> str | None:
    for pattern in patterns:
        if found := pattern.fullmatch(text):
            said = re.sub(rf"{_TAIL}\Z", "", found["said"])
            return kept(said) if said else None
    return None


def _name(language: str) -> str:
    return " ".join(word if word in ("simple", "plain") else word.capitalize() for word in language.lower().split())


def _negated(text: str) -> bool:
    return re.search(r"\b(?:not|no|never|don['’]t|stop|avoid|without)\b", text, re.IGNORECASE) is not None

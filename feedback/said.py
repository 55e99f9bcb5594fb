"""What the user says in a chat to be remembered: "Remember that …", "From now on, …". Pure.

Only phrases that say so in as many words count: a rule for one task ("Write a sort. Remember that the list may be
empty.") must not become a rule for all. The tables below are the whole of it; a phrase in quotation marks is no
statement, nor is a question ("Do you remember that …?"). Left out: other languages than English.
"""

import re
from dataclasses import dataclass

from familiar.feedback.own_words import as_sentence, sentences

MAX_STATEMENTS = 5
MAX_CHARS = 400
"""A longer sentence is prose rather than something to keep in mind."""


@dataclass(frozen=True)
class Statement:
    """What was said, as a sentence; whether it was said for this conversation only."""

    text: str
    conversation_only: bool = False


_HINT = re.compile(
    r"remember|forget|in mind|from (?:now|here|this|today)|henceforth|future|going forward|always|never|"
    r"(?:this|our) (?:whole |entire )?(?:chat|conversation|session|thread)",
    re.IGNORECASE,
)
_TASK_ON_TEXT = re.compile(
    r"\W*(?:please |can you |could you |would you |help me )*(?:translate|proof-?read|rewrite|rephrase|paraphrase|"
    r"reword|summari[sz]e|correct|fix|edit|improve|polish|shorten|continue|complete|analy[sz]e|classify|explain|convert|"
    r"spell-?check|repeat|what does|what do you think|how (?:do|would|can|should) (?:i|you|we) (?:say|write)|"
    r"is (?:this|it)|reply to|respond to|answer (?:this|the following)|do you remember)\b",
    re.IGNORECASE,
)
"""A message that begins so is about a text, and what follows may be that text."""

_LEAD = re.compile(
    r"\W*(?:(?:please|pls|ok|okay|and|also|oh|hey|hi|hello|so|but|btw|by the way|one more thing|thanks|thank you|no|"
    r"yes|well|just|first of all|finally|again|actually|great|cool)\b[\s,:;!.–—-]*)*"
    r"(?P<asked>(?:can|could|will|would) you\b\s*(?:please\s+|also\s+)*)?",
    re.IGNORECASE,
)
_COURTESY = re.compile(
    rf"{_LEAD.pattern}(?:there|you|very much|so much|good (?:morning|evening|day|afternoon))?\W*", re.IGNORECASE
)
_HERE = re.compile(
    r"[\s,–—-]*\b(?:just |only )?(?:for|in|during|throughout) (?:the (?:rest|remainder) of )?(?:this|our) "
    r"(?:whole |entire )?(?:chat|conversation|session|thread)(?: only)?\b[\s,:–—-]*",
    re.IGNORECASE,
)
_LASTING = re.compile(
    r"[\s,–—-]*\b(?:from (?:now|here|this (?:point|moment|day)|today) on(?:wards?)?|henceforth|"
    r"(?:in|for) (?:all |any )?(?:your )?future (?:replies|answers|responses|messages|conversations|chats))\b"
    r"[\s,:–—-]*",
    re.IGNORECASE,
)
_LATER = re.compile(r"[\s,]*\b(?:in (?:the )?future|going forward)\b[\s,:–—-]*", re.IGNORECASE)
"""As much said of the world ("in the future, cars will fly") as to the assistant, so only before or after an order."""

_VERB = r"(?:remember|(?:do not|don['’]?t|never) (?:ever )?forget|make sure (?:you |to )*remember)"
_REMEMBER = re.compile(
    rf"(?:please\s+|also\s+|always\s+)*{_VERB}\b"
    r"(?P<link>\s+that\b[\s,:]*|\s+this\b\s*[:,–—-]\s*|\s*[:,–—-]\s*|\s+|)(?:please\b\s*)?",
    re.IGNORECASE,
)
_IN_MIND = re.compile(r"(?:always\s+)?(?:keep|bear) in mind(?:\s+that\b|\s*[:,])\s*", re.IGNORECASE)
_WISH = re.compile(r"i(?:['’]d| would)? (?:want|like|love|prefer|need) you to (?=always\b|never\b)", re.IGNORECASE)
_REMEMBER_IT = re.compile(rf"{_VERB} (?:that|this|it)(?: please| for (?:later|next time))*\W*", re.IGNORECASE)
_THEN_REMEMBER_IT = re.compile(rf"[\s,;–—-]+(?:so |and )?(?:please )?{_REMEMBER_IT.pattern}\Z", re.IGNORECASE)

_ORDER = re.compile(
    r"(?:please |you (?:should|must|are to|have to) |always |never )*(?:answer|reply|respond|use|write|give|keep|call|"
    r"address|avoid|stop|be|make|put|include|leave|speak|talk|show|start|begin|end|finish|say|spell|format|do not|"
    r"don['’]?t|only|assume|quote|cite|mention|skip|add|treat|refer|limit|convert|round|sign|stick|prefer|provide|tell|"
    r"pretend|act)\b",
    re.IGNORECASE,
)
"""What the assistant may be told to do: "use metric units", but not "water the plants"."""

_ALWAYS = re.compile(r"(?:please )?(?:always|never)\b", re.IGNORECASE)
_PERSONAL = re.compile(r"(?:i|my|mine|we|our|ours|me)\b", re.IGNORECASE)
_NO_STATEMENT = re.compile(
    r"(?:when|the (?:time|day|one|first)|how|what|whatever|who|where|why|which|me|us|him|her|them|back|you)\b(?!['’])"
    r"|\W*\Z",
    re.IGNORECASE,
)
_A_THING = re.compile(
    r"(?:time|day|one|night|moment|week|year|summer|winter|film|movie|song|book|guy|girl|place)\b", re.IGNORECASE
)
_OF_OTHERS = re.compile(
    r"(?:he|she|it|they|there|this|that|these|those|an?|everyone|everybody|nobody|people|"
    r"the (?!(?:answers?|repl(?:y|ies)|responses?|code)\b))\b",
    re.IGNORECASE,
)
_POLITE = re.compile(
    r"\A(?:(?:please|that|you (?:should|must|need to|have to|are to)|i (?:want|need) you to|i['’]d like you to)\b"
    r"[\s,]*)+"
    r"|[\s,]+(?:please|pls|thanks|thank you)(?=\W*\Z)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Part:
    """A piece of a sentence, beside itself with its quotations blanked out."""

    text: str
    blanked: str

    def since(self, start: int) -> "_Part":
        return _Part(self.text[start:], self.blanked[start:])

    def without(self, phrase: re.Pattern[str]) -> "_Part":
        found = phrase.search(self.blanked)
        if not found:
            return self
        start, end = found.span()
        return _Part(f"{self.text[:start]} {self.text[end:]}", f"{self.blanked[:start]} {self.blanked[end:]}")


def statements(own: str) -> list[Statement]:
    """What is to be remembered of a message's own words (``own_words``), in the order said; none twice."""
    if not _HINT.search(own) or _TASK_ON_TEXT.match(own):
        return []
    parts = [_Part(*each) for each in sentences(own)]
    parts = [part for part in parts if not _COURTESY.fullmatch(part.blanked)]
    if any(_points_back(part) for part in parts):
        return _pointed_at(parts)
    # "Remember that the list may be empty" is for keeps when it is all that is said, and else belongs to its task.
    alone = all(_stated(part, alone=True) for part in parts)
    found = [_stated(part, alone=alone) for part in parts]
    return list(dict.fromkeys(each for each in found if each))[:MAX_STATEMENTS]


def _points_back(part: _Part) -> bool:
    lead = _LEAD.match(part.blanked)
    return _REMEMBER_IT.fullmatch(part.without(_LASTING).blanked.strip(), lead.end() if lead else 0) is not None


def _pointed_at(parts: list[_Part]) -> list[Statement]:
    """Of "My sister is called Ann. Remember that." the sentences before."""
    before = [part.text for part in parts if not _points_back(part)]
    said = " ".join(as_sentence(text) for text in before)
    if not 0 < len(before) <= 3 or any("?" in text for text in before) or len(said) > MAX_CHARS:
        return []
    return [Statement(said)]


def _stated(sentence: _Part, *, alone: bool) -> Statement | None:
    if len(sentence.text) > MAX_CHARS:
        return None
    here, lasting = (phrase.search(sentence.blanked) is not None for phrase in (_HERE, _LASTING))
    opens = re.match(rf"{_LEAD.pattern}{_LASTING.pattern}", sentence.blanked, re.IGNORECASE) is not None
    part = sentence.without(_HERE).without(_LASTING)
    lead = _LEAD.match(part.blanked)
    asked = lead is not None and lead["asked"] is not None
    part = part.since(lead.end() if lead else 0)
    said = _remembered(part, asked=asked, alone=alone, lasting=lasting or here)
    if said is None and not (part.blanked.rstrip().endswith("?") and not asked):
        said = _ordered(part, alone=alone, lasting=lasting, opens=opens, here=here)
    if said is None:
        return None
    text = _POLITE.sub("", said.text.strip().rstrip(".!? "))
    text = as_sentence(_POLITE.sub("", text.strip()))
    return Statement(text, here) if len(text.split()) > 1 else None


def _remembered(part: _Part, *, asked: bool, alone: bool, lasting: bool) -> _Part | None:
    """What is said in "Remember that …", in a sentence without its lead."""
    question = part.blanked.rstrip().endswith("?")
    if (found := _THEN_REMEMBER_IT.search(part.blanked)) and not question:
        return _Part(part.text[: found.start()], part.blanked[: found.start()])
    found = _REMEMBER.match(part.blanked)
    if not found:
        found = _IN_MIND.match(part.blanked) if alone and not question else None
        return part.since(found.end()) if found else None
    link, what = found["link"].strip().lower(), part.since(found.end())
    personal = _PERSONAL.match(what.blanked) is not None
    lasting = lasting or _ALWAYS.match(what.blanked) is not None
    if question and not (asked and personal and link):
        return None
    if to := re.match(r"to\s+", what.blanked, re.IGNORECASE):
        what = what.since(to.end())
        return what if (alone or lasting or _ALWAYS.match(what.blanked)) and _ORDER.match(what.blanked) else None
    if _NO_STATEMENT.match(what.blanked) or (link.startswith("that") and _A_THING.match(what.blanked)):
        return None
    return what if personal or lasting or (alone and link) else None


def _ordered(part: _Part, *, alone: bool, lasting: bool, opens: bool, here: bool) -> _Part | None:
    """What is said in "From now on, …", in a sentence without its lead and that phrase, which it may open with."""
    if lasting and opens:
        return None if _OF_OTHERS.match(part.blanked) else part
    if lasting:
        return part if _ORDER.match(part.blanked) or _PERSONAL.match(part.blanked) else None
    if here:
        return part if _ORDER.match(part.blanked) else None
    if _LATER.search(part.blanked):
        told = part.without(_LATER)
        told = told.since(len(told.blanked) - len(told.blanked.lstrip()))
        return told if _ORDER.match(told.blanked) else None
    if not alone:
        return None
    if wish := _WISH.match(part.blanked):
        return part.since(wish.end())
    return part if _ALWAYS.match(part.blanked) and _ORDER.match(part.blanked) else None

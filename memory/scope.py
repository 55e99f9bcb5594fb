"""What sort of memory a stated text is, and which requests it applies to, where the user does not say. Pure.

Decided by the words alone, from the tables below. A wrong "related" may leave a rule out of a request that it was meant
for, a wrong "always" shows it in requests that it has nothing to do with; either can be changed on the memory itself.
Left out: other languages than English, where a text counts as a rule and, unless it speaks of the user, as always.
"""

import re
from typing import Literal

from familiar.memory.types import MemoryKind, Scope


def kind_of(text: str) -> Literal["rule", "fact"]:
    """An instruction, a preference or a bare phrase ("Full sentences, please") is a rule; a description is a fact."""
    said = _unquoted(plain(text[:_MOST_CHARS]))
    if _is_instruction(said) or _TASTE.match(said) or not _is_description(said):
        return "rule"
    return "fact"


def default_scope(kind: MemoryKind, text: str) -> Scope:
    """Always for a rule on how to reply in general, related for everything else.

    Related is what is bound to a kind of request ("in emails", "when I ask for code"), and what the user says of their
    life and tastes ("I prefer aisle seats"), unless it is of the replies that they like ("I prefer short answers").
    """
    if kind != "rule":
        return "related"
    said = _unquoted(plain(text[:_MOST_CHARS]))
    if _is_bound(said):
        return "related"
    if _is_instruction(said):
        return "always"
    if _FIRST_PERSON.match(said):
        return "always" if _OF_REPLIES.search(said) else "related"
    return "related" if _is_description(said) else "always"


def without_courtesies(text: str) -> str:
    """``text`` on one line, without quotation marks around it and the "please, from now on" that come before it."""
    said = " ".join(text.replace("\u2019", "'").split()).strip('"\u201c\u201d ')
    return _LEAD.sub("", said)


def plain(text: str) -> str:
    """The same in small letters, which is how the tables of this module are written."""
    return without_courtesies(text).casefold()


def is_of_replies(said: str) -> bool:
    """Whether a text, made ``plain``, says what replies should be like: an instruction, or a preference for them."""
    return _is_instruction(said) or bool(_FIRST_PERSON.match(said) and _OF_REPLIES.search(said))


def _unquoted(said: str) -> str:
    """Without the words that replies are to hold, as in: end with "Is that all?"."""
    return _QUOTED.sub('""', said)


def _is_instruction(said: str) -> bool:
    if _OUGHT.search(said) or _WANTS_OF_YOU.match(said) or _WISH.match(said):
        return True
    if _YOUR_REPLIES_ARE.match(said) or (_FORM_IS.match(said) and _JUDGED.search(said)):
        return True
    return bool(_IMPERATIVE.match(_AFTER_CONDITION.sub("", said)))


def _is_description(said: str) -> bool:
    return bool(_FIRST_PERSON.match(said) or _FINITE.search(said) or _LABEL.match(said))


def _is_bound(said: str) -> bool:
    if _CONDITION.search(_NO_CONDITION.sub(" ", said)) or _SOME_QUESTIONS.search(said):
        return True
    return bool(_TASK.search(_NO_TASK.sub(" ", said)) or _FOR_MINE.search(said) or _ADVICE.match(said))


_MOST_CHARS = 500
"""What a longer text is shows in its beginning."""


def _any(words: str) -> str:
    return "|".join(words.split())


_LEAD = re.compile(
    r"\A(?:\W*(?:please|pls|ok|okay|and|also|but|actually|sorry|well|no(?=,)|i meant?(?: that)?|"
    r"remember(?: that| to|:)?|note that|in (?:the )?future|from now on|going forward|in general|generally|as a rule|"
    r"by default|(?:make|be) sure (?:to|that you)|try to|(?:can|could|would|will) you(?: please)?|"
    r"i(?: would|'d)? (?:want|like|need|prefer) you to|"
    r"you (?:should|must|need to|have to|can|may|ought to)(?: always)?)\b[\s,:]*)+",
    re.IGNORECASE,
)
"""What may come before what is said, and changes nothing of it."""

_QUOTED = re.compile(r'"[^"]*"|\u201c[^\u201d]*\u201d')

_WANTS_OF_YOU = re.compile(r"i(?: do not| don't|'d| would)? ?(?:want|like|need|prefer|hate|love)\b.*\b(?:you|your)\b")

_YOU_OR_REPLIES = (
    r"(?:you|(?:(?:all|every|each|any|your|the|single) )*(?:answers?|repl(?:y|ies)|responses?|explanations?))\b"
)
_GLAD = (
    r"(?:like|love|hate|prefer|mind|stand|enjoy|dislike|appreciate|glad|happy|grateful|pleased|thankful|nice|great|good|"
    r"lovely|better|best)(?: it)?"
)
_WISH = re.compile(rf"(?:i|it|that)\b[\w' ]{{0,24}}\b{_GLAD} (?:if|when) {_YOU_OR_REPLIES}")
"""As in "I would be glad if every answer ended with …", "It would be nice if you …"."""

_YOUR_REPLIES_ARE = re.compile(
    r"(?:your|all|every|each)(?: single)? (?:answers?|repl(?:y|ies)|responses?|explanations?)(?: always| all)? "
    r"(?:is|are|ends?|starts?|begins?|opens?|closes?|comes?|has|have)\b"
    r"(?! (?:not )?(?:wrong|incorrect|false|mistaken|right|correct|true|accurate)\b)"
)
"""What replies should be ("Each reply is labelled Note"), or should not ("Your answers are long")."""

_FORM_IS = re.compile(
    r"(?:(?:an?|one|two|three|four|five|just|only|single|full|whole|complete|short|shorter|long|longer|brief|plain|simple|"
    r"simpler|numbered|bulleted|more|fewer|many) )*(?:answers|replies|responses|explanations|sentences?|paragraphs?|"
    r"bullets?|bullet points?|lists|emojis?|exclamation (?:marks|points)|(?:capital|small) letters|digits|jargon|"
    r"markdown) (?:is|are|will|would|works?|suits?|helps?|reads?|annoys?|bothers?|confuses?)\b"
)
_JUDGED = re.compile(
    r"\b(?:me|i|enough|plenty|best|better|fine|ok|okay|easy|easier|hard|harder|too|good|nice|bad|annoying|confusing|do)\b"
)
"""The user's opinion, which makes of "A single sentence is …" a wish for single sentences."""

_VERBS = _any("""
    use write reply answer respond keep be avoid stop call address sign start end begin finish include add give show
    put format quote cite mention skip omit leave say speak talk explain translate spell convert assume treat refer
    prefer limit make provide tell ask suggest recommend propose consider list round mark wrap indent capitalise
    capitalize stick focus check remind greet close return think summarise summarize apologise apologize repeat
    number bold highlight express state count measure shorten expand follow ignore insert append prefix have let
    go get remove drop phrase word structure swear joke praise flatter lecture guess admit act pretend
    present prioritise prioritize read take try warn switch turn send label name compare conclude wrap preface introduce
""")

_IMPERATIVE = re.compile(
    rf"(?:(?:always|never|do not|don't|only|just|kindly|simply) )*(?:{_VERBS})\b(?!\s*:)"
    r"(?! (?:is|are|was|were|has|had|will|would|lives?|works?|likes?|loves?|and i)\b|'s\b)"
    r"|(?:always|never|no|don't|do not|not|less|fewer|more|shorter|longer)\b"
)
"""Verbs of how to reply, first in the sentence; "Mark is my brother" is none."""

_OUGHT = re.compile(
    r"^(?:you|your (?:\w+ )?\w+|(?:all |every |the |any )?(?:answers?|repl(?:y|ies)|responses?|explanations?|output|"
    r"\w+s)) (?:should|must|ought to|need to|needs to|have to|has to|may|can|shall)\b"
)
"""A demand on replies, or on what is in them: "Answers should be short", "Prices must have two decimals"."""

_TASTE = re.compile(
    r"(?:i|we)(?:'d| would| really| do not| don't| cannot| can't| also| strongly| much| always| generally| usually|"
    r" rather| absolutely| tend to| no longer)* "
    r"(?:prefer|like|love|hate|dislike|enjoy|want|need|rather|stand|favou?r|wish|appreciate|detest|loathe|avoid|adore)\b"
)

_FIRST_PERSON = re.compile(r"(?:i|my|mine|we|our|me)\b")

_OF_REPLIES = re.compile(
    r"\b(?:answers?|answered|repl(?:y|ies)|responses?|explanations?|explained|outputs?|sentences?|paragraphs?|"
    r"bullets?|bullet points?|bulleted|numbered lists?|emojis?|markdown|tone|wording|jargon|units?|spelling|"
    r"exclamation (?:marks|points)|(?:capital|small) letters|(?:upper|lower)[ -]?case|contractions|abbreviations|slang|"
    r"(?:be|being) (?:called|addressed)|you|your|step by step|small talk)\b"
)

_FINITE = re.compile(
    r"\b(?:is|are|was|were|am|has|have|had|isn't|aren't|wasn't|hasn't|will|does|did|can|cannot|can't|"
    r"lives?|works?|likes?|loves?|hates?|prefers?|owns?|speaks?|studies|plays?|wears?|moved|died|married|means|costs?|"
    r"starts|ends|opens|closes|goes|comes|became|got|was born|belongs|contains|equals|stands for|runs|"
    r"uses|wants?|needs?)\b"
    r"|\w's (?:a|an|the|my|our|not|in|at|called|named|from|allergic|vegan|vegetarian)\b"
)

_LABEL = re.compile(r"[\w' -]{2,30}:\s*\S")
"""As on a card: "Address: 5 Main Street"."""

_NO_CONDITION = re.compile(
    r"\b(?:(?:if|when|whenever|where|wherever|as (?:much|far|long) as)(?: it is| it's| at all)? "
    r"(?:possible|needed|necessary|appropriate|in doubt|available|relevant|unsure|not sure|useful|sensible|asked)|"
    r"(?:if|when|whenever|unless)(?: ever)? you (?:can(?:not|'t)?|are (?:not sure|unsure|uncertain|able)|aren't sure|"
    r"do not know|don't know|reply|answer|respond|talk|speak|write to me|address me|refer)|"
    r"when (?:replying|answering|responding|talking|speaking|you're (?:unsure|not sure))(?: to me)?|"
    rf"{_GLAD} (?:if|when) (?={_YOU_OR_REPLIES})|"
    r"unless (?:i|told|asked|otherwise)[^,.;]*)\b"
)
"""Conditions that every request may meet."""

_CONDITION = re.compile(r"\b(?:when|whenever|if|unless|while|every time|each time|any time|in case)\b")
_AFTER_CONDITION = re.compile(
    r"^(?:when|whenever|if|unless|while|every time|each time|for|in|on|about|with)\b[^,:]*[,:]\s*"
)

_SOME_QUESTIONS = re.compile(
    r"(?<!\w)(?!(?:my|all|any|the|your|these|such|simple|short|long|every|yes/no|follow-up|followup|clarifying|many|more|no|"
    r"ask|asking|answer|answering|me|rhetorical|too|closing|other|of|with|to|unnecessary|further|additional|open|"
    r"leading|factual|complex|hard|easy|general|back|counter|few|and|or|as)\b)[\w'-]+ questions\b"
)

_TASKS = _any(r"""
    e-?mails? letters? code coding programming scripts? functions? tests? commits? recipes? cooking baking meals?
    essays? poems? poetry story stories novels? fiction reports? documents? documentation docs articles? blogs?
    posts? tweets? captions? invoices? contracts? presentations? slides? spreadsheets? translations? translating
    homework maths? mathematics algebra physics chemistry biology geography history travel trips? holidays?
    vacations? flights? hotels? itinerary itineraries workouts? exercises? fitness shopping gifts? birthdays?
    films? movies? books? music songs? restaurants? food drinks? health medical legal finance financial investing
    sports? games? gaming news weather diets? nutrition gardening python javascript typescript java rust sql bash
    shell c\+\+ html css regex(?:es)? resumes? cvs? speech(?:es)? toasts? jokes? interviews? meetings? minutes work
    school university clients? customers? colleagues? students?
""")

_TASK = re.compile(rf"\b(?:{_TASKS})(?!\w)")
"""Kinds of requests."""

_NO_TASK = re.compile(
    r"\b(?:(?:capital|small|lower-?case|upper-?case|block|bold) letters?|letter by letter|code (?:blocks?|fences?)|"
    r"at work|figures? of speech|parts? of speech|(?:tell|make|making|telling|crack|no|any|more|fewer) (?:me )?jokes?|"
    r"work (?:out|step)|show (?:your|the) work(?:ing)?|small (?:print|talk))\b"
)

_FOR_MINE = re.compile(
    r"\b(?:in|for|to|with|on|about) my (?!(?:language|native|own|name|first|last|time ?zone|units?|messages?|"
    r"questions?|requests?|prompts?|local|country|currency|level|words|style|preferred|question|request|message)\b)\w"
)

_ADVICE = re.compile(
    r"(?:(?:always|never|do not|don't|only) )*(?:suggest|recommend|propose|remind|book|order|plan|cook)\b"
)
"""What is asked of advice applies where advice is asked for."""

"""What of a message are the user's own words, and how much of a text was taken from another. Pure.

A message may hold code, a mail, a page or a tool's output that the user pasted: nobody said that. Paste seldom says
that it is paste, so an unclear line counts as pasted: losing a sentence costs less than believing a stranger's.
Left out: telling a short paste without any mark from typing.
"""

import re
from collections.abc import Iterable

from familiar.memory.words import words

MAX_CHARS = 20_000
"""A longer message is a paste as a whole."""

MAX_TYPED_CHARS = 1_000
"""More than this is rarely typed in one go: of such a message only its first and last paragraph count, if short."""

MAX_PARAGRAPH_CHARS = 400

RUN_WORDS = 5
"""So many words in the same order are taken from a text rather than shared with it by chance."""

_BLOCKS = re.compile(
    r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)"  # code
    r'|""".*?(?:"""|\Z)|\'\'\'.*?(?:\'\'\'|\Z)'
    r"|<(?P<tag>[A-Za-z][\w-]*)\b[^>\n]*>.*?</(?P=tag)>",  # a document between tags, as prompts hold them
    re.DOTALL,
)
_MAIL = re.compile(
    r"^[ \t]*(?:-{2,} ?(?:original|forwarded) message\b.*|begin forwarded message:.*|on [^\n]{6,120} wrote:"
    r"|(?:from|to|cc|date|sent|subject): [^\n]+\n[ \t]*(?:from|to|cc|date|sent|subject): [^\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
_PASTED_LINE = re.compile(
    r"\s*[>|{}\[\]<$]"  # a quote, a table, JSON, markup, a shell
    r"|(?: {4}|\t)"  # indented code
    r"|\s*\d{4}-\d\d-\d\d[T ]\d\d:\d\d"  # a log
    r"|\s*(?:Traceback \(most recent|File \"|at [\w.$]+\()"
)
_QUOTED = re.compile(
    r'"[^"]{1,1000}"|“[^”]{1,1000}”|«[^»]{1,1000}»|`[^`\n]{1,1000}`|(?<!\w)[\'‘][^\'’\n]{2,400}[\'’](?!\w)'
)
_SENTENCE_END = re.compile(
    r"(?:(?<=[.!?…])(?<!\b[A-Z]\.)(?<!\bMr\.)(?<!\bMs\.)(?<!\bMrs\.)(?<!\bDr\.)(?<!\bSt\.)(?<!\bProf\.)"
    r"(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\betc\.)(?<!\bvs\.)\s+)|\n+"
)


def own_words(text: str) -> str:
    """``text`` without what was pasted into it: code, quotes, mails, documents, all after a line ending in a colon."""
    if len(text) > MAX_CHARS:
        return ""
    text = _BLOCKS.sub("\n", text)
    if mail := _MAIL.search(text):
        text = text[: mail.start()]
    kept: list[str] = []
    for line in text.split("\n"):
        if _PASTED_LINE.match(line):
            continue
        kept.append(line.strip())
        if kept[-1].endswith(":"):
            break
    typed = "\n".join(kept).strip()
    if len(typed) <= MAX_TYPED_CHARS:
        return typed
    paragraphs = re.split(r"\n{2,}", typed)
    ends = (paragraphs[0], paragraphs[-1]) if len(paragraphs) > 1 else ()
    return "\n\n".join(each for each in ends if len(each) <= MAX_PARAGRAPH_CHARS)


def sentences(text: str) -> list[tuple[str, str]]:
    """The sentences of ``text``, each beside itself with what stands in quotation marks blanked out.

    What is looked for in the second is said by the user, not quoted; it stands at the same place in the first.
    """
    blanked = _QUOTED.sub(lambda quoted: "\0" * len(quoted[0]), text)
    found, start = [], 0
    for end in [*_SENTENCE_END.finditer(blanked), None]:
        stop = end.start() if end else len(text)
        if text[start:stop].strip():
            found.append((text[start:stop], blanked[start:stop]))
        start = end.end() if end else stop
    return found


def as_sentence(text: str) -> str:
    """``text`` with a capital letter at its start and a full stop at its end."""
    text = " ".join(text.split()).strip(" ,;:–—-")
    if text.endswith("?"):
        text = text.rstrip("? ")
    text = text[:1].upper() + text[1:]
    return text if not text or text[-1] in '.!…"”»)`' else f"{text}."


def share_taken(text: str, sources: Iterable[str]) -> float:
    """How much of ``text``'s words, 0 to 1, stands in one of ``sources`` in runs of ``RUN_WORDS`` or more.

    A text of fewer words is taken where it stands there as a whole.
    """
    said = words(text)
    if not said:
        return 0.0
    run = min(RUN_WORDS, len(said))
    there = {tuple(source[at : at + run]) for source in map(words, sources) for at in range(len(source) - run + 1)}
    taken = [False] * len(said)
    for at in range(len(said) - run + 1):
        if tuple(said[at : at + run]) in there:
            taken[at : at + run] = [True] * run
    return sum(taken) / len(said)

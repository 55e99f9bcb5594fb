"""A reply as a file that a person edits: the text of the file from the reply, and back. Pure.

The first line is a comment that Markdown does not show; it names the completion, so that the file can be edited
anywhere and found again. The file's own name has the id too, for when that line is lost.
"""

import re
from dataclasses import dataclass

from familiar.memory.words import words

SUFFIXES = (".md", ".markdown", ".txt")

_COMMENT = re.compile(r"^[ \t]*<!--\s*familiar draft (chatcmpl-[\w:-]+?)(?:\s[^\n]*?)?-->[ \t]*\r?$", re.M)
_NAMED = re.compile(r"chatcmpl-[0-9a-z]+")
_SLUG_CHARS = 40


@dataclass(frozen=True)
class Draft:
    """A draft as it was read: ``completion_id`` is None when neither the text nor the name has one."""

    completion_id: str | None
    body: str


def text_of(completion_id: str, reply: str) -> str:
    """The file's text for a reply."""
    hint = "edit the text below and save it: the difference is remembered as a correction"
    return f"<!-- familiar draft {completion_id}: {hint} -->\n\n{reply.strip()}\n"


def file_name(request: str, completion_id: str) -> str:
    """A name for the draft of a reply to ``request``: its first words, and the id."""
    slug = "-".join(words(request))[:_SLUG_CHARS].strip("-")
    return f"{slug or 'draft'}.{completion_id}.md"


def read(text: str, name: str) -> Draft:
    """The draft in a file of that name, wherever in it the comment has come to stand."""
    text = text.replace("\r\n", "\n")
    comment = _COMMENT.search(text)
    if comment is not None:
        return Draft(comment[1].rstrip(":"), (text[: comment.start()] + text[comment.end() :]).strip())
    named = _NAMED.search(name)
    return Draft(None if named is None else named[0], text.strip())


def is_draft(text: str) -> bool:
    """Whether the text has a draft's comment."""
    return _COMMENT.search(text) is not None


def same(body: str, reply: str) -> bool:
    """Whether a draft still is the reply: editors add and take spaces at the ends of lines without being asked."""
    return _lines(body) == _lines(reply)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.replace("\r\n", "\n").strip().split("\n")]

"""What a grammar must not hold when it is handed to llama.cpp, which would end the process or take all memory.

It reads deep nesting by recursion, and ``{5,2}`` as some 2^64 times. What is left out: whether llama.cpp can read the
rest, which it says itself, and a bound on the time that an ambiguous grammar takes: ``s ::= "a" s "x" | "a" s "y"``
doubles the work with every letter, as it does in llama.cpp's own server.
"""

import re

from familiar.memory.errors import InvalidInput

MAX_NESTING = 200
MAX_RULES = 50_000
"""Rules that begin with rules are followed by recursion: 50,000 fit a thread's stack of 8 MB, 70,000 do not."""

_SPACE = r"(?:\s|#[^\r\n]*)*"
_NOTABLE = re.compile(
    r'"(?:\\.|[^"\\])*"?|\[(?:\\.|[^\]\\])*\]?|#[^\r\n]*'  # texts, sets and comments: what is in them is no notation
    r"|(?P<open>\()|(?P<close>\))|(?P<rule>::=)"
    rf"|\{{{_SPACE}(?P<least>\d+){_SPACE},{_SPACE}(?P<most>\d+){_SPACE}\}}",
    re.DOTALL,
)


def check_grammar(text: str) -> None:
    """Raise InvalidInput (``grammar``) for a text that llama.cpp must not be given."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _unusable("it holds half a character") from None
    if "\0" in text or not text.strip():
        raise _unusable("it is empty, or holds a null character")
    depth = rules = 0
    for found in _NOTABLE.finditer(text):
        kind = found.lastgroup
        depth += (kind == "open") - (kind == "close")
        rules += kind == "rule"
        if depth > MAX_NESTING:
            raise _unusable(f"its parentheses are more than {MAX_NESTING} deep")
        if rules > MAX_RULES:
            raise _unusable(f"it has more than {MAX_RULES} rules")
        if kind == "most" and int(found["least"]) > int(found["most"]):
            raise _unusable(f"{found[0]} wants more than it allows")


def _unusable(why: str) -> InvalidInput:
    return InvalidInput(f"The grammar cannot be used: {why}. Correct it.", "grammar")

"""Text that can be stored and sent: no half of a surrogate pair that stands alone, as JSON may spell one. Pure."""

import re
from typing import Any

_HALF = re.compile("[\ud800-\udfff]")


def whole_text(text: str) -> str:
    r"""``text`` with U+FFFD in place of every half character.

    A program that cuts a text between the two halves of an emoji sends ``"\ud83d"``: JSON can spell it, UTF-8 cannot.
    Web browsers put the same in its place in what they send (WHATWG Infra, "convert to a scalar value string").
    """
    return text if text.isascii() else _HALF.sub("\ufffd", text)


def whole_json(value: Any) -> Any:
    """A value of JSON with all of its texts, names of fields too, as ``whole_text`` makes them."""
    if isinstance(value, str):
        return whole_text(value)
    if isinstance(value, dict):
        return {whole_text(name): whole_json(item) for name, item in value.items()}
    if isinstance(value, list):
        return [whole_json(item) for item in value]
    return value

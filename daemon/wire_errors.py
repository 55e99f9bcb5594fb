"""What a wire type refused, as a person reads it: the field, a code and a message. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any


def described(problem: Mapping[str, Any], where: Sequence[str | int]) -> tuple[str | None, str, str]:
    """The field's name, the code and the message for what a wire type refused at a place; as pydantic lists it."""
    param, kind = _dotted(where), problem["type"]
    if kind == "refused":
        inner = problem["ctx"]["param"].rpartition(".")[2]
        return f"{param}.{inner}" if where else inner, problem["ctx"]["code"], problem["ctx"]["message"]
    if kind == "extra_forbidden":
        return param, "unknown_parameter", f"Unknown parameter: {param}. Leave it out."
    if kind == "missing":
        message = f"Missing required parameter: {param}." if param else "The request needs a JSON body."
        return param, "missing_required_parameter", message
    if not where:
        return None, "invalid_value", "The body must be a JSON object."
    return param, "invalid_value", f"{param}: {problem['msg']}."


def _dotted(where: Sequence[str | int]) -> str | None:
    """A field's place as people write it: ``messages[0].content``."""
    text = ""
    for step in where:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text or None

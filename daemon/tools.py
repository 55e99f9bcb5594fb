"""The functions that a request offers, and which of them the reply must call: ``tools`` and ``tool_choice`` checked.

What is left out: tools other than functions (OpenAI's ``custom``, which take free text).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from familiar.memory.errors import InvalidInput

MAX_TOOLS = 128
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@dataclass(frozen=True)
class Tool:
    """One function. Without ``parameters`` it takes none; ``strict`` wants its schema followed to the letter.

    ``where`` is its place in the request, for errors.
    """

    name: str
    where: str = "tools"
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})
    strict: bool = False

    def for_template(self) -> dict[str, Any]:
        """Return it as chat templates expect it, with nothing that a template may look for missing."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function}


@dataclass(frozen=True)
class Tools:
    """What a request offers. ``choice`` is ``none``, ``auto`` or ``required``; ``callable`` are those it may call.

    A function chosen by name is ``required`` with that one to call.
    """

    offered: tuple[Tool, ...] = ()
    choice: str = "none"
    callable: tuple[Tool, ...] = ()

    def for_template(self) -> list[dict[str, Any]] | None:
        """Return the functions for the template: all that are offered, none when none is to be called."""
        return [tool.for_template() for tool in self.offered] if self.choice != "none" else None


def validate_tools(tools: object, tool_choice: object = None) -> Tools:
    """Return a request's tools.

    Raises InvalidInput, naming the field, for what is not of OpenAI's shape, for a name twice, and for a choice of what
    is not offered.
    """
    if tools is not None and not isinstance(tools, list):
        raise InvalidInput(f"tools must be a list but is {_shown(tools)}.", "tools")
    offered = tuple(_tool(raw, f"tools[{index}]") for index, raw in enumerate(tools or ()))
    if len(offered) > MAX_TOOLS:
        raise InvalidInput(f"tools has {len(offered)} functions, but a request may have {MAX_TOOLS}.", "tools")
    by_name: dict[str, Tool] = {}
    for index, tool in enumerate(offered):
        if tool.name in by_name:
            message = f"tools has two functions of the name {tool.name!r}: give each its own."
            raise InvalidInput(message, f"tools[{index}].function.name")
        by_name[tool.name] = tool
    choice, names = _choice(tool_choice, by_name)
    if choice == "required" and not offered:
        raise InvalidInput("tool_choice asks for a call but there are no tools: send some too.", "tool_choice")
    if not offered:
        return Tools()
    return Tools(offered, choice, tuple(by_name[name] for name in names))


def _tool(raw: object, field_name: str) -> Tool:
    if not isinstance(raw, Mapping) or raw.get("type") != "function":
        raise InvalidInput(f'{field_name} must be {{"type": "function", "function": {{…}}}}.', field_name)
    function = raw.get("function")
    if not isinstance(function, Mapping):
        raise InvalidInput(f"{field_name}.function must be an object with a name.", f"{field_name}.function")
    field_name += ".function"
    for name in {*function} - {"name", "description", "parameters", "strict"}:
        raise InvalidInput(f"{field_name} has no field {name}: leave it out.", f"{field_name}.{name}")
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        message = f"{field_name}.name must be 1 to 64 of a-z, A-Z, 0-9, _ and -, but is {_shown(name)}."
        raise InvalidInput(message, f"{field_name}.name")
    description, strict = function.get("description"), function.get("strict")
    if description is not None and not isinstance(description, str):
        raise InvalidInput(f"{field_name}.description must be text.", f"{field_name}.description")
    if strict is not None and not isinstance(strict, bool):
        raise InvalidInput(f"{field_name}.strict must be true or false.", f"{field_name}.strict")
    parameters = function.get("parameters")
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, Mapping) or parameters.get("type", "object") != "object":
        message = f'{field_name}.parameters must be a JSON schema of "type": "object".'
        raise InvalidInput(message, f"{field_name}.parameters")
    whole = {"type": "object", "properties": {}, **parameters}
    return Tool(name, field_name, description or "", whole, bool(strict))


def _choice(raw: object, by_name: Mapping[str, Tool]) -> tuple[str, Sequence[str]]:
    """Return the mode and the names that may be called."""
    match raw:
        case None:
            return ("auto" if by_name else "none"), list(by_name)
        case "none" | "auto" | "required":
            return str(raw), list(by_name)
        case {"type": "function", "function": {"name": name}}:
            return "required", [_known(name, by_name, "tool_choice.function.name")]
        case {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "auto" | "required" as mode, "tools": list() as tools},
        }:
            where = "tool_choice.allowed_tools.tools"
            names = [_known(_named(each), by_name, f"{where}[{index}]") for index, each in enumerate(tools)]
            if names:
                return mode, list(dict.fromkeys(names))
            raise InvalidInput(f"{where} must name at least one function.", where)
    allowed = 'none, auto, required or {"type": "function", "function": {"name": …}}'
    raise InvalidInput(f"tool_choice must be {allowed}, but is {_shown(raw)}.", "tool_choice")


def _named(raw: object) -> object:
    match raw:
        case {"type": "function", "function": {"name": name}} | {"type": "function", "name": name}:
            return name
    return None


def _known(name: object, by_name: Mapping[str, Tool], field_name: str) -> str:
    if not isinstance(name, str) or name not in by_name:
        known = ", ".join(by_name) or "none"
        raise InvalidInput(f"{field_name} is {_shown(name)}, but the functions in tools are: {known}.", field_name)
    return name


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"

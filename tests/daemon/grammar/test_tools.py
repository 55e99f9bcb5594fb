"""``tools`` and ``tool_choice``: what is taken, and the error that each mistake gets."""

from typing import Any

import pytest
from pydantic import BaseModel

from familiar.daemon.tools import Tool, validate_tools
from familiar.memory.errors import InvalidInput

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def function(name: str = "weather", **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **fields}}


def chosen(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


ALLOWED = {"mode": "auto", "tools": [chosen("b"), {"type": "function", "name": "c"}, chosen("b")]}


@pytest.mark.parametrize(
    ("choice", "mode", "names"),
    [
        (None, "auto", ["a", "b", "c"]),
        ("auto", "auto", ["a", "b", "c"]),
        ("none", "none", ["a", "b", "c"]),
        ("required", "required", ["a", "b", "c"]),
        (chosen("b"), "required", ["b"]),
        ({"type": "allowed_tools", "allowed_tools": ALLOWED}, "auto", ["b", "c"]),
    ],
)
def test_every_choice_is_understood(choice: object, mode: str, names: list[str]) -> None:
    tools = validate_tools([function("a"), function("b"), function("c")], choice)
    assert tools.choice == mode
    assert [tool.name for tool in tools.callable] == names
    assert [tool.name for tool in tools.offered] == ["a", "b", "c"]
    assert (tools.for_template() is None) == (mode == "none")


@pytest.mark.parametrize(("tools", "choice"), [(None, None), ([], "auto"), ([], None), (None, "none")])
def test_no_tools_are_no_tools(tools: object, choice: object) -> None:
    found = validate_tools(tools, choice)
    assert (found.offered, found.choice, found.for_template()) == ((), "none", None)


def test_a_function_has_what_templates_look_for() -> None:
    [tool] = validate_tools([function("now", strict=True)]).offered
    assert tool == Tool("now", "tools[0].function", strict=True)
    schema = {"type": "object", "properties": {}}
    expected = {"type": "function", "function": {"name": "now", "description": "", "parameters": schema}}
    assert tool.for_template() == expected


def test_what_the_openai_library_makes_of_a_model_is_taken() -> None:
    from openai import pydantic_function_tool

    class Weather(BaseModel):
        """The weather."""

        city: str

    [tool] = validate_tools([pydantic_function_tool(Weather)]).offered
    assert (tool.name, tool.description, tool.strict) == ("Weather", "The weather.", True)


@pytest.mark.parametrize(
    ("tools", "choice", "param"),
    [
        ({}, None, "tools"),
        ([5], None, "tools[0]"),
        ([{"type": "custom", "custom": {"name": "a"}}], None, "tools[0]"),
        ([{"type": "function"}], None, "tools[0].function"),
        ([function("a"), function("a b")], None, "tools[1].function.name"),
        ([function("")], None, "tools[0].function.name"),
        ([function("a\n")], None, "tools[0].function.name"),
        ([function("x" * 65)], None, "tools[0].function.name"),
        ([function("a"), function("a")], None, "tools[1].function.name"),
        ([function("a", description=5)], None, "tools[0].function.description"),
        ([function("a", strict="yes")], None, "tools[0].function.strict"),
        ([function("a", parameters=[])], None, "tools[0].function.parameters"),
        ([function("a", parameters={"type": "string"})], None, "tools[0].function.parameters"),
        ([function("a", returns={})], None, "tools[0].function.returns"),
        ([function(f"f{index}") for index in range(129)], None, "tools"),
        ([], "required", "tool_choice"),
        ([function("a")], "always", "tool_choice"),
        ([function("a")], 5, "tool_choice"),
        ([function("a")], chosen("b"), "tool_choice.function.name"),
        ([], chosen("b"), "tool_choice.function.name"),
        (
            [function("a")],
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [chosen("b")]}},
            "tool_choice.allowed_tools.tools[0]",
        ),
        (
            [function("a")],
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}},
            "tool_choice.allowed_tools.tools",
        ),
    ],
)
def test_a_mistake_is_named_by_its_field(tools: object, choice: object, param: str) -> None:
    with pytest.raises(InvalidInput, match=r"tool") as caught:
        validate_tools(tools, choice)
    assert caught.value.param == param

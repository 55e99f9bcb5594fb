"""Replies to content and calls, however their text is cut: nothing is lost, and only calls are calls."""

import itertools
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from familiar.daemon.tool_formats import HERMES, LLAMA, MISTRAL, MISTRAL_LIST, MISTRAL_WITH_IDS, ToolFormat
from familiar.daemon.tool_parser import CallArguments, CallStart, Content, ForcedCalls, FreeCalls, ToolEvent

NAMES = ("get", "get_x", "now")


def counted() -> Any:
    numbers = itertools.count()
    return lambda: f"call_{next(numbers)}"


def merged(events: Sequence[ToolEvent]) -> list[ToolEvent]:
    """Join neighbours of a kind, as a client does."""
    found: list[ToolEvent] = []
    for event in events:
        match (found[-1] if found else None), event:
            case Content(before), Content(text):
                found[-1] = Content(before + text)
            case CallArguments(index, before), CallArguments(same, text) if index == same:
                found[-1] = CallArguments(index, before + text)
            case _:
                found.append(event)
    return found


def read(parser: FreeCalls | ForcedCalls, pieces: Sequence[str]) -> list[ToolEvent]:
    events = [event for piece in pieces for event in parser.push(piece)]
    assert all(event.text for event in events if not isinstance(event, CallStart))
    return merged([*events, *parser.finish()])


def free(spelling: ToolFormat, *pieces: str) -> list[ToolEvent]:
    return read(FreeCalls(spelling, NAMES, counted()), pieces)


def call(index: int, name: str, arguments: dict[str, Any]) -> list[ToolEvent]:
    text = json.dumps(arguments, ensure_ascii=False)
    return [CallStart(index, f"call_{index}", name), CallArguments(index, text)]


GET = '{"name": "get", "arguments": {"a": "}\\"</tool_call>"}}'
GOT = call(0, "get", {"a": '}"</tool_call>'})
CALLS: list[tuple[ToolFormat, str, list[ToolEvent]]] = [
    (HERMES, f"<tool_call>\n{GET}\n</tool_call>", GOT),
    (HERMES, f"<tool_call>{GET}</tool_call>", GOT),
    (HERMES, f"\n\n<tool_call> {GET} </tool_call>\n ", GOT),
    (HERMES, f"Sure: \n<tool_call>\n{GET}\n</tool_call>", [Content("Sure:"), *GOT]),
    (HERMES, f"<tool_call>\n{GET}\n</tool_call>\nDone. ", [*GOT, Content("\nDone.")]),
    (
        HERMES,
        f'<tool_call>\n{GET}\n</tool_call>\n<tool_call>\n{{"arguments": {{}}, "name": "now"}}\n</tool_call>',
        [*GOT, *call(1, "now", {})],
    ),
    (HERMES, f'<tool_call>{GET}<tool_call>{{"name": "now"}}</tool_call>', [*GOT, *call(1, "now", {})]),
    (HERMES, f"<tool_call>hm</tool_call> <tool_call>{GET}</tool_call>", [Content("<tool_call>hm</tool_call>"), *GOT]),
    (HERMES, f"<tool_call>\n{GET}", GOT),
    (HERMES, f"<tool_call>\n{GET}\n</tool", GOT),
    (HERMES, '<tool_call>{"name": "now", "arguments": "{\\"a\\": 1}"}</tool_call>', call(0, "now", {"a": 1})),
    (HERMES, '<tool_call>{"name": "now", "parameters": {"a": "b\nc"}}</tool_call>', call(0, "now", {"a": "b\nc"})),
    (HERMES, "a < b <tool> <tool_cal", [Content("a < b <tool> <tool_cal")]),
    (LLAMA, '{"name": "get", "parameters": {"a": [1]}}', call(0, "get", {"a": [1]})),
    (LLAMA, ' <|python_tag|>{"type": "function", "name": "now", "parameters": {}}\n', call(0, "now", {})),
    (
        LLAMA,
        '{"name": "get", "parameters": {}}; {"name": "now", "parameters": {}}',
        [*call(0, "get", {}), *call(1, "now", {})],
    ),
    (LLAMA, '{"name": "now", "parameters": {}}; and so on', [*call(0, "now", {}), Content("; and so on")]),
    (MISTRAL_LIST, '[TOOL_CALLS][{"name": "get", "arguments": {}}, {"name": "now", "arguments": {"é": 1}, "id": "x"}]',
     [*call(0, "get", {}), *call(1, "now", {"é": 1})]),
    (MISTRAL, 'Hm.[TOOL_CALLS]get[ARGS]{"a": {}}[TOOL_CALLS]now[ARGS]{}',
     [Content("Hm."), *call(0, "get", {"a": {}}), *call(1, "now", {})]),
    (MISTRAL_WITH_IDS, '[TOOL_CALLS]get_x[CALL_ID]abcDEF123[ARGS]{"a": 1}', call(0, "get_x", {"a": 1})),
]  # fmt: skip

NO_CALLS: list[tuple[ToolFormat, str]] = [
    (HERMES, ""),
    (HERMES, " \n"),
    (HERMES, "Just text.\n"),
    (HERMES, "<tool_call>\nnot JSON\n</tool_call> "),
    (HERMES, '<tool_call>{"name": "get", "arguments": {]}}</tool_call>'),
    (HERMES, '<tool_call>{"name": "unknown", "arguments": {}}</tool_call>'),
    (HERMES, '<tool_call>{"name": "get", "arguments": [1]}</tool_call>'),
    (HERMES, '<tool_call>{"name": "get", "arguments": {"a": NaN}}</tool_call>'),
    (HERMES, '<tool_call>{"name": "get", "arguments": {}} or so</tool_call>'),
    (HERMES, '<tool_call>{"city": "Oslo"}</tool_call>'),
    (HERMES, '<tool_call>\n{"name": "get", "arguments": {"a": "cut'),
    (HERMES, "<tool_call>"),
    (HERMES, "<tool_call>" + '{"name": "get", "arguments": ' + "[" * 3000),
    (LLAMA, '{"temperature": 5}'),
    (LLAMA, '{"name": "unknown", "parameters": {}}'),
    (LLAMA, 'Here: {"name": "get", "parameters": {}}'),
    (LLAMA, "{}"),
    (LLAMA, "  text  "),
    (LLAMA, '<|python_tag|>brave_search.call(query="x")'),
    (MISTRAL, "[TOOL_CALLS]"),
    (MISTRAL, "[TOOL_CALLS]unknown[ARGS]{}"),
    (MISTRAL, "[TOOL_CALLS]get[ARGS]nothing"),
    (MISTRAL, "[TOOL_CALLS]get[CALL_ID]ab-cd[ARGS]{}"),
    (MISTRAL, "[TOOL_CALLS]get{}"),
    (MISTRAL_LIST, "[TOOL_CALLS][]"),
    (MISTRAL_LIST, '[TOOL_CALLS][{"name": "get", "arguments": {}}, 5]'),
]


@pytest.mark.parametrize(("spelling", "text", "expected"), CALLS)
def test_calls_are_found_however_their_text_is_cut(spelling: ToolFormat, text: str, expected: list[ToolEvent]) -> None:
    assert free(spelling, text) == expected
    assert free(spelling, *text) == expected
    for at in range(len(text)):
        assert free(spelling, text[:at], text[at:]) == expected, text[:at]


@pytest.mark.parametrize(("spelling", "text"), NO_CALLS)
def test_what_is_no_call_is_content_to_the_last_character(spelling: ToolFormat, text: str) -> None:
    expected = [Content(text)] if text else []
    assert free(spelling, text) == expected
    if len(text) < 200:
        assert free(spelling, *text) == expected


@pytest.mark.parametrize(
    ("spelling", "text", "at_once"),
    [
        (HERMES, "Hello there", "Hello there"),
        (HERMES, "Hello <b>", "Hello <b>"),
        (HERMES, "Hello <too", "Hello"),
        (LLAMA, '{"temperature": ', '{"temperature":'),
        (LLAMA, "Hello", "Hello"),
        (MISTRAL, "Hello [1]", "Hello [1]"),
    ],
)
def test_content_is_not_held_back_for_longer_than_needed(spelling: ToolFormat, text: str, at_once: str) -> None:
    assert FreeCalls(spelling, NAMES, counted()).push(text) == [Content(at_once)]


PARTS = [
    *(
        "<tool_call>",
        "</tool_call>",
        "[TOOL_CALLS]",
        "[ARGS]",
        '{"name": "get", ',
        '"arguments": {',
        '"a": 1',
        "}",
        "}}",
    ),
    *("\n", " ", "text", "<", "get", "[", "]", GET, "{", ";", '"', "\\"),
]
PIECES = st.lists(st.sampled_from(PARTS), max_size=12)


@given(spelling=st.sampled_from([HERMES, LLAMA, MISTRAL, MISTRAL_LIST]), parts=PIECES, data=st.data())
def test_cuts_change_nothing_and_nothing_is_lost(spelling: ToolFormat, parts: list[str], data: st.DataObject) -> None:
    text = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole = free(spelling, text)
    assert free(spelling, *pieces) == whole
    if not any(isinstance(event, CallStart) for event in whole):
        assert "".join(event.text for event in whole if isinstance(event, Content)) == text


def test_arguments_stay_text_that_utf_8_can_hold() -> None:
    events = free(HERMES, '<tool_call>{"name": "get", "arguments": {"a": "\\ud83d"}}</tool_call>')
    assert events[1] == CallArguments(0, '{"a": "\\ud83d"}')


def spelled(spelling: ToolFormat, calls: Sequence[tuple[str, str]]) -> str:
    own_id = f"{spelling.id_mark}abc123XYZ" if spelling.id_mark else ""
    each = [spelling.start + name + own_id + spelling.middle + arguments + spelling.end for name, arguments in calls]
    return spelling.before + (spelling.between or "").join(each) + spelling.after


FORMATS = [HERMES, LLAMA, MISTRAL, MISTRAL_LIST, MISTRAL_WITH_IDS]
JSON = st.dictionaries(
    st.text('a"\\{}é', max_size=3), st.text('}{"\\ a', max_size=5) | st.lists(st.integers()), max_size=3
)


@given(
    spelling=st.sampled_from(FORMATS),
    calls=st.lists(st.tuples(st.sampled_from(NAMES), JSON), min_size=1, max_size=3),
    indent=st.sampled_from([None, 2]),
    data=st.data(),
)
def test_forced_calls_stream_their_arguments(
    spelling: ToolFormat, calls: list[tuple[str, dict[str, Any]]], indent: int | None, data: st.DataObject
) -> None:
    if spelling.between is None:
        calls = calls[:1]
    written = [(name, json.dumps(arguments, indent=indent)) for name, arguments in calls]
    text = spelled(spelling, written)
    expected: list[ToolEvent] = []
    for index, (name, arguments) in enumerate(written):
        expected += [CallStart(index, f"call_{index}", name), CallArguments(index, arguments)]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert read(ForcedCalls(spelling, counted()), pieces) == expected
    assert read(ForcedCalls(spelling, counted()), text) == expected
    loose = [(name, json.loads(arguments)) for name, arguments in written]
    found = free(spelling, *pieces)
    assert [event.name for event in found if isinstance(event, CallStart)] == [name for name, _ in loose]
    assert [json.loads(event.text) for event in found if isinstance(event, CallArguments)] == [a for _, a in loose]


def test_forced_arguments_come_out_as_they_come_in() -> None:
    parser = ForcedCalls(HERMES, counted())
    assert parser.push('<tool_call>\n{"name": "get') == []
    assert parser.push('", "arguments": {"a') == [CallStart(0, "call_0", "get"), CallArguments(0, '{"a')]
    assert parser.push('": 1') == [CallArguments(0, '": 1')]
    assert parser.push("}}\n</to") == [CallArguments(0, "}")]
    assert parser.finish() == []


@pytest.mark.parametrize("spelling", FORMATS)
def test_a_forced_call_that_is_cut_keeps_what_it_has(spelling: ToolFormat) -> None:
    text = spelled(spelling, [("get", '{"a": "b"}')])
    for at in range(len(text)):
        events = read(ForcedCalls(spelling, counted()), [text[:at]])
        if events and isinstance(events[0], CallStart):
            arguments = "".join(event.text for event in events if isinstance(event, CallArguments))
            assert '{"a": "b"}'.startswith(arguments)
            assert not any(isinstance(event, Content) for event in events)
        else:
            assert events == ([Content(text[:at])] if at else [])

"""How model families spell tool calls: told by their templates, made by their grammars, read back by the parser."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader
from jsonschema import Draft202012Validator

from familiar.daemon.engine import Engine
from familiar.daemon.engine_options import EngineOptions
from familiar.daemon.grammar import gbnf
from familiar.daemon.sampling import Sampling
from familiar.daemon.template import ChatTemplate, encode_prompt
from familiar.daemon.tool_formats import (
    HERMES,
    LLAMA,
    MAX_CALLS,
    MISTRAL,
    MISTRAL_LIST,
    MISTRAL_WITH_IDS,
    ToolFormat,
    detect,
)
from familiar.daemon.tool_parser import CallArguments, CallStart, ForcedCalls, FreeCalls, ToolEvent
from familiar.daemon.tools import Tool, validate_tools
from familiar.daemon.vocab import Vocab
from familiar.memory.errors import InvalidInput
from familiar.memory.types import Message

Accepts = Callable[[str, str], bool]
Wander = Callable[[str, int], str | None]

FORMATS = [HERMES, LLAMA, MISTRAL, MISTRAL_LIST, MISTRAL_WITH_IDS]
CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]}
COLOUR = {"type": "object", "properties": {"shade": {"enum": ["red", "green"]}, "dark": {"type": "boolean"}}}


def function(name: str, parameters: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters, **fields}}


TOOLS = [function("weather", CITY), function("weather_now"), function("paint", COLOUR)]


def callable_of(*tools: dict[str, Any], choice: object = "required") -> tuple[Tool, ...]:
    return validate_tools(list(tools), choice).callable


@pytest.mark.parametrize(
    ("template", "spelling"),
    [
        (None, None),
        ("{{ messages }}", None),
        ('<tool_call>\\n{\\"name\\": <function-name>, \\"arguments\\": <args-json-object>}\\n</tool_call>', HERMES),
        ('<tool_call>\\n{"name": "\' + name + \'", "arguments": \' }}', HERMES),
        ('<tool_call>\\n<function=example>\\n<parameter=a> {"name": "arguments": }', None),
        ('<tool_call>{name}\\n<arg_key>{"name": 1, "arguments": 2}', None),
        ("""message.role == 'ipython' '{"name": "' + name + '", ' '"parameters": '""", LLAMA),
        ("""{{- "[TOOL_CALLS][" }}{{ tool_call.function|tojson }}""", MISTRAL_LIST),
        ("""{{- '[TOOL_CALLS]' + name + '[ARGS]' + arguments }}""", MISTRAL),
        ("""{{- '[TOOL_CALLS]' + name + '[CALL_ID]' + id + '[ARGS]' }}""", MISTRAL_WITH_IDS),
    ],
)
def test_a_format_is_told_by_the_template(template: str | None, spelling: ToolFormat | None) -> None:
    assert detect(template) == spelling


def spelled(spelling: ToolFormat, *calls: tuple[str, str]) -> str:
    own_id = f"{spelling.id_mark}abc123XYZ" if spelling.id_mark else ""
    each = [spelling.start + name + own_id + spelling.middle + arguments + spelling.end for name, arguments in calls]
    return spelling.before + (spelling.between or "").join(each) + spelling.after


@pytest.mark.parametrize("spelling", FORMATS)
def test_a_reply_that_must_call_is_calls_and_nothing_else(accepts: Accepts, spelling: ToolFormat) -> None:
    reply = spelling.grammar(callable_of(*TOOLS))
    oslo, now = ("weather", '{"city": "Oslo"}'), ("weather_now", "{}")
    assert accepts(reply, spelled(spelling, oslo))
    assert accepts(reply, spelled(spelling, now))
    assert accepts(reply, spelled(spelling, ("paint", '{\n  "shade": "red",\n  "dark": true\n}')))
    assert accepts(reply, spelled(spelling, oslo, now)) == (spelling.between is not None)
    assert not accepts(spelling.grammar(callable_of(*TOOLS), parallel=False), spelled(spelling, oslo, now))
    for wrong in (
        ("weather", "{}"),
        ("weather", '{"city": 5}'),
        ("weather", '{"city": "Oslo", "day": 1}'),
        ("weather_now", '{"city": "Oslo"}'),
        ("paint", '{"shade": "blue"}'),
        ("unknown", "{}"),
        ("weather_", '{"city": "Oslo"}'),
    ):
        assert not accepts(reply, spelled(spelling, wrong)), wrong
    assert not accepts(reply, "")
    assert not accepts(reply, "Hello. " + spelled(spelling, oslo))
    assert not accepts(reply, spelled(spelling, oslo) + " Done.")


def test_calls_come_to_an_end(accepts: Accepts) -> None:
    reply = HERMES.grammar(callable_of(*TOOLS))
    assert accepts(reply, spelled(HERMES, *[("weather_now", "{}")] * MAX_CALLS))
    assert not accepts(reply, spelled(HERMES, *[("weather_now", "{}")] * (MAX_CALLS + 1)))


def test_a_function_chosen_by_name_is_the_one(accepts: Accepts) -> None:
    choice = {"type": "function", "function": {"name": "paint"}}
    reply = HERMES.grammar(callable_of(*TOOLS, choice=choice))
    assert accepts(reply, spelled(HERMES, ("paint", "{}")))
    assert not accepts(reply, spelled(HERMES, ("weather_now", "{}")))


def test_a_schema_that_cannot_be_followed_is_any_object_unless_strict(accepts: Accepts) -> None:
    odd = {"type": "object", "properties": {"a": {"not": {}}}}
    reply = HERMES.grammar(callable_of(function("weather_now"), function("odd", odd)))
    assert accepts(reply, spelled(HERMES, ("odd", '{"a": 1, "b": [2]}')))
    assert not accepts(reply, spelled(HERMES, ("odd", "[1]")))
    with pytest.raises(InvalidInput, match="uses not") as caught:
        HERMES.grammar(callable_of(function("weather_now"), function("odd", odd, strict=True)))
    assert caught.value.param == "tools[1].function.parameters"


def test_too_many_tools_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gbnf, "MAX_SYMBOLS", 5_000)
    long = {"type": "object", "properties": {"a": {"type": "string", "maxLength": 10_000}}}
    HERMES.grammar(callable_of(function("f", long)))
    different = [
        {"type": "object", "properties": {"a": {"type": "string", "maxLength": 10_000 + n}}} for n in range(20)
    ]
    with pytest.raises(InvalidInput, match="too large") as caught:
        HERMES.grammar(callable_of(*(function(f"f{n}", schema) for n, schema in enumerate(different))))
    assert caught.value.param == "tools"


def called(events: list[ToolEvent]) -> list[tuple[str, Any]]:
    names = [event.name for event in events if isinstance(event, CallStart)]
    texts = [""] * len(names)
    for event in events:
        if isinstance(event, CallArguments):
            texts[event.index] += event.text
    return [(name, json.loads(text)) for name, text in zip(names, texts, strict=True)]


@pytest.mark.parametrize("spelling", FORMATS)
def test_whatever_the_grammar_lets_through_is_read_as_calls(wander: Wander, spelling: ToolFormat) -> None:
    tools = callable_of(*TOOLS)
    schemas = {tool.name: Draft202012Validator(tool.parameters) for tool in tools}
    reply, whole = spelling.grammar(tools), 0
    for seed in range(12):
        if (text := wander(reply, seed)) is None:
            continue
        whole += 1
        forced, loose = ForcedCalls(spelling), FreeCalls(spelling, schemas)
        events = [event for char in text for event in forced.push(char)] + forced.finish()
        assert all(isinstance(event, CallStart | CallArguments) for event in events), text
        assert called(events) == called([*loose.push(text), *loose.finish()])
        assert called(events)
        for name, arguments in called(events):
            assert schemas[name].is_valid(arguments)
    assert whole


@pytest.fixture(scope="module")
def tool_engine(tool_model_path: Path) -> Iterator[Engine]:
    with Engine.open(tool_model_path, EngineOptions(slots=1, threads=1)) as opened:
        yield opened


def test_a_real_model_calls_when_it_must(tool_engine: Engine, tool_model_path: Path, vocab: Vocab) -> None:
    source = str(GGUFReader(tool_model_path).fields["tokenizer.chat_template"].contents())
    template = ChatTemplate(source)
    assert template.supports_tools
    assert detect(source) == HERMES
    tools = validate_tools(TOOLS, "required")
    messages = [Message(role="user", content="What is the weather in Oslo?")]
    prompt = encode_prompt(vocab, template, messages, tools.for_template())
    schemas = {tool.name: Draft202012Validator(tool.parameters) for tool in tools.callable}
    forced, names = HERMES.grammar(tools.callable, parallel=False), set()
    for seed in range(5):
        # Hot, and over the whole vocabulary: the model that comes with the package has never seen a tool.
        sampling = Sampling(seed=seed, temperature=3, top_k=0, top_p=1, min_p=0, max_tokens=300, grammar=forced)
        parser, events = ForcedCalls(HERMES), list[ToolEvent]()
        reply = tool_engine.generate(prompt, sampling)
        for chunk in reply:
            events += parser.push(chunk.text)
        events += parser.finish()
        assert reply.finish_reason == "stop"
        [(name, arguments)] = called(events)
        assert schemas[name].is_valid(arguments)
        names.add(name)
    assert len(names) > 1


def test_a_call_and_its_answer_go_back_into_the_prompt(tool_model_path: Path, vocab: Vocab) -> None:
    source = str(GGUFReader(tool_model_path).fields["tokenizer.chat_template"].contents())
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
    messages = [
        Message(role="user", content="Weather in Oslo?"),
        Message(role="assistant", content="", tool_calls=[call]),
        Message(role="tool", content="7 degrees", tool_call_id="call_1"),
    ]
    tokens = encode_prompt(vocab, ChatTemplate(source), messages, validate_tools(TOOLS).for_template())
    text = b"".join(map(vocab.spelling, tokens)).decode()
    assert text.startswith('<|system|># Tools\n<tools>\n{"type": "function", "function": {"name": "weather", ')
    assert text.endswith(
        "<|user|>Weather in Oslo?<|end|>"
        '<|assistant|><tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call><|end|>'
        '<|user|><tool_response name="weather">\n7 degrees\n</tool_response><|end|><|assistant|>'
    )

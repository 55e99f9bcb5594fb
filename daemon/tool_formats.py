"""How a model family spells tool calls, known by its chat template, and the grammar that makes it spell some.

| family | a call |
| --- | --- |
| Hermes, Qwen 2.5 and 3, Granite 4 | ``<tool_call>\\n{"name": …, "arguments": {…}}\\n</tool_call>``, several in a row |
| Llama 3.1 to 3.3 | ``{"name": …, "parameters": {…}}`` and nothing else, maybe after ``<|python_tag|>`` |
| Mistral 7B v0.3, Nemo | ``[TOOL_CALLS][{"name": …, "arguments": {…}}, …]`` |
| Mistral Small 3.2, Devstral, Ministral 3 | ``[TOOL_CALLS]name[ARGS]{…}``, several in a row; 3.2 with a ``[CALL_ID]`` |

What is left out: families with calls in XML or tokens of their own (Qwen3-Coder, GLM, DeepSeek, gpt-oss, Gemma 4).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from familiar.daemon.grammar import char_set
from familiar.daemon.grammar.gbnf import EMPTY, Alternative, Chars, Grammar, Text, TooLarge
from familiar.daemon.grammar.json_grammar import json_schema_grammar
from familiar.daemon.grammar.json_rules import JsonRules
from familiar.daemon.grammar.json_schema import Schema
from familiar.daemon.tools import Tool
from familiar.memory.errors import InvalidInput

MAX_CALLS = 16
"""Most calls in one reply that has to call: a small model would go on for ever."""


@dataclass(frozen=True)
class ToolFormat:
    """The spelling of calls: ``before``, then each call as ``start`` name ``middle`` arguments ``end``, then ``after``.

    Between two calls comes ``between``, None where a reply has one call only. Where the model names its calls,
    ``id_mark`` and nine letters or digits come before ``middle``. ``triggers`` are the texts that a call begins with;
    ``alone`` says that it does so only at the very beginning of a reply. ``markers`` are the spellings that may be
    control tokens in a vocabulary: they have to be left in the text of a reply for its calls to be found.
    """

    name: str
    triggers: tuple[str, ...]
    markers: tuple[str, ...]
    start: str
    middle: str
    end: str = ""
    before: str = ""
    between: str | None = ""
    after: str = ""
    id_mark: str = ""
    alone: bool = False

    def grammar(self, tools: Sequence[Tool], *, parallel: bool = True) -> str:
        """Return the grammar of a reply that is one call of one of ``tools``, or several where ``parallel``.

        The arguments follow the function's schema. Where that asks for what a grammar cannot hold they are any object,
        as OpenAI promises no more either, unless the function is ``strict``: then InvalidInput names the field.
        """
        grammar = Grammar()
        json = JsonRules(grammar)
        try:
            # What all calls begin with is said once: llama.cpp takes its time for every way that is still open.
            named = grammar.rule("named", [self._named(json, tool) for tool in tools])
            call = grammar.rule("call", [(Text(self.start), named, *_text(self.end))])
            more: Alternative = EMPTY
            if parallel and self.between is not None:
                more = grammar.repeat("calls", (*_text(self.between), call), 0, MAX_CALLS - 1)
            return grammar.text(grammar.rule("reply", [(*_text(self.before), call, *more, *_text(self.after))]))
        except TooLarge:
            raise InvalidInput("The tools make too large a grammar: offer fewer, or simpler ones.", "tools") from None

    def _named(self, json: JsonRules, tool: Tool) -> Alternative:
        letters = Chars(char_set.of(("0", "9"), ("a", "z"), ("A", "Z")))
        own_id = (Text(self.id_mark), *(letters,) * 9) if self.id_mark else EMPTY
        arguments = json.schema(Schema(_followed(tool), f"{tool.where}.parameters"))
        return (Text(tool.name), *own_id, Text(self.middle), arguments)


def _text(text: str) -> Alternative:
    return (Text(text),) if text else EMPTY


def _followed(tool: Tool) -> Mapping[str, Any]:
    """Return the schema that the arguments follow: the function's own, or any object where that cannot be followed."""
    try:
        json_schema_grammar(tool.parameters, param=f"{tool.where}.parameters")
    except InvalidInput:
        if tool.strict:
            raise
        return {"type": "object"}
    return tool.parameters


HERMES = ToolFormat(
    "hermes",
    triggers=("<tool_call>",),
    markers=("<tool_call>", "</tool_call>"),
    start='<tool_call>\n{"name": "',
    middle='", "arguments": ',
    end="}\n</tool_call>",
    between="\n",
)
LLAMA = ToolFormat(
    "llama",
    triggers=("<|python_tag|>", "{"),
    markers=("<|python_tag|>",),
    start='{"name": "',
    middle='", "parameters": ',
    end="}",
    between=None,
    alone=True,
)
_MISTRAL_MARKERS = ("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]")
MISTRAL_LIST = ToolFormat(
    "mistral-list",
    triggers=("[TOOL_CALLS]",),
    markers=_MISTRAL_MARKERS,
    before="[TOOL_CALLS][",
    start='{"name": "',
    middle='", "arguments": ',
    end="}",
    between=", ",
    after="]",
)
MISTRAL = ToolFormat(
    "mistral", triggers=("[TOOL_CALLS]",), markers=_MISTRAL_MARKERS, start="[TOOL_CALLS]", middle="[ARGS]"
)
MISTRAL_WITH_IDS = replace(MISTRAL, name="mistral-ids", id_mark="[CALL_ID]")


def detect(template: str | None) -> ToolFormat | None:
    """Return the format that a chat template's source spells calls in, None when there is none or it is not known."""
    source = template or ""
    if "[TOOL_CALLS]" in source:
        if "[ARGS]" not in source:
            return MISTRAL_LIST
        return MISTRAL_WITH_IDS if "[CALL_ID]" in source else MISTRAL
    if any(mark in source for mark in ("<function=", "<arg_key>", "<parameter=", "<tool_calls>")):
        return None  # arguments in XML, or calls in a list
    if "<tool_call>" in source and re.search(r'\\?"name\\?": .*\\?"arguments\\?": ', source, re.DOTALL):
        return HERMES
    if "ipython" in source and '"parameters": ' in source:
        return LLAMA
    return None

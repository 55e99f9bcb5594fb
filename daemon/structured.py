"""Replies of a given form: what ``response_format`` and ``tools`` of a request ask of template, sampler and reader."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from familiar.daemon.grammar.json_grammar import json_object_grammar, json_schema_grammar
from familiar.daemon.schemas_chat import ChatRequest, ResponseFormat
from familiar.daemon.tool_formats import ToolFormat
from familiar.daemon.tool_parser import ForcedCalls, FreeCalls, ToolCallParser
from familiar.daemon.tools import Tools, validate_tools
from familiar.memory.errors import InvalidInput


class NoTools(InvalidInput):
    """The model cannot be given tools."""

    code = "unsupported_parameter"


@dataclass(frozen=True)
class Structure:
    """A request's form: ``template_tools`` for the template, ``sampling`` for the sampler.

    With ``tools`` and their ``spelling``, ``parser`` reads the calls out of a reply.
    """

    template_tools: Sequence[Mapping[str, Any]] | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    tools: Tools | None = None
    spelling: ToolFormat | None = None

    def parser(self) -> ToolCallParser | None:
        """A new reader for one choice; None where there can be no calls."""
        if self.tools is None or self.spelling is None:
            return None
        if self.tools.choice == "required":
            return ForcedCalls(self.spelling)
        return FreeCalls(self.spelling, {tool.name for tool in self.tools.callable})


def structure_of(request: ChatRequest, spelling: ToolFormat | None, *, supports_tools: bool) -> Structure:
    """Return the form that a request asks for.

    ``spelling`` is how the model spells calls, None where that is not known or its template has no tools at all.
    Raises InvalidInput, naming the field, for a schema or tools that cannot be followed.
    """
    if request.response_format is not None and request.response_format.type != "text":
        return Structure(sampling={"grammar": _format_grammar(request.response_format)})
    choice = request.tool_choice
    tools = validate_tools(
        [tool.model_dump(exclude_none=True) for tool in request.tools or ()],
        choice if choice is None or isinstance(choice, str) else choice.model_dump(),
    )
    if tools.choice == "none":
        return Structure()
    if spelling is None:
        why = "spells calls in a way that this service cannot read" if supports_tools else "has no place for tools"
        raise NoTools(f"The model's chat template {why}: leave tools out, or serve another model.", "tools")
    sampling: dict[str, Any] = {"markers": spelling.markers}
    if tools.choice == "required":
        sampling["grammar"] = spelling.grammar(tools.callable, parallel=request.parallel_tool_calls is not False)
    return Structure(tools.for_template(), sampling, tools, spelling)


def _format_grammar(wanted: ResponseFormat) -> str:
    if wanted.json_schema is None:
        return json_object_grammar()
    # OpenAI leaves the schema out for "any JSON object".
    schema = wanted.json_schema.schema_
    where = "response_format.json_schema.schema"
    return json_object_grammar() if schema is None else json_schema_grammar(schema, param=where)

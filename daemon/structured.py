"""Replies of a given form: how ``response_format`` and ``tools`` of a request become a grammar, and text becomes calls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from familiar.daemon.schemas_chat import ChatRequest


@dataclass(frozen=True)
class Structure:
    """What a request's form asks of the template (``template_tools``) and of the sampler, and who reads the reply."""

    template_tools: Sequence[Mapping[str, Any]] | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)


def structure_of(request: ChatRequest, tool_format: object) -> Structure:
    return Structure()

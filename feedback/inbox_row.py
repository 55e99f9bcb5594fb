"""One row of feedback as a file holds it, whichever format that file has. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from familiar.memory.types import Trust


@dataclass(frozen=True)
class Row:
    """``fields`` are those of ``POST /v1/feedback``, not checked yet; ``place`` is such as "line 4".

    A row that names no stored completion may bring its own: ``messages`` in the wire's form and the ``completion`` that
    answered them. ``said_at`` is when it was said (seconds since the epoch), None where the file does not tell;
    ``person`` is who said it by the file's own id, if it knows several.
    """

    fields: Mapping[str, Any]
    messages: Sequence[Any] | None = None
    completion: str | None = None
    trust: Trust = "stated"
    place: str = ""
    said_at: float | None = None
    person: str | None = None

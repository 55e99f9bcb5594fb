"""What ``/v1/data`` answers."""

from typing import Annotated, Literal

from pydantic import Field

from familiar.daemon.schemas_replies import Reply


class DataImported(Reply):
    """What an import did."""

    object: Literal["data.imported"]
    added: Annotated[dict[str, int], Field(description="rows that are new here, by table")]
    known: Annotated[dict[str, int], Field(description="rows that were here already, by table")]
    renamed: Annotated[int, Field(description="ids that meant something else here and were replaced")]

"""What ``/v1/data`` may be asked, and what it answers."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from familiar.daemon.schemas_replies import Reply


class ExportQuery(BaseModel):
    """The query of ``GET /v1/data/export``: there is nothing to choose."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ImportQuery(BaseModel):
    """The query of ``POST /v1/data/import``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    anyones: Annotated[bool, Field(description="take an export of a user of another name")] = False


class DataImported(Reply):
    """What an import did."""

    object: Literal["data.imported"]
    added: Annotated[dict[str, int], Field(description="rows that are new here, by table")]
    known: Annotated[dict[str, int], Field(description="rows that were here already, by table")]
    renamed: Annotated[int, Field(description="ids that meant something else here and were replaced")]

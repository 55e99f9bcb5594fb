"""The rows of a fine-tuning job's files, as the service checks them and the learner learns them."""

from collections.abc import Iterator
from functools import partial
from typing import Literal

from familiar.daemon import fine_tuning_data, fine_tuning_recipe
from familiar.daemon.files_store import FilesStore
from familiar.daemon.fine_tuning_data import MAX_LINE_BYTES, BadData, Row
from familiar.memory.errors import InvalidInput, NotFound
from familiar.memory.finetuning_types import Job


def rows(files: FilesStore, job: Job, param: Literal["training_file", "validation_file"]) -> Iterator[Row]:
    """The rows of the job's file of that name, none where it has no such file.

    Raises InvalidInput (``param``) at the first line that is wrong, which it names, or where the file is gone.
    """
    file_id: str | None = getattr(job, param)
    if file_id is None:
        return
    try:
        with files.open(job.user_id, file_id) as file:
            # A line is read as far as it is known to be too long, so that no file fills the memory.
            lines = iter(partial(file.readline, MAX_LINE_BYTES + 1), b"")
            yield from fine_tuning_data.rows(fine_tuning_recipe.type_of(job.method), lines)
    except NotFound as error:
        raise InvalidInput(str(error), param) from error
    except BadData as error:
        raise InvalidInput(f"{file_id}: {error}", param) from error

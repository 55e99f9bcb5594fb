"""The lines of an export: a header, one row a line, and a trailer with their number and their SHA-256. Pure.

    {"familiar_export": 1, "created_at_s": 1730000000.0, "user": "me", "counts": {"memories": 2, ...}}
    {"table": "memories", "id": "mem-...", "text": "Use metric units.", ...}
    {"end": {"rows": 2, "sha256": "..."}}

The SHA-256 is of the lines between header and trailer, with their line ends. A file without its trailer was cut short.
What is left out: what the rows mean (``portable``).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

from familiar.memory.errors import InvalidInput

FORMAT = 1
"""Goes up when an older version could not read what is written."""

MAX_LINE_BYTES = 256_000_000
"""A longer line is no row of ours, and would only fill the memory."""

_HEADER = "familiar_export"
_START = b'{"familiar_export":'


@dataclass(frozen=True)
class Row:
    """One row: the table that it is of, and its values by column."""

    table: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Header:
    """The first line: when the export was made (seconds since the epoch), whose it is, how many rows of each table."""

    created_at_s: float
    user: str
    counts: Mapping[str, int]


class Writer:
    """Makes the lines of one export, in order."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._rows = 0

    def header(self, header: Header) -> bytes:
        """The first line."""
        return _line(
            {
                _HEADER: FORMAT,
                "created_at_s": header.created_at_s,
                "user": header.user,
                "counts": dict(header.counts),
            }
        )

    def row(self, row: Row) -> bytes:
        """The next line."""
        line = _line({"table": row.table, **row.values})
        self._sha256.update(line)
        self._rows += 1
        return line

    def trailer(self) -> bytes:
        """The last line."""
        return _line({"end": {"rows": self._rows, "sha256": self._sha256.hexdigest()}})


class Reader:
    """Reads an export line by line, and checks at its end that it is whole. ``line`` is the number of the last line."""

    def __init__(self, file: BinaryIO) -> None:
        """Read the header. Raises ``InvalidInput`` (param ``file``) when there is none, or it is of a newer version."""
        self._file = file
        self.line = 0
        first = self._object(self._next())
        number = first.get(_HEADER)
        if not isinstance(number, int) or isinstance(number, bool):
            self.refuse("this is not an export of Familiar: `familiar data export` makes one")
        if number > FORMAT:
            self.refuse(
                f"the export has format {number} but this version knows up to {FORMAT}: update familiar-llm first"
            )
        try:
            self.header = Header(
                float(first["created_at_s"]),
                str(first["user"]),
                {str(table): int(count) for table, count in first["counts"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            self.refuse("the header lacks its time, its user or its counts: export again")

    def rows(self) -> Iterator[Row]:
        """The rows. Raises ``InvalidInput`` (param ``file``), naming the line, where the file is not as it was made."""
        sha256, counts = hashlib.sha256(), Counter[str]()
        while True:
            raw = self._next()
            if not raw:
                self.refuse("the file is cut short, its last line is missing: export again", self.line - 1)
            found = self._object(raw)
            if "end" in found:
                break
            table = found.pop("table", None)
            if not isinstance(table, str):
                self.refuse("the line names no table: the file was changed, so export again")
            sha256.update(raw)
            counts[table] += 1
            yield Row(table, found)
        end = found["end"]
        whole = {"rows": counts.total(), "sha256": sha256.hexdigest()}
        if end != whole or dict(counts) != {table: count for table, count in self.header.counts.items() if count}:
            self.refuse("the rows are not those that were exported, by their number or their SHA-256: export again")
        if self._file.readline(1):
            self.refuse("there is more after the last line: export again", self.line + 1)

    def refuse(self, message: str, line: int | None = None) -> NoReturn:
        """Raise ``InvalidInput`` (param ``file``) about the line that was read last, or another."""
        raise InvalidInput(f"Line {self.line if line is None else line}: {message}.", "file")

    def _next(self) -> bytes:
        self.line += 1
        raw = self._file.readline(MAX_LINE_BYTES)
        if len(raw) == MAX_LINE_BYTES:
            self.refuse("the line is too long to be a row")
        return raw

    def _object(self, raw: bytes) -> dict[str, Any]:
        try:
            found = json.loads(raw, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            cut = self.line > 1 and not raw.endswith(b"\n")
            self.refuse(
                "the file is cut short within this line: export again"
                if cut
                else "this is not JSON, so the file is not an export, or was changed: export again"
            )
        if not isinstance(found, dict):
            self.refuse("this is not a JSON object: the file is not an export, or was changed")
        return found


def is_header(line: bytes) -> bool:
    """Whether a file that begins with this line is an export of ours."""
    return line.startswith(_START)


def rewrite(file: BinaryIO, write: Callable[[bytes], object], change: Callable[[Row], Row | None]) -> bool:
    """Copy an export with each row changed, or left out for None, and seal it anew; whether anything changed.

    The file is read twice, as the header counts the rows. Raises ``InvalidInput`` when it is damaged.
    """
    start = file.tell()
    reader, counts, changed = Reader(file), Counter[str](), False
    for row in reader.rows():
        after = change(row)
        changed |= after != row
        counts.update([after.table] if after else [])
    file.seek(start)
    again, writer = Reader(file), Writer()
    header = Header(
        again.header.created_at_s, again.header.user, {table: counts[table] for table in again.header.counts}
    )
    write(writer.header(header))
    for row in again.rows():
        after = change(row)
        if after is not None:
            write(writer.row(after))
    write(writer.trailer())
    return changed


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"JSON has no {name}")

"""Read the header of a GGUF file and check that the file is whole, in plain Python.

llama.cpp aborts the process on some damaged files, so everything is checked here before a path is handed to it. The
``gguf`` package checks less and reads every value: hence a reader of our own. What is left out: big endian files,
versions before 2, and the values of string arrays (a vocabulary), which are stepped over.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from familiar.memory.errors import BadFile

Value = str | int | float | bool | tuple[int | float | bool, ...]

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
UINT32, FLOAT32 = 4, 6
"""Types of metadata that llama.cpp takes for granted in places: it aborts on a number of another."""
_KEPT_ARRAY = 1024
"""Longer arrays of numbers (token scores and types) are stepped over."""
_MAX_TENSORS = _MAX_FIELDS = 1_000_000

F32, F16 = 0, 1
# Elements and bytes of one block of each tensor type, as ggml lays them out.
_BLOCKS = {
    **{F32: (1, 4), F16: (1, 2), 30: (1, 2), 28: (1, 8), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8)},
    **{2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 20: (32, 18), 39: (32, 17)},
    **{10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292)},
    **{16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 21: (256, 110), 22: (256, 82), 23: (256, 136)},
    **{29: (256, 56), 34: (256, 54), 35: (256, 66)},
}


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: ``shape`` in the file's order (the fastest dimension first), ``start`` in bytes from the file's."""

    name: str
    shape: tuple[int, ...]
    type: int
    start: int


@dataclass(frozen=True)
class Header:
    """A GGUF file's metadata, the types that it is stored in, and tensors, by name."""

    path: Path
    metadata: Mapping[str, Value]
    types: Mapping[str, int]
    tensors: Mapping[str, TensorInfo]

    def text(self, key: str) -> str:
        """Return a string of the metadata. Raises BadFile when there is none by that key."""
        value = self.metadata.get(key)
        if not isinstance(value, str):
            raise BadFile(f"{self.path} has no text {key}: it is not a model or adapter that can be used here.")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Return a number of the metadata. Raises BadFile when there is none by that key and no default."""
        value = self.metadata.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadFile(f"{self.path} has no number {key}: it is not a model or adapter that can be used here.")
        return value

    @property
    def architecture(self) -> str:
        """``general.architecture``: llama, qwen3, …"""
        return self.text("general.architecture")


def read_header(path: Path) -> Header:
    """Return the header of a GGUF file once every tensor is known to lie inside the file.

    Raises BadFile when the file is absent, is no GGUF, or is damaged or cut short.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parse(path, _Reader(data))
    except FileNotFoundError as error:
        raise BadFile(f"There is no file {path}.") from error
    except (OSError, ValueError, struct.error) as error:
        if isinstance(error, BadFile):
            raise
        raise BadFile(f"{path} is not a readable GGUF file ({error}).") from error


def read_tensor(header: Header, name: str) -> NDArray[np.float32]:
    """Return a float tensor with its slowest dimension first, as numpy and torch have it. Raises BadFile."""
    info = header.tensors[name]
    if info.type not in (F32, F16):
        raise BadFile(f"{name} in {header.path} is quantised: an adapter must hold 16 or 32 bit floats.")
    dtype = np.dtype("<f4" if info.type == F32 else "<f2")
    flat = np.fromfile(header.path, dtype=dtype, count=prod(info.shape), offset=info.start)
    return flat.reshape(info.shape[::-1]).astype(np.float32)


class _Reader:
    """A position in the file's bytes; reading past the end raises ValueError."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.size = len(data)
        self.at = 0

    def skip(self, length: int) -> int:
        start = self.at
        if length > self.size - start:
            raise ValueError("it is cut short")
        self.at += length
        return start

    def scalar(self, code: str) -> int | float | bool:
        value: int | float | bool = struct.unpack_from("<" + code, self.data, self.skip(struct.calcsize("<" + code)))[0]
        return value

    def count(self, code: str, limit: int) -> int:
        value = int(self.scalar(code))
        if value > limit:
            raise ValueError(f"a count of {value} is out of range")
        return value

    def string(self) -> str:
        length = self.count("Q", self.size)
        start = self.skip(length)
        return bytes(self.data[start : start + length]).decode("utf-8", errors="replace")

    def kind(self) -> int:
        return self.count("I", max(_SCALARS))

    def value(self, kind: int) -> Value | None:
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind])
        return self.string() if kind == _STRING else self.array()

    def array(self) -> Value | None:
        kind = self.kind()
        length = self.count("Q", self.size)
        if kind == _STRING:
            for _ in range(length):
                self.skip(self.count("Q", self.size))
            return None
        if kind not in _SCALARS:
            raise ValueError(f"an array of unknown type {kind}")
        start = self.skip(length * struct.calcsize("<" + _SCALARS[kind]))
        return struct.unpack_from(f"<{length}{_SCALARS[kind]}", self.data, start) if length <= _KEPT_ARRAY else None


def _parse(path: Path, reader: _Reader) -> Header:
    if reader.data[reader.skip(4) : 4] != b"GGUF":
        raise BadFile(f"{path} is not a GGUF file: give the path of a model in GGUF format.")
    version = reader.scalar("I")
    if version not in (2, 3):
        raise ValueError(f"version {version} is not supported")
    tensor_count = reader.count("Q", _MAX_TENSORS)
    field_count = reader.count("Q", _MAX_FIELDS)
    metadata: dict[str, Value] = {}
    types: dict[str, int] = {}
    for _ in range(field_count):
        key = reader.string()
        types[key] = reader.kind()
        value = reader.value(types[key])
        if value is not None:
            metadata[key] = value
    raw = []
    for _ in range(tensor_count):
        name = reader.string()
        dimensions = reader.count("I", 4)
        shape = tuple(reader.count("Q", 2**48) for _ in range(dimensions))
        raw.append((name, shape, reader.count("I", 2**16), reader.count("Q", reader.size)))
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1 or types.get("general.alignment", UINT32) != UINT32:
        raise ValueError("its alignment is not a positive number of 32 bits")
    base = -(-reader.at // alignment) * alignment
    tensors = {}
    for name, shape, kind, offset in raw:
        elements, size = _BLOCKS.get(kind, (1, 0))
        if base + offset + prod(shape) // elements * size > reader.size:
            raise ValueError("it is cut short")
        tensors[name] = TensorInfo(name, shape, kind, base + offset)
    return Header(path, metadata, types, tensors)

"""What this folder's tests share: the modules of ``tools/base_model``, as its scripts import them."""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

BASE_MODEL = Path(__file__).resolve().parents[2] / "tools" / "base_model"


@pytest.fixture(scope="module")
def tools() -> Iterator[Any]:
    """``tools(name)``: a module as the scripts import it, by its bare name, and none of them afterwards."""
    before, path = set(sys.modules), list(sys.path)
    sys.path.insert(0, str(BASE_MODEL))
    yield import_module
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if BASE_MODEL in Path(getattr(sys.modules[name], "__file__", None) or "").parents:
            del sys.modules[name]

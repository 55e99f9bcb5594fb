"""Fixtures shared by all tests: real parts only, each in its own temporary folder."""

import importlib.resources
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def model_path() -> Path:
    """The built-in GGUF model, which is small enough to load in every test that needs one."""
    return Path(str(importlib.resources.files("familiar.daemon.models") / "familiar-base.gguf"))


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """An empty data folder."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder

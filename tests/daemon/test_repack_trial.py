"""The trial of AMX's layout of weights: a real child process, and what is kept of its verdict."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from familiar.daemon import repack_trial


def test_a_verdict_is_found_in_a_child_and_kept(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts = tmp_path / "cache" / "verdicts.json"
    assert repack_trial.survives(model_path, verdicts)  # 16-bit weights, which every build survives
    assert list(json.loads(verdicts.read_text()).values()) == [True]

    def run(*_: Any, **__: Any) -> None:
        raise AssertionError("the verdict was known")

    monkeypatch.setattr(subprocess, "run", run)
    assert repack_trial.survives(model_path, verdicts)


@pytest.mark.parametrize("kept", ["", "{", "[1]", '{"another library": true}'])
def test_a_child_that_dies_is_a_no_whatever_was_kept(tmp_path: Path, kept: str) -> None:
    verdicts, broken = tmp_path / "verdicts.json", tmp_path / "broken.gguf"
    verdicts.write_text(kept)
    broken.write_bytes(b"GGUF" + bytes(100))
    assert not repack_trial.survives(broken, verdicts)
    assert False in json.loads(verdicts.read_text()).values()

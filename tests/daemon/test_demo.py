"""The demo: its verdict by the figures, its prompts against the training material, and the whole of it on the model."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from familiar.daemon import demo
from familiar.daemon.demo_prompts import CORRECTED, PREFERENCE, PROBES, REMEMBERED, closing_line

ROOT = Path(__file__).parents[2]
GOOD = demo.Figures(adherence={"base": 0.1, "memory": 0.8, "adapter": 0.9, "both": 1.0}, general_kept=1.0)


def failures(figures: demo.Figures) -> list[str]:
    """The verdict on these figures."""
    judged = replace(figures, failures=[])
    demo.verdict(judged)
    return judged.failures


def test_a_working_loop_passes() -> None:
    assert failures(GOOD) == []


@pytest.mark.parametrize(
    ("name", "share"), [("base", 0.3), ("memory", 0.79), ("adapter", 0.8), ("both", 0.8), ("both", None)]
)
def test_each_share_that_is_not_reached_is_named(name: str, share: float | None) -> None:
    said = failures(replace(GOOD, adherence={**GOOD.adherence, name: share}))
    assert len(said) == 1
    assert said[0].startswith(f"followed by {name} ")


@pytest.mark.parametrize("kept", [0.97, None])
def test_general_answers_must_be_kept(kept: float | None) -> None:
    said = failures(replace(GOOD, general_kept=kept))
    assert len(said) == 1
    assert "general answers kept" in said[0]


def test_the_table_and_the_json_say_the_same() -> None:
    figures = replace(GOOD, failures=["something failed"], seconds={"learn": 12.0})
    shown = demo.table(figures)
    assert "NOT OK: something failed" in shown
    assert "learn 12 s" in shown
    assert demo.report(figures)["ok"] is False
    assert demo.report(GOOD)["ok"] is True
    assert re.search(r"adapter +90%", shown)


def test_a_preference_follows_what_it_rewrites() -> None:
    for preference in (PREFERENCE, closing_line("That is all.")):
        assert not preference.follows("Boil them for eight minutes.")
        assert preference.follows(preference.rewrite("Boil them for eight minutes.\n"))
        assert preference.rewrite("Boil them.").startswith("Boil them.")


def test_probes_are_never_corrected() -> None:
    assert len({*CORRECTED, REMEMBERED, *PROBES}) == len(CORRECTED) + 1 + len(PROBES)


def test_the_prompts_are_not_in_the_training_material() -> None:
    material = [path for path in (ROOT / "tools" / "base_model").rglob("*") if path.suffix in (".py", ".jsonl", ".txt")]
    assert material
    text = "\n".join(path.read_text(encoding="utf-8") for path in material).casefold()
    assert [each for each in (*CORRECTED, REMEMBERED, *PROBES, PREFERENCE.rule) if each.casefold() in text] == []


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    command = [sys.executable, "-m", "familiar.daemon", "demo", "--keep", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "is not empty" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_loop_works_on_the_built_in_model(tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("FAMILIAR_")}
    folder = tmp_path / "demo"
    command = [sys.executable, "-m", "familiar.daemon", "demo", "--json", "--keep", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, env=env | {"XDG_CONFIG_HOME": os.devnull})
    figures = json.loads(result.stdout)
    assert result.returncode == 0, figures["failures"]
    assert figures["ok"]
    assert set(figures["adherence"]) == {"base", "memory", "adapter", "both"}
    assert (folder / "adapter.gguf").read_bytes()[:4] == b"GGUF"
    assert (folder / "adapter-peft" / "adapter_config.json").is_file()

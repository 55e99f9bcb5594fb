"""``familiar rule`` with what checks a rule, and ``familiar graders``, on a real store."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from familiar.daemon.cli import cli
from familiar.feedback.ready_graders import READY, ready
from familiar.memory.errors import FamiliarError, InvalidInput, NotFound
from familiar.memory.store import Store

ME = 1


def familiar(*arguments: str, data_dir: Path | None = None) -> Result:
    env = {"FAMILIAR_USER": None, "XDG_CONFIG_HOME": os.devnull}
    where = [] if data_dir is None else ["--data-dir", str(data_dir)]
    return CliRunner().invoke(cli, [*arguments, *where], env=env)


def ok(result: Result) -> str:
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_a_rule_is_stated_with_what_checks_it(data_dir: Path, tmp_path: Path) -> None:
    own = {"type": "string_check", "name": "ends well", "input": "{{sample.output_text}}", "operation": "like"}
    own |= {"reference": "Cheers"}
    (tmp_path / "own.json").write_text(json.dumps(own))
    said = ok(
        familiar(
            *("rule", "add", "Be brief.", "--grader", "max_words=50", "--grader", str(tmp_path / "own.json")),
            data_dir=data_dir,
        )
    )
    assert said.splitlines() == ["Remembered: Be brief.", "Checked by: max_words=50", "Checked by: ends well"]
    ok(familiar("rule", "Use metric units.", data_dir=data_dir))
    ok(familiar("rule", "add", "be brief", "--grader", "no-emoji", data_dir=data_dir))
    with Store.open(data_dir / "familiar.db") as store:
        brief, metric = sorted(store.memories(ME, "rule"), key=lambda each: each.text.casefold())
        graders = store.graders(ME)
    assert [(grader.name, grader.memory_id) for grader in graders] == [
        ("max_words=50", brief.id),
        ("ends well", brief.id),
        ("no_emoji", brief.id),
    ]
    assert graders[0].definition == ready("max_words", words=50)
    listed: Any = json.loads(ok(familiar("rule", "list", "--json", data_dir=data_dir)))
    assert {each["id"]: len(each["graders"]) for each in listed["data"]} == {brief.id: 3, metric.id: 0}
    head, *lines = ok(familiar("rule", "list", data_dir=data_dir)).splitlines()
    assert head.split() == ["id", "checked", "by", "rule"]
    (line,) = [line for line in lines if "be brief" in line]
    assert "max_words=50 (grader-" in line
    assert ok(familiar("rule", "detach", graders[0].id[:20], data_dir=data_dir)) == "Detached: max_words=50\n"
    assert "max_words" not in ok(familiar("rule", "list", data_dir=data_dir))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("rule", "add", "Be brief.", "--grader", "max_word=5"), NotFound),
        (("rule", "add", "Be brief.", "--grader", "max_words=few"), InvalidInput),
        (("rule", "add", "Be brief.", "--grader", "nowhere.json"), InvalidInput),
        (("rule", "add", "Be brief.", "--grader", "bad.json"), InvalidInput),
        (("rule", "add", "Be brief.", "--grader", "list.json"), InvalidInput),
        (("rule", "add", "Be brief.", "--grader", "wrong.json"), InvalidInput),
        (("rule", "add", " ", "--grader", "no_emoji"), InvalidInput),
        (("rule", "detach", "grader-1"), NotFound),
    ],
)
def test_what_is_wrong_leaves_no_rule(
    arguments: tuple[str, ...],
    error: type[FamiliarError],
    data_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in (("bad", "{"), ("list", "[]"), ("wrong", '{"type": "python", "name": "x", "source": "def"}')):
        Path(f"{name}.json").write_text(text)
    result = familiar(*arguments, data_dir=data_dir)
    assert isinstance(result.exception, error), result.output
    with Store.open(data_dir / "familiar.db") as store:
        assert store.memories(ME) == []
        assert store.graders(ME) == []


def test_the_ready_graders_are_listed_and_printed_as_json() -> None:
    head, *lines = ok(familiar("graders")).splitlines()
    assert head.startswith("grader")
    assert [line.split()[0].partition("=")[0] for line in lines] == list(READY)
    assert json.loads(ok(familiar("graders", "max_words=9"))) == ready("max_words", words=9)
    assert [each["name"] for each in json.loads(ok(familiar("graders", "--json")))["data"]] == list(READY)
    assert isinstance(familiar("graders", "max_words").exception, InvalidInput)


def test_no_rules_yet(data_dir: Path) -> None:
    assert "familiar rule add" in ok(familiar("rule", "list", data_dir=data_dir))

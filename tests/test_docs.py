"""The documents say what the program does: every command, option, setting and route is in them."""

import re
from pathlib import Path

import click
import pytest

from familiar.daemon.cli import cli

ROOT = Path(__file__).parent.parent
CLI = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


def commands(group: click.Command, path: str = "familiar") -> list[tuple[str, click.Command]]:
    if not isinstance(group, click.Group):
        return [(path, group)]
    return [found for name, each in group.commands.items() for found in commands(each, f"{path} {name}")]


@pytest.mark.parametrize(("path", "command"), commands(cli), ids=lambda value: value if isinstance(value, str) else "")
def test_every_command_and_option_is_documented(path: str, command: click.Command) -> None:
    section = re.search(rf"^### `{re.escape(path)}`.*?(?=^##|\Z)", CLI, re.MULTILINE | re.DOTALL)
    assert section, f"docs/cli.md has no section for `{path}`"
    assert command.help, f"{path} has no help text"
    shared = CLI.split("## Options that several commands take")[1].split("\n## ")[0]
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            names = [name for name in parameter.opts if name.startswith("--")]
            assert any(f"`{name}" in section[0] or f"`{name}" in shared for name in names), f"{path} {names}"


def test_every_documented_command_exists() -> None:
    known = {path for path, _ in commands(cli)}
    assert set(re.findall(r"^### `(familiar(?: [a-z]+)*)`", CLI, re.MULTILINE)) == known


def test_every_make_target_of_the_readme_exists() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"`?make ([a-z-]+)`?", readme))
    assert {"serve", "test"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_links_between_documents_lead_somewhere() -> None:
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "daemon" / "models" / "README.md"]:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"

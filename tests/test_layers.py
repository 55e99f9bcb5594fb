"""Imports point downwards only: daemon -> adapters -> feedback -> memory."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("memory", "feedback", "adapters", "daemon")
NOT_IN_SERVICE = {"torch", "peft", "transformers"}


def imported(path: Path, *, lazily: bool = True) -> set[str]:
    """Return the modules that a file imports; without ``lazily`` only those imported when it is loaded."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if lazily else iter(tree.body)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_down(layer: str) -> None:
    files = sorted((ROOT / layer).rglob("*.py"))
    assert files
    above = LAYERS[LAYERS.index(layer) + 1 :]
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in imported(path)
        if any(name == f"familiar.{other}" or name.startswith(f"familiar.{other}.") for other in above)
    ]
    assert not wrong


@pytest.mark.parametrize("layer", ["memory", "feedback"])
def test_lower_layers_know_no_http_and_no_torch(layer: str) -> None:
    banned = NOT_IN_SERVICE | {"fastapi", "httpx", "uvicorn", "starlette", "llama_cpp"}
    wrong = [
        f"{path.name} imports {name}"
        for path in (ROOT / layer).rglob("*.py")
        for name in imported(path)
        if name.split(".")[0] in banned
    ]
    assert not wrong


def test_service_modules_load_without_torch() -> None:
    code = (
        "import sys, familiar.daemon.app, familiar.daemon.server, familiar.daemon.engine, familiar.daemon.cli\n"
        f"print(sorted({NOT_IN_SERVICE!r} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"

"""From a model's name to its file: the built-in one, paths, and a hub that is a real HTTP server on this machine."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from familiar.daemon import model_files
from familiar.daemon.model_parts import model_parts
from familiar.memory.errors import BadFile, InvalidInput, NotFound

COMMIT = "a" * 40
GGUF = b"GGUF" + bytes(60)


@dataclass
class Hub:
    """A model hub over HTTP, as far as listing and downloading need one.

    ``status`` other than 200 fails every call; of the files in ``tampered`` other bytes are sent than are announced.
    """

    files: dict[str, dict[str, bytes]]
    url: str = ""
    status: int = 200
    tampered: set[str] = field(default_factory=set)
    downloads: list[str] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        if self.status != 200:
            self._send(request, self.status, b"{}")
        elif path.startswith("/api/models/"):
            repo = path.removeprefix("/api/models/")
            if repo not in self.files:
                self._send(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"})
                return
            described = {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.files[repo]]}
            self._send(request, 200, json.dumps(described).encode(), {"Content-Type": "application/json"})
        else:
            self._file(request, path)

    def _file(self, request: BaseHTTPRequestHandler, path: str) -> None:
        repo, _, rest = path.lstrip("/").partition("/resolve/")
        name = rest.partition("/")[2]
        if repo not in self.files:
            self._send(request, 404, b"", {"X-Error-Code": "RepoNotFound"})
        elif name not in self.files[repo]:
            self._send(request, 404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            data = self.files[repo][name]
            if request.command == "GET":
                self.downloads.append(name)
            sent = data[:-1] + b"?" if name in self.tampered else data
            self._send(request, 200, sent, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT})

    @staticmethod
    def _send(request: BaseHTTPRequestHandler, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        request.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(data)


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub(
        {
            "me/one": {"README.md": b"#", "only.gguf": GGUF + b"1"},
            "me/many": {
                name: GGUF + name.encode()
                for name in ("m-Q4_K_M.gguf", "m-Q8_0.gguf", "m-Q4_K_S.gguf", "mmproj-m-Q8_0.gguf", "sub/m-F16.gguf")
            },
            "me/odd": {"a-Q2_K.gguf": GGUF, "b-Q3_K.gguf": GGUF},
            "me/split": {f"big-Q8_0-0000{number}-of-00002.gguf": GGUF + bytes([number]) for number in (1, 2)},
            "me/none": {"README.md": b"#"},
            "me/fake": {"only.gguf": b"<html>"},
        }
    )

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            made.answer(self)

        do_HEAD = do_GET  # the base class's name

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


def resolve(model: str, hub: Hub, tmp_path: Path) -> tuple[Path, list[str]]:
    said: list[str] = []
    return model_files.resolve(model, said.append, endpoint=hub.url, cache_dir=tmp_path / "cache"), said


def test_the_builtin_model_is_packaged(model_path: Path) -> None:
    assert model_files.resolve("builtin") == model_path


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "any.bin"
    file.write_bytes(GGUF)
    assert model_files.resolve(str(file)) == file


def test_a_file_that_is_not_gguf_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"PK\x03\x04")
    with pytest.raises(BadFile, match=r"model\.gguf is not a GGUF file"):
        model_files.resolve(str(file))
    with pytest.raises(BadFile, match="is a folder"):
        model_files.resolve(str(tmp_path))


@pytest.mark.parametrize("model", ["nothing.gguf", "models/nothing.gguf", "/nowhere/at/all.gguf", "./x/y", "a b/c"])
def test_what_is_neither_a_file_nor_a_hub_id_is_one_clear_line(model: str) -> None:
    with pytest.raises(NotFound, match="no model file at") as caught:
        model_files.resolve(model)
    assert caught.value.param == "model"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "file"),
    [
        ("me/one", "only.gguf"),
        ("me/many", "m-Q8_0.gguf"),
        ("me/many:q4_k_m", "m-Q4_K_M.gguf"),
        ("me/many:F16", "m-F16.gguf"),
        ("me/many/m-Q4_K_S.gguf", "m-Q4_K_S.gguf"),
        ("me/many/sub/m-F16.gguf", "m-F16.gguf"),
    ],
)
def test_a_hub_id_is_downloaded(model: str, file: str, hub: Hub, tmp_path: Path) -> None:
    path, said = resolve(model, hub, tmp_path)
    assert path.name == file
    assert path.read_bytes().startswith(GGUF)
    assert len(said) == 1
    assert file in said[0]


def test_a_second_time_downloads_nothing(hub: Hub, tmp_path: Path) -> None:
    first, _ = resolve("me/many", hub, tmp_path)
    second, said = resolve("me/many", hub, tmp_path)
    assert second == first
    assert said == []
    assert hub.downloads == ["m-Q8_0.gguf"]


def test_what_is_here_is_taken_without_asking_the_hub(hub: Hub, tmp_path: Path) -> None:
    first, _ = resolve("me/many:Q4_K_M", hub, tmp_path)
    hub.status = 500
    for model in ("me/many", "me/many:q4_k_m", "me/many/m-Q4_K_M.gguf"):
        assert resolve(model, hub, tmp_path) == (first, [])
        assert model_files.find(model, cache_dir=tmp_path / "cache") == first
    assert model_files.find("me/many:Q8_0", cache_dir=tmp_path / "cache") is None


def test_a_split_model_is_fetched_whole_and_named_by_its_first_part(hub: Hub, tmp_path: Path) -> None:
    names = ["big-Q8_0-00001-of-00002.gguf", "big-Q8_0-00002-of-00002.gguf"]
    for model in ("me/split", "me/split:Q8_0", f"me/split/{names[1]}"):
        path, _ = resolve(model, hub, tmp_path)
        assert path.name == names[0]
        assert [part.read_bytes() for part in model_parts(path)] == [GGUF + b"\x01", GGUF + b"\x02"]
    assert hub.downloads == names
    model_parts(path)[1].unlink()
    with pytest.raises(BadFile, match=r"one of 2 parts of a model, of which big-Q8_0-00002-of-00002\.gguf is missing"):
        model_files.resolve(str(path))
    assert resolve("me/split", hub, tmp_path)[0] == path
    assert len(model_parts(path)) == 2


def test_a_file_that_changed_in_the_cache_is_fetched_again_by_pull(hub: Hub, tmp_path: Path) -> None:
    path, _ = resolve("me/one", hub, tmp_path)
    good = path.read_bytes()
    said: list[str] = []
    path.write_bytes(good[:-1] + b"?")
    pulled = model_files.pull("me/one", said.append, endpoint=hub.url, cache_dir=tmp_path / "cache")
    assert pulled == path
    assert path.read_bytes() == good
    assert "is not what the model hub has" in said[0]
    assert hub.downloads == ["only.gguf"] * 2


def test_what_is_not_the_file_that_was_announced_is_refused_and_deleted(hub: Hub, tmp_path: Path) -> None:
    hub.tampered = {"only.gguf"}
    with pytest.raises(BadFile, match=r"me/one/only\.gguf is not the file that the model hub announced") as caught:
        resolve("me/one", hub, tmp_path)
    assert "\n" not in str(caught.value)
    hub.tampered = set()
    path, _ = resolve("me/one", hub, tmp_path)
    assert path.read_bytes() == GGUF + b"1"


def test_what_is_no_hub_is_one_clear_line(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "answer", lambda request: hub._send(request, 200, b"<html>Please sign in</html>"))
    with pytest.raises(NotFound, match=r"What answered for me/one is no model hub: check HF_ENDPOINT") as caught:
        resolve("me/one", hub, tmp_path)
    assert "\n" not in str(caught.value)


def test_several_files_that_fit_are_listed(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"a-Q2_K\.gguf, b-Q3_K\.gguf.*me/odd/FILE"):
        resolve("me/odd", hub, tmp_path)
    with pytest.raises(InvalidInput, match=r"that fit :Q4_K\b.*m-Q4_K_M\.gguf"):
        resolve("me/many:Q4_K", hub, tmp_path)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("me/nobody", "no me/nobody"),
        ("me/nobody/x.gguf", "no me/nobody"),
        ("me/one/x.gguf", r"no file me/one/x\.gguf"),
        ("me/one/x.gguf", r"its models are only\.gguf"),
        ("me/none", "me/none holds no GGUF model"),
    ],
)
def test_what_the_hub_does_not_have_is_one_clear_line(model: str, expected: str, hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=expected) as caught:
        resolve(model, hub, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_download_that_is_not_gguf_is_refused(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="not a GGUF file"):
        resolve("me/fake", hub, tmp_path)


def test_a_hub_that_refuses_is_one_clear_line(hub: Hub, tmp_path: Path) -> None:
    hub.status = 403
    with pytest.raises(NotFound, match="HTTP 403") as caught:
        resolve("me/one", hub, tmp_path)
    assert "\n" not in str(caught.value)


def test_offline_uses_what_was_downloaded_and_else_says_so(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    online, _ = resolve("me/many", hub, tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # HF_HUB_OFFLINE is read at its import
    for model in ("me/many", "me/many:Q8_0", "me/many/m-Q8_0.gguf"):
        offline, said = resolve(model, hub, tmp_path)
        assert offline == online
        assert said == []
    for model in ("me/one", "me/one/only.gguf"):
        with pytest.raises(NotFound, match=r"cannot be reached for me/one.*check the connection") as caught:
            resolve(model, hub, tmp_path)
        assert "\n" not in str(caught.value)


# The commands


def familiar(hub: Hub, tmp_path: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command with a cache of its own and the hub of the test."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("FAMILIAR_", "HF_"))}
    env |= {"XDG_CONFIG_HOME": os.devnull, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), **variables}
    env["FAMILIAR_DATA_DIR"] = str(tmp_path / "data")
    command = [sys.executable, "-m", "familiar.daemon", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=env, stdin=subprocess.DEVNULL)


def listed(hub: Hub, tmp_path: Path, **variables: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads(familiar(hub, tmp_path, "models", "--json", **variables).stdout)[
        "models"
    ]
    return entries


def test_pull_and_models_from_first_to_last(hub: Hub, tmp_path: Path, model_path: Path) -> None:
    hub.files["me/real"] = {"real-Q8_0.gguf": model_path.read_bytes()}
    [builtin] = listed(hub, tmp_path)
    assert (builtin["id"], builtin["configured"], builtin["chat_template"]) == ("builtin", True, True)
    assert (builtin["size_bytes"], builtin["context_tokens"]) == (model_path.stat().st_size, 1024)

    for _ in range(2):
        pulled = familiar(hub, tmp_path, "pull", "me/real")
        assert pulled.returncode == 0, pulled.stderr
        lines = [line.split(maxsplit=1) for line in pulled.stdout.splitlines()]
        assert lines[0] == ["Familiar", "Base"]
        assert ["architecture", "llama"] in lines
        assert ["context", "1024 tokens"] in lines
        assert ["parameters", "5.2 M"] in lines
        assert pulled.stdout.endswith("familiar serve --model me/real\n")
    assert hub.downloads == ["real-Q8_0.gguf"]

    hub.status = 500  # from here on nothing needs it
    assert familiar(hub, tmp_path, "pull", "me/real").stdout == pulled.stdout
    folder = tmp_path / "data" / "models"
    folder.mkdir(parents=True)
    (folder / "cut.gguf").write_bytes(model_path.read_bytes()[:-1])
    entries = {entry["id"]: entry for entry in listed(hub, tmp_path, FAMILIAR_MODEL="me/real:Q8_0")}
    assert set(entries) == {"builtin", "me/real/real-Q8_0.gguf", str(folder / "cut.gguf")}
    assert [entry["id"] for entry in entries.values() if entry["configured"]] == ["me/real/real-Q8_0.gguf"]
    assert "cut short" in entries[str(folder / "cut.gguf")]["error"]
    shown = familiar(hub, tmp_path, "models", FAMILIAR_MODEL="me/other").stdout
    assert "The configured model, me/other, is not here: `familiar pull me/other` fetches it." in shown
    assert "* " not in shown
    shown = familiar(hub, tmp_path, "models", FAMILIAR_EMBEDDING_MODEL="me/real").stdout
    assert re.search(r"found by meaning with .*real-Q8_0\.gguf \(10 MB\)", shown)
    shown = familiar(hub, tmp_path, "models", FAMILIAR_EMBEDDING_MODEL="me/other").stdout
    assert "by their words alone: `familiar pull me/other` fetches" in shown
    assert "alone, as embedding_model says" in familiar(hub, tmp_path, "models", FAMILIAR_EMBEDDING_MODEL="none").stdout


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("me/nobody", "The model hub has no me/nobody"),
        ("me/one", "not a readable GGUF file"),
    ],
)
def test_a_pull_that_cannot_be_is_one_line(model: str, expected: str, hub: Hub, tmp_path: Path) -> None:
    done = familiar(hub, tmp_path, "pull", model, HF_HUB_DISABLE_PROGRESS_BARS="1")
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if not line.startswith("Downloading ")]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("familiar: ")
    assert expected in lines[0]


def test_a_pull_with_no_hub_is_one_line_and_does_not_wait(hub: Hub, tmp_path: Path) -> None:
    done = familiar(hub, tmp_path, "pull", "me/one", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "cannot be reached for me/one" in done.stderr

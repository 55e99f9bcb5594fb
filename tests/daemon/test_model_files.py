"""From a model's name to its file: the built-in one, paths, and a hub that is a real HTTP server on this machine."""

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from familiar.daemon import model_files
from familiar.memory.errors import BadFile, InvalidInput, NotFound

COMMIT = "a" * 40
GGUF = b"GGUF" + bytes(60)


@dataclass
class Hub:
    """A model hub over HTTP, as far as listing and downloading need one. ``status`` other than 200 fails every call."""

    files: dict[str, dict[str, bytes]]
    url: str = ""
    status: int = 200
    downloads: list[str] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        if self.status != 200:
            self._send(request, self.status, b"{}")
        elif path.startswith("/api/models/"):
            repo, _, _ = path.removeprefix("/api/models/").partition("/tree/")
            if repo not in self.files:
                self._send(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"})
                return
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in self.files[repo].items()
            ]
            self._send(request, 200, json.dumps(entries).encode(), {"Content-Type": "application/json"})
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
            self._send(request, 200, data, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT})

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
            "me/split": {"big-Q8_0-00001-of-00002.gguf": GGUF, "big-Q8_0-00002-of-00002.gguf": GGUF},
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
    thread = threading.Thread(target=server.serve_forever)
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


def test_several_files_that_fit_are_listed(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"a-Q2_K\.gguf, b-Q3_K\.gguf.*me/odd/FILE"):
        resolve("me/odd", hub, tmp_path)
    with pytest.raises(InvalidInput, match=r"that fit :Q4_K\b.*m-Q4_K_M\.gguf"):
        resolve("me/many:Q4_K", hub, tmp_path)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("me/nobody", "no me/nobody"),
        ("me/nobody/x.gguf", r"no me/nobody/x\.gguf"),
        ("me/one/x.gguf", r"no file me/one/x\.gguf"),
        ("me/split", "no single-file GGUF"),
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

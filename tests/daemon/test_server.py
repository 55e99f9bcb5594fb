"""The service as a process: ready, found, refused twice, ended in good order, and back after a kill."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from familiar.daemon import service_record
from familiar.memory.errors import Busy

RUN = """
import json, sys
from familiar.daemon import server, settings
from familiar.memory.errors import FamiliarError
try:
    server.run(settings.load(json.loads(sys.argv[1]), {}))
except FamiliarError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""
CHAT = {"model": "familiar", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}


class Process:
    """A service in a process of its own, and what it says on stderr."""

    def __init__(self, flags: dict[str, Any]) -> None:
        command = [sys.executable, "-c", RUN, json.dumps({"threads": 1, **flags})]
        self.child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.child.stderr is not None
        self.lines.extend(line.rstrip("\n") for line in self.child.stderr)

    def wait_ready(self, file: Path) -> str:
        """Its address, once its file names this process."""
        end = time.monotonic() + 120
        while True:
            assert self.child.poll() is None, self.lines
            assert time.monotonic() < end, self.lines
            try:
                record = json.loads(file.read_text(encoding="utf-8"))
            except FileNotFoundError:
                record = {}
            if record.get("pid") == self.child.pid:
                return f"http://{record['host']}:{record['port']}"
            time.sleep(0.02)

    def end(self, how: signal.Signals | None = None) -> int:
        """Its exit status; asked to end by a signal unless it ends by itself."""
        if how is not None and self.child.poll() is None:
            self.child.send_signal(how)
        code = self.child.wait(60)
        self._reader.join()
        assert self.child.stderr is not None
        self.child.stderr.close()
        return code


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    running: list[Process] = []

    def begin(data_dir: Path, **flags: Any) -> Process:
        running.append(Process({"data_dir": str(data_dir), "port": 0, **flags}))
        return running[-1]

    yield begin
    for process in running:
        if process.child.poll() is None:
            process.end(signal.SIGKILL)


def get(url: str) -> Any:
    return httpx.get(url, timeout=30, trust_env=False).json()


def post(url: str, body: Any) -> Any:
    return httpx.post(url, json=body, timeout=60, trust_env=False).json()


def test_a_service_is_found_answers_without_torch_and_ends_in_good_order(
    start: Callable[..., Process], data_dir: Path
) -> None:
    file = data_dir / "service.json"
    process = start(data_dir)
    url = process.wait_ready(file)
    assert set(json.loads(file.read_text())) == {"pid", "host", "port", "model", "data_dir", "token"}
    assert oct(file.stat().st_mode & 0o777) == "0o600"
    assert get(f"{url}/health") == {"status": "ok", "pid": process.child.pid}
    assert post(f"{url}/v1/chat/completions", CHAT)["choices"][0]["message"]["role"] == "assistant"
    status = get(f"{url}/v1/status")
    assert status["torch_loaded"] is False
    assert status["pid"] == process.child.pid
    assert process.end(signal.SIGTERM) == 0
    assert not file.exists()
    # ggml may complain of the CPU on its own account, before.
    assert url in process.lines[-1]
    # llama-cpp-python may have been built for another processor, which is said.
    said = [line for line in process.lines if "another processor" not in line]
    assert not any("Traceback" in line or line.startswith("familiar: ") for line in said), process.lines


def test_ctrl_c_ends_it_too(start: Callable[..., Process], data_dir: Path) -> None:
    process = start(data_dir)
    process.wait_ready(data_dir / "service.json")
    assert process.end(signal.SIGINT) == 0
    assert not (data_dir / "service.json").exists()


@pytest.mark.parametrize(
    "moment", ["server._listen", "service_record.written", "server.build_server", "server.create_app"]
)
def test_a_signal_at_a_delicate_moment_ends_it_in_good_order(data_dir: Path, moment: str) -> None:
    """The signal arrives while that function runs: nothing stays behind, and the service does not run on without it."""
    at_moment = f"""
import os, signal
from familiar.daemon import server, service_record
usual = {moment}
def interrupted(*arguments, **options):
    os.kill(os.getpid(), signal.SIGINT)
    return usual(*arguments, **options)
{moment} = interrupted
"""
    flags = json.dumps({"data_dir": str(data_dir), "port": 0, "threads": 1})
    ended = subprocess.run(
        [sys.executable, "-c", at_moment + RUN, flags], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Familiar serves" in ended.stderr
    assert not [path.name for path in data_dir.iterdir() if "service.json" in path.name]


def test_a_second_service_on_the_same_data_is_refused(start: Callable[..., Process], data_dir: Path) -> None:
    first = start(data_dir)
    url = first.wait_ready(data_dir / "service.json")
    second = start(data_dir)
    assert second.end() == 1
    assert second.lines == [
        f"Busy: A service runs on {data_dir} already (process {first.child.pid}, {url}): "
        f"end it, or give another --data-dir."
    ]
    assert get(f"{url}/health")["pid"] == first.child.pid


def test_a_port_in_use_is_one_line(start: Callable[..., Process], data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start(data_dir, port=port)
        assert process.end() == 1
    assert process.lines == [
        f"Busy: Port {port} of 127.0.0.1 is in use: end what listens there, or choose another with --port."
    ]


def test_a_host_that_is_not_this_machine_is_one_line(start: Callable[..., Process], data_dir: Path) -> None:
    process = start(data_dir, host="192.0.2.1")
    assert process.end() == 1
    assert len(process.lines) == 1, process.lines
    assert process.lines[0].startswith("InvalidInput: 192.0.2.1 cannot be listened on")


def test_a_model_that_is_not_gguf_is_one_line(start: Callable[..., Process], data_dir: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    model.write_text("not a model")
    process = start(data_dir, model=str(model))
    assert process.end() == 1
    assert len(process.lines) == 1, process.lines
    assert "is not a GGUF file" in process.lines[0]


def test_a_warning_is_given_outside_loopback(start: Callable[..., Process], data_dir: Path) -> None:
    process = start(data_dir, host="0.0.0.0")
    url = process.wait_ready(data_dir / "service.json")
    assert url.startswith("http://127.0.0.1:")
    assert get(f"{url}/health")["status"] == "ok"
    assert process.end(signal.SIGTERM) == 0
    assert any("open to the network" in line for line in process.lines)


def test_after_a_kill_it_starts_again_with_everything_acknowledged(
    start: Callable[..., Process], data_dir: Path
) -> None:
    file = data_dir / "service.json"
    first = start(data_dir)
    url = first.wait_ready(file)
    reply = post(f"{url}/v1/chat/completions", CHAT)
    said = post(f"{url}/v1/feedback", {"completion_id": reply["id"], "correction": "Good day."})
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    assert file.exists()
    second = start(data_dir)
    url = second.wait_ready(file)
    assert get(f"{url}/v1/memories")["data"] == said["memories"]
    assert get(f"{url}/v1/exchanges/{reply['id']}")["completion"] == reply["choices"][0]["message"]["content"]


def test_a_folder_that_was_copied_in_use_can_be_served_beside_it(
    start: Callable[..., Process], data_dir: Path, tmp_path: Path
) -> None:
    first = start(data_dir)
    url = first.wait_ready(data_dir / "service.json")
    copy = shutil.copytree(data_dir, tmp_path / "copy")
    second = start(copy)
    assert get(f"{second.wait_ready(copy / 'service.json')}/v1/status")["data_dir"] == str(copy)
    with pytest.raises(Busy, match=f"process {first.child.pid}, {url}"):
        service_record.refuse_second(data_dir / "service.json")
    assert first.end(signal.SIGTERM) == second.end(signal.SIGTERM) == 0


def test_a_file_of_a_process_that_does_not_answer_is_ignored(start: Callable[..., Process], data_dir: Path) -> None:
    file = data_dir / "service.json"
    with service_record.written(file, "127.0.0.1", 1, Path("model.gguf"), "token"):
        left = file.read_text()
    file.write_text(left)
    process = start(data_dir)
    process.wait_ready(file)
    assert process.end(signal.SIGTERM) == 0

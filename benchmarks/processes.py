"""Start a server as a child process, wait until it answers, look at it, and end it."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from client import Address, ask

READY_S = 180.0
END_S = 20.0


def free_port() -> int:
    """A port of loopback that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@dataclass(frozen=True)
class Running:
    """A server that runs: ``with start(…) as server:`` ends it at the end of the block."""

    name: str
    address: Address
    process: "subprocess.Popen[bytes]"
    log: Path
    load_s: float

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def rss_mb(self) -> float:
        """Memory of the process and its children, in units of a million bytes."""
        process = psutil.Process(self.process.pid)
        total = process.memory_info().rss + sum(child.memory_info().rss for child in process.children(recursive=True))
        return float(total / 1e6)

    def private_mb(self) -> float:
        """Memory that is the process's alone: without the pages of files, such as the model's, that it maps."""
        info = psutil.Process(self.process.pid).memory_full_info()
        return float(info.uss / 1e6)

    def open_files(self) -> int:
        """File descriptors in use."""
        return int(psutil.Process(self.process.pid).num_fds())

    def threads(self) -> int:
        """Threads of the process."""
        return int(psutil.Process(self.process.pid).num_threads())

    def libraries(self) -> set[Path]:
        """The llama.cpp libraries that the process has mapped; empty where the system does not say."""
        maps = Path(f"/proc/{self.process.pid}/maps")
        if not maps.is_file():
            return set()
        paths = {line.split(maxsplit=5)[-1] for line in maps.read_text().splitlines() if ".so" in line}
        return {Path(path).resolve() for path in paths if Path(path).name.startswith(("libllama.", "libggml"))}

    def state(self) -> str:
        """Whether it runs, and the end of its output: for the message of an error."""
        code = self.process.poll()
        return f"{self.name} {'runs' if code is None else f'ended with status {code}'}\n{_tail(self.log)}".rstrip()

    def stop(self) -> None:
        """End it, by force when it does not end by itself."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(END_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def start(
    name: str,
    command: Sequence[str],
    *,
    port: int,
    log: Path,
    env: Mapping[str, str] | None = None,
    key: str | None = None,
    ready_path: str = "/v1/models",
) -> Running:
    """Start a server and wait until ``ready_path`` answers 200; its output goes to the file ``log``.

    Raises RuntimeError, with the end of its output, when it dies or is not ready in time.
    """
    address, started = Address("127.0.0.1", port, key), time.monotonic()
    with log.open("wb") as output:
        # A group of its own: Ctrl-C in the terminal is for the benchmark, which then ends its servers in order.
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})}, start_new_session=True
        )
    running = Running(name, address, process, log, 0.0)
    try:
        while not _answers(address, ready_path):
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended with status {process.returncode} at its start:\n{_tail(log)}")
            if time.monotonic() - started > READY_S:
                raise RuntimeError(f"{name} did not answer within {READY_S:.0f} s:\n{_tail(log)}")
            time.sleep(0.05)
    except BaseException:
        running.stop()
        raise
    return Running(name, address, process, log, time.monotonic() - started)


def _answers(address: Address, path: str) -> bool:
    try:
        return ask(address, path, None, timeout_s=5).status == 200
    except (OSError, ValueError):
        return False


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])

"""The service of this machine, for the commands that talk to it: find it, or run one for the length of a command.

``familiar chat`` runs one when it finds none, ``familiar demo`` always. The child is the same ``familiar serve`` that a
user would start, stopped at the end.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from familiar.daemon import data_folder
from familiar.daemon.client import Client
from familiar.memory.errors import Busy, FamiliarError

if TYPE_CHECKING:
    from familiar.daemon.settings import Settings

READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 10.0


def find(settings: "Settings") -> Client | None:
    """The service that runs on the data folder, else the one at the configured address, else None."""
    addresses = [f"http://{settings.host}:{settings.port}"]
    try:
        record = json.loads(settings.service_file.read_text(encoding="utf-8"))
        addresses.insert(0, f"http://{record['host']}:{int(record['port'])}")
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none runs, or one is just ending
    for address in addresses:
        client = Client(address)
        if client.alive():
            return client
        client.close()
    return None


@contextmanager
def running(host: str, port: int, arguments: Sequence[str], log: Path) -> Iterator[Client]:
    """Run ``familiar serve`` on an address and yield a client of it once it answers; its output goes to ``log``.

    Raises:
        FamiliarError: it ended before it answered; the message is its own last line.
    """
    data_folder.make(log.parent)
    command = [sys.executable, "-m", "familiar.daemon", "serve", "--host", host, "--port", str(port), *arguments]
    with log.open("w", encoding="utf-8") as output:
        # A session of its own: Ctrl-C in the terminal belongs to the command, which then stops the service itself.
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        with Client(f"http://{host}:{port}") as client:
            _wait_until_ready(client, child, log)
            yield client
    finally:
        stop(child, STOP_TIMEOUT_S)


def _wait_until_ready(client: Client, child: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not client.alive():
        if child.poll() is not None:
            raise FamiliarError(_last_line(log) or f"The service ended with code {child.returncode}: see {log}.")
        if time.monotonic() > deadline:
            raise Busy(f"The service did not answer within {READY_TIMEOUT_S:.0f} s: see {log}.")
        time.sleep(0.05)


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("familiar: ") if lines else ""


def stop(child: "subprocess.Popen[bytes]", timeout_s: float) -> None:
    """Ask a child that leads its own session to end (SIGTERM), and insist (SIGKILL) after ``timeout_s`` seconds."""
    if child.poll() is not None:
        return
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def free_port(host: str) -> int:
    """A port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])

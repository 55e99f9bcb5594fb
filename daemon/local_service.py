"""The service of this machine, for the commands that talk to it: find it, or run one for the length of a command.

``familiar chat`` runs one when it finds none, ``familiar demo`` always. The child is the same ``familiar serve`` that a
user would start, stopped at the end.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from familiar.daemon import data_folder, service_record
from familiar.daemon.client import Client
from familiar.memory.errors import Busy, FamiliarError

if TYPE_CHECKING:
    from familiar.daemon.settings import Settings

READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 10.0


def find(settings: "Settings", user: str | None = None) -> Client | None:
    """A client of the service that runs on the data folder, else None.

    A service of another data folder is never one, whatever its port: what is said to it would be remembered there.
    ``user`` is whom the service is to answer; None is the default user. Raises FamiliarError when the service has no
    such user.
    """
    record = service_record.read(settings.service_file)
    if record is None:
        return None
    with ExitStack() as stack:
        client = stack.enter_context(Client(record.url, token=record.token, user=user))
        # The record of a service that was killed may name a port that another one has now.
        if client.pid() == record.pid:
            client.status()  # refuses a user that it does not have
            stack.pop_all()
            return client
    return None


@contextmanager
def found_or_started(
    settings: "Settings", user: str | None = None, before_start: Callable[[], None] = lambda: None
) -> Iterator[Client]:
    """The service that runs, or one that is started for the length of the block; ``user`` as ``find`` has it."""
    client = find(settings, user)
    if client is not None:
        with client:
            yield client
        return
    before_start()
    log = settings.data_dir / "logs" / "service.log"
    with running(
        settings.host,
        _own_port(settings),
        settings.serve_arguments(),
        log,
        service_file=settings.service_file,
        user=user,
    ) as own:
        yield own


def _own_port(settings: "Settings") -> int:
    """The configured port, or a free one where the service of another data folder has that."""
    with Client(service_record.url(settings.host, settings.port)) as there:
        return settings.port if there.pid() is None else free_port(settings.host)


@contextmanager
def running(
    host: str,
    port: int,
    arguments: Sequence[str],
    log: Path,
    *,
    service_file: Path | None = None,
    user: str | None = None,
) -> Iterator[Client]:
    """Run ``familiar serve`` on an address and yield a client of it once it answers; its output goes to ``log``.

    Args:
        service_file: where the service leaves its record; the client has its token then, which it needs when users
            have keys.
        user: whom the service is to answer; None is the default user.

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
        with Client(service_record.url(host, port)) as client:
            _wait_until_ready(client, child, log)
        # The service answers only once its record is there.
        record = None if service_file is None else service_record.read(service_file)
        with Client(service_record.url(host, port), token=record.token if record else None, user=user) as client:
            yield client
    finally:
        stop(child, STOP_TIMEOUT_S)


def _wait_until_ready(client: Client, child: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while client.pid() != child.pid:
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
    child.send_signal(signal.SIGCONT)  # a learner that a service has paused would not hear of it
    try:
        child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def free_port(host: str) -> int:
    """A port that nothing listens on at this moment."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])

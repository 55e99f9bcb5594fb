"""``service.json``: where the service of a data folder is, for its owner's commands and a second service.

It holds the token by which the service knows those commands, so its owner alone may read it (mode 0600).
"""

import contextlib
import http.client
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from familiar.adapters.folders import disk_errors
from familiar.daemon import json_file
from familiar.memory.errors import Busy

_PROBE_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Record:
    """What a running service says of itself: its process, its address, its model's file, its owner's token."""

    pid: int
    url: str
    model: Path
    token: str


def read(file: Path) -> Record | None:
    """The record in ``file``; None when no service runs on that folder, or one is just ending.

    A folder that was copied while it was in use has the record of the other one's service, which is not its own.
    """
    facts = json_file.read(file)
    try:
        if not _is_of(Path(facts["data_dir"]), file):
            return None
        return Record(
            int(facts["pid"]), url(str(facts["host"]), int(facts["port"])), Path(facts["model"]), str(facts["token"])
        )
    except (ValueError, KeyError, TypeError):
        return None


def _is_of(data_dir: Path, file: Path) -> bool:
    try:
        return file.samefile(data_dir / file.name)
    except OSError:
        return True  # the service has another name for the folder: it runs in a container, or the folder was moved


def refuse_second(file: Path) -> None:
    """Raise Busy when the service that ``file`` records lives and answers; one that was killed does not."""
    record = read(file)
    if record is not None and psutil.pid_exists(record.pid) and _answers(record):
        raise Busy(
            f"A service runs on {file.parent} already (process {record.pid}, {record.url}): "
            f"end it, or give another --data-dir."
        )


def _answers(record: Record) -> bool:
    """Whether that very process answers there, rather than another one that got its pid or its port."""
    address = urlsplit(record.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=_PROBE_TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        return bool(json.loads(connection.getresponse().read())["pid"] == record.pid)
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return False
    finally:
        connection.close()


@contextmanager
def written(file: Path, host: str, port: int, model: Path, token: str) -> Iterator[None]:
    """Say in the data folder where the service is, for as long as it is; the file is whole or absent."""
    facts = {
        "pid": os.getpid(),
        "host": _reachable(host),
        "port": port,
        "model": str(model),
        "data_dir": str(file.parent.resolve()),
        "token": token,
    }
    with disk_errors(file):
        json_file.write(file, facts)
    try:
        yield
    finally:
        record = read(file)
        if record is not None and record.pid == os.getpid():
            with contextlib.suppress(OSError):
                file.unlink()


def _reachable(host: str) -> str:
    """The address to call for a service that listens on ``host``: one that listens everywhere is at loopback too."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def url(host: str, port: int) -> str:
    """The address of a service that listens on ``host``, without ``/v1``."""
    host = _reachable(host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

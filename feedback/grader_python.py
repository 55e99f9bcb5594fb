"""``python`` graders: a user's own code, run in a child process that has no files, no network, and little time.

The child (``grader_child``) locks itself up; this side starts it with nothing (no environment, no open file but its
request and a pipe, a folder of its own that is deleted), waits for one line for each sample, and kills its whole
process group when a line is late, too long, or all are there. So a grader can fail, and nothing else: whatever it does
ends as a reward or as a ``Failure``.

A child takes about 50 ms to start, so a batch shares one. What a grader keeps between its samples is its own affair.
One that ends its process is started again for the rest, a few times. What is left out: third-party modules.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

MAX_SOURCE_BYTES = 256_000
"""OpenAI's limit, too."""


@dataclass(frozen=True)
class Limits:
    """What one grader may use. ``wall_s`` counts also where a busy machine gives it no processor.

    ``deaths`` is how often a batch's process may end early before the rest of the batch fails untried.
    """

    cpu_s: float = 2.0
    wall_s: float = 20.0
    start_s: float = 60.0
    memory_bytes: int = 512 * 1024 * 1024
    deaths: int = 3


DEFAULTS = Limits()

FailureKind = Literal["raised", "stopped"]


@dataclass(frozen=True)
class Failure:
    """Why there is no reward: the grader ``raised`` (or returned no number), or its process was ``stopped``."""

    kind: FailureKind
    message: str


@dataclass(frozen=True)
class Graded:
    """A batch's rewards or failures, in order, and what the child was locked by: seccomp, audit, or None (unknown)."""

    results: tuple[float | Failure, ...]
    lock: str | None


_CHILD = Path(__file__).with_name("grader_child.py")
_MAX_LINE_BYTES = 8192
_AT_ONCE = threading.BoundedSemaphore(2)
"""So many children at a time: each may fill a processor, and its memory."""


def run_many(
    source: str, samples: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], limits: Limits = DEFAULTS
) -> Graded:
    """Call ``grade(sample, item)`` of ``source`` for each pair of sample and item. Never raises for what it does."""
    results: list[float | Failure] = []
    lock: str | None = None
    deaths = 0
    while len(results) < len(samples):
        if deaths >= limits.deaths:
            left = Failure("stopped", f"not run, as the grader's process had ended early {deaths} times")
            results += [left] * (len(samples) - len(results))
            break
        with _AT_ONCE:
            found, lock, end = _one_child(source, samples[len(results) :], limits)
        results += found
        if len(results) < len(samples):
            # Whoever was being graded is what ended it.
            results.append(Failure("stopped", end))
            deaths += 1
    return Graded(tuple(results), lock)


def _one_child(
    source: str, samples: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], limits: Limits
) -> tuple[list[float | Failure], str | None, str]:
    """Grade as many as one child can: its results, its lock, and why it ended where these are fewer than asked for."""
    request = {
        "source": source,
        "samples": list(samples),
        "limits": {
            "cpu_s": limits.cpu_s,
            # What the timer of each sample should have stopped.
            "process_cpu_s": int(limits.cpu_s * (len(samples) + 2)) + 2,
            "memory_bytes": limits.memory_bytes,
        },
    }
    results: list[float | Failure] = []
    lock: str | None = None
    with _child(json.dumps(request).encode()) as (process, pipe):
        lines = _Lines(pipe)
        while len(results) < len(samples):
            within = limits.start_s if lock is None else limits.wall_s
            try:
                line = lines.next(within)
            except TimeoutError:
                return results, lock, f"stopped after {within:g} seconds"
            except ValueError:
                return results, lock, "stopped, as it wrote where its rewards go"
            if line is None:
                return results, lock, _end(process.wait(), limits)
            if "lock" in line:
                lock = str(line["lock"])
            elif "broken" in line:
                failure = Failure("raised", str(line["broken"]))
                return [*results, *[failure] * (len(samples) - len(results))], lock, ""
            else:
                results.append(_result(line))
    return results, lock, ""


@contextmanager
def _child(request: bytes) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """A child with its request, and the pipe's end that its lines come from; dead with all of its kind in the end."""
    with tempfile.TemporaryDirectory(prefix="familiar-grader-", ignore_cleanup_errors=True) as folder:
        reading, writing = os.pipe()
        try:
            with tempfile.TemporaryFile() as file:
                file.write(request)
                file.seek(0)
                process = _start(file, writing, folder)
            os.close(writing)
            writing = -1
            try:
                yield process, reading
            finally:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        finally:
            os.close(reading)
            if writing >= 0:
                os.close(writing)


def _start(request: IO[bytes], writing: int, folder: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", str(_CHILD), str(writing)],
        stdin=request,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(writing,),
        cwd=folder,
        env={},
        start_new_session=True,
    )


class _Lines:
    """The lines of JSON that come through a pipe, each of a bounded length and waited for a bounded time."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._held = b""

    def next(self, within_s: float) -> dict[str, Any] | None:
        """The next line, None at the end. Raises TimeoutError, and ValueError for what is no line of ours."""
        deadline = time.monotonic() + within_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._pipe, selectors.EVENT_READ)
            while b"\n" not in self._held:
                if len(self._held) > _MAX_LINE_BYTES:
                    raise ValueError("too long")
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                piece = os.read(self._pipe, _MAX_LINE_BYTES)
                if not piece:
                    return None
                self._held += piece
        line, _, self._held = self._held.partition(b"\n")
        found = json.loads(line)
        if not isinstance(found, dict):
            raise ValueError("no object")
        return found


def _result(line: Mapping[str, Any]) -> float | Failure:
    reward = line.get("reward")
    # The child checks this; a grader that writes into the pipe itself does not.
    if isinstance(reward, int | float) and abs(reward) < float("inf"):
        return float(reward)
    return Failure("raised", str(line.get("error", "no finite number"))[:_MAX_LINE_BYTES])


def _end(code: int, limits: Limits) -> str:
    if code == -signal.SIGPROF or code == -signal.SIGXCPU:
        return f"stopped after {limits.cpu_s:g} seconds of processor time"
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended itself with code {code}"

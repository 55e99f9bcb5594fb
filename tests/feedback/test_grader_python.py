"""Python graders: what they may do, and that nothing else comes of whatever they try."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from familiar.feedback import grader_child
from familiar.feedback.grader_python import Failure, Graded, Limits, run_many
from familiar.memory.store import Store
from familiar.memory.types import Memory

QUICK = Limits(cpu_s=0.3, wall_s=30)
linux = pytest.mark.skipif(sys.platform != "linux", reason="the filter is Linux's")


def graded(body: str, samples: int = 1, limits: Limits = QUICK, head: str = "") -> Graded:
    """Run ``def grade(sample, item)`` with these lines on so many samples, numbered in ``item["n"]``."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    source = f"{head}\ndef grade(sample, item):\n{lines}"
    return run_many(source, [({"output_text": f"text {n}"}, {"n": n}) for n in range(samples)], limits)


def failure(body: str, limits: Limits = QUICK, head: str = "") -> str:
    (result,) = graded(body, 1, limits, head).results
    assert isinstance(result, Failure), result
    return f"{result.kind}: {result.message}"


def test_a_grader_is_given_the_sample_and_the_item_and_may_compute() -> None:
    body = (
        "from datetime import datetime as d\nreturn d.strptime('7', '%d').day + item['n'] + len(sample['output_text'])"
    )
    assert graded(body, 3).results == (13.0, 14.0, 15.0)
    modules = "import re, json, math, statistics, difflib, collections.abc\nfrom urllib.parse import quote\n"
    assert graded("return statistics.mean([math.sqrt(4), len(quote(' '))])", head=modules).results == (2.5,)
    assert graded("return True").results == (1.0,)
    dataclass = "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\n"
    assert graded("return A(3).x", head=dataclass).results == (3.0,)
    assert run_many("def grade(sample, item): return 1", []).results == ()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise ValueError('no')", "raised: ValueError: no (line 3)"),
        ("return float('nan')", "nan, which is not a finite number"),
        ("return float('inf')", "inf, which is not a finite number"),
        ("return 10 ** 400", "OverflowError"),
        ("return '1'", "'1', which is not a finite number"),
        ("return None", "None, which is not a finite number"),
        ("return '\\ud800' * 100000", "which is not a finite number"),
        ("import sys\nsys.exit(0)", "SystemExit"),
        ("return grade(sample, item)", "RecursionError"),
        ("x = bytearray(10 ** 10)\nreturn 1", "MemoryError"),
        ("import numpy", "No module named 'numpy'"),
        ("class E(Exception):\n    def __str__(self):\n        raise self\nraise E", "raised: E (line"),
        ("import os\nos._exit(3)", "stopped: its process ended itself with code 3"),
        ("while True:\n    pass", "stopped after 0.3 seconds of processor time"),
        ("return 9 ** 9 ** 9 ** 9", "stopped after 0.3 seconds of processor time"),
        ("while True:\n    try:\n        while True: pass\n    except BaseException: pass", "of processor time"),
        (
            "import os\nwhile True:\n    os.write(int(__import__('sys').argv[1]), b'x' * 9999)",
            "wrote where its rewards go",
        ),
        ("import os\nos.write(int(__import__('sys').argv[1]), b'[1]\\n')", "wrote where its rewards go"),
        (
            "import os\nos.write(int(__import__('sys').argv[1]), b'{\"reward\": 1e999}\\n')\nos._exit(0)",
            "finite number",
        ),
    ],
)
def test_what_goes_wrong_is_told_in_a_line(body: str, said: str) -> None:
    assert said in failure(body)


def test_a_source_that_does_not_load_fails_every_sample_once() -> None:
    for source, said in (
        ("def grade(", "SyntaxError: '(' was never closed (line 1)"),
        ("x = 1", "the source defines no function grade(sample, item)"),
        ("1 / 0", "ZeroDivisionError: division by zero (line 1)"),
    ):
        results = run_many(source, [({}, {})] * 3, QUICK).results
        assert results == (Failure("raised", results[0].message if isinstance(results[0], Failure) else ""),) * 3
        assert isinstance(results[0], Failure)
        assert said in results[0].message
    hanging = run_many("while True: pass", [({}, {})] * 5, QUICK).results
    assert len(hanging) == 5
    assert all(isinstance(each, Failure) and each.kind == "stopped" for each in hanging)


def test_sleeping_ends_by_the_wall_clock() -> None:
    assert failure("import time\ntime.sleep(1000)", Limits(wall_s=0.5)) == "stopped: stopped after 0.5 seconds"


def test_memory_is_limited_in_small_pieces_too() -> None:
    body = "x = []\nwhile True:\n    x.append(bytearray(10 ** 6))"
    assert "MemoryError" in failure(body, Limits(cpu_s=20, wall_s=60, memory_bytes=200_000_000))


def test_printing_much_costs_nothing_but_time() -> None:
    assert graded("print('x' * 100_000_000)\nreturn 1", limits=Limits()).results == (1.0,)


def test_the_rest_of_a_batch_goes_on_after_a_death_but_not_for_ever() -> None:
    one = graded("import os\nif item['n'] == 1: os._exit(1)\nreturn item['n']", 4).results
    assert [one[at] for at in (0, 2, 3)] == [0.0, 2.0, 3.0]
    assert isinstance(one[1], Failure)
    begun = time.monotonic()
    all_of_them = graded("while True: pass", 500).results
    assert len(all_of_them) == 500
    assert time.monotonic() - begun < 60  # 500 of them would take 150 s
    assert isinstance(all_of_them[-1], Failure)
    assert "not run" in all_of_them[-1].message


DEEDS = {
    "a TCP socket": "import socket\nsocket.create_connection(('127.0.0.1', {port}))",
    "a UDP socket": "import socket as s\ns.socket(s.AF_INET, s.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))",
    "a Unix socket": "import socket\nsocket.socketpair()",
    "a process": "import os\nos.fork()",
    "a program": "import subprocess\nsubprocess.run(['true'])",
    "a thread": "import threading\nthreading.Thread(target=print).start()",
    "writing": "open('{folder}/made', 'w').write('x')",
    "reading the store": "return len(open('{folder}/familiar.db', 'rb').read())",
    "reading the environment": "import os\nreturn len(os.environ['PATH'])",
    "deleting the store": "import os\nos.unlink('{folder}/familiar.db')",
    "a signal": "import os\nos.kill(os.getppid(), 9)",
    "deleting its folder": "import os\nos.rmdir(os.getcwd())",
    "native code": "import ctypes\nctypes.CDLL(None).system(b'touch {folder}/made')",
}


@pytest.mark.parametrize("deed", DEEDS)
def test_a_grader_reaches_nothing_outside(deed: str, data_dir: Path) -> None:
    with Store.open(data_dir / "familiar.db") as store:
        store.put_memory(Memory("mem-1", 1, 1.0, "fact", "The door's code is 4711."), 1.0)
        body = DEEDS[deed].replace("{folder}", str(data_dir)).replace("{port}", "9")
        assert failure(body, Limits()).startswith("raised: ")
        assert store.memory(1, "mem-1").text.endswith("4711.")
    assert not (data_dir / "made").exists()


CALLS = {
    "open": "os.open('/etc/hostname', os.O_RDONLY)",
    "create": "os.open('made', os.O_CREAT | os.O_WRONLY)",
    "stat": "os.stat('/')",
    "list": "os.listdir('/')",
    "unlink": "os.unlink('kept')",
    "rename": "os.rename('kept', 'other')",
    "truncate": "os.truncate('kept', 0)",
    "mkdir": "os.mkdir('made')",
    "chmod": "os.chmod('kept', 0)",
    "fork": "os.fork()",
    "spawn": "os.posix_spawn('/bin/true', ['true'], {})",
    "exec": "os.execv('/bin/true', ['true'])",
    "kill": "os.kill(os.getppid(), 0)",
    "pipe": "os.pipe()",
    "dup": "os.dup(1)",
    "TCP": "socket.socket()",
    "UDP": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "Unix": "socket.socketpair()",
    "limits": "resource.setrlimit(resource.RLIMIT_AS, resource.getrlimit(resource.RLIMIT_AS))",
}


@linux
def test_the_filter_alone_refuses_every_call_that_leaves_the_process(tmp_path: Path) -> None:
    """Without the audit hook, which code can get around."""
    (tmp_path / "kept").write_text("kept")
    tries = "\n".join(
        f"try:\n    {call}\n    found[{name!r}] = 'done'\nexcept OSError as error:\n    found[{name!r}] = error.errno"
        for name, call in CALLS.items()
    )
    script = (
        "import json, os, resource, socket, sys\n"
        f"sys.path.insert(0, {str(Path(grader_child.__file__).parent)!r})\n"
        "import grader_child\nfound = {'lock': grader_child._seccomp()}\n"
        f"{tries}\nos.write(1, json.dumps(found).encode())\nos._exit(0)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert found.pop("lock") is True, "this kernel has no seccomp filters, or the processor is not one that is known"
    assert found == dict.fromkeys(CALLS, 1), "1 is EPERM"
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_text() == "kept"
    assert graded("return 1").lock == "seccomp"


def test_the_audit_hook_alone_refuses_the_same_in_python() -> None:
    """What is left where there is no filter, as on macOS."""
    refused = ("open", "create", "list", "unlink", "rename", "truncate", "mkdir", "chmod", "fork", "spawn", "exec")
    calls = {name: CALLS[name] for name in (*refused, "kill", "TCP", "UDP")}
    tries = "\n".join(
        f"try:\n    {call}\n    found[{name!r}] = 'done'\nexcept PermissionError as no:\n    found[{name!r}] = str(no)"
        for name, call in calls.items()
    )
    script = (
        "import json, os, resource, socket, sys\n"
        f"sys.path.insert(0, {str(Path(grader_child.__file__).parent)!r})\n"
        "import grader_child\nfound = {}\nsys.addaudithook(grader_child._audit)\n"
        f"{tries}\nos.write(1, json.dumps(found).encode())\nos._exit(0)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found.keys() == calls.keys()
    assert all("a grader may not do this" in each for each in found.values()), found


def test_no_process_is_left_behind() -> None:
    graded("import time\ntime.sleep(1000)", limits=Limits(wall_s=0.3))
    listed = subprocess.run(["ps", "-eo", "ppid=,args="], capture_output=True, text=True, check=True).stdout
    assert not [
        line for line in listed.splitlines() if "grader_child.py" in line and line.split()[0] == str(os.getpid())
    ]

"""The child process of a ``python`` grader: locks itself up, then grades samples that it was given before.

Run as a script (``python -I -S -B grader_child.py FD``), with nothing but the standard library: it must not depend on
the program that it is kept apart from. ``grader_python`` starts it, writes the request to its standard input, reads
lines of JSON from the pipe FD, and kills it when it takes too long.

The lock, once the modules that a grader may import are loaded:

- on Linux (x86-64, ARM64) a seccomp filter allows the system calls that computing needs, and no other: none that opens
  a file, makes a socket or a process, signals one, or changes anything that is outside. It binds native code too,
  needs no rights, and cannot be taken off;
- everywhere an audit hook refuses the same in Python's own words, which is a fence and not a wall: code that means harm
  gets around it;
- limits on memory, processor time, files and processes.

Sources: the manual page seccomp(2); PEP 578 for audit hooks.
"""

import ast
import json
import os
import resource
import signal
import struct
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

MODULES = """
abc array ast base64 binascii bisect calendar cmath codecs collections collections.abc contextlib copy csv dataclasses
datetime decimal difflib enum fractions functools hashlib heapq html html.parser io itertools json keyword locale math
numbers operator random re secrets statistics string struct textwrap time tokenize typing unicodedata urllib.parse uuid
xml.etree.ElementTree zlib
""".split()
"""What a grader may import: modules that only compute. Loaded where its source names them."""

_ALWAYS = ("_strptime", "encodings.ascii", "encodings.idna", "encodings.latin_1", "encodings.utf_8_sig", "traceback")
"""Loaded by the library itself the first time that they are needed, when it is too late."""
_MOST_TEXT, _MOST_VALUE = 500, 100
_DENIED_EVENTS = ("ctypes.", "os.", "pty.", "shutil.", "socket.", "sqlite3.", "subprocess.", "tempfile.")

# System calls by number, of x86-64 and of ARM64 (asm-generic).
_ALLOWED: Mapping[str, tuple[int, frozenset[int]]] = {
    "x86_64": (
        0xC000003E,
        # read write close fstat poll lseek mmap mprotect munmap brk rt_sigprocmask rt_sigreturn sched_yield mremap
        # madvise nanosleep getitimer setitimer getpid exit gettimeofday getrusage times sigaltstack gettid time futex
        # restart_syscall clock_gettime clock_getres clock_nanosleep exit_group getrandom
        frozenset({0, 1, 3, 5, 7, 8, 9, 10, 11, 12, 14, 15, 24, 25, 28, 35, 36, 38, 39, 60, 96, 98, 100, 131, 186, 201})
        | {202, 219, 228, 229, 230, 231, 318},
    ),
    "aarch64": (
        0xC00000B7,
        # close lseek read write ppoll fstat exit exit_group futex nanosleep getitimer setitimer clock_gettime
        # clock_getres clock_nanosleep sched_yield restart_syscall sigaltstack rt_sigprocmask rt_sigreturn times
        # getrusage gettimeofday getpid gettid brk munmap mremap mmap mprotect madvise getrandom
        frozenset({57, 62, 63, 64, 73, 80, 93, 94, 98, 101, 102, 103, 113, 114, 115, 124, 128, 132, 135, 139, 153, 165})
        | {169, 172, 178, 214, 215, 216, 222, 226, 233, 278},
    ),
}
_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 4, 22, 38, 2
_KILL, _ALLOW, _REFUSE = 0x80000000, 0x7FFF0000, 0x00050000 | 1  # the last: fail with EPERM


def main() -> None:
    """Read the request, lock up, and write a line for each sample."""
    out = int(sys.argv[1])
    request = json.loads(sys.stdin.buffer.read())
    os.close(0)
    limits = request["limits"]
    source: str = request["source"]
    for name in {*_ALWAYS, *_imported(source)}:
        __import__(name)
    _limit(limits)
    lock = "seccomp" if _seccomp() else "audit"
    sys.path.clear()
    sys.path_hooks.clear()
    sys.meta_path[:] = sys.meta_path[:2]  # built-in and frozen modules: no file is looked for
    sys.addaudithook(_audit)

    def say(**line: Any) -> None:
        os.write(out, json.dumps(line).encode() + b"\n")

    say(lock=lock)
    try:
        grade = _load(source, limits["cpu_s"])
    except BaseException as error:
        say(broken=_described(error))
        _end()
    for sample, item in request["samples"]:
        signal.setitimer(signal.ITIMER_PROF, limits["cpu_s"])
        try:
            line: dict[str, Any] = {"reward": _number(grade(sample, item))}
        except BaseException as error:
            line = {"error": _described(error)}
        signal.setitimer(signal.ITIMER_PROF, 0)
        say(**line)
    _end()


def _end() -> NoReturn:
    os._exit(0)  # without what a grader has left to be done at the end


def _imported(source: str) -> set[str]:
    """The modules of ``MODULES`` that a source imports; none where it does not compile, which is said later."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names & set(MODULES)


def _load(source: str, cpu_s: float) -> Callable[[Any, Any], object]:
    module = types.ModuleType("grader")
    sys.modules["grader"] = module  # where dataclasses look for it
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    exec(compile(source, "grader.py", "exec"), module.__dict__)
    signal.setitimer(signal.ITIMER_PROF, 0)
    grade = module.__dict__.get("grade")
    if not callable(grade):
        raise NameError("the source defines no function grade(sample, item)")
    return grade  # type: ignore[no-any-return] # whatever it is, it can be called


def _number(value: object) -> float:
    if isinstance(value, int | float):
        number = float(value)
        if number - number == 0:  # neither NaN nor infinite; math is not imported
            return number
    raise ValueError(f"grade returned {_cut(repr(value), _MOST_VALUE)}, which is not a finite number")


def _described(error: BaseException) -> str:
    """One line: the exception, and where in the grader's source it came from."""
    line, at = None, error.__traceback__
    while at is not None:
        if at.tb_frame.f_code.co_filename == "grader.py":
            line = at.tb_lineno
        at = at.tb_next
    if isinstance(error, SyntaxError):
        line = error.lineno
    try:
        said = error.msg if isinstance(error, SyntaxError) else str(error)
    except BaseException:
        said = ""
    where = "" if line is None else f" (line {line})"
    return f"{type(error).__name__}{': ' if said else ''}{_cut(said)}{where}"


def _cut(text: str, most: int = _MOST_TEXT) -> str:
    # Half a character, which a grader may well make, is no JSON for everybody.
    return text[:most].encode("utf-8", "replace").decode()


def _limit(limits: Mapping[str, Any]) -> None:
    for name, value in (
        ("RLIMIT_AS", limits["memory_bytes"]),
        ("RLIMIT_CPU", limits["process_cpu_s"]),
        ("RLIMIT_FSIZE", 0),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_NPROC", 0),
        ("RLIMIT_NOFILE", 16),
    ):
        try:
            resource.setrlimit(getattr(resource, name), (value, value))
        except (AttributeError, ValueError, OSError):
            continue  # not of this system, such as macOS's for memory
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    # A pipe that nobody reads any more is an end, too.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def _seccomp() -> bool:
    """Leave this process only the system calls of ``_ALLOWED``; whether it could be done."""
    machine = os.uname().machine
    if sys.platform != "linux" or machine not in _ALLOWED:
        return False
    import ctypes

    arch, numbers = _ALLOWED[machine]
    program = _filter(arch, sorted(numbers))

    class Program(ctypes.Structure):
        """``struct sock_fprog``."""

        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    libc = ctypes.CDLL(None, use_errno=True)
    prctl = libc.prctl
    prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    described = Program(len(program) // 8, program)
    prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    if prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return bool(prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(described), 0, 0) == 0)


def _filter(arch: int, numbers: list[int]) -> bytes:
    """The BPF program: another architecture's call kills, one of ``numbers`` passes, any other fails with EPERM.

    Instructions are (code, jump if true, jump if false, k); a seccomp_data has the number at 0 and the arch at 4.
    """
    load, jump_equal, give = 0x20, 0x15, 0x06
    code = [(load, 0, 0, 4), (jump_equal, 1, 0, arch), (give, 0, 0, _KILL), (load, 0, 0, 0)]
    for at, number in enumerate(numbers):
        code.append((jump_equal, len(numbers) - at, 0, number))
    code += [(give, 0, 0, _REFUSE), (give, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *each) for each in code)


def _audit(event: str, args: tuple[object, ...]) -> None:
    if event == "open" or event.startswith(_DENIED_EVENTS):
        raise PermissionError(f"a grader may not do this ({event})")


if __name__ == "__main__":
    main()

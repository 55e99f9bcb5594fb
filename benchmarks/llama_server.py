"""Build llama.cpp's own server from the source that the installed llama-cpp-python was built from.

``python benchmarks/llama_server.py`` downloads that very version's source from the package registry, builds the one
program into ``build/llama-server/`` (10 minutes or more) and prints its path; a second run only prints it. It needs
cmake and a C++ compiler. What is left out: GPUs, TLS, and the web page.

With ``--mend-amx`` it is another build. GCC before 11.5, 12.4 and 13.3 drops most of the tile configuration that AMX
code loads (https://gcc.gnu.org/bugzilla/show_bug.cgi?id=114098), so llama.cpp built with it, from pip too, dies on its
first batch with a quantised model on a processor that has AMX, unless told not to repack weights. The mended build puts
a header before each file that states what the instruction reads.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from common import BUILD, progress

FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=ON",
    "-DGGML_NATIVE=ON",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_APP=OFF",
)
AMX_HEADER = """\
#if defined(__AMX_TILE__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>
#define _tile_loadconfig(config) __asm__ volatile("ldtilecfg\\t%X0" ::"m"(*(const char(*)[64])(config)))
#endif
"""


def ensure(given: Path | None = None, *, mend_amx: bool = False, build: Path = BUILD) -> Path:
    """Return llama-server's program: ``given``, or the one built before, or one built now.

    Raises FileNotFoundError when ``given`` is not there, RuntimeError when it cannot be built.
    """
    if given is not None:
        if not given.is_file():
            raise FileNotFoundError(f"There is no llama-server at {given}: leave the option out to build one.")
        return given.resolve()
    wanted = version("llama-cpp-python")
    folder = build / "llama-server" / (f"{wanted}-amx" if mend_amx else wanted)
    program = folder / "bin" / "llama-server"
    done = folder / "built"  # written last: a build that was broken off is taken up again
    if not done.is_file():
        _build(wanted, folder, mend_amx)
        done.touch()
    return program


def _build(wanted: str, folder: Path, mend_amx: bool) -> None:
    if shutil.which("cmake") is None:
        raise RuntimeError("Building llama-server needs cmake: install it, or give --llama-server PATH.")
    source = _source(wanted, folder) / "vendor" / "llama.cpp"
    flags = list(FLAGS)
    if mend_amx:
        header = folder / "amx.h"
        header.write_text(AMX_HEADER, encoding="utf-8")
        include = f"-include {shlex.quote(str(header))}"
        flags += [f"-DCMAKE_C_FLAGS={include}", f"-DCMAKE_CXX_FLAGS={include}"]
    progress(f"building llama-server of llama-cpp-python {wanted} in {folder} (10 minutes or more) …")
    _run(["cmake", "-S", str(source), "-B", str(folder), *flags], folder / "configure.log")
    jobs = str(os.cpu_count() or 1)
    _run(["cmake", "--build", str(folder), "--target", "llama-server", "-j", jobs], folder / "build.log")


def _source(wanted: str, folder: Path) -> Path:
    """Download and unpack the source distribution; return its folder."""
    unpacked = folder / f"llama_cpp_python-{wanted}"
    if unpacked.is_dir():
        return unpacked
    folder.mkdir(parents=True, exist_ok=True)
    name = "llama-cpp-python"
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        command = [sys.executable, "-m", "pip", "download", "--no-deps"]
        command += ["--no-binary", name, f"{name}=={wanted}", "--dest", temporary]
        progress(f"downloading the source of {name} {wanted} …")
        _run(command, folder / "download.log")
        archive = next(Path(temporary).glob("*.tar.gz"))
        with tarfile.open(archive) as tar:
            tar.extractall(temporary, filter="data")
        (Path(temporary) / unpacked.name).rename(unpacked)
    return unpacked


def _run(command: Sequence[str], log: Path) -> None:
    with log.open("wb") as output:
        code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT).returncode
    if code:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise RuntimeError(f"{command[0]} ended with status {code}; all of its output is in {log}:\n{tail}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mend-amx", action="store_true", help="work around the compiler's fault with AMX")
    try:
        print(ensure(mend_amx=parser.parse_args().mend_amx))
    except RuntimeError as error:
        sys.exit(f"llama_server: {error}")


if __name__ == "__main__":
    main()

"""The three servers that are compared, each started on the same model with the same sizes and the same libraries.

llama-server keeps its own defaults (flash attention, prompt caches in memory, warm-up) beside the sizes; ``plain``
gives it no flash attention and no cache beyond its slots. llama-cpp-python's server has
one sequence and answers one request at a time; it is told not to break off a reply for the next request, and not to
compute logits for every prompt token, which it would by default.

A llama.cpp whose compiler broke its AMX code dies on a quantised model unless weights keep their layout (see
``llama_server.py``). Familiar sees to that by itself; for the others it is tried out, in a process that may die.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from processes import Running, free_port, start

FAMILIAR, LLAMA_SERVER, LLAMA_PLAIN, LLAMA_PYTHON = "familiar", "llama-server", "llama-server-plain", "llama-cpp-python"
PYTHON_SERVER_NEEDS = ("fastapi", "sse_starlette", "starlette_context", "pydantic_settings")


@dataclass(frozen=True)
class Sizes:
    """What every server is started with; ``context_tokens`` is per slot."""

    threads: int
    context_tokens: int
    slots: int = 8
    batch_tokens: int = 512


@dataclass(frozen=True)
class Site:
    """Where things are: llama-server's program, whose folder has the shared libraries, and a folder to work in.

    Without ``llama_server`` the libraries are those of the installed llama-cpp-python.
    ``repack``: whether the other servers may lay weights out anew for the processor, as they do by default.
    """

    llama_server: Path | None
    work: Path
    repack: bool = True

    @property
    def libraries(self) -> Path | None:
        """The folder of llama.cpp's libraries; None for those of the installed llama-cpp-python."""
        return self.llama_server.parent.resolve() if self.llama_server else None

    @property
    def environment(self) -> dict[str, str]:
        """Makes every server load the same llama.cpp. Both names: one finds libllama, the other what that needs."""
        if self.libraries is None:
            return {}
        found = {"LLAMA_CPP_LIB_PATH": str(self.libraries)}
        for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"):
            found[name] = os.pathsep.join(filter(None, (str(self.libraries), os.environ.get(name))))
        return found


_TRY = """
import sys
from llama_cpp import Llama
Llama(sys.argv[1], n_ctx=64, n_batch=64, verbose=False).eval([1] * 48)
"""


def survives_repacking(site: Site, model: Path) -> bool:
    """Whether llama.cpp evaluates a prompt of this model as it is by default, rather than end the process.

    Raises RuntimeError when it does neither.
    """
    tried = subprocess.run(
        [sys.executable, "-c", _TRY, str(model)], env={**os.environ, **site.environment}, capture_output=True
    )
    if tried.returncode > 0:
        raise RuntimeError(f"{model} cannot be used: {tried.stderr.decode(errors='replace').splitlines()[-1:]}")
    return tried.returncode == 0


def start_familiar(
    site: Site, model: Path, sizes: Sizes, *, data_dir: Path | None = None, key: str | None = None
) -> Running:
    """Familiar's service on a fresh data folder, or on ``data_dir``; nobody's own configuration is read."""
    config = site.work / "familiar.toml"
    config.touch()
    port = free_port()
    command = [sys.executable, "-m", "familiar.daemon", "serve", "--config", str(config)]
    command += ["--data-dir", str(data_dir or site.work / f"data-{port}"), "--model", str(model)]
    command += ["--context", str(sizes.context_tokens), "--threads", str(sizes.threads), "--port", str(port)]
    env = {name: "" for name in os.environ if name.startswith("FAMILIAR_")}
    env |= {**site.environment, "FAMILIAR_SLOTS": str(sizes.slots)}
    return start(FAMILIAR, command, port=port, log=site.work / f"familiar-{port}.log", env=env, key=key)


def start_llama_server(
    site: Site, model: Path, sizes: Sizes, *, plain: bool = False, adapters: Sequence[Path] = ()
) -> Running:
    """llama.cpp's own server; ``adapters`` are loaded at its start and chosen by each request's ``lora`` field."""
    port = free_port()
    command = [str(site.llama_server), "-m", str(model), "--host", "127.0.0.1", "--port", str(port)]
    command += ["-np", str(sizes.slots), "-c", str(sizes.context_tokens * sizes.slots)]
    command += ["-t", str(sizes.threads), "-tb", str(sizes.threads), "-ub", str(sizes.batch_tokens)]
    command += ["--no-webui", "--jinja", "--offline", "--log-verbosity", "1"]
    if not site.repack:
        command += ["--no-repack"]
    if plain:
        command += ["-fa", "off", "--cache-ram", "0", "-ctk", "f16", "-ctv", "f16"]
    if adapters:
        command += ["--lora", ",".join(map(str, adapters)), "--lora-init-without-apply"]
    name = LLAMA_PLAIN if plain else LLAMA_SERVER
    log = site.work / f"{name}-{port}.log"
    return start(name, command, port=port, log=log, env=site.environment, ready_path="/health")


def missing_for_llama_python() -> list[str]:
    """The packages that llama-cpp-python's server needs and that are not installed."""
    return [name for name in PYTHON_SERVER_NEEDS if find_spec(name) is None]


def start_llama_python(site: Site, model: Path, sizes: Sizes) -> Running:
    """llama-cpp-python's own server."""
    port = free_port()
    options = {
        "model": model,
        "host": "127.0.0.1",
        "port": port,
        "n_ctx": sizes.context_tokens,
        "n_batch": sizes.batch_tokens,
        "n_ubatch": sizes.batch_tokens,
        "n_threads": sizes.threads,
        "n_threads_batch": sizes.threads,
        "logits_all": False,
        "use_mlock": False,
        "interrupt_requests": False,
        "verbose": False,
    }
    module = ["-m", "llama_cpp.server"] if site.repack else [str(Path(__file__).with_name("no_repack.py"))]
    command = [sys.executable, *module]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    log = site.work / f"llama-cpp-python-{port}.log"
    return start(LLAMA_PYTHON, command, port=port, log=log, env=site.environment)

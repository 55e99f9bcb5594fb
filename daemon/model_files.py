"""From what a person calls a model to a GGUF file on this machine: the built-in one, a path, or a file of the hub.

A model that is split over several files is fetched whole, and stands under the name of its first part. What is left
out: what the file holds (``model_facts`` reads its header, the engine the rest).
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from familiar.adapters.folders import file_sha256
from familiar.daemon import hub
from familiar.daemon.model_parts import model_parts, part_names
from familiar.memory.errors import BadFile, FamiliarError, InvalidInput, NotFound

BUILTIN = "builtin"
PREFERRED_QUANTS = ("Q8_0", "Q4_K_M")
"""Which file is taken where a repository holds several and none was named: the most exact, then the usual small one."""

Progress = Callable[[str], None]

_HUB_ID = re.compile(r"(?P<repo>[\w][\w.-]*/[\w][\w.-]*)(?:/(?P<file>[^:]+\.gguf)|:(?P<quant>[\w.-]+))?")


@dataclass(frozen=True)
class HubId:
    """A hub id in its parts; without a ``file`` the repository's files are looked through."""

    repo: str
    file: str | None
    quant: str | None


def builtin_path() -> Path:
    """The packaged model's file."""
    return Path(__file__).parent / "models" / "familiar-base.gguf"


def _silent(_line: str) -> None:
    """Progress that nobody watches."""


def resolve(
    model: str, progress: Progress = _silent, *, endpoint: str | None = None, cache_dir: Path | None = None
) -> Path:
    """The GGUF file that ``model`` names, of a split model the first part; downloaded only if it is not here.

    Args:
        model: ``builtin``, a path, or a hub id (``user/repo``, ``user/repo:QUANT``, ``user/repo/file.gguf``).
        progress: told one line before a download.
        endpoint, cache_dir: as in ``hub``.

    Raises:
        NotFound: no such file here or on the hub, or the hub cannot be reached; InvalidInput: neither a path nor a hub
        id, or several files fit; BadFile: not GGUF, damaged on the way, or a part is missing; NoSpace: the download did
        not fit.
    """
    here = _here(model)
    if here is not None:
        return here
    wanted = _hub_id(model)
    return _cached(wanted, cache_dir) or _download(wanted, progress, endpoint, cache_dir)


def pull(
    model: str, progress: Progress = _silent, *, endpoint: str | None = None, cache_dir: Path | None = None
) -> Path:
    """As ``resolve``, but ask the hub for what it holds now, and compare what is in the cache with its hash."""
    return _here(model) or _download(_hub_id(model), progress, endpoint, cache_dir)


def find(model: str, *, cache_dir: Path | None = None) -> Path | None:
    """The file that ``model`` names where it is on this machine already, None where not; asks no hub."""
    try:
        return _here(model) or _cached(_hub_id(model), cache_dir)
    except FamiliarError:
        return None


def is_model(name: str) -> bool:
    """Whether a file's name is that of a GGUF model, as a whole or its first part; not of an image projector."""
    path = Path(name.lower())
    aside = "mmproj" in path.stem or "imatrix" in path.stem
    return path.suffix == ".gguf" and not aside and part_names(name)[0] == name


def _cached(wanted: HubId, cache_dir: Path | None) -> Path | None:
    """The file in the hub's cache, None where it is not there, or not all of it."""
    files = {file.name: file.path for file in hub.cached_files(cache_dir) if file.repo == wanted.repo}
    try:
        parts = part_names(wanted.file or _choose(wanted.repo, files, wanted.quant))
    except (NotFound, InvalidInput):
        return None
    return _checked(files[parts[0]]) if files.keys() >= set(parts) else None


def _download(wanted: HubId, progress: Progress, endpoint: str | None, cache_dir: Path | None) -> Path:
    """The file of the hub, with all its parts, each compared with the hash that the hub gave for it.

    A file that has changed since it was downloaded is downloaded again, once.
    """
    files = hub.list_files(wanted.repo, endpoint, cache_dir)
    file = wanted.file or _choose(wanted.repo, files, wanted.quant)
    if file not in files:
        listing = ", ".join(sorted(name for name in files if is_model(name))) or "none"
        raise NotFound(
            f"The model hub has no file {wanted.repo}/{file}: check the name; its models are {listing}.", "model"
        )
    paths = []
    for name in part_names(file):
        path = hub.download(wanted.repo, name, progress, endpoint, cache_dir)
        if not _is_as_promised(path):
            progress(f"{path} is not what the model hub has.")
            path = hub.download(wanted.repo, name, progress, endpoint, cache_dir, again=True)
            if not _is_as_promised(path):
                path.resolve().unlink(missing_ok=True)
                raise BadFile(
                    f"What came as {wanted.repo}/{name} is not the file that the model hub announced "
                    "(another SHA-256): it was deleted; try again later, or set HF_ENDPOINT to another hub."
                )
        paths.append(path)
    return _checked(paths[0])


def _is_as_promised(path: Path) -> bool:
    promised = hub.promised_sha256(path)
    return promised is None or file_sha256(path) == promised


def _here(model: str) -> Path | None:
    """The file of the built-in model or of a path, None when ``model`` is neither. Raises BadFile."""
    if model == BUILTIN:
        return _checked(builtin_path())
    path = Path(model).expanduser()
    return _checked(path) if path.exists() else None


def _hub_id(model: str) -> HubId:
    found = _HUB_ID.fullmatch(model)
    if found is None or (found["file"] is None and found["repo"].endswith(".gguf")):
        wanted = "give a path to a .gguf file, a hub id such as Qwen/Qwen3-0.6B-GGUF:Q8_0, or builtin."
        raise NotFound(f"There is no model file at {model}: {wanted}", "model")
    return HubId(found["repo"], found["file"], found["quant"])


def _checked(path: Path) -> Path:
    """The path (of a split model its first part's), once all of it is seen to be there and to be GGUF."""
    if path.is_dir():
        raise BadFile(f"{path} is a folder, but a .gguf file is wanted: name the file in it.")
    parts = model_parts(path)
    for part in parts:
        try:
            with part.open("rb") as file:
                magic = file.read(4)
        except OSError as error:
            reason = f"{part} cannot be read ({error.strerror})"
            raise BadFile(f"{reason}: check that it is there and may be read.") from error
        if magic != b"GGUF":
            raise BadFile(f"{part} is not a GGUF file (it starts with {magic!r}): give a .gguf model.")
    return parts[0]


def _choose(repo: str, files: Iterable[str], quant: str | None) -> str:
    """The one file that is meant: the named quantisation, else the only file, else the first preferred one."""
    models = sorted(name for name in files if is_model(name))
    if not models:
        raise NotFound(f"{repo} holds no GGUF model: name another repository.", "model")
    if quant is None and len(models) == 1:
        return models[0]
    for wanted in PREFERRED_QUANTS if quant is None else (quant,):
        fitting = [name for name in models if _has_quant(name, wanted)]
        if len(fitting) == 1:
            return fitting[0]
    asked = "" if quant is None else f" that fit :{quant}"
    listing = ", ".join(models)
    raise InvalidInput(f"{repo} has no one file{asked}, but these: {listing}. Name one as {repo}/FILE.", "model")


def _has_quant(name: str, quant: str) -> bool:
    """Whether the file's name has the quantisation as a whole word: Q4_K is not in ``…-Q4_K_M.gguf``."""
    return re.search(rf"(?<![a-z0-9_]){re.escape(quant.lower())}(?![a-z0-9_])", Path(name).stem.lower()) is not None

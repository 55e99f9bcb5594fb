"""From what a person calls a model to a GGUF file on this machine: the built-in one, a path, or a file of the hub.

huggingface_hub does the downloading, with its own progress bar, cache and resumption; it is imported only when a hub id
is asked for. What is left out: GGUF split over several files, and what the file holds (the engine reads it).
"""

import errno
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from familiar.memory.errors import BadFile, InvalidInput, NoSpace, NotFound

BUILTIN = "builtin"
PREFERRED_QUANTS = ("Q8_0", "Q4_K_M")
"""Which file is taken where a repository holds several and none was named: the most exact, then the usual small one."""

_HUB_ID = re.compile(r"(?P<repo>[\w][\w.-]*/[\w][\w.-]*)(?:/(?P<file>[^:]+\.gguf)|:(?P<quant>[\w.-]+))?")
_PART = re.compile(r"-\d{5}-of-\d{5}$")


def builtin_path() -> Path:
    """The packaged model's file."""
    return Path(__file__).parent / "models" / "familiar-base.gguf"


def _silent(_line: str) -> None:
    """Progress that nobody watches."""


def resolve(
    model: str, progress: Callable[[str], None] = _silent, *, endpoint: str | None = None, cache_dir: Path | None = None
) -> Path:
    """The GGUF file that ``model`` names, downloaded first where it must be.

    Args:
        model: ``builtin``, a path, or a hub id (``user/repo``, ``user/repo:QUANT``, ``user/repo/file.gguf``).
        progress: told one line before a download.
        endpoint, cache_dir: the hub's address and the cache's folder; huggingface_hub's own when None.

    Raises:
        NotFound: no such file here or on the hub, or the hub cannot be reached; InvalidInput: neither a path nor a hub
        id, or several files fit; BadFile: not GGUF; NoSpace: the download did not fit.
    """
    if model == BUILTIN:
        return _checked(builtin_path())
    path = Path(model).expanduser()
    if path.exists():
        return _checked(path)
    hub_id = _HUB_ID.fullmatch(model)
    if hub_id is None or (hub_id["file"] is None and hub_id["repo"].endswith(".gguf")):
        wanted = "give a path to a .gguf file, a hub id such as Qwen/Qwen3-0.6B-GGUF:Q8_0, or builtin."
        raise NotFound(f"There is no model file at {model}: {wanted}", "model")
    repo = hub_id["repo"]
    file = hub_id["file"] or _choose(repo, _list_files(repo, endpoint, cache_dir), hub_id["quant"])
    return _checked(_download(repo, file, progress, endpoint, cache_dir))


def _checked(path: Path) -> Path:
    """The path, once it is seen to be a GGUF file."""
    if path.is_dir():
        raise BadFile(f"{path} is a folder, but a .gguf file is wanted: name the file in it.")
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise BadFile(f"{path} cannot be read ({error.strerror}): check that it is there and may be read.") from error
    if magic != b"GGUF":
        raise BadFile(f"{path} is not a GGUF file (it starts with {magic!r}): give a .gguf model.")
    return path


def _choose(repo: str, files: Iterable[str], quant: str | None) -> str:
    """The one file that is meant: the named quantisation, else the only file, else the first preferred one."""
    models = sorted(name for name in files if _is_model(name))
    if not models:
        raise NotFound(f"{repo} holds no single-file GGUF model: name another repository.", "model")
    if quant is None and len(models) == 1:
        return models[0]
    for wanted in PREFERRED_QUANTS if quant is None else (quant,):
        fitting = [name for name in models if _has_quant(name, wanted)]
        if len(fitting) == 1:
            return fitting[0]
    asked = "" if quant is None else f" that fit :{quant}"
    listing = ", ".join(models)
    raise InvalidInput(f"{repo} has no one file{asked}, but these: {listing}. Name one as {repo}/FILE.", "model")


def _is_model(name: str) -> bool:
    lowered = name.lower()
    stem = Path(lowered).stem
    aside = "mmproj" in stem or "imatrix" in stem or _PART.search(stem) is not None
    return lowered.endswith(".gguf") and not aside


def _has_quant(name: str, quant: str) -> bool:
    """Whether the file's name has the quantisation as a whole word: Q4_K is not in ``…-Q4_K_M.gguf``."""
    return re.search(rf"(?<![a-z0-9_]){re.escape(quant.lower())}(?![a-z0-9_])", Path(name).stem.lower()) is not None


def _list_files(repo: str, endpoint: str | None, cache_dir: Path | None) -> list[str]:
    """The repository's files; those in the cache when the hub cannot be reached, so that a restart works offline."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    try:
        return list(HfApi(endpoint=endpoint).list_repo_files(repo))
    except (HTTPError, OSError) as error:
        # A client error (no such repository, not allowed) is an answer; anything else is no connection.
        answered = isinstance(error, HfHubHTTPError) and error.response.status_code < 500
        cached = [] if answered else _cached_files(repo, cache_dir)
        if cached:
            return cached
        raise _hub_error(repo, error) from error
    except ValueError as error:  # huggingface_hub's own check of a repository's name
        raise InvalidInput(f"{repo} is not a hub id ({_first_line(error)}).", "model") from error


def _cached_files(repo: str, cache_dir: Path | None) -> list[str]:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        cached = scan_cache_dir(cache_dir).repos
    except CacheNotFound:
        return []
    mine = [found for found in cached if found.repo_id == repo and found.repo_type == "model"]
    return sorted(
        {
            file.file_path.relative_to(revision.snapshot_path).as_posix()
            for found in mine
            for revision in found.revisions
            for file in revision.files
        }
    )


def _download(
    repo: str, file: str, progress: Callable[[str], None], endpoint: str | None, cache_dir: Path | None
) -> Path:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HTTPError

    if not isinstance(try_to_load_from_cache(repo, file, cache_dir=cache_dir), str):
        progress(f"Downloading {file} of {repo} from the model hub.")
    try:
        return Path(hf_hub_download(repo, file, endpoint=endpoint, cache_dir=cache_dir))
    except (HTTPError, OSError) as error:
        raise _hub_error(f"{repo}/{file}", error) from error
    except ValueError as error:
        raise InvalidInput(f"{repo}/{file} is not a hub id ({_first_line(error)}).", "model") from error


def _hub_error(what: str, error: Exception) -> NotFound | NoSpace:
    """One line for a person, whatever huggingface_hub raised."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return NoSpace(f"The disk is full: {what} was not downloaded. Make room and try again; it resumes.")
    if isinstance(error, GatedRepoError):
        return NotFound(f"{what} is gated: accept its terms on the model hub and set HF_TOKEN.", "model")
    if isinstance(error, RepositoryNotFoundError):
        return NotFound(f"The model hub has no {what} that may be read: check the name, or set HF_TOKEN.", "model")
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return NotFound(f"The model hub has no file {what}: check the name.", "model")
    if isinstance(error, HfHubHTTPError):
        detail = f"HTTP {error.response.status_code}"
        return NotFound(f"The model hub refused {what} ({detail}): try again later, or give a path.", "model")
    reason = _first_line(error.__cause__ or error)
    advice = "check the connection, give a path to a .gguf file, or use --model builtin."
    return NotFound(f"The model hub cannot be reached for {what} ({reason}): {advice}", "model")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

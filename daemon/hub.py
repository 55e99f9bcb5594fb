"""The model hub: what a repository holds, what of it is in the cache, and the download. One-line errors throughout.

huggingface_hub does the work, with its own progress bar, cache, variables (``HF_HOME``, ``HF_ENDPOINT``, ``HF_TOKEN``,
``HF_HUB_OFFLINE``) and resumption; it is imported only when one of these is called. In each, ``endpoint`` is the hub's
address and ``cache_dir`` the cache's folder, huggingface_hub's own where they are None.
"""

import errno
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from familiar.memory.errors import InvalidInput, NoSpace, NotFound

TIMEOUT_S = 10.0
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class CachedFile:
    """A file of a hub repository that has been downloaded."""

    repo: str
    name: str
    path: Path


def list_files(repo: str, endpoint: str | None, cache_dir: Path | None) -> list[str]:
    """Return a repository's files; those in the cache when the hub cannot be reached.

    It asks once, where a download would try for half a minute to reach a hub that is not there. Raises NotFound when
    there is no such repository or no way to it, InvalidInput when ``repo`` cannot be one.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError

    try:
        siblings = HfApi(endpoint=endpoint).model_info(repo, timeout=TIMEOUT_S).siblings
        return [file.rfilename for file in siblings or ()]
    except (HTTPError, OSError) as error:
        # A client error (no such repository, not allowed) is an answer; anything else is no connection.
        answered = isinstance(error, HfHubHTTPError) and error.response.status_code < 500
        cached = [] if answered else [file.name for file in cached_files(cache_dir) if file.repo == repo]
        if cached:
            return cached
        raise _hub_error(repo, error) from error
    except HFValidationError as error:
        raise InvalidInput(f"{repo} is not a hub id ({_first_line(error)}).", "model") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise NotFound(
            f"What answered for {repo} is no model hub: check HF_ENDPOINT, and that no sign-in page of the network "
            "answers in its place.",
            "model",
        ) from error


def cached_files(cache_dir: Path | None = None) -> list[CachedFile]:
    """Return the files of all model repositories in the cache, each in its newest revision, sorted by name."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir(cache_dir).repos
    except CacheNotFound:
        return []
    found: dict[tuple[str, str], CachedFile] = {}
    for repo in (each for each in repos if each.repo_type == "model"):
        # What a name without a revision leads to comes last, and stays.
        for revision in sorted(repo.revisions, key=lambda each: ("main" in each.refs, each.last_modified)):
            for file in revision.files:
                name = file.file_path.relative_to(revision.snapshot_path).as_posix()
                found[repo.repo_id, name] = CachedFile(repo.repo_id, name, file.file_path)
    return [found[key] for key in sorted(found)]


def download(
    repo: str,
    file: str,
    progress: Callable[[str], None],
    endpoint: str | None,
    cache_dir: Path | None,
    *,
    again: bool = False,
) -> Path:
    """Return a file of the hub, downloaded unless it is in the cache (or ``again``); ``progress`` is told of it first.

    Raises NotFound, InvalidInput (``file`` cannot be one) or NoSpace.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HTTPError

    if again or not isinstance(try_to_load_from_cache(repo, file, cache_dir=cache_dir), str):
        progress(f"Downloading {file} of {repo} from the model hub.")
    try:
        return Path(hf_hub_download(repo, file, endpoint=endpoint, cache_dir=cache_dir, force_download=again))
    except (HTTPError, OSError) as error:
        raise _hub_error(f"{repo}/{file}", error) from error
    except ValueError as error:
        raise InvalidInput(f"{repo}/{file} is not a hub id ({_first_line(error)}).", "model") from error


def promised_sha256(path: Path) -> str | None:
    """Return the hash that the hub gave for a cached file's content, None where it gave none.

    huggingface_hub names a large file's blob by it, and compares no more than its size with what came.
    """
    name = path.resolve().name
    return name if _SHA256.fullmatch(name) else None


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

"""Forget memories, or all of a user, everywhere in a data folder: backups, files, and then the store.

The store is last: whoever is interrupted finds the memory still there, and forgets it again. The checkpoints of
learning runs go whole, since weights cannot be cleaned. What is left out: what an adapter learned from it (the report
names the versions), a running engine's caches, which are of the process, copies that were carried out of the data
folder, and clients, which send the conversations that they have kept.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from familiar.memory import backup, free_space, lineage, purge, scrub, users
from familiar.memory.database import Connection
from familiar.memory.purge import Purged, Targets
from familiar.memory.types import LearningRun


@dataclass(frozen=True)
class Forgotten:
    """What forgetting came to.

    ``memory_ids`` and ``feedback_ids`` are the rows that went, more than were named where others held the same text.
    ``exchanges`` and ``others`` count the rows, ``files`` and ``backups`` the files, in which text was replaced.
    ``versions`` are the adapter versions that were trained on a signal that went. ``left`` are files that could not be
    cleaned, each with the reason. Unless ``finished``, another process was using the store for so long that text is
    still in its free space or its log; it goes when something is next forgotten, or the store is next opened.
    """

    memory_ids: tuple[str, ...]
    feedback_ids: tuple[str, ...]
    exchanges: int
    others: int
    backups: int
    files: int
    versions: tuple[int, ...]
    left: tuple[str, ...]
    finished: bool


def forget(connection: Connection, user_id: int, ids: Sequence[str], now: float) -> Forgotten:
    """See ``Store.forget``."""
    purge.require(connection, user_id, ids)
    targets = purge.collect(connection, Targets(user_id, frozenset(ids)))

    def clean(copy: Connection) -> bool:
        purge.purge(copy, purge.collect(copy, targets))
        return free_space.finish(copy)

    with backup.locked(connection.path):
        backups, left = backup.clean(connection.path, now, clean)
        named = targets.memory_ids | purge.signals_to_go(connection, targets)
        kept = _remove_checkpoints(connection, user_id)
        files, unread = scrub.scrub(connection.path.parent, targets.everywhere, named)
        purged = purge.purge(connection, targets)
        finished = free_space.finish(connection)
    return _report(purged, backups, files, left + kept + unread, finished)


def erase(connection: Connection, user_id: int, now: float, *, keep_user: bool = True) -> Forgotten:
    """See ``Store.erase``."""
    users.require(connection, user_id)
    if not keep_user:
        users.Users(connection).refuse_default(user_id)

    def clean(copy: Connection) -> bool:
        purge.wipe(copy, user_id, keep_user=keep_user)
        return free_space.finish(copy)

    with backup.locked(connection.path):
        backups, left = backup.clean(connection.path, now, clean)
        purge.wipe(connection, user_id, keep_user=keep_user)
        finished = free_space.finish(connection)
    return _report(Purged(), backups, 0, left, finished)


def _remove_checkpoints(connection: Connection, user_id: int) -> tuple[str, ...]:
    """Remove the folders of the user's runs, but for one that is at work: its learner does so when it ends.

    Returns those that could not be removed, each with the reason.
    """
    left = []
    at_work = {run.id: run.state == "running" and _works(run) for run in lineage.runs(connection, user_id)}
    for path in (connection.path.parent / "runs").glob("*"):
        if path.name in at_work and not at_work[path.name]:
            try:
                shutil.rmtree(path)
            except OSError as error:
                left.append(f"{path} ({error.strerror or error})")
    return tuple(left)


def _works(run: LearningRun) -> bool:
    """Whether its process lives; another one that got the number counts: the next run cleans up."""
    return run.pid is not None and psutil.pid_exists(run.pid)


def _report(purged: Purged, backups: int, files: int, left: tuple[str, ...], finished: bool) -> Forgotten:
    return Forgotten(
        memory_ids=purged.memory_ids,
        feedback_ids=purged.feedback_ids,
        exchanges=purged.exchanges,
        others=purged.others,
        backups=backups,
        files=files,
        versions=purged.versions,
        left=left,
        finished=finished,
    )

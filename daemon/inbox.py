"""Reading the files of the inbox into the store: what one file becomes, and all that wait, once.

A file is read, its rows are stored, and it is moved, all while the inbox is locked: so each is read by one process. A
crash in between leaves the file where it was; what was stored of it is known by its key when it is read again.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from familiar.daemon import inbox_files
from familiar.daemon.inbox_files import DONE, FAILED, Folders, Waiting
from familiar.daemon.inbox_rows import Stored, store_draft, store_row
from familiar.feedback import drafts, inbox_formats
from familiar.feedback.inbox_formats import Problem, Unfinished
from familiar.memory.errors import BadFile, FamiliarError, InvalidInput, NotFound
from familiar.memory.store import Store

log = logging.getLogger("familiar")

FEEDBACK_SUFFIXES = (".jsonl", ".ndjson", ".json")

State = Literal["done", "failed", "unfinished", "later", "gone"]
"""Read and moved; refused and moved; perhaps still being written; to be read again, for now it cannot be; not there."""


@dataclass(frozen=True)
class Outcome:
    """What became of a file, which is at ``path`` now. ``changed`` counts its rows by whether they were new."""

    name: str
    path: Path
    state: State
    changed: tuple[Stored, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def summary(self) -> str:
        """One line for people."""
        counts = {
            "stored": self.changed.count("stored"),
            "known already": self.changed.count("known"),
            "unchanged": self.changed.count("unchanged"),
            "refused": len(self.problems) if self.state == "done" else 0,
        }
        said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        if self.state == "done":
            return f"{self.name}: {said or 'nothing in it says anything about a reply'}"
        reason = "; ".join(problem.reason for problem in self.problems)
        where = {"failed": "refused", "unfinished": "left where it is", "later": "left for later"}
        return f"{self.name}: {where.get(self.state, 'gone')}, as {reason or 'it is being written'}"


class Inbox:
    """Reads files into ``store``. ``clock`` is in seconds since the epoch; ``stopping`` ends a long file early."""

    def __init__(
        self,
        store: Store,
        folders: Folders,
        clock: Callable[[], float] = time.time,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self.folders = folders
        self._store = store
        self._clock = clock
        self._stopping = stopping

    def waiting(self) -> list[Waiting]:
        """The files that are there to be read."""
        return inbox_files.waiting(self.folders, self._store.users)

    def strangers(self) -> list[Path]:
        """Folders in the inbox that are named after no user."""
        return inbox_files.strangers(self.folders.inbox, self._store.users)

    def read(self, entry: Waiting) -> Outcome:
        """Store what a file says, and move it out of the inbox. Never raises: the outcome says what was wrong."""
        try:
            with inbox_files.locked(self.folders):
                return self._read(entry)
        except (FamiliarError, OSError) as error:  # a busy store, a full disk, a folder without rights
            return self._left(entry, "later", str(error))
        except Exception as error:
            log.exception("The inbox could not read %s", entry.name)
            return self._left(entry, "unfinished", f"of an unexpected {type(error).__name__}: {error}")

    def _read(self, entry: Waiting) -> Outcome:
        before = inbox_files.signature(entry.path)
        if before is None:
            return Outcome(entry.name, entry.path, "gone")
        try:
            text = inbox_formats.decode(inbox_files.read(entry.path))
            changed, problems = self._store_text(entry, text)
        except Unfinished as error:
            return self._left(entry, "unfinished", str(error))
        except BadFile as error:
            return self._refused(entry, str(error))
        if inbox_files.signature(entry.path) != before or self._stopping():
            return Outcome(entry.name, entry.path, "later")
        if not changed and problems:
            return self._refused(entry, "nothing in it can be used", problems)
        if entry.in_place:
            return Outcome(entry.name, entry.path, "done", changed)
        outcome = Outcome(entry.name, inbox_files.move(entry.path, DONE), "done", changed, problems)
        if problems:
            inbox_files.report(outcome.path, outcome.summary, problems)
        return outcome

    def _store_text(self, entry: Waiting, text: str) -> tuple[tuple[Stored, ...], tuple[Problem, ...]]:
        suffix = entry.path.suffix.lower()
        if entry.in_place or drafts.is_draft(text) or suffix in drafts.SUFFIXES:
            return (self._store_draft(entry, text),), ()
        if suffix not in FEEDBACK_SUFFIXES:
            known = ", ".join((*FEEDBACK_SUFFIXES, *drafts.SUFFIXES))
            raise BadFile(f"its name ends in none of {known}: drop feedback, an Open WebUI export or an edited draft")
        parsed = inbox_formats.parse(text)
        changed: list[Stored] = []
        problems = list(parsed.problems)
        for row in parsed.rows:
            if self._stopping():
                break
            try:
                changed.append(store_row(self._store, entry.user_id, row, self._clock()))
            except (InvalidInput, NotFound) as error:
                problems.append(Problem(row.place, str(error)))
        return tuple(changed), tuple(sorted(problems, key=lambda problem: int(problem.place.split()[-1])))

    def _store_draft(self, entry: Waiting, text: str) -> Stored:
        draft = drafts.read(text, entry.path.name)
        if not draft.body:
            raise Unfinished("the draft is empty: write the reply as it should be")
        try:
            return store_draft(self._store, entry.user_id, draft, self._clock())
        except (InvalidInput, NotFound) as error:
            raise BadFile(str(error)) from error

    def _refused(self, entry: Waiting, reason: str, problems: Sequence[Problem] = ()) -> Outcome:
        """Move a file that cannot be used, with a report; a draft in its own folder, and what is no file, stay."""
        whole = (Problem(entry.name, reason), *problems)
        if entry.in_place or entry.path.is_symlink() or not entry.path.is_file():
            return Outcome(entry.name, entry.path, "unfinished", problems=whole[:1])
        outcome = Outcome(entry.name, inbox_files.move(entry.path, FAILED), "failed", problems=whole[:1])
        inbox_files.report(outcome.path, outcome.summary, problems)
        return outcome

    def _left(self, entry: Waiting, state: State, reason: str) -> Outcome:
        return Outcome(entry.name, entry.path, state, problems=(Problem(entry.name, reason),))

    def give_up(self, outcome: Outcome) -> None:
        """Say beside a file that stays where it is why it is not read. It is read again when it changes."""
        inbox_files.report(outcome.path, outcome.summary, ())

    def read_all(self, settle_s: float) -> list[Outcome]:
        """Read every file that is there and does not change for ``settle_s`` seconds."""
        before = {entry: inbox_files.signature(entry.path) for entry in self.waiting()}
        if before:
            time.sleep(settle_s)
        outcomes = []
        for entry, signature in before.items():
            if inbox_files.signature(entry.path) == signature:
                outcome = self.read(entry)
            else:
                outcome = Outcome(entry.name, entry.path, "later")
            if outcome.state == "unfinished" and not entry.in_place:
                self.give_up(outcome)
            if outcome.state != "gone" and not (entry.in_place and "stored" not in outcome.changed):
                outcomes.append(outcome)
        return outcomes

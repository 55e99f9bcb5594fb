"""``familiar data``: all that is kept, carried to another machine, backed up, put back, and wiped.

The commands work on the data folder itself, beside a running service; only ``restore`` needs it to have ended.
"""

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from familiar.daemon.cli_confirm import confirm
from familiar.daemon.cli_options import load_settings, open_store, store_options, user_option
from familiar.memory.errors import FamiliarError, InvalidInput

if TYPE_CHECKING:
    from familiar.daemon.settings import Settings
    from familiar.memory.portable import Imported
    from familiar.memory.store import Store
    from familiar.memory.users import User

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def data() -> None:
    """Carry what is kept to another machine, back it up, put it back, or wipe it."""


@data.command("export")
@click.option("-o", "--out", type=_FILE, help="The file to write; stdout without it.")
@click.option(
    "--with-adapters", is_flag=True, help="Write a tar file that has adapters, uploads and fine-tuned models too."
)
@store_options
@user_option
def export_data(out: Path | None, with_adapters: bool, user: str | None, **flags: Any) -> None:
    """Write everything that a user owns as JSON lines, to read or to import elsewhere. Keys are left out."""
    if with_adapters and out is None:
        raise click.UsageError("--with-adapters writes a tar file: name it with --out.")
    settings = load_settings(flags)
    from familiar.daemon import data_archive

    with open_store(settings) as store:
        user_id = store.users.id_of(user)
        if out is None:
            for line in store.export(user_id):
                click.echo(line, nl=False)
            return
        with data_archive.written(out) as file:
            if with_adapters:
                data_archive.write(store, settings.data_dir, user_id, file)
            else:
                file.writelines(store.export(user_id))
    _say(f"Wrote {out}. Whoever has this file can read all that was said: keep it as you would keep a diary.")


@data.command("import")
@click.argument("file", type=_FILE)
@click.option("--anyones", is_flag=True, help="Take it although it is of a user of another name.")
@store_options
@user_option
def import_data(file: Path, anyones: bool, user: str | None, **flags: Any) -> None:
    """Add an export to what is here. All of it or, where FILE is damaged, nothing; a second time changes nothing."""
    settings = load_settings(flags)
    from familiar.daemon import data_archive
    from familiar.daemon.learner_lock import learner_lock

    with open_store(settings) as store:
        user_id = store.users.id_of(user)
        try:
            if data_archive.is_archive(file):
                with learner_lock(settings.data_dir):
                    report = data_archive.read(store, settings.data_dir, user_id, file, anyones=anyones)
            else:
                with file.open("rb") as lines:
                    report = store.import_data(user_id, lines, anyones=anyones)
        except OSError as error:
            if isinstance(error, FamiliarError):
                raise
            raise InvalidInput(f"{file} cannot be read ({error.strerror}): check the name.", "file") from error
        except InvalidInput as error:
            hint = "" if anyones else _hint(str(error))
            raise InvalidInput(f"{file}: {error}{hint}", error.param) from error
    click.echo(_summary(report))


@data.command()
@click.option("-o", "--out", type=_FILE, help="The file to write; without it, a new one in `backups`.")
@store_options
def backup(out: Path | None, **flags: Any) -> None:
    """Copy the store of all users while it is in use, and check the copy. Adapters are not in it."""
    with open_store(load_settings(flags)) as store:
        path = store.backup(out)
    click.echo(str(path))


@data.command()
@store_options
def backups(**flags: Any) -> None:
    """List the backups in the data folder, oldest first."""
    settings = load_settings(flags)
    from familiar.memory import backup as backup_files

    found = backup_files.listed(settings.database)
    if not found:
        click.echo("There are no backups: `familiar data backup` makes one.")
    for each in found:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(each.created_at))
        click.echo(f"{made}  {each.size_bytes / 1e6:>8.1f} MB  {each.path}")


@data.command()
@click.argument("file", type=_FILE)
@click.option("--yes", is_flag=True, help="Restore without asking.")
@store_options
def restore(file: Path, yes: bool, **flags: Any) -> None:
    """Put a backup in the store's place. The service must have ended; what is replaced becomes a backup."""
    settings = load_settings(flags)
    from familiar.daemon import data_folder, service_record
    from familiar.daemon.learner_lock import learner_lock
    from familiar.memory import backup as backup_files

    data_folder.make(settings.data_dir)
    service_record.refuse_second(settings.service_file)
    if not yes:
        confirm(f"Put {file} in the place of {settings.database}?", "Nothing was restored")
    with learner_lock(settings.data_dir):
        replaced = backup_files.restore(settings.database, file, time.time())
    said = f"Restored {file}."
    if replaced:
        said += f" What was there before is {'damaged, and kept as ' if replaced.damaged else ''}{replaced.path}."
    click.echo(said)


@data.command()
@click.option("--yes", is_flag=True, help="Erase without asking.")
@store_options
@user_option
def erase(yes: bool, user: str | None, **flags: Any) -> None:
    """Forget everything of a user's, here and in the backups; the user and their keys stay."""
    settings = load_settings(flags)
    from familiar.daemon.learner_lock import learner_lock

    with open_store(settings) as store:
        who = store.users.get(store.users.id_of(user))
        if not yes:
            held = ", ".join(f"{count} {sort}" for sort, count in store.counts(who.id).items())
            confirm(f"Erase everything of {who.name} ({held})? It cannot be undone.", "Nothing was erased")
        with learner_lock(settings.data_dir):
            _erase(settings, store, who)
    click.echo(f"Erased everything of {who.name}.")


def _erase(settings: "Settings", store: "Store", user: "User") -> None:
    from familiar.daemon import user_files

    user_files.remove(store, settings.data_dir, user)
    report = store.erase(user.id)
    # Logs may quote what was said; whoever writes to one goes on at its new end.
    for log in (settings.data_dir / "logs").glob("*.log"):
        with contextlib.suppress(OSError):
            os.truncate(log, 0)
    for left in report.left:
        _say(f"This could not be cleaned: {left}")
    if not report.finished:
        _say(
            f"Another program was using {settings.database}, so text may be in it, or beside it in its -wal file, "
            f"until it is next opened."
        )


def _summary(report: "Imported") -> str:
    added = ", ".join(f"{count} {table.replace('_', ' ')}" for table, count in report.added.items() if count)
    known = sum(report.known.values())
    said = f"Imported {added}." if added else "Nothing new was in it."
    return said + (f" {known} rows were here already." if known else "")


def _hint(message: str) -> str:
    return " Here that is --user, or --anyones." if message.startswith("The export is of") else ""


def _say(line: str) -> None:
    click.echo(line, err=True)

"""``familiar inbox`` and ``familiar draft``: files as a way to correct replies.

A running service reads the inbox by itself; ``familiar inbox process`` does so without one.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from familiar.daemon.cli_options import load_settings, open_store, service_options, store_options, user_option

if TYPE_CHECKING:
    from familiar.daemon.inbox_files import Folders
    from familiar.daemon.settings import Settings

SETTLE_S = 1.0
LAST_REPORTS = 3


class _Group(click.Group):
    """A group that by itself does what its command ``status`` does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ("-h", "--help")):
            args = ["status", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Group)
def inbox() -> None:
    """See and read the folder whose files are taken as feedback. Alone: the same as `status`."""


@inbox.command("status")
@store_options
def show(**flags: Any) -> None:
    """Show where the inbox is, what waits in it, what was read and what was refused."""
    settings = load_settings(flags)
    from familiar.daemon import inbox_files

    folders = _folders(settings)
    if folders is None:
        click.echo('The inbox is off: set `inbox` to a folder, or to "auto", to have one.')
        return
    with open_store(settings) as store:
        files = [entry for entry in inbox_files.waiting(folders, store.users) if not entry.in_place]
        done, failed = (inbox_files.processed(folders.inbox, store.users, where) for where in ("done", "failed"))
        reports = inbox_files.reports(folders.inbox, store.users)
        strangers = inbox_files.strangers(folders.inbox, store.users)
    click.echo(f"inbox    {folders.inbox}")
    click.echo(f"waiting  {len(files)}{_listed([entry.name for entry in files])}")
    click.echo(f"done     {len(done)}")
    click.echo(f"failed   {len(failed)}")
    for folder in strangers:
        click.echo(f"problem  {folder.name} is a folder but no user: `familiar users list` shows the names")
    for report in reports[-LAST_REPORTS:]:
        click.echo(f"problem  {_first_line(report)}")
    if reports:
        click.echo(f"each is told in full in *{inbox_files.REPORT} beside the file, in the inbox, done or failed")


@inbox.command()
@store_options
def process(**flags: Any) -> None:
    """Read what is in the inbox now, with or without a running service."""
    settings = load_settings(flags)
    from familiar.daemon.inbox import Inbox

    folders = _folders(settings)
    if folders is None:
        click.echo('The inbox is off: set `inbox` to a folder, or to "auto", to have one.')
        return
    folders.make()
    with open_store(settings) as store:
        outcomes = Inbox(store, folders).read_all(SETTLE_S)
    for outcome in outcomes:
        click.echo(outcome.summary)
    if not outcomes:
        click.echo(f"Nothing waits in {folders.inbox}.")


@click.command()
@click.argument("request")
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path), help="Where to write it.")
@click.option("--id", "model_id", default="familiar", show_default=True, help="Which model of the service to ask.")
@service_options
@user_option
def draft(request: str, out: Path | None, model_id: str, user: str | None, **flags: Any) -> None:
    """Write the reply to a request into a file, and print its path; editing that file corrects the reply."""
    settings = load_settings(flags)
    from familiar.daemon import local_service
    from familiar.memory.errors import FamiliarError, InvalidInput
    from familiar.memory.types import Message
    from familiar.memory.whole_text import whole_text

    request = whole_text(request)
    if not request.strip():
        raise InvalidInput("The request is empty: say what is to be written.", "request")
    if out == Path("-"):
        raise InvalidInput("-o takes a file, as it is by editing it that a draft is corrected: name one.", "out")
    if out is not None and out.exists():
        raise InvalidInput(f"{out} exists already: give another -o, or remove it.", "out")
    with open_store(settings) as store:
        user_id = store.users.id_of(user)
        folder = settings.drafts_dir / ("" if user_id == store.default_user() else store.users.get(user_id).name)
    with local_service.found_or_started(settings, user) as client:
        chunks = list(client.stream(model_id, [Message(role="user", content=request)]))
    notices = [str(chunk.told["notice"]) for chunk in chunks if chunk.told.get("notice")]
    reply = "".join(chunk.text for chunk in chunks)
    if not reply.strip():
        raise FamiliarError("The model said nothing, so there is no draft: ask again, or otherwise.")
    click.echo(_write(folder, out, request, chunks[0].id, reply))
    for notice in notices:
        click.echo(f"familiar: {notice}", err=True)


def _write(folder: Path, out: Path | None, request: str, completion_id: str, reply: str) -> Path:
    from familiar.adapters.folders import disk_errors
    from familiar.daemon import data_folder
    from familiar.feedback import drafts
    from familiar.memory.errors import InvalidInput, NoSpace

    target = out or data_folder.make(folder) / drafts.file_name(request, completion_id)
    try:
        with disk_errors(target), target.open("x", encoding="utf-8") as file:
            file.write(drafts.text_of(completion_id, reply))
    except NoSpace:
        raise
    except OSError as error:
        raise InvalidInput(f"{target} cannot be written ({error.strerror}): give another -o.", "out") from error
    return target


def _folders(settings: "Settings") -> "Folders | None":
    from familiar.daemon.inbox_files import Folders

    return None if settings.inbox_dir is None else Folders(settings.inbox_dir, settings.drafts_dir)


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:LAST_REPORTS])
    return f"  ({shown}{', …' if len(names) > LAST_REPORTS else ''})" if shown else ""


def _first_line(report: Path) -> str:
    try:
        return report.read_text(encoding="utf-8").partition("\n")[0]
    except OSError:
        return report.name

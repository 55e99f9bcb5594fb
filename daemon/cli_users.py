"""``familiar users``: the people whom one service serves, each with a memory, adapters and API keys of their own.

The commands work on the data folder itself; a running service sees each change at its next request. A key is printed
alone on stdout, and what there is to say about it on stderr, so that a script can keep the one without the other.
"""

import time
from typing import TYPE_CHECKING, Any

import click

from familiar.daemon.cli_confirm import confirm
from familiar.daemon.cli_options import load_settings, open_store, store_options

if TYPE_CHECKING:
    from pathlib import Path

    from familiar.memory.store import Store
    from familiar.memory.users import User


@click.group()
def users() -> None:
    """Share the service with a household: each user has a memory and adapters of their own."""


@users.command()
@click.argument("name")
@store_options
def add(name: str, **flags: Any) -> None:
    """Make a user, and print their API key: it is shown this once."""
    from familiar.memory.users import new_key

    key = new_key()
    with open_store(load_settings(flags)) as store:
        first = not store.users.have_keys()
        user = store.users.add(name, key, time.time())
    _say(f"Added {user.name}. Their API key, which is shown this once:")
    click.echo(key)
    if first:
        _say_keys_are_needed(user.name)


@users.command("list")
@store_options
def list_users(**flags: Any) -> None:
    """List the users: since when, what is stored of each, and their keys by their first characters."""
    with open_store(load_settings(flags)) as store:
        everyone = store.users.all()
        rows = [(user, store.counts(user.id), store.users.keys(user.id)) for user in everyone]
        needed = store.users.have_keys()
    width = max(len("name"), *(len(user.name) for user in everyone))
    click.echo(f"{'name':{width}}  since             exchanges  feedback  memories  adapters  keys")
    for user, counts, keys in rows:
        figures = f"{counts['exchanges']:>9}  {counts['feedback']:>8}  {counts['memories']:>8}  {counts['adapters']:>8}"
        used = [f"{key.prefix}… ({_last_use(key.last_used_at)})" for key in keys]
        click.echo(f"{user.name:{width}}  {_at(user.created_at)}  {figures}  {', '.join(used) or 'none'}")
    if not needed:
        click.echo("Nobody has a key, so none is needed: whoever asks is the first of these.")


@users.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Remove without asking.")
@store_options
def remove(name: str, yes: bool, **flags: Any) -> None:
    """Remove a user with everything of theirs: exchanges, feedback, memories, adapters, keys."""
    settings = load_settings(flags)
    from familiar.daemon.learner_lock import learner_lock

    with open_store(settings) as store:
        user = store.users.named(name)
        store.users.refuse_default(user.id)
        if not yes:
            held = ", ".join(f"{count} {sort}" for sort, count in store.counts(user.id).items())
            confirm(f"Remove {user.name} with {held}? It cannot be undone.", f"{user.name} was not removed")
        # A learner would go on writing what is removed here.
        with learner_lock(settings.data_dir):
            emptied = _remove(store, settings.data_dir, user)
        needed = store.users.have_keys()
    click.echo(f"Removed {user.name} and everything of theirs.")
    if not emptied:
        _say(
            f"Another program was reading {settings.database}, so what was removed may be in {settings.database}-wal "
            f"until all that use it have ended."
        )
    if not needed:
        _say("Nobody has a key now, so requests need none.")


def _remove(store: "Store", data_dir: "Path", user: "User") -> bool:
    """Remove the user's files, then their rows, in the backups too; whether all of it is gone by now."""
    from familiar.daemon import user_files

    user_files.remove(store, data_dir, user)
    report = store.erase(user.id, keep_user=False)
    for left in report.left:
        _say(f"This could not be cleaned: {left}")
    return report.finished


@users.command()
@click.argument("name")
@click.option("--add", "more", is_flag=True, help="Keep the older keys valid.")
@click.option("--revoke", is_flag=True, help="Make no new key: only revoke the older ones.")
@store_options
def key(name: str, more: bool, revoke: bool, **flags: Any) -> None:
    """Make a user a new API key in place of the older ones, and print it: it is shown this once."""
    if more and revoke:
        raise click.UsageError("--add keeps the older keys and --revoke takes them back: give one of the two.")
    from familiar.memory.users import new_key

    fresh = new_key()
    with open_store(load_settings(flags)) as store:
        user = store.users.named(name)
        first = not store.users.have_keys()
        if revoke:
            revoked = store.users.revoke_keys(user.id)
        else:
            revoked = store.users.add_key(user.id, fresh, time.time(), replace=not more)
        needed = store.users.have_keys()
    if revoked:
        _say(f"{revoked} older {'key is' if revoked == 1 else 'keys are'} no longer valid.")
    if revoke:
        click.echo(f"{user.name} has no key now.")
        if not needed:
            _say("Nobody has a key now, so requests need none.")
        return
    _say(f"The API key of {user.name}, which is shown this once:")
    click.echo(fresh)
    if first:
        _say_keys_are_needed(user.name)


def _say_keys_are_needed(name: str) -> None:
    from familiar.memory.users import DEFAULT_NAME

    _say("From now on every request needs a key; the commands on this machine go on without one.")
    if name != DEFAULT_NAME:
        _say(f"For your own clients: `familiar users key {DEFAULT_NAME}`.")


def _say(line: str) -> None:
    click.echo(line, err=True)


def _last_use(at_s: float | None) -> str:
    return "never used" if at_s is None else f"last used {_at(at_s)}"


def _at(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at_s))

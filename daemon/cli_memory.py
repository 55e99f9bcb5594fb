"""``familiar memory`` and ``familiar rule``: what is remembered, seen and changed from the terminal.

These work on the store itself, so they need no running service; a running one sees the change on its next request.
"""

import time
from typing import Any

import click

from familiar.daemon.cli_options import load_settings, open_store, store_options, user_option


@click.group()
def memory() -> None:
    """See and forget what is remembered."""


@memory.command("list")
@store_options
@user_option
def list_memories(user: str | None, **flags: Any) -> None:
    """List what is remembered, oldest first."""
    with open_store(load_settings(flags)) as store:
        memories = store.memories(store.users.id_of(user))
    if not memories:
        click.echo("Nothing is remembered yet: correct a reply in `familiar chat`, or state a `familiar rule`.")
    for each in memories:
        said = each.text if each.kind == "rule" else f'to "{each.prompt}": {each.text}'
        click.echo(f"{each.id}  {_date(each.created_at)}  {each.kind:7}  {_shortened(said)}")


@memory.command()
@click.argument("memory_id", metavar="ID")
@store_options
@user_option
def forget(memory_id: str, user: str | None, **flags: Any) -> None:
    """Forget one memory, named by its ID from `familiar memory list`."""
    with open_store(load_settings(flags)) as store:
        user_id = store.users.id_of(user)
        forgotten = store.memory(user_id, memory_id)
        store.delete_memory(user_id, memory_id)
    click.echo(f"Forgotten: {_shortened(forgotten.text)}")


@click.command()
@click.argument("text")
@store_options
@user_option
def rule(text: str, user: str | None, **flags: Any) -> None:
    """Remember a rule to keep to from now on, such as "Use metric units."."""
    from uuid import uuid4

    from familiar.feedback import signals

    with open_store(load_settings(flags)) as store:
        signal = signals.rule(store.users.id_of(user), text, id=f"fb-{uuid4().hex}", now=time.time())
        store.add_feedback(signal.feedback, signal.memories)
    click.echo(f"Remembered: {_shortened(text)}")


def _date(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at_s))


def _shortened(text: str, characters: int = 100) -> str:
    line = " ".join(text.split())
    return line if len(line) <= characters else line[: characters - 1] + "…"

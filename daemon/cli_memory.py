"""``familiar memory``: what is remembered, seen from the terminal, and why a reply used what it used.

These commands, and those of ``cli_memory_changes`` and ``cli_pending``, work on the store itself, so they need no
running service; a running one sees a change on its next request.
"""

from typing import TYPE_CHECKING, Any

import click

from familiar.daemon.cli_lookup import KINDS, json_option, opened, print_json
from familiar.daemon.cli_memory_changes import add, edit, forget, pin, restore, unpin
from familiar.daemon.cli_options import store_options, user_option
from familiar.daemon.cli_pending import confirm, dismiss, pending

if TYPE_CHECKING:
    from familiar.memory.types import MemoryKind


@click.group()
def memory() -> None:
    """See, state, change and forget what is remembered."""


@memory.command("list")
@click.option("--kind", type=click.Choice(KINDS), help="Only those of one kind.")
@click.option(
    "--state",
    type=click.Choice(["active", "superseded", "evicted"]),
    default="active",
    show_default=True,
    help="Only those in one state.",
)
@click.option("--all", "everything", is_flag=True, help="Those in any state.")
@json_option
@store_options
@user_option
def list_memories(
    kind: "MemoryKind | None", state: str, everything: bool, as_json: bool, user: str | None, **flags: Any
) -> None:
    """List what is remembered, oldest first."""
    from familiar.daemon.memory_objects import list_object, memory_object
    from familiar.daemon.memory_service import STATES, consolidated
    from familiar.daemon.memory_text import table

    with opened(flags, user) as at:
        found = at.store.memories(at.user_id, kind, states=STATES["all" if everything else state])
        short, carried = at.short_ids(), consolidated(at.store, at.user_id)
    memories = [memory_object(each, carried) for each in found]
    if as_json:
        print_json(list_object(memories))
    elif memories:
        click.echo("\n".join(table(memories, short)))
    elif short:
        click.echo("Nothing of that sort is remembered: --all lists what is.")
    else:
        click.echo("Nothing is remembered yet: correct a reply in `familiar chat`, or state a `familiar rule`.")


@memory.command()
@click.argument("query")
@click.option("--kind", type=click.Choice(KINDS), help="Only those of one kind.")
@click.option("--all", "everything", is_flag=True, help="Superseded and evicted ones too.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most so many.")
@json_option
@store_options
@user_option
def search(
    query: str,
    kind: "MemoryKind | None",
    everything: bool,
    limit: int,
    as_json: bool,
    user: str | None,
    **flags: Any,
) -> None:
    """Find memories by what they say, best first."""
    from familiar.daemon.memory_objects import list_object, memory_object
    from familiar.daemon.memory_service import STATES, consolidated
    from familiar.daemon.memory_text import table

    states = STATES["all" if everything else "active"]
    with opened(flags, user) as at:
        found = at.store.search_memories(at.user_id, query, limit, kind, states=states)
        short, carried = at.short_ids(), consolidated(at.store, at.user_id)
    memories = [memory_object(each, carried, score=round(score, 4)) for each, score in found]
    if as_json:
        print_json(list_object(memories))
    else:
        click.echo("\n".join(table(memories, short)) if memories else "Nothing that is remembered has to do with it.")


@memory.command()
@click.argument("memory_id", metavar="ID")
@json_option
@store_options
@user_option
def show(memory_id: str, as_json: bool, user: str | None, **flags: Any) -> None:
    """Show one memory: where it came from, its history, and the last replies that it was shown for."""
    from familiar.daemon import memory_service, memory_text

    with opened(flags, user) as at:
        found = memory_service.detail(at.store, at.user_id, at.memory(memory_id).id)
    if as_json:
        print_json(found)
    else:
        click.echo("\n".join(memory_text.detail(found)))


@memory.command()
@click.argument("memory_id", metavar="ID")
@store_options
@user_option
def history(memory_id: str, user: str | None, **flags: Any) -> None:
    """Show what a memory took the place of, and what took its place, oldest first; * marks it."""
    from familiar.daemon import memory_service, memory_text
    from familiar.daemon.memory_objects import memory_object

    with opened(flags, user) as at:
        found = at.memory(memory_id)
        carried = memory_service.consolidated(at.store, at.user_id)
        chain = [memory_object(each, carried) for each in at.store.history_of(at.user_id, found.id)]
    click.echo("\n".join(memory_text.history(chain, found.id)))


@memory.command()
@click.argument("completion_id", metavar="[REPLY]", default="last")
@json_option
@store_options
@user_option
def why(completion_id: str, as_json: bool, user: str | None, **flags: Any) -> None:
    """Show which memories a reply was made with, and why: the last one, or that of a completion's id."""
    from familiar.daemon import memory_service, memory_text

    with opened(flags, user) as at:
        reply = memory_service.why(at.store, at.exchange(completion_id))
    if as_json:
        print_json(reply)
        return
    click.echo(f'{memory_text.moment(reply["created"])}  "{memory_text.one_line(reply["prompt"])}"')
    click.echo("\n".join(memory_text.why(reply)))


for command in (add, edit, pin, unpin, restore, forget, pending, confirm, dismiss):
    memory.add_command(command)

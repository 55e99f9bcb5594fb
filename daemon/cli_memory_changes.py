"""The commands of ``familiar memory`` that change what is remembered."""

import time
from typing import TYPE_CHECKING, Any

import click

from familiar.daemon.cli_confirm import confirm
from familiar.daemon.cli_lookup import opened, saying_options
from familiar.daemon.cli_options import store_options, user_option
from familiar.memory.errors import InvalidInput

if TYPE_CHECKING:
    from familiar.memory.types import Memory, MemoryKind, Scope


@click.command()
@click.argument("text")
@saying_options
@click.option("--pin", "pinned", is_flag=True, help="Show it with every request, and never evict it.")
@store_options
@user_option
def add(
    text: str,
    kind: "MemoryKind | None",
    scope: "Scope | None",
    prompt: str | None,
    conversation: str | None,
    pinned: bool,
    user: str | None,
    **flags: Any,
) -> None:
    """Remember something: a rule, a fact, or with --prompt the reply that is wanted to it."""
    from familiar.daemon import memory_service

    with opened(flags, user) as at:
        stored = memory_service.remember(
            at.store,
            at.user_id,
            text,
            time.time(),
            source="cli",
            prompt=prompt,
            kind=kind,
            scope=scope,
            conversation_id=at.conversation(scope, conversation),
            pinned=pinned,
        )
    _say("Remembered", stored)


@click.command()
@click.argument("memory_id", metavar="ID")
@click.argument("text", required=False)
@click.option("--editor", is_flag=True, help="Change the text in the editor that $VISUAL or $EDITOR names.")
@saying_options
@store_options
@user_option
def edit(
    memory_id: str,
    text: str | None,
    editor: bool,
    kind: "MemoryKind | None",
    scope: "Scope | None",
    prompt: str | None,
    conversation: str | None,
    user: str | None,
    **flags: Any,
) -> None:
    """Change what a memory says, or where it applies."""
    from familiar.daemon import memory_service

    if editor and text is not None:
        raise click.UsageError("--editor changes the text that there is: leave TEXT out.")
    with opened(flags, user) as at:
        found = at.memory(memory_id)
        if editor:
            text = click.edit(found.text)
            if text is None:
                raise InvalidInput("The text was not saved in the editor, so nothing is changed.", "text")
        changed = memory_service.change(
            at.store,
            at.user_id,
            found.id,
            time.time(),
            text=text,
            prompt=prompt,
            kind=kind,
            scope=scope,
            conversation_id=at.conversation(scope, conversation),
        )
    _say("Changed", changed)


@click.command()
@click.argument("memory_id", metavar="ID")
@store_options
@user_option
def pin(memory_id: str, user: str | None, **flags: Any) -> None:
    """Have a memory shown with every request, before others, and never evicted."""
    _say("Pinned", _change(memory_id, user, flags, pinned=True))


@click.command()
@click.argument("memory_id", metavar="ID")
@store_options
@user_option
def unpin(memory_id: str, user: str | None, **flags: Any) -> None:
    """Take a memory's pin away."""
    _say("Unpinned", _change(memory_id, user, flags, pinned=False))


@click.command()
@click.argument("memory_id", metavar="ID")
@store_options
@user_option
def restore(memory_id: str, user: str | None, **flags: Any) -> None:
    """Bring back a memory that was superseded or evicted."""
    _say("Restored", _change(memory_id, user, flags, restore=True))


def _change(memory_id: str, user: str | None, flags: dict[str, Any], **changes: Any) -> "Memory":
    from familiar.daemon import memory_service

    with opened(flags, user) as at:
        found = at.memory(memory_id)
        return memory_service.change(at.store, at.user_id, found.id, time.time(), **changes)


@click.command()
@click.argument("memory_ids", metavar="[ID]...", nargs=-1)
@click.option("--matching", metavar="QUERY", help="Those that hold every word of this.")
@click.option("--yes", is_flag=True, help="Forget several without asking.")
@store_options
@user_option
def forget(memory_ids: tuple[str, ...], matching: str | None, yes: bool, user: str | None, **flags: Any) -> None:
    """Forget memories: their text is gone from the data folder. Asks before it forgets more than one."""
    if (not memory_ids) == (matching is None):
        raise click.UsageError("Name what to forget by ids of `familiar memory list`, or by --matching: one of these.")
    from familiar.daemon import memory_service
    from familiar.daemon.memory_objects import forgotten_object, memory_object
    from familiar.daemon.memory_text import forgotten, one_line, said

    with opened(flags, user) as at:
        if matching is None:
            found = list({memory.id: memory for memory in map(at.memory, memory_ids)}.values())
        else:
            found = memory_service.matching(at.store, at.user_id, matching)
        if not found:
            click.echo(f'Nothing that is remembered holds every word of "{matching}".')
            return
        if len(found) > 1 and not yes:
            for memory in found:
                click.echo(f"  {one_line(said(memory_object(memory)))}")
            confirm(f"Forget these {len(found)} memories? It cannot be undone.", "Nothing was forgotten")
        report = at.store.forget(at.user_id, [memory.id for memory in found])
    for memory in found:
        click.echo(f"Forgotten: {one_line(memory.text)}")
    more = len(set(report.memory_ids) - {memory.id for memory in found})
    if more:
        click.echo(f"Forgotten with {'it' if len(found) == 1 else 'them'}: {more} more that came of the same words.")
    for line in forgotten(forgotten_object(report)):
        click.echo(f"familiar: {line}", err=True)


def _say(done: str, memory: "Memory") -> None:
    from familiar.daemon.memory_text import one_line

    click.echo(f"{done}: {one_line(memory.text)}")

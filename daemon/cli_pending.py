"""The commands of ``familiar memory`` about guesses: what was read from what the user did, until they say yes or no."""

import time
from typing import Any

import click

from familiar.daemon.cli_lookup import Opened, json_option, opened, print_json
from familiar.daemon.cli_options import store_options, user_option


@click.command()
@json_option
@store_options
@user_option
def pending(as_json: bool, user: str | None, **flags: Any) -> None:
    """List the guesses that wait for a yes (`confirm`) or a no (`dismiss`), oldest first."""
    from familiar.daemon.memory_objects import guess_object
    from familiar.daemon.memory_text import columns, moment, one_line
    from familiar.daemon.short_ids import shortened

    with opened(flags, user) as at:
        waiting = at.store.pending(at.user_id)
    if as_json:
        data = [guess_object(each) for each in waiting]
        print_json({"object": "list", "data": data})
        return
    if not waiting:
        click.echo("Nothing waits for an answer.")
        return
    short = shortened([each.id for each in waiting])
    rows = [("id", "guessed", "kind", "text")]
    rows += [(short[each.id], moment(each.created_at), each.kind, one_line(each.text or "")) for each in waiting]
    click.echo("\n".join(columns(rows)))


@click.command()
@click.argument("feedback_id", metavar="ID")
@click.option("--text", metavar="TEXT", help="What to keep to, in other words than the guess.")
@store_options
@user_option
def confirm(feedback_id: str, text: str | None, user: str | None, **flags: Any) -> None:
    """Say yes to a guess: it is remembered from now on."""
    from familiar.daemon import feedback_service
    from familiar.daemon.memory_text import one_line

    with opened(flags, user) as at:
        signal = feedback_service.confirm(at.store, at.user_id, _waiting(at, feedback_id), time.time(), text=text)
    for memory in signal.memories:
        click.echo(f"Remembered: {one_line(memory.text)}")


@click.command()
@click.argument("feedback_id", metavar="ID")
@store_options
@user_option
def dismiss(feedback_id: str, user: str | None, **flags: Any) -> None:
    """Say no to a guess: it is not asked again."""
    from familiar.daemon import feedback_service

    with opened(flags, user) as at:
        feedback_service.dismiss(at.store, at.user_id, _waiting(at, feedback_id))
    click.echo("Dismissed.")


def _waiting(at: Opened, wanted: str) -> str:
    from familiar.daemon.short_ids import pick

    ids = [each.id for each in at.store.pending(at.user_id)]
    return pick(ids, wanted, what="guess", param="feedback_id", listed_by="`familiar memory pending`")

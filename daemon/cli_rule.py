"""``familiar rule``: rules to keep to, and what checks whether they are kept; ``familiar graders``: what may.

These commands work on the store itself, so they need no running service; a running one sees a change on its next
request.
"""

import time
from typing import TYPE_CHECKING, Any

import click

from familiar.daemon.cli_lookup import SCOPES, json_option, opened, print_json
from familiar.daemon.cli_options import store_options, user_option

if TYPE_CHECKING:
    from familiar.memory.types import Scope


class _Group(click.Group):
    """A group that takes what is none of its commands for the text of a rule to add."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in (*self.commands, "-h", "--help"):
            args = ["add", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Group)
def rule() -> None:
    """State rules to keep to, and what checks them. With a text alone: the same as `add`."""


@rule.command()
@click.argument("text")
@click.option("--scope", type=click.Choice(SCOPES), help="Which requests it applies to.")
@click.option("--conversation", metavar="ID", help="Which one, with --scope conversation; last: the latest.")
@click.option(
    "--grader",
    "graders_said",
    metavar="GRADER",
    multiple=True,
    help="What checks it: one of `familiar graders`, such as max_words=50, or a JSON file; more than once for more.",
)
@store_options
@user_option
def add(
    text: str,
    scope: "Scope | None",
    conversation: str | None,
    graders_said: tuple[str, ...],
    user: str | None,
    **flags: Any,
) -> None:
    """Remember a rule to keep to from now on, such as "Use metric units."."""
    from uuid import uuid4

    from familiar.daemon import grader_service
    from familiar.daemon.memory_text import one_line
    from familiar.feedback import signals

    definitions = [grader_service.named(each) for each in graders_said]
    with opened(flags, user) as at:
        where = at.conversation(scope, conversation)
        if where is not None and scope is None:
            scope = "conversation"
        origin = signals.Origin(f"fb-{uuid4().hex}", time.time(), "cli")
        signal = signals.rule(origin, at.user_id, text, scope=scope, conversation_id=where)
        for memory in at.store.add_feedback(signal.feedback, signal.memories):
            click.echo(f"Remembered: {one_line(memory.text)}")
            for definition in definitions:
                kept = grader_service.keep(at.store, at.user_id, definition, memory.id, time.time())
                click.echo(f"Checked by: {kept.name}")


@rule.command("list")
@json_option
@store_options
@user_option
def list_rules(as_json: bool, user: str | None, **flags: Any) -> None:
    """List the rules that are kept to, oldest first, each with what checks it."""
    from familiar.daemon.grader_service import grader_object
    from familiar.daemon.memory_objects import list_object, memory_object
    from familiar.daemon.memory_service import consolidated
    from familiar.daemon.memory_text import columns, one_line
    from familiar.daemon.short_ids import shortened

    with opened(flags, user) as at:
        rules = at.store.memories(at.user_id, "rule")
        short = at.short_ids()
        kept, carried = at.store.graders(at.user_id), consolidated(at.store, at.user_id)
    found = [
        memory_object(each, carried, graders=[grader_object(grader) for grader in kept if grader.memory_id == each.id])
        for each in rules
    ]
    if as_json:
        print_json(list_object(found))
        return
    if not found:
        click.echo('There is no rule yet: `familiar rule add "Use metric units."` states one.')
        return
    short_graders = shortened([grader.id for grader in kept])
    lines: list[tuple[str, ...]] = [("id", "checked by", "rule")]
    for each in found:
        checks = [f"{grader['name']} ({short_graders[grader['id']]})" for grader in each["graders"]]
        lines.append((short[each["id"]], ", ".join(checks) or "-", one_line(each["text"])))
    click.echo("\n".join(columns(lines)))


@rule.command()
@click.argument("grader_id", metavar="GRADER")
@store_options
@user_option
def detach(grader_id: str, user: str | None, **flags: Any) -> None:
    """Take a grader from its rule, by its id in `familiar rule list`; the rule stays."""
    from familiar.daemon.short_ids import pick

    with opened(flags, user) as at:
        ids = [grader.id for grader in at.store.graders(at.user_id)]
        listed_by = "`familiar rule list`"
        found = at.store.grader(at.user_id, pick(ids, grader_id, what="grader", param="grader_id", listed_by=listed_by))
        at.store.delete_grader(at.user_id, found.id)
    click.echo(f"Detached: {found.name}")


@click.command()
@click.argument("name", metavar="[NAME=VALUE]", required=False)
@json_option
def graders(name: str | None, as_json: bool) -> None:
    """List the graders that are ready to check a rule; or print one as JSON, in OpenAI's form."""
    from familiar.daemon import grader_service
    from familiar.daemon.memory_text import columns

    if name is not None:
        print_json(grader_service.named(name))
        return
    found = grader_service.ready_objects()
    if as_json:
        print_json({"object": "list", "data": found})
        return
    shown = {"count": "=N", "text": "=WORDS", "language": "=LANGUAGE", "schema": "=JSON"}
    lines = [("grader", "checks that a reply is or has")]
    for each in found:
        value = next((shown[kind] for kind in each["parameters"].values()), "")
        lines.append((f"{each['name']}{value}", each["description"]))
    click.echo("\n".join(columns(lines)))

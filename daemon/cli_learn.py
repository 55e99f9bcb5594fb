"""``familiar learn`` and the commands about what it made: ``adapters``, ``rollback``, ``export``.

They work on the data folder itself, with or without a running service: it looks up the current version per request, so
a promotion or a rollback is served from the next request on.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from familiar.daemon.cli_options import load_settings, model_options, open_store, store_options, user_option
from familiar.memory.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from familiar.daemon.learning import Outcome
    from familiar.daemon.settings import Settings
    from familiar.memory.store import Store

PHASES = {
    "data": "Reading the corrections",
    "encode": "Encoding them",
    "load": "Loading the model for training",
    "train": "Training",
    "export": "Writing the adapter",
    "parity": "Comparing torch with llama.cpp",
    "gate": "Checking the candidate",
    "consolidate": "Seeing what it follows untold",
    "promote": "Putting it into service",
}


@click.command()
@model_options
@user_option
@click.option("--force", is_flag=True, help="Learn again although nothing has changed.")
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the corrections; the recipe's own by default.")
@click.option("--now", is_flag=True, help="Learn now, whatever the schedule says; so it does without this too.")
@click.option("--dry-run", is_flag=True, help="Only show what would be learned, and what that would take.")
@click.option("--status", is_flag=True, help="Only show whether something is being learned, or why not.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; what is going on goes to stderr.")
def learn(force: bool, user: str | None, now: bool, dry_run: bool, status: bool, as_json: bool, **flags: Any) -> None:
    """Train the corrections into a new adapter version, check it, and serve it if it passes."""
    if now + dry_run + status > 1:
        raise click.UsageError("--now, --dry-run and --status are three different things: give one of them.")
    settings = load_settings(flags)
    if dry_run or status:
        facts, lines = _preview(settings, user) if dry_run else _status(settings, user)
        click.echo(json.dumps(facts) if as_json else "\n".join(lines))
        return
    from familiar.daemon.learning import run_learner

    try:
        with progress_display(err=as_json) as on_event:
            outcome = run_learner(settings, on_event, force=force, user=user)
    except KeyboardInterrupt:
        click.echo("Stopped; `familiar learn` goes on from here.", err=True)
        raise
    if as_json:
        click.echo(json.dumps(asdict(outcome)))
        return
    for line in outcome_lines(outcome):
        click.echo(line)


def _preview(settings: "Settings", user: str | None) -> tuple[dict[str, Any], list[str]]:
    """What a run would be, and in words."""
    from familiar.daemon import learning_preview, learning_text

    with open_store(settings) as store:
        facts = learning_preview.preview(settings, store, store.users.id_of(user))
    return facts, learning_text.preview_lines(facts)


def _status(settings: "Settings", user: str | None) -> tuple[dict[str, Any], list[str]]:
    """What the running service says of learning, else what the store tells, and in words."""
    from familiar.daemon import learning_preview, learning_text, local_service

    client = local_service.find(settings, user)
    if client is not None:
        with client:
            facts = client.learning()
    else:
        with open_store(settings) as store:
            facts = learning_preview.status_without_service(settings, store, store.users.id_of(user))
    return facts, learning_text.status_lines(facts)


@contextmanager
def progress_display(*, err: bool = False) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Show the learner's events: a bar on a terminal, one line per phase elsewhere. ``err`` shows them on stderr."""
    stream = sys.stderr if err else sys.stdout
    if not stream.isatty():

        def line(event: Mapping[str, Any]) -> None:
            if event["event"] == "phase":
                click.echo(f"{PHASES[event['name']]} …", err=err)
            elif event["phase"] == "held_out":
                click.echo(f"  epoch {event['done']}: {_held_out(event)}", err=err)

        yield line
        return

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[detail]}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(file=stream)) as progress:
        task = progress.add_task("Starting the learner", total=None, detail="")

        def bar(event: Mapping[str, Any]) -> None:
            if event["event"] == "phase":
                progress.update(task, description=PHASES[event["name"]], completed=0, total=None, detail="")
            elif event["phase"] == "held_out":
                progress.update(task, detail=_held_out(event))
            else:
                progress.update(task, completed=event["done"], total=event["total"])

        yield bar


def _held_out(event: Mapping[str, Any]) -> str:
    """What an epoch came to: the wanted replies' log-probability per token, on rows that are not trained on."""
    return f"held-out score {event['figures']['score']:.3f}"


def outcome_lines(outcome: "Outcome") -> list[str]:
    """The gate's checks as a small table, and what is served now."""
    lines = []
    if outcome.checks:
        width = max(len(str(check["name"])) for check in outcome.checks)
        for check in outcome.checks:
            figures = f"{_figure(check.get('value')):>10}  limit {_figure(check.get('limit')):>8}"
            lines.append(f"  {check['name']:{width}}  {figures}  {'ok' if check['ok'] else 'NOT OK'}")
    return [*lines, outcome.message]


def _figure(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "-" if value is None else str(value)
    return f"{value:.4g}"


@click.command()
@store_options
@user_option
def adapters(user: str | None, **flags: Any) -> None:
    """List the adapter versions that were learned; * marks the one in service."""
    settings = load_settings(flags)
    from familiar.daemon import base_models, fitting

    with open_store(settings) as store:
        user_id = store.users.id_of(user)
        versions, current = store.versions(user_id), fitting.served_version(settings, store, user_id)
    base = base_models.in_service(settings) if versions else None
    if not versions:
        click.echo("No adapter yet: correct a few replies, then run `familiar learn`.")
        return
    serving = current.number if current else None
    click.echo("    version  learned           learnt from  held-out gain  gate")
    for each in versions:
        mark = "*" if each.number == serving else " "
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(each.created_at))
        gain = _figure(_check_value(each.report, "held_out"))
        passed = "passed" if each.report.get("passed") else "-"
        strength = each.report.get("strength", 1.0)
        if isinstance(strength, float) and strength < 1:
            passed += f" at {strength:.0%}"
        fits = base is None or each.base_sha256 == base.sha256
        other = "" if fits else f"  for {fitting.trained_on(each, settings.data_dir)}"
        click.echo(f"  {mark} v{each.number:<6}  {at}  {len(each.feedback_ids):>11}  {gain:>13}  {passed}{other}")
    if serving is None:
        click.echo("  * base: no version is in service")


def _check_value(report: Mapping[str, Any], name: str) -> object:
    return next((check["value"] for check in report.get("checks", ()) if check["name"] == name), None)


@click.command()
@click.option("--to", "target", metavar="N|base", help="The version to serve; by default the one before.")
@store_options
@user_option
def rollback(target: str | None, user: str | None, **flags: Any) -> None:
    """Serve an earlier adapter version, or the base model alone, from the next request on."""
    settings = load_settings(flags)
    from familiar.adapters import registry
    from familiar.daemon import base_models

    with open_store(settings) as store:
        user_id = store.users.id_of(user)
        base = base_models.in_service(settings)
        served: tuple[int | None, int | None]
        if target is None:
            served = registry.rollback(store, user_id, base.sha256 if base else None)
        else:
            served = _serve(settings, store, user_id, target)
    click.echo(f"Serving {_named(served[1])} now, {_named(served[0])} before.")


def _serve(settings: "Settings", store: "Store", user_id: int, target: str) -> tuple[int | None, int | None]:
    """Put the named version into service, once its files are seen to be whole; returns what was and what is served."""
    from familiar.adapters import registry
    from familiar.daemon import base_models, fitting

    number = _target(target)
    current = fitting.served_version(settings, store, user_id)
    if number is not None:
        version = store.version(user_id, number)
        base = base_models.in_service(settings)
        if base and version.base_sha256 != base.sha256:
            trained_on = fitting.trained_on(version, settings.data_dir)
            raise InvalidInput(f"v{number} was trained on {trained_on}: serve that model to have it.", "to")
        registry.verify(settings.data_dir, version)
    store.set_current(user_id, number)
    return current.number if current else None, number


def _target(text: str) -> int | None:
    if text == "base":
        return None
    number = text.removeprefix("v")
    if not number.isdecimal():
        raise InvalidInput(f"--to takes a version number or base, not {text!r}: see `familiar adapters`.")
    return int(number)


def _named(version: int | None) -> str:
    return "the base model" if version is None else f"v{version}"


@click.command()
@click.option("--format", "form", type=click.Choice(["peft", "gguf"]), required=True, help="What other tools read.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The file (gguf) or folder (peft).")
@click.option("--version", "number", type=click.IntRange(min=1), help="The version; by default the one in service.")
@model_options
@user_option
def export(form: str, out: Path, number: int | None, user: str | None, **flags: Any) -> None:
    """Export an adapter version as a GGUF LoRA file or a PEFT folder."""
    settings = load_settings(flags)
    if not out.absolute().parent.is_dir():
        raise InvalidInput(
            f"{out} cannot be written (its folder is not there): make it, or choose another place.", "out"
        )
    click.echo(f"Wrote {export_version(settings, number, form, out, user)}")


def export_version(settings: "Settings", number: int | None, form: str, out: Path, user: str | None = None) -> Path:
    """Write one adapter version (None: the one in service) where other tools read it; returns what was written.

    ``user`` is whose it is, by name; None is the default user.

    Raises:
        NotFound: there is no such user or version, or none is in service.
        BadFile: the version's files are not as they were promoted.
    """
    from familiar.adapters.export import export as write
    from familiar.daemon import model_files
    from familiar.daemon.fitting import served_version

    with open_store(settings) as store:
        user_id = store.users.id_of(user)
        version = store.version(user_id, number) if number else served_version(settings, store, user_id)
    if version is None:
        raise NotFound("No adapter is in service: run `familiar learn`, or name one with --version.", "version")
    return write(settings.data_dir, version, form, out, model_files.resolve(settings.model))

"""``familiar jobs``: the fine-tuning jobs of a user, which programs create over the API.

The commands work on the data folder itself, beside a running service; what is cancelled ends after its current step.
"""

import time
from typing import TYPE_CHECKING, Any

import click

from familiar.daemon.cli_options import load_settings, open_store, store_options, user_option
from familiar.memory.errors import InvalidInput

if TYPE_CHECKING:
    from familiar.memory.finetuning_types import Job


@click.group()
def jobs() -> None:
    """Look at fine-tuning jobs, and cancel them. They are created over the API."""


@jobs.command("list")
@store_options
@user_option
def list_jobs(user: str | None, **flags: Any) -> None:
    """List the jobs, newest first: the state of each, and the model that it made."""
    with open_store(load_settings(flags)) as store:
        found = store.fine_tuning.jobs(store.users.id_of(user))
    if not found:
        click.echo("There are no jobs: programs create them, as docs/fine-tuning.md shows.")
    for job in found:
        click.echo(f"{_at(job.created_at)}  {job.state:<16}  {job.id}  {job.fine_tuned_model or ''}".rstrip())


@jobs.command()
@click.argument("job_id")
@store_options
@user_option
def show(job_id: str, user: str | None, **flags: Any) -> None:
    """Show one job with all that happened to it."""
    with open_store(load_settings(flags)) as store:
        user_id = store.users.id_of(user)
        job, events = store.fine_tuning.job(user_id, job_id), store.fine_tuning.events(user_id, job_id)
    for line in _told(job):
        click.echo(line)
    for event in reversed(events):
        click.echo(f"{_at(event.created_at)}  {event.message}")


@jobs.command()
@click.argument("job_id")
@store_options
@user_option
def cancel(job_id: str, user: str | None, **flags: Any) -> None:
    """End a job for good. Its checkpoints stay."""
    from familiar.memory.finetuning_types import TO_DO

    with open_store(load_settings(flags)) as store:
        job = store.fine_tuning.job(store.users.id_of(user), job_id)
        ended = {"finished_at": time.time(), "estimated_finish": None}
        if not store.fine_tuning.move(job.id, (*TO_DO, "paused"), "cancelled", **ended):
            raise InvalidInput(f"{job.id} is {job.state} already.")
    click.echo(f"Cancelled {job.id}.")


def _told(job: "Job") -> list[str]:
    rows = {
        "id": job.id,
        "state": job.state,
        "method": job.method["type"],
        "model": job.fine_tuned_model or f"{job.name}, once it is made",
        "error": job.error and job.error["message"],
    }
    return [f"{name:<7} {value}" for name, value in rows.items() if value]


def _at(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))

"""``familiar status``: the service that runs, or that none does, and what has been learned."""

import json
import time
from typing import TYPE_CHECKING, Any

import click

from familiar.daemon.cli_options import load_settings, open_store, service_options, user_option

if TYPE_CHECKING:
    from familiar.daemon.settings import Settings

MEGABYTE = 1_000_000


@click.command()
@service_options
@user_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; sizes in it are bytes.")
def status(as_json: bool, user: str | None, **flags: Any) -> None:
    """Show whether the service runs, what it takes, and what has been learned."""
    facts = collect(load_settings(flags), user)
    click.echo(json.dumps(facts) if as_json else "\n".join(describe(facts)))


def collect(settings: "Settings", user: str | None = None) -> dict[str, Any]:
    """What a running service says of itself (``GET /v1/status``), else the same figures from the store.

    The counts and the version are those of ``user``, by name; None is the default user.
    """
    from familiar.daemon import local_service
    from familiar.daemon.fitting import served_version

    client = local_service.find(settings, user)
    if client is not None:
        with client:
            return {"running": True, "url": f"{client.base_url}/v1", **client.status()}
    with open_store(settings) as store:
        user_id = store.users.id_of(user)
        current = served_version(settings, store, user_id)
        runs = store.runs(user_id)
        last = {"state": runs[0].state, "created_at": runs[0].created_at, "error": runs[0].error} if runs else None
        return {
            "running": False,
            "data_dir": str(settings.data_dir),
            "user": store.users.get(user_id).name,
            "adapter_version": current.number if current else None,
            "counts": store.counts(user_id),
            "last_run": last,
        }


def describe(facts: dict[str, Any]) -> list[str]:
    """The facts, a line each, for a person."""
    from familiar.memory.users import DEFAULT_NAME

    lines = []
    if facts["running"]:
        model = facts["model"]
        rest, rss = facts["rss_minus_model_bytes"] / MEGABYTE, facts["rss_bytes"] / MEGABYTE
        lines.append(f"service    running at {facts['url']} (pid {facts['pid']})")
        lines.append(f"model      {model['name']}, {model['path']} ({model['size_bytes'] / MEGABYTE:.0f} MB)")
        lines.append(f"context    {model['context_tokens']} tokens, flash attention {model['flash_attention']}")
        lines.append(f"memory     {rest:.0f} MB on top of the model file ({rss:.0f} MB resident in all)")
    else:
        lines.append("service    not running: `familiar serve` starts it")
    if facts["user"] != DEFAULT_NAME:
        lines.append(f"user       {facts['user']}")
    version = facts["adapter_version"]
    lines.append(f"serving    {'the base model' if version is None else f'adapter v{version}'}")
    lines.append("store      " + ", ".join(f"{count} {name}" for name, count in facts["counts"].items()))
    if facts.get("last_run"):
        run = facts["last_run"]
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(run["created_at"]))
        lines.append(f"last run   {run['state']}, begun {at}" + (f": {run['error']}" if run["error"] else ""))
    lines.append(f"data       {facts['data_dir']}")
    return lines

"""The command ``familiar``: the group, how an error reaches a person, and the commands that run the service.

The other commands are in ``cli_models`` (model files), ``cli_learn`` (learning, versions), ``cli_jobs`` (fine-tuning),
``cli_memory`` (what is remembered), ``cli_rule`` (rules and their graders), ``cli_inbox`` (feedback as files),
``cli_users`` (whose it is) and ``cli_status``.
Heavy imports happen inside a command, so that ``familiar --help`` is quick.
"""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import click

from familiar.daemon.cli_data import data
from familiar.daemon.cli_inbox import draft, inbox
from familiar.daemon.cli_jobs import jobs
from familiar.daemon.cli_learn import adapters, export, learn, rollback
from familiar.daemon.cli_memory import memory
from familiar.daemon.cli_models import models, pull
from familiar.daemon.cli_options import load_settings, serve_options, service_options, user_option
from familiar.daemon.cli_rule import graders, rule
from familiar.daemon.cli_status import status
from familiar.daemon.cli_users import users
from familiar.memory.errors import FamiliarError

DEBUG_ENV = "FAMILIAR_DEBUG"
"""Set to 1, an unexpected error shows its traceback. Read here because it must work when settings cannot be read."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(version("familiar-llm"), prog_name="familiar")
def cli() -> None:
    """A local language model that becomes yours: it remembers corrections at once and learns them into its weights."""


@cli.command()
@serve_options
def serve(**flags: Any) -> None:
    """Serve the model to OpenAI clients on this machine."""
    settings = load_settings(flags)
    from familiar.daemon import server

    server.run(settings)


@cli.command()
@service_options
@user_option
@click.option("--id", "model_id", default="familiar", show_default=True, help="Which model of the service to ask.")
def chat(model_id: str, user: str | None, **flags: Any) -> None:
    """Chat in the terminal, and correct what is said. Uses the running service, or starts one for the session."""
    settings = load_settings(flags)
    from familiar.daemon import chat as terminal

    if not terminal.run(settings, model_id, user):
        sys.exit(1)


@cli.command()
@click.option("--model", default=None, help="A GGUF file, or a hub id with file; the built-in model by default.")
@click.option("--threads", type=click.IntRange(min=0), default=None, help="CPU threads; 0 chooses.")
@click.option("--keep", type=click.Path(file_okay=False), default=None, help="Keep the store and the exports here.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the transcript.")
def demo(model: str | None, threads: int | None, keep: str | None, as_json: bool) -> None:
    """Show the whole loop on a fresh store: chat, correct, remember, learn, export. Takes a few minutes."""
    from pathlib import Path

    from familiar.daemon import demo as script

    passed = script.run(model, threads, Path(keep) if keep else None, as_json=as_json)
    sys.exit(0 if passed else 1)


_LEARNING = (learn, adapters, rollback, export)
for command in (models, pull, *_LEARNING, jobs, status, memory, rule, graders, users, inbox, draft, data):
    cli.add_command(command)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 an error (one line on stderr), 2 wrong usage, 130 interrupted."""
    with _ended_as_by_ctrl_c():
        code = _run(args)
    sys.exit(code)


@contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end a command as Ctrl-C does, so that it stops what it started."""
    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) == signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _run(args: Sequence[str] | None) -> int:
    try:
        code = cli.main(args=None if args is None else list(args), prog_name="familiar", standalone_mode=False)
        sys.stdout.flush()
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "familiar"
        if isinstance(error, click.exceptions.NoArgsIsHelpError):
            click.echo(error.format_message(), err=True)
        else:
            _say(f"{_one_line(error.format_message()).rstrip('.')}. See `{where} --help`.")
        return 2
    except click.ClickException as error:
        _say(_one_line(error.format_message()))
        return 1
    except FamiliarError as error:
        _say(_one_line(str(error)))
        return 1
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # The reader has gone, as with `familiar adapters | head -1`: the interpreter's last flush must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get(DEBUG_ENV, "") not in ("", "0"):
            raise
        detail = _one_line(str(error))
        _say(f"unexpected {type(error).__name__}{': ' + detail if detail else ''}. {DEBUG_ENV}=1 shows the traceback.")
        return 1
    return code if isinstance(code, int) else 0


def _say(message: str) -> None:
    click.echo(f"familiar: {message}", err=True)


def _one_line(text: str) -> str:
    return " ".join(text.split())

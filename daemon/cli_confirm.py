"""Asking before something is done that cannot be undone."""

import sys

import click

from familiar.memory.errors import FamiliarError

_ANSWERS = {"y": True, "yes": True, "n": False, "no": False, "": False}


def confirm(question: str, otherwise: str) -> None:
    """Return once the answer is yes; ``otherwise`` says what was left undone where it is not, without a full stop.

    Raises click.Abort for Ctrl-C, and FamiliarError for a no or where there is nobody to ask.
    """
    answer = None
    while answer not in _ANSWERS:
        if answer is not None:
            click.echo("familiar: Answer y or n.", err=True)
        try:
            # Not click.confirm, which words what it does not understand in its own way.
            answer = click.prompt(f"{question} [y/N]", default="", show_default=False).strip().casefold()
        except click.Abort:
            if sys.stdin.isatty():
                raise
            click.echo()  # ends the line of the question
            raise FamiliarError(f"{otherwise}: nobody answered; --yes does it without asking.") from None
    if not _ANSWERS[answer]:
        raise FamiliarError(f"{otherwise}.")

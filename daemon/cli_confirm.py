"""Asking before something is done that cannot be undone."""

import sys

import click

from familiar.memory.errors import FamiliarError


def confirm(question: str, otherwise: str) -> None:
    """Return once the answer is yes; ``otherwise`` says what was left undone where it is not, without a full stop.

    Raises click.Abort for Ctrl-C, and FamiliarError for a no or where there is nobody to ask.
    """
    try:
        agreed = click.confirm(question)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        click.echo()  # ends the line of the question
        raise FamiliarError(f"{otherwise}: nobody answered; --yes does it without asking.") from None
    if not agreed:
        raise FamiliarError(f"{otherwise}.")

"""The options that several commands share, and how they become settings."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from familiar.daemon.settings import Settings
    from familiar.memory.store import Store

Command = TypeVar("Command", bound=Callable[..., Any])

_STORE = (
    click.option("--data-dir", type=click.Path(file_okay=False), help="Where everything learned is kept."),
    click.option("--config", type=click.Path(dir_okay=False), help="A TOML file of settings."),
)
_MODEL = (
    click.option("--model", help="A GGUF file, or a hub id with file; the built-in model by default."),
    click.option("--context", "context_tokens", type=click.IntRange(min=0), help="Context in tokens; 0: the model's."),
    click.option("--threads", type=click.IntRange(min=0), help="CPU threads; 0 chooses."),
)
_ADDRESS = (
    click.option("--host", help="Address of the service."),
    click.option("--port", type=click.IntRange(0, 65535), help="Port of the service."),
)


def _apply(command: Command, options: tuple[Callable[[Command], Command], ...]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def store_options(command: Command) -> Command:
    """Add ``--data-dir`` and ``--config``: for commands that only read or write the store."""
    return _apply(command, _STORE)


def model_options(command: Command) -> Command:
    """Add the options of a command that loads the model."""
    return _apply(command, _STORE + _MODEL)


def service_options(command: Command) -> Command:
    """Add the options of a command that runs the service or talks to it."""
    return _apply(command, _STORE + _MODEL + _ADDRESS)


def load_settings(flags: Mapping[str, Any]) -> "Settings":
    """Settings from the command line's flags (None: not given), the environment and the configuration file."""
    from familiar.daemon import settings

    return settings.load({name: value for name, value in flags.items() if value is not None})


def open_store(settings: "Settings") -> AbstractContextManager["Store"]:
    """Open the store of the data folder; made on the first use."""
    from familiar.daemon import data_folder
    from familiar.memory.store import Store

    data_folder.make(settings.data_dir)
    return Store.open(settings.database)

"""The options that several commands share, and how they become settings."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from familiar.daemon.engine_options import CHOICES

if TYPE_CHECKING:
    from familiar.daemon.settings import Settings
    from familiar.memory.store import Store

Command = TypeVar("Command", bound=Callable[..., Any])

_FLASH = "Flash attention; auto chooses."
_STORE = (
    click.option("--data-dir", type=click.Path(file_okay=False), help="Where everything learned is kept."),
    click.option("--config", type=click.Path(dir_okay=False), help="A TOML file of settings."),
)
_MODEL = (
    click.option("--model", help="A GGUF file, or a hub id with file; the built-in model by default."),
    click.option("--threads", type=click.IntRange(min=0), help="CPU threads; 0 chooses."),
)
_CONTEXT = (
    click.option("--context", "context_tokens", type=click.IntRange(min=0), help="Context in tokens; 0 chooses."),
)
_ENGINE = (
    click.option("--slots", type=click.IntRange(min=1), help="Requests that are generated at the same time."),
    click.option("--batch", "batch_tokens", type=click.IntRange(min=0), help="Prompt tokens at once; 0 chooses."),
    click.option("--gpu-layers", type=click.IntRange(min=-1), help="Layers on the GPU, where there is one; -1: all."),
    click.option("--kv-type", type=click.Choice(CHOICES["kv_type"]), help="Type of the context's cache."),
    click.option("--flash-attn", "flash_attention", type=click.Choice(CHOICES["flash_attention"]), help=_FLASH),
    click.option("--mmap/--no-mmap", default=None, help="Map the model's file into memory, or read it."),
    click.option("--mlock/--no-mlock", default=None, help="Keep the model in memory, never swapped out."),
)
_USER = click.option(
    "--user",
    metavar="NAME",
    envvar="FAMILIAR_USER",
    help="Whose model it is, of those in `familiar users list`; by default the first.",
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
    """Add the options of a command that talks to the service, or runs one for its own length."""
    return _apply(command, _STORE + _MODEL + _CONTEXT + _ADDRESS)


def serve_options(command: Command) -> Command:
    """Add the options of the command that runs the service."""
    return _apply(command, _STORE + _MODEL + _CONTEXT + _ENGINE + _ADDRESS)


def user_option(command: Command) -> Command:
    """Add ``--user``: for commands about what was learned from one person."""
    return _USER(command)


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

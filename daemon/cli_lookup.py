"""What the commands about memories share: the store of a data folder opened for a user, and ids as people type them."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from familiar.daemon.cli_options import load_settings, open_store
from familiar.memory.errors import NotFound

if TYPE_CHECKING:
    from familiar.memory.store import Store
    from familiar.memory.types import Exchange, Memory

Command = TypeVar("Command", bound=Callable[..., Any])

KINDS = ["rule", "fact", "example"]
SCOPES = ["always", "related", "conversation"]
_EXCHANGES = 1000
"""So many of the newest replies can be named by the beginning of their ids."""

_SAYING = (
    click.option("--kind", type=click.Choice(KINDS), help="What sort of memory it is."),
    click.option("--scope", type=click.Choice(SCOPES), help="Which requests it applies to."),
    click.option("--prompt", metavar="TEXT", help="Of an example: the message that it answers."),
    click.option("--conversation", metavar="ID", help="Which one, with --scope conversation; last: the latest."),
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def saying_options(command: Command) -> Command:
    """Add what may be said of a memory beside its text."""
    for option in reversed(_SAYING):
        command = option(command)
    return command


@dataclass(frozen=True)
class Opened:
    """An open store, and whose part of it is meant."""

    store: "Store"
    user_id: int

    def memory(self, wanted: str) -> "Memory":
        """The memory that was typed: by its id, the beginning of it, or "last", the one stated last."""
        from familiar.daemon.memory_service import STATES
        from familiar.daemon.short_ids import LAST, pick

        states = STATES["active" if wanted == LAST else "all"]
        memories = {memory.id: memory for memory in self.store.memories(self.user_id, states=states)}
        listed_by = "`familiar memory list --all`"
        return memories[pick(list(memories), wanted, what="memory", param="memory_id", listed_by=listed_by)]

    def exchange(self, wanted: str) -> "Exchange":
        """The exchange that was typed, in the same way."""
        from familiar.daemon.short_ids import pick

        newest = self.store.exchanges(self.user_id, limit=_EXCHANGES)
        if not newest:
            raise NotFound("There is no reply yet: ask something first, with `familiar chat` say.", "completion_id")
        ids = [exchange.id for exchange in reversed(newest)]
        found = pick(ids, wanted, what="reply", param="completion_id", listed_by="only the client that asked")
        return next(exchange for exchange in newest if exchange.id == found)

    def conversation(self, scope: str | None, wanted: str | None) -> str | None:
        """The id of the conversation that was typed; "last" is that of the newest reply. None where none was."""
        from familiar.daemon.short_ids import LAST

        if scope == "conversation" and wanted is None:
            raise click.UsageError("--scope conversation needs --conversation: last, or an id that --json shows.")
        return self.exchange(LAST).conversation_id if wanted == LAST else wanted

    def short_ids(self) -> dict[str, str]:
        """The beginnings that mean one of the user's memories, by id."""
        from familiar.daemon.memory_service import STATES
        from familiar.daemon.short_ids import shortened

        return shortened([memory.id for memory in self.store.memories(self.user_id, states=STATES["all"])])


@contextmanager
def opened(flags: Mapping[str, Any], user: str | None) -> Iterator[Opened]:
    """Open the store for the named user. Raises NotFound when there is no such user."""
    with open_store(load_settings(flags)) as store:
        yield Opened(store, store.users.id_of(user))


def print_json(value: object) -> None:
    """Print one JSON value for a script."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))

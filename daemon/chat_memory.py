"""The terminal chat's commands about memories: what to remember, what is remembered, what to forget, and why.

Each asks the service through ``client`` and writes lines; ``chat`` decides which one a line of input is.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from familiar.daemon import memory_text
from familiar.daemon.client import Client
from familiar.daemon.short_ids import pick, shortened
from familiar.memory.errors import InvalidInput

Read = Callable[[str], str]
"""Shows a prompt and returns a line; raises EOFError at the end of input."""
Write = Callable[[str], None]


def remember(client: Client, text: str, write: Write) -> None:
    """Remember ``text`` as it is said."""
    if not text:
        raise InvalidInput("/remember needs what to remember, such as: /remember My sister is called Ann.")
    write(learned([client.remember(text)]))


def memories(client: Client, query: str, write: Write) -> None:
    """List what is remembered, or what is found for ``query``."""
    everything = client.memories()
    found = client.search(query) if query else everything
    if found:
        write("\n".join(memory_text.table(found, shortened([memory["id"] for memory in everything]))) + "\n")
    else:
        write("Nothing that is remembered has to do with it.\n" if query else "Nothing is remembered yet.\n")


def forget(client: Client, wanted: str, read: Read, write: Write) -> None:
    """Forget one memory by its id, or those that hold every word of a query; shows which, and asks."""
    if not wanted:
        raise InvalidInput("/forget needs an id of /memories, or words that the memory holds.")
    found = _by_id(client, wanted) if wanted.startswith("mem-") else client.forget(query=wanted, dry_run=True)["data"]
    if not found:
        write("Nothing that is remembered holds all of these words.\n")
        return
    write("".join(f"  {memory_text.one_line(memory_text.said(memory))}\n" for memory in found))
    these = "this memory" if len(found) == 1 else f"these {len(found)} memories"
    try:
        agreed = read(f"Forget {these}? y/n ").strip().casefold() in ("y", "yes")
    except EOFError:
        agreed = False
    if not agreed:
        write("Nothing was forgotten.\n")
        return
    report = client.forget(ids=[memory["id"] for memory in found])["report"]
    write("".join(f"{line}\n" for line in ["Forgotten.", *memory_text.forgotten(report)]))


def why(client: Client, completion_id: str, write: Write) -> None:
    """Say what a reply was made with."""
    write("\n".join(memory_text.why(client.why(completion_id))) + "\n")


def learned(stored: Sequence[Mapping[str, Any]]) -> str:
    """A line for each memory that was stored."""
    return "".join(f"Remembered: {memory_text.said(memory)}\n" for memory in stored)


def question(pending: Mapping[str, Any]) -> str:
    """The line that asks for a yes or a no to a guess."""
    return f"Shall I keep to this from now on: “{memory_text.one_line(pending['text'])}”? /yes or /no\n"


def settle(client: Client, pending: Mapping[str, Any] | None, agreed: bool, write: Write) -> None:
    """Answer the guess that was asked about last."""
    if pending is None:
        raise InvalidInput("There is nothing to say yes or no to: it is asked after a reply.")
    stored = client.settle(pending["id"], agreed)
    write(learned(stored) or ("Noted.\n" if agreed else "Noted: I shall not.\n"))


def _by_id(client: Client, wanted: str) -> list[dict[str, Any]]:
    known = {memory["id"]: memory for memory in client.memories(state="all")}
    return [known[pick(list(known), wanted, what="memory", param="memory_id", listed_by="/memories")]]

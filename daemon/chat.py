"""The terminal chat: talk to the service over HTTP, and correct what it says with commands that start with a slash.

The conversation is plain data and the terminal is two functions (read a line, write text), so it works the same with a
person, a pipe and a test. What is left out: colours and editing of earlier turns.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from familiar.daemon import local_service
from familiar.daemon.cli_options import open_store
from familiar.daemon.client import Client
from familiar.memory.errors import FamiliarError, InvalidInput
from familiar.memory.types import Message

if TYPE_CHECKING:
    from familiar.daemon.settings import Settings

Read = Callable[[str], str]
"""Shows a prompt and returns a line; raises EOFError at the end of input."""
Write = Callable[[str], None]

HELP = """\
/fix TEXT   the reply should have been TEXT (/fix alone takes several lines, ended by a line with a single dot)
/good /bad  rate the last reply
/rule TEXT  something to keep to from now on
/why        what the last reply was made with: the memories and the adapter version
/model ID   talk to another of the service's models (/model alone lists them)
/new        start a new conversation
/help       this list
/quit       leave (or Ctrl-D)
"""


@dataclass
class Conversation:
    """The running history. ``completion_id`` names the last reply, None before there is one."""

    model: str
    messages: list[Message] = field(default_factory=list)
    completion_id: str | None = None


def run(settings: "Settings", model: str, user: str | None = None) -> None:
    """Chat on this process's terminal, with the running service or one of our own for the session.

    ``user`` is who chats, by name; None is the default user. Raises NotFound when there is no such user.
    """
    if user is not None:
        with open_store(settings) as store:
            store.users.named(user)
    with _service(settings, user) as client:
        tty = sys.stdin.isatty() and sys.stdout.isatty()
        loop(client, Conversation(model), _line_reader(tty), _write, interactive=tty)


def loop(client: Client, talk: Conversation, read: Read, write: Write, *, interactive: bool) -> None:
    """Read and answer lines until the input ends or ``/quit``. An error is one line, and the chat goes on."""
    if interactive:
        write(f"Talking to {talk.model} at {client.base_url}. /help lists the commands, /quit leaves.\n")
    while True:
        try:
            line = read("> ").strip()
        except EOFError:
            if interactive:
                write("\n")
            return
        if line == "/quit":
            return
        if not line:
            continue
        try:
            if line.startswith("/"):
                _command(client, talk, line, read, write)
            else:
                _reply(client, talk, line, write)
        except FamiliarError as error:
            write(f"familiar: {error}\n")


def _reply(client: Client, talk: Conversation, text: str, write: Write) -> None:
    """Ask, show the reply as it comes, and add both turns to the history; an error or nothing said adds neither."""
    said: list[str] = []
    completion_id = notice = None
    chunks = client.stream(talk.model, [*talk.messages, Message(role="user", content=text)])
    try:
        for chunk in chunks:
            completion_id, notice = chunk.id, chunk.notice or notice
            said.append(chunk.text)
            write(chunk.text)
    except KeyboardInterrupt:  # stops this reply, not the chat
        completion_id = None  # the service did not log it whole, so it cannot be corrected
    finally:
        if any(said):
            write("\n")
    if notice:
        write(f"familiar: {notice}\n")
    if not any(said):
        return
    talk.messages += [Message(role="user", content=text), Message(role="assistant", content="".join(said))]
    talk.completion_id = completion_id


def _command(client: Client, talk: Conversation, line: str, read: Read, write: Write) -> None:
    name, _, rest = line.partition(" ")
    rest = rest.strip()
    if name == "/fix":
        _fix(client, talk, rest or _several_lines(read), write)
    elif name in ("/good", "/bad"):
        client.feedback(completion_id=_last(talk), rating=1 if name == "/good" else -1)
        write("Noted: good.\n" if name == "/good" else "Noted: bad. /fix TEXT says what you wanted instead.\n")
    elif name == "/rule":
        if not rest:
            raise InvalidInput("/rule needs the rule, such as: /rule Use metric units.")
        stored = client.feedback(rule=rest)
        write(_remembered(stored))
    elif name == "/why":
        _why(client, _last(talk), write)
    elif name == "/model":
        _model(client, talk, rest, write)
    elif name == "/new":
        talk.messages.clear()
        talk.completion_id = None
        write("A new conversation.\n")
    elif name == "/help":
        write(HELP)
    else:
        raise InvalidInput(f"{name} is not a command: /help lists them.")


def _fix(client: Client, talk: Conversation, text: str, write: Write) -> None:
    """Send the corrected text; from now on the history reads as if it had been the reply."""
    stored = client.feedback(completion_id=_last(talk), correction=text)
    talk.messages[-1] = Message(role="assistant", content=text)
    write(_remembered(stored))


def _remembered(stored: Mapping[str, Any]) -> str:
    """What a signal made the service remember, a line per memory."""
    lines = [f"Remembered: {_memory(memory)}\n" for memory in stored["memories"]]
    return "".join(lines) or "Noted; it was remembered already.\n"


def _why(client: Client, completion_id: str, write: Write) -> None:
    """Say what the last reply was made with."""
    exchange = client.exchange(completion_id)
    version, memories = exchange["adapter_version"], exchange["memories"]
    made_by = "the base model" if version is None else f"adapter v{version} on the base model"
    shown = "one memory" if len(memories) == 1 else f"{len(memories) or 'no'} memories"
    write(f"{exchange['model']}: {made_by}, shown {shown}\n")
    for memory in memories:
        write(f"  {memory['id']}: {'(forgotten since)' if memory.get('deleted') else _memory(memory)}\n")


def _memory(memory: Mapping[str, Any]) -> str:
    return str(memory["text"]) if memory["kind"] == "rule" else f'to "{memory["prompt"]}": "{memory["text"]}"'


def _several_lines(read: Read) -> str:
    lines: list[str] = []
    while (line := read("… ")).strip() != ".":
        lines.append(line)
    return "\n".join(lines).strip()


def _last(talk: Conversation) -> str:
    if talk.completion_id is None:
        raise InvalidInput("There is no reply yet to say that about: ask something first.")
    return talk.completion_id


def _model(client: Client, talk: Conversation, wanted: str, write: Write) -> None:
    known = client.models()
    if wanted and wanted not in known:
        raise InvalidInput(f"{wanted} is not one of the service's models: {', '.join(known)}.")
    talk.model = wanted or talk.model
    write("".join(f"{'*' if model == talk.model else ' '} {model}\n" for model in known))


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _line_reader(tty: bool) -> Read:
    """``input`` with its history on a terminal; bare lines, with no prompts mixed into the output, from a pipe."""
    if tty:
        import contextlib

        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # importing it gives input() its history and editing
        return input

    def read(_prompt: str) -> str:
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip("\n")

    return read


@contextmanager
def _service(settings: "Settings", user: str | None) -> Iterator[Client]:
    """The service that runs, or one started for this session."""
    client = local_service.find(settings, user)
    if client is not None:
        with client:
            yield client
        return
    if sys.stdin.isatty():
        _write("No service runs: starting one for this session…\n")
    log = settings.data_dir / "logs" / "service.log"
    with local_service.running(
        settings.host, settings.port, settings.serve_arguments(), log, service_file=settings.service_file, user=user
    ) as own:
        yield own

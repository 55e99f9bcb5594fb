"""The terminal chat: talk to the service over HTTP, and correct what it says with commands that start with a slash.

The conversation is plain data and the terminal is two functions (read a line, write text), so it works the same with a
person, a pipe and a test. What is left out: colours and editing of earlier turns.
"""

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

from familiar.daemon import chat_memory, local_service
from familiar.daemon.chat_memory import Read, Write
from familiar.daemon.cli_options import open_store
from familiar.daemon.client import Client
from familiar.memory.errors import FamiliarError, InvalidInput
from familiar.memory.types import Message

if TYPE_CHECKING:
    from familiar.daemon.settings import Settings

HELP = """\
/fix TEXT          the reply should have been TEXT (/fix alone takes several lines, ended by a line with a single dot)
/good /bad         rate the last reply
/rule TEXT         something to keep to from now on
/remember TEXT     something to know from now on
/memories [QUERY]  what is remembered, or what of it has to do with QUERY
/forget ID|WORDS   forget the memory of that id, or those that hold all of the words; asks first
/yes /no           the answer to a question of what to keep to
/why               what the last reply was made with: the adapter version, and why each memory was shown
/model ID          talk to another of the service's models (/model alone lists them)
/new               start a new conversation
/help              this list
/quit              leave (or Ctrl-D)
"""

_ALONE = ("/good", "/bad", "/yes", "/no", "/why", "/new", "/help", "/quit")
"""Commands after which a text would be without effect."""


@dataclass
class Conversation:
    """The running history. ``completion_id`` names the last reply, None before there is one.

    ``pending`` is the guess that the user was asked about after it, if any: its ``id`` and ``text``. ``outgrown`` is
    whether the user was told that older messages are left out.
    """

    model: str
    messages: list[Message] = field(default_factory=list)
    completion_id: str | None = None
    pending: Mapping[str, Any] | None = None
    outgrown: bool = False


def run(settings: "Settings", model: str, user: str | None = None) -> bool:
    """Chat on this process's terminal, with the running service or one of our own for the session.

    Returns whether it ended well: a chat from a pipe does not where its last line failed. ``user`` is who chats, by
    name; None is the default user. Raises NotFound when there is no such user, InvalidInput for an unknown model.
    """
    if user is not None:
        with open_store(settings) as store:
            store.users.named(user)
    with local_service.found_or_started(settings, user, _say_starting) as client:
        _check_model(model, client.models())
        tty = sys.stdin.isatty() and sys.stdout.isatty()
        failed = loop(
            client, Conversation(model), _line_reader(tty), _write, _write if tty else _complain, interactive=tty
        )
        return tty or not failed


def loop(client: Client, talk: Conversation, read: Read, write: Write, complain: Write, *, interactive: bool) -> bool:
    """Read and answer lines until the input ends or ``/quit``; returns whether the last one failed.

    An error is one line, given to ``complain``, and the chat goes on.
    """
    failed = False
    if interactive:
        write(f"Talking to {talk.model} at {client.base_url}. /help lists the commands, /quit leaves.\n")
    while True:
        try:
            line = read("> ").strip()
        except EOFError:
            if interactive:
                write("\n")
            return failed
        if line == "/quit":
            return failed
        if not line:
            continue
        failed = False
        try:
            if line.startswith("/"):
                _command(client, talk, line, read, write)
            else:
                _reply(client, talk, line, write)
        except FamiliarError as error:
            failed = True
            complain(f"familiar: {error}\n")


def _reply(client: Client, talk: Conversation, text: str, write: Write) -> None:
    """Ask, show the reply as it comes, and add both turns to the history; an error or nothing said adds neither."""
    said: list[str] = []
    completion_id = None
    told: dict[str, Any] = {}
    chunks = client.stream(talk.model, [*talk.messages, Message(role="user", content=text)], truncation="auto")
    try:
        for chunk in chunks:
            completion_id = chunk.id
            told.update(chunk.told)
            said.append(chunk.text)
            write(chunk.text)
    except KeyboardInterrupt:  # stops this reply, not the chat
        completion_id = None  # the service did not log it whole, so it cannot be corrected
    finally:
        if any(said):
            write("\n")
    if told.get("notice"):
        write(f"familiar: {told['notice']}\n")
    if told.get("trimmed_messages") and not talk.outgrown:
        write(
            f"familiar: The {told['trimmed_messages']} oldest messages no longer fit and were left out, as others will "
            f"be: /new starts a new conversation.\n"
        )
        talk.outgrown = True
    write(chat_memory.learned(told.get("learned") or ()))
    talk.pending = next(iter(told.get("pending") or ()), None)
    if talk.pending:
        write(chat_memory.question(talk.pending))
    if not any(said):
        return
    talk.messages += [Message(role="user", content=text), Message(role="assistant", content="".join(said))]
    talk.completion_id = completion_id


def _command(client: Client, talk: Conversation, line: str, read: Read, write: Write) -> None:
    name, _, rest = line.partition(" ")
    rest = rest.strip()
    if rest and name in _ALONE:
        raise InvalidInput(f"{name} takes no text: /fix TEXT says what you wanted, /rule TEXT what to keep to.")
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
    elif name == "/remember":
        chat_memory.remember(client, rest, write)
    elif name == "/memories":
        chat_memory.memories(client, rest, write)
    elif name == "/forget":
        chat_memory.forget(client, rest, read, write)
    elif name in ("/yes", "/no"):
        chat_memory.settle(client, talk.pending, name == "/yes", write)
        talk.pending = None
    elif name == "/why":
        chat_memory.why(client, _last(talk), write)
    elif name == "/model":
        _model(client, talk, rest, write)
    elif name == "/new":
        talk.messages.clear()
        talk.completion_id = talk.pending = None
        talk.outgrown = False
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
    return chat_memory.learned(stored["memories"]) or "Noted; it was remembered already.\n"


def _several_lines(read: Read) -> str:
    lines: list[str] = []
    with suppress(EOFError):  # the end of the input is the end of the text
        while (line := read("… ")).strip() != ".":
            lines.append(line)
    return "\n".join(lines).strip()


def _last(talk: Conversation) -> str:
    if talk.completion_id is None:
        raise InvalidInput("There is no reply yet to say that about: ask something first.")
    return talk.completion_id


def _model(client: Client, talk: Conversation, wanted: str, write: Write) -> None:
    known = client.models()
    if wanted:
        _check_model(wanted, known)
    talk.model = wanted or talk.model
    write("".join(f"{'*' if model == talk.model else ' '} {model}\n" for model in known))


def _check_model(wanted: str, known: Sequence[str]) -> None:
    if wanted not in known:
        raise InvalidInput(f"{wanted} is not one of the service's models: {', '.join(known)}.")


def _say_starting() -> None:
    if sys.stdin.isatty():
        _write("No service runs: starting one for this session…\n")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _complain(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _line_reader(tty: bool) -> Read:
    """``input`` with its history on a terminal; bare lines, with no prompts mixed into the output, from a pipe.

    A byte that is no UTF-8 is read as U+FFFD: else one from another program's output would end the chat.
    """
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    if tty:
        with suppress(ImportError):
            import readline  # noqa: F401  # importing it gives input() its history and editing
        return input

    def read(_prompt: str) -> str:
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line.rstrip("\n")

    return read

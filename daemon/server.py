"""The service as a process: take the port, load everything, say where it is, serve, and end in good order."""

import asyncio
import contextlib
import errno
import logging
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from familiar.daemon import (
    auth,
    base_models,
    data_folder,
    flash_trial,
    model_files,
    sentence_model,
    service_record,
    state,
)
from familiar.daemon.app import create_app
from familiar.daemon.engine import Engine
from familiar.daemon.fitting import unfitting_lines
from familiar.daemon.guard import is_loopback
from familiar.daemon.interrupts import Interrupts
from familiar.daemon.settings import Settings
from familiar.daemon.state import State
from familiar.memory.errors import Busy, InvalidInput
from familiar.memory.store import Store

log = logging.getLogger("familiar")

GRACE_S = 10.0
_AFTER_GRACE_S = 5.0
_BACKLOG = 128


def run(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        Busy: the port is taken, or a service runs on this data folder already.
        FamiliarError: the model, the store or a setting cannot be used.
    """
    # The engine's thread asks for the interpreter lock after every decode: 5 ms, the default, is ten tokens.
    sys.setswitchinterval(0.0005)
    logging.basicConfig(level=logging.WARNING, format="familiar: %(message)s", stream=sys.stderr)
    interrupts = Interrupts()
    with (
        interrupts.caught(),
        contextlib.suppress(KeyboardInterrupt),
        _bind(settings.host, settings.port) as listener,
    ):
        data_folder.make(settings.data_dir)
        service_record.refuse_second(settings.service_file)
        model = model_files.resolve(settings.model, _say)
        embedding_model = sentence_model.resolve(settings, _say)
        token = auth.new_local_token()
        with _opened(settings, model, embedding_model, token) as parts:
            for line in _unfitting(parts):
                log.warning("%s", line)
            if not is_loopback(settings.host) and not parts.store.users.have_keys():
                log.warning(
                    "%s is open to the network, and needs no key: `familiar users key me` makes one.", settings.host
                )
            interrupts.keep()
            _listen(listener, settings)
            host, port = listener.getsockname()[:2]
            with service_record.written(settings.service_file, host, port, model, token):
                url = service_record.url(host, port)
                _say(f"Familiar serves {parts.engine.info.name} at {url}/v1. Ctrl-C ends it.")
                build_server(parts, interrupts=interrupts).run(sockets=[listener])


def build_server(parts: State, grace_s: float = GRACE_S, interrupts: Interrupts | None = None) -> "Server":
    """The uvicorn server of a service; it is given its listening sockets when run.

    ``interrupts``: what was asked before it runs, which it ends by as soon as it does.
    ``grace_s``: seconds that replies may still run after it was asked to end; then each is told so and closed.
    """
    config = uvicorn.Config(
        create_app(parts),
        # Both are worth a tenth of the speed of eight streams.
        loop="auto",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(grace_s + _AFTER_GRACE_S),
    )
    return Server(config, parts, grace_s, interrupts or Interrupts())


class Server(uvicorn.Server):
    """uvicorn's server, which at the end lets replies run on for a while and then closes them with an error event."""

    def __init__(self, config: uvicorn.Config, parts: State, grace_s: float, interrupts: Interrupts) -> None:
        super().__init__(config)
        self._parts = parts
        self._grace_s = grace_s
        self._interrupts = interrupts

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take requests, and files in the inbox, and learn."""
        await super().startup(sockets)
        if self._interrupts.received:  # before uvicorn took the signals
            self.should_exit = True
        self._parts.inbox.start()
        self._parts.learning.start()
        self._parts.fine_tuning.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more requests and no more files, and wait for the running ones, and for a learner's current step."""
        learner = asyncio.create_task(asyncio.to_thread(self._parts.learning.stop))
        await asyncio.to_thread(self._parts.inbox.stop)
        timer = asyncio.get_running_loop().call_later(self._grace_s, self._parts.outbox.stop)
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()
            await learner
            await asyncio.to_thread(self._parts.fine_tuning.stop)


@contextmanager
def _bind(host: str, port: int) -> Iterator[socket.socket]:
    """Take the address before anything slow is done, so that a port in use is known at once. Not yet listening."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise InvalidInput(
            f"{host} is not an address of this machine ({error}): give another --host.", "host"
        ) from None
    # localhost may be both: the address that every client tries is the better one.
    family, kind, protocol, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            raise _address_error(error, host, port) from error
        yield listener


def _listen(listener: socket.socket, settings: Settings) -> None:
    try:
        listener.listen(_BACKLOG)
    except OSError as error:  # another process bound the same port and was quicker
        raise _address_error(error, settings.host, settings.port) from error


def _address_error(error: OSError, host: str, port: int) -> Busy | InvalidInput:
    if error.errno == errno.EADDRINUSE:
        return Busy(f"Port {port} of {host} is in use: end what listens there, or choose another with --port.")
    if error.errno == errno.EACCES:
        return InvalidInput(f"Port {port} needs rights that this user has not: choose one from 1024 up with --port.")
    return InvalidInput(f"{host} cannot be listened on ({error.strerror}): give an address of this machine.", "host")


@contextmanager
def _opened(settings: Settings, model: Path, embedding_model: Path | None, token: str) -> Iterator[State]:
    """The parts of the service, closed at the end."""
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(contextlib.closing(Store.open(settings.database)))
        engine = Engine.open(model, flash_trial.settled(settings, model), embedding_model=embedding_model)
        if embedding_model is not None:
            engine.warm_embedder()
        parts = state.make(settings, store, engine, local_token=token)
        stack.pop_all()
        try:
            yield parts
        finally:
            parts.close()


def _unfitting(parts: State) -> list[str]:
    """What to say of the adapters that were trained on other models; reads the model only if there are adapters."""
    store, data_dir = parts.store, parts.settings.data_dir
    if not any(store.versions(user.id) for user in store.users.all()):
        return []
    return unfitting_lines(store, data_dir, base_models.identify(parts.engine.info.path, data_dir, _say).sha256)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

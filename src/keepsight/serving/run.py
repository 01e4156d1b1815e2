"""Starting uvicorn: the port taken first, plain log lines on stderr, requests in flight finished at the end.

Several workers are processes of their own behind one port, made by uvicorn from an import string; what they need to
know travels in the environment. A worker whose parent was killed ends itself.
"""

from __future__ import annotations

import errno
import http.client
import importlib
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send
from uvicorn.config import STARTUP_FAILURE
from uvicorn.server import HANDLED_SIGNALS
from uvicorn.supervisors import Multiprocess

from keepsight.errors import ConflictError, ForbiddenError, KeepsightError, NotReadyError, SettingsError
from keepsight.serving.app import create_app
from keepsight.serving.bundles import BundleSource, named_paths
from keepsight.serving.events import EventSink
from keepsight.serving.guard import EnvironmentTokens, Guard, check_bind
from keepsight.serving.spool import SpoolSink, load_key
from keepsight.serving.unlogged import UnloggedSink

# What a factory in a worker reads.
FACTORY_VARIABLE = "KEEPSIGHT_SERVE_FACTORY"
PARENT_VARIABLE = "KEEPSIGHT_SERVE_PARENT"
BUNDLES_VARIABLE = "KEEPSIGHT_SERVE_BUNDLES"
FORWARD_TOKEN_VARIABLE = "KEEPSIGHT_FORWARD_TOKEN"  # noqa: S105 - the name of a variable

GRACE_S = 30
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
LOG_CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": LOG_FORMAT}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain", "stream": "ext://sys.stderr"}},
    "loggers": {
        "keepsight": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        "uvicorn": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
    },
}

log = logging.getLogger(__name__)

Factory = Callable[[], FastAPI]


def serve(
    factory: Factory | str,
    *,
    host: str,
    port: int,
    workers: int = 1,
    have_token: bool,
    environment: Mapping[str, str] | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serves until SIGINT or SIGTERM; requests in flight are finished.

    Args:
        factory: Makes the application; for several workers an import string such as ``package.module:function``.
        host: Address to listen on.
        port: Port to listen on.
        workers: Processes.
        have_token: Whether there is a token, which any address but loopback needs.
        environment: Set for the factory.
        on_ready: Called with the URL when requests are taken.

    Raises:
        ForbiddenError: The address would be open to anybody.
        ConflictError: The port is in use.
        KeepsightError: The application could not start.
    """
    check_bind(host, have_token=have_token)
    with closing(bind(host, port)) as listener:
        url = url_of(listener)
        os.environ.update(environment or {})
        if workers == 1:
            _serve_one(_resolve(factory), listener, lambda: on_ready(url) if on_ready else None)
        else:
            if not isinstance(factory, str):
                raise SettingsError(
                    "Several workers were asked for with a factory that cannot be named.",
                    expected="an import string.",
                    do="Name it as package.module:function.",
                )
            _serve_many(factory, listener, workers, lambda: on_ready(url) if on_ready else None)


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address.

    Raises:
        ConflictError: The port is in use. ForbiddenError: It may not be used. SettingsError: There is no such address.
    """
    name = host.strip("[]")
    # asyncio switches Nagle's delay off only where the protocol is named; without that an answer waits 40 ms.
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.set_inheritable(True)
    try:
        listener.bind((name, port))
        # Listening at once makes a second server fail here, not later.
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ConflictError(
                f"Port {port} on {host} is in use.",
                expected="a free port.",
                do="Stop the program that uses it, or choose another port with --port.",
                port=port,
            ) from None
        if error.errno == errno.EACCES:
            raise ForbiddenError(
                f"Port {port} may not be used by this user.", expected="a port above 1023.", do="Choose --port 8000."
            ) from None
        raise SettingsError(
            f"The server cannot listen on {host}: {error.strerror or error}.",
            expected="an address of this machine.",
            do="Choose --host 127.0.0.1, or 0.0.0.0 for all addresses.",
        ) from None
    return listener


def url_of(listener: socket.socket) -> str:
    """The URL of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


# --- one process ------------------------------------------------------------------------------------------------------


class Server(uvicorn.Server):
    """A uvicorn server that says when it is ready, and returns after a signal instead of raising it again."""

    def __init__(self, config: uvicorn.Config, *, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts, then says so."""
        await super().startup(sockets=sockets)
        if self.started:
            self._on_ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ends on a signal; the caller cleans up after that, so the signal must not kill the process."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._on_signal) for number in HANDLED_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.handle_exit(number, frame)


class Told:
    """An application whose failure to start is told as a sentence instead of a traceback."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything on."""
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
            return

        async def told(message: Message) -> None:
            error = startup_error(self.app)
            if message["type"] == "lifespan.startup.failed" and error is not None:
                message = {"type": message["type"], "message": str(error)}
            await send(message)

        await self.app(scope, receive, told)


def startup_error(app: FastAPI) -> KeepsightError | None:
    """Why the application did not start."""
    error: KeepsightError | None = getattr(app.state, "startup_error", None)
    return error


def make_config(app: Told | str, *, workers: int = 1) -> uvicorn.Config:
    """How uvicorn runs here."""
    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        workers=workers,
        lifespan="on",
        access_log=False,
        log_config=LOG_CONFIG,
        # Behind a proxy a token is needed; what a client claims about its address is not believed.
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )


def _serve_one(factory: Factory, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    app = factory()
    server = Server(make_config(Told(app)), on_ready=on_ready)
    try:
        server.run(sockets=[listener])
    except SystemExit:
        error = startup_error(app)
        if error is None:
            raise
        raise error from None


# --- several processes ------------------------------------------------------------------------------------------------


def _serve_many(factory: str, listener: socket.socket, workers: int, on_ready: Callable[[], None]) -> None:
    os.environ[FACTORY_VARIABLE] = factory
    os.environ[PARENT_VARIABLE] = str(os.getpid())
    config = make_config("keepsight.serving.run:worker_app", workers=workers)
    supervisor = Multiprocess(config, sockets=[listener])
    waiter = threading.Thread(
        target=_await_ready, args=(listener.getsockname()[:2], supervisor.should_exit, on_ready), daemon=True
    )
    waiter.start()
    supervisor.run()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        raise NotReadyError(
            "A worker could not start.", expected="workers that run.", do="Read the lines above; they say why."
        )


def worker_app() -> Told:
    """The application of one worker; uvicorn calls this in each."""
    _end_with_parent(int(os.environ[PARENT_VARIABLE]))
    try:
        return Told(_resolve(os.environ[FACTORY_VARIABLE])())
    except KeepsightError as error:
        log.error("%s", error)
        # The code that tells the parent not to try again.
        sys.exit(STARTUP_FAILURE)


def _end_with_parent(parent: int) -> None:
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="keepsight-parent", daemon=True).start()


def _await_ready(address: tuple[str, int], gone: threading.Event, on_ready: Callable[[], None]) -> None:
    """Asks the workers until one answers."""
    host, port = address
    while not gone.wait(0.1):
        connection = http.client.HTTPConnection(_reachable(host), port, timeout=5)
        try:
            connection.request("GET", "/healthz")
            if connection.getresponse().status == http.HTTPStatus.OK:
                on_ready()
                return
        except OSError:
            continue
        finally:
            connection.close()


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound


def _resolve(factory: Factory | str) -> Factory:
    if not isinstance(factory, str):
        return factory
    module, _, name = factory.partition(":")
    made: Factory = getattr(importlib.import_module(module), name)
    return made


# --- bundles from disk ------------------------------------------------------------------------------------------------


def serve_bundles(
    bundles: Sequence[str],
    *,
    host: str,
    port: int,
    workers: int = 1,
    spool: Path | None = None,
    forward: str | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serves bundles without a database.

    Tokens come from ``KEEPSIGHT_TOKEN``; the token for the server that events go to from ``KEEPSIGHT_FORWARD_TOKEN``.

    Args:
        bundles: ``NAME=FOLDER_OR_ZIP`` for each project.
        host: Address to listen on.
        port: Port to listen on.
        workers: Processes.
        spool: Folder that keeps events; without it answers are not recorded anywhere.
        forward: URL of the server that gets the events.
        on_ready: Called with the URL when requests are taken.

    Raises:
        KeepsightError: The server cannot be started so.
    """
    if forward is not None and spool is None:
        raise SettingsError(
            f"Events should go to {forward}, but no spool was named.",
            expected="a folder that keeps them until they are there.",
            do="Add --spool FOLDER.",
        )
    paths = {name: str(path.resolve()) for name, path in named_paths(bundles).items()}
    values = {"paths": paths, "host": host, "spool": None if spool is None else str(spool), "forward": forward}
    serve(
        "keepsight.serving.run:bundle_app",
        host=host,
        port=port,
        workers=workers,
        have_token=EnvironmentTokens(os.environ).any,
        environment={BUNDLES_VARIABLE: json.dumps(values)},
        on_ready=on_ready or (lambda url: log.info("Serving %s on %s", ", ".join(paths), url)),
    )


def bundle_app() -> FastAPI:
    """The application that ``serve_bundles`` describes in the environment."""
    values = json.loads(os.environ[BUNDLES_VARIABLE])
    spool = values["spool"]
    sink: EventSink
    if spool is None:
        log.warning("Answers are not recorded anywhere; name a folder with --spool to keep them")
        sink = UnloggedSink()
    else:
        folder = Path(spool)
        sink = SpoolSink(
            folder,
            load_key(folder, environment=os.environ),
            forward_url=values["forward"],
            token=os.environ.get(FORWARD_TOKEN_VARIABLE),
        )
    return create_app(
        BundleSource({name: Path(path) for name, path in values["paths"].items()}, log=spool is not None),
        sink,
        Guard(EnvironmentTokens(os.environ), host=values["host"]),
        server_id=uuid.uuid4().hex,
    )

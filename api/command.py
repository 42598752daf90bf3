"""``orchestrator api``: serve the HTTP API until told to stop."""

import asyncio
import math
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click
import uvicorn
import uvloop
from starlette.types import ASGIApp

from api.app import create_app
from api.connections import BoundedProtocol, answering_at_the_end
from api.dependencies import Process, Services
from api.direct import DirectRoutes
from api.ingest import taking
from api.security import Gate
from api.services import open_services
from orchestrator.cli import (
    config_file,
    config_option,
    environment_of,
    listen_options,
    plain_errors,
)
from orchestrator.config import AgentIdentity, Settings
from orchestrator.errors import StartupError
from orchestrator.live_settings import LiveSettings
from orchestrator.messaging.ingest import ingest
from orchestrator.parts import grace_of, in_background, metrics_server, settle, stop_on_signals
from orchestrator.security.exposure import check_exposure, is_local_only
from orchestrator.telemetry import logging
from orchestrator.telemetry.logging import get_logger
from orchestrator.telemetry.tracing import tracing

if TYPE_CHECKING:
    from orchestrator.telemetry.spans import Spans

BACKLOG = 2048

log = get_logger(__name__)


@click.command()
@config_option
@listen_options
@plain_errors
def command(config_path: Path | None, host: str | None, port: int | None) -> None:
    """Serve the HTTP API, and take tasks from the broker of message_queue.

    Stops on SIGINT or SIGTERM after the requests in flight are answered, and takes new ones for
    agent.drain seconds before. A configuration that has
    changed is taken over as it runs, on SIGHUP at once (docs/upgrades.md).

    \b
    Examples:
      orchestrator api
      orchestrator api --config production.yaml --host 0.0.0.0 --port 8000
    """
    live = LiveSettings(config_file(config_path), environment_of(host, port))
    logging.configure(live.now.logging, "api")
    uvloop.run(serve(live))


async def serve(live: LiveSettings) -> None:
    """Serve until a signal.

    Raises:
        StartupError: a port is taken, or the engine is not there.
    """
    settings = live.now
    check_exposure(settings)
    live.reload_on_hangup()
    # First the requests in flight have their grace, then the workflows beside them.
    drain = timedelta(seconds=settings.agent.drain)
    stop = stop_on_signals(2 * grace_of(settings) + drain)
    listener = listen(settings.agent.host, settings.agent.port)
    with listener, metrics_server(settings) as exposition:
        async with (
            tracing("api") as spans,
            open_services(settings, stop, exposition, spans) as services,
            in_background(
                ingest(settings.message_queue, taking(services)), live.run(services.prepare)
            ),
        ):
            server = server_of(settings, services, spans)
            # Until now who comes is refused, and asks another process instead of waiting for this.
            open_up(listener, settings.agent)
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            settle()
            log.info("api_ready", url=f"http://{settings.agent.host}:{settings.agent.port}")
            await _until_stopped(services.process, server, serving, settings.agent.drain)
            server.should_exit = True
            await serving
    log.info("api_stopped")


def server_of(settings: Settings, services: Services, spans: "Spans | None") -> "Server":
    """The server of the application, within the limits on connections and requests."""
    app = DirectRoutes(create_app(services), services)
    gate = Gate(
        app,
        services.authenticator,
        services.sessions,
        is_local_only=is_local_only(settings),
    )
    return Server(
        uvicorn.Config(
            _traced(answering_at_the_end(gate), spans),
            loop="none",
            http=BoundedProtocol.within(settings.limits),
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=math.ceil(settings.temporal.shutdown_grace),
        )
    )


async def _until_stopped(
    process: Process, server: "Server", serving: asyncio.Task[None], drain: float
) -> None:
    """Return ``drain`` seconds after a signal, or as soon as something has ended by itself."""
    stopping = asyncio.create_task(process.stopping.wait())
    ending = {serving, stopping, process.workflows}
    await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
    if process.stopping.is_set():
        log.info("api_draining", seconds=drain)
        server.keep_no_connection()
        await asyncio.wait({serving}, timeout=drain)
    stopping.cancel()


def _traced(app: ASGIApp, spans: "Spans | None") -> ASGIApp:
    """The application; its requests are spans, where those are wanted."""
    if spans is None:
        return app
    from api.traced import TracedApp  # noqa: PLC0415 - only who traces pays for it

    return TracedApp(app, spans)


class Server(uvicorn.Server):
    """Leaves the signals to us: requests end first, then the workflows beside them."""

    def keep_no_connection(self) -> None:
        """Have each answer from now on say that its connection ends with it.

        A client that keeps one would else send its next request as the connection is closed.
        """
        closing = [(b"connection", b"close")]
        self.config.encoded_headers += closing
        self.server_state.default_headers = self.server_state.default_headers + closing
        for connection in self.server_state.connections:
            # Requests that have begun took their headers then.
            if isinstance(connection, BoundedProtocol):
                connection.keep_alive_no_more()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them as they are."""
        yield


def listen(host: str, port: int, what: str = "The API") -> socket.socket:
    """A socket that has the port, and takes no connections yet.

    Raises:
        StartupError: the port is taken, or the host is not one of this machine.
    """
    listener = socket.socket(_family(host, port, what), socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        if listener.family is socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, what, error) from None
    return listener


def open_up(listener: socket.socket, agent: AgentIdentity) -> None:
    """Take connections from now on.

    Raises:
        StartupError: another process was faster.
    """
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        raise _cannot_listen(agent.host, agent.port, "The API", error) from None


def _family(host: str, port: int, what: str) -> socket.AddressFamily:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except OSError as error:
        raise _cannot_listen(host, port, what, error) from None


def _cannot_listen(host: str, port: int, what: str, error: OSError) -> StartupError:
    return StartupError(
        f"{what} cannot listen on {host}:{port}: {error.strerror}; free the port, or choose "
        "another by --port"
    )

"""What a process tells at its metrics port: metrics, and to probes whether it lives and is ready.

What Prometheus reads are our metrics, and the engine's client's own.

The client (Temporal's SDK) serves its metrics at an address of its own. It is given one on the
loopback interface, and what it says is added to ours: one port for each process has everything.
"""

import asyncio
import http.client
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import REGISTRY, generate_latest
from prometheus_client.exposition import ThreadingWSGIServer

from orchestrator.errors import StartupError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PLAIN = "text/plain; charset=utf-8"
LOOPBACK = "127.0.0.1"
SDK_SECONDS = 2.0
"""How long the client may take to tell its metrics; then they are left out."""
PROBE_SECONDS = 4.0
"""How long the process's loop may take to answer a probe; then it hangs."""


class Exposition:
    """The metrics of this process as one text, and what it answers to probes."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._problem: Callable[[], Awaitable[str | None]] | None = None
        with socket.create_server((LOOPBACK, 0)) as found:
            self._port: int = found.getsockname()[1]

    @property
    def sdk_address(self) -> str:
        """Where the engine's client is to serve its metrics."""
        return f"{LOOPBACK}:{self._port}"

    def ready(self, problem: Callable[[], Awaitable[str | None]]) -> None:
        """From now on this process is ready when ``problem``, asked in this loop, finds none."""
        self._loop, self._problem = asyncio.get_running_loop(), problem

    def text(self) -> bytes:
        """All metrics, in the Prometheus text format; it may take some milliseconds."""
        return generate_latest(REGISTRY) + self._of_sdk()

    def _of_sdk(self) -> bytes:
        connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=SDK_SECONDS)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            # It does not serve before it has connected.
            return b""
        finally:
            connection.close()

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """Answer a request for /metrics, /live or /ready."""
        match environ["PATH_INFO"]:
            case "/" | "/metrics":
                status, kind, body = "200 OK", CONTENT_TYPE, self.text()
            case "/live":
                status, kind, body = _probed(self._hangs())
            case "/ready":
                status, kind, body = _probed(self._unready())
            case _:
                status, kind, body = "404 Not Found", PLAIN, b"The metrics are at /metrics\n"
        start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body]

    def _hangs(self) -> str | None:
        return self._asked(_nothing) if self._loop else None

    def _unready(self) -> str | None:
        return self._asked(self._problem) if self._problem else "this process is starting"

    def _asked(self, question: Callable[[], Awaitable[str | None]]) -> str | None:
        """What the process's loop answers; that it does not, where it does not."""

        async def asked() -> str | None:
            return await question()

        assert self._loop is not None  # noqa: S101 - is there with the question
        work = asked()
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result(PROBE_SECONDS)
        except TimeoutError:
            return f"this process has not answered for {PROBE_SECONDS:g} s"
        except RuntimeError:
            work.close()
            return "this process has ended"


async def _nothing() -> None:
    return None


def _probed(problem: str | None) -> tuple[str, str, bytes]:
    if problem is None:
        return "200 OK", PLAIN, b"ok\n"
    return "503 Service Unavailable", PLAIN, f"{problem}\n".encode()


@contextmanager
def serving(exposition: Exposition, host: str, port: int) -> Iterator[None]:
    """Serve the metrics at that port, within the block.

    Raises:
        StartupError: the port is taken, or the host is not one of this machine.
    """
    try:
        server = _server(exposition, host, port)
    except OSError as error:
        raise StartupError(
            f"Port {port} on {host} cannot be used for metrics: {error.strerror}; free it, or set "
            "monitoring.metrics_port: API and worker each need a port of their own on a machine"
        ) from None
    thread = Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _server(exposition: Exposition, host: str, port: int) -> WSGIServer:
    class Server(ThreadingWSGIServer):
        address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]

    return make_server(host, port, exposition, Server, _Quiet)


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Log no request: they come every few seconds."""

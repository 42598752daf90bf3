"""What API and worker processes have in common: agent pools, transport, metrics port, signals."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from prometheus_client import start_http_server

from orchestrator.config import Settings
from orchestrator.errors import StartupError
from orchestrator.transports.http import HttpTransport


def http_transport(settings: Settings) -> HttpTransport:
    """The process's one pooled HTTP client."""
    return HttpTransport(settings.limits.max_result_bytes)


def grace_of(settings: Settings) -> timedelta:
    """How long calls in flight may go on after a polite stop."""
    return timedelta(seconds=settings.temporal.shutdown_grace)


def secret_headers(settings: Settings) -> dict[str, dict[str, str]]:
    """The headers that agents' configurations add to each call."""
    return {
        name: {header: value.get_secret_value() for header, value in agent.headers.items()}
        for name, agent in settings.agents.items()
        if agent.headers
    }


@contextmanager
def metrics_server(settings: Settings) -> Iterator[None]:
    """The Prometheus port, while it is wanted.

    Raises:
        StartupError: the port is taken.
    """
    if not settings.monitoring.enable_metrics:
        yield
        return
    host, port = settings.agent.host, settings.monitoring.metrics_port
    try:
        server, thread = start_http_server(port, addr=host)
    except OSError as error:
        raise StartupError(
            f"Port {port} on {host} cannot be used for metrics: {error.strerror}; free it, or set "
            "monitoring.metrics_port"
        ) from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def stop_on_signals() -> asyncio.Event:
    """An event that SIGINT and SIGTERM set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, stop.set)
    return stop

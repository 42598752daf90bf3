"""What API and worker processes are made of and live by: transport, metrics port, signals."""

import asyncio
import ctypes
import gc
import os
import secrets
import signal
import sys
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

from temporalio.client import Interceptor

from orchestrator.completions import CompletionUrls
from orchestrator.config import Rule, Settings
from orchestrator.errors import StartupError
from orchestrator.models import Completion
from orchestrator.telemetry.exposition import Exposition, serving
from orchestrator.telemetry.logging import get_logger
from orchestrator.transports.by_scheme import AgentTransport, ByScheme

if TYPE_CHECKING:
    from orchestrator.telemetry.spans import Spans

EXTRA_STOP_SECONDS = 10.0
"""A polite stop may take its grace, and so much more."""

_COLLECT_AFTER = (2_000, 5, 1)
"""Of new objects, and of collections of each younger generation (gc.set_threshold).

A workflow that leaves the SDK's cache while it waits leaves some 160 objects in cycles. With
Python's own 10 and 10 up to 25 MB of them lay about; a collection takes some milliseconds.
"""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE_BYTES = 128 * 1024

log = get_logger(__name__)


def agent_transport(settings: Settings, spans: "Spans | None" = None) -> AgentTransport:
    """What the process calls agents by; its requests are spans, where those are wanted."""
    transport = ByScheme(settings)
    if spans is None:
        return transport
    from orchestrator.transports.traced import TracedTransport  # noqa: PLC0415 - as the others

    return TracedTransport(transport, spans)


def interceptors(spans: "Spans | None") -> list[Interceptor]:
    """What makes spans of workflows and calls, where those are wanted."""
    if spans is None:
        return []
    from orchestrator.engine.traced import Traced  # noqa: PLC0415 - only who traces pays for it

    return [Traced(spans)]


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


def settle() -> None:
    """Trim a process that has started, for the long run that comes.

    What is there now stays, so the collector need not look at it again, nor as often at the rest:
    objects of a request die by themselves. And glibc is to give large blocks back to the system as
    soon as they are free, instead of raising its thresholds: a batch is large for moments only.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        for parameter in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            libc.mallopt(parameter, _LARGE_BYTES)


@asynccontextmanager
async def in_background(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Have these go on beside the block, until it ends.

    One that breaks stops the process as SIGTERM does: better started again than without it.

    Raises:
        StartupError: one has broken.
    """
    going = [asyncio.create_task(_told_of(work)) for work in works]
    try:
        yield
    finally:
        for task in going:
            task.cancel()
        ends = await asyncio.gather(*going, return_exceptions=True)
    for end in ends:
        if isinstance(end, StartupError):
            raise end


async def _told_of(work: Coroutine[Any, Any, None]) -> None:
    """The work; where it breaks the log and the process hear of it."""
    try:
        await work
    except Exception as error:
        name = getattr(work, "__qualname__", "a work")
        log.exception("background_work_broke", work=name)
        signal.raise_signal(signal.SIGTERM)
        raise StartupError(f"{name} has broken, see the log: {error!r}") from error


def completion_urls(settings: Settings) -> CompletionUrls | None:
    """By which agents answer later; None where nobody has said what signs them.

    Beside the embedded engine a secret is made once, and kept in the data directory.

    Raises:
        StartupError: a rule needs them, and there is no secret; or it cannot be kept.
    """
    given = settings.completions.secret
    if given is None and not settings.temporal.is_embedded:
        if wanting := next(filter(_answers_later, settings.routing_rules), None):
            raise StartupError(
                f"The rule for '{wanting.pattern}' has its agent answer later, which needs "
                "completions.secret: the same in all API and worker processes"
            )
        return None
    secret = given.get_secret_value().encode() if given else _kept_secret(settings)
    return CompletionUrls(settings.completions.public_url or _own_url(settings), secret)


def _answers_later(rule: Rule) -> bool:
    asked = rule.model_fields_set & {"completion", "answer_timeout", "progress_timeout"}
    return bool(asked) and rule.completion is Completion.CALLBACK


def _own_url(settings: Settings) -> str:
    host = settings.agent.host
    if host in {"0.0.0.0", "::", ""}:  # noqa: S104 - is not listened on here
        host = "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.agent.port}"


def _kept_secret(settings: Settings) -> bytes:
    """The secret in the data directory, made by the first process that asks for it."""
    path = settings.storage.data_dir / "completions.key"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile("w", dir=path.parent, prefix=".completions-") as draft:
            # Readable by the user alone, and there as a whole or not at all.
            draft.write(secrets.token_urlsafe(32))
            draft.flush()
            with suppress(FileExistsError):
                os.link(draft.name, path)
        return path.read_bytes()
    except OSError as error:
        raise StartupError(
            f"The secret of completion URLs cannot be kept in {path}: {error.strerror}; "
            "set completions.secret"
        ) from None


@contextmanager
def metrics_server(settings: Settings) -> Iterator[Exposition | None]:
    """The Prometheus port and what it shows, while it is wanted.

    Raises:
        StartupError: the port is taken.
    """
    if not settings.monitoring.enable_metrics:
        yield None
        return
    exposition = Exposition()
    with serving(exposition, settings.agent.host, settings.monitoring.metrics_port):
        yield exposition


def stop_on_signals(grace: timedelta) -> asyncio.Event:
    """An event that SIGINT and SIGTERM set; a process that outlives the grace after it is ended.

    A worker's shutdown leaves it to the engine to end the polls in flight, so that no call is
    handed to one that has left. With no engine there they never end, nor does the shutdown.
    """
    stop = asyncio.Event()
    seconds = grace.total_seconds() + EXTRA_STOP_SECONDS

    def on_signal() -> None:
        if not stop.is_set():
            stop.set()
            overdue = threading.Timer(seconds, _leave, (seconds,))
            overdue.daemon = True
            overdue.start()

    loop = asyncio.get_running_loop()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, on_signal)
    return stop


def _leave(seconds: float) -> None:
    log.error("stop_overdue", seconds=seconds, advice="ended by force; is the engine there?")
    sys.stdout.flush()
    os._exit(1)

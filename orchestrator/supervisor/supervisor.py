"""Starts the parts in order, restarts what crashes, ends all in order."""

import asyncio
import contextlib
import os
import socket
import sqlite3
import sys
import time
from collections import deque
from collections.abc import Awaitable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from temporalio.exceptions import TemporalError

from orchestrator.config import Settings
from orchestrator.engine import embedded, visibility
from orchestrator.engine.connect import connect
from orchestrator.engine.payloads import converter_of
from orchestrator.engine.write_ahead_log import Flusher
from orchestrator.errors import StartupError
from orchestrator.supervisor import probe
from orchestrator.supervisor.part import Part, end_of
from orchestrator.telemetry.logging import get_logger

START_SECONDS = 60.0
EXTRA_STOP_SECONDS = 15.0
"""A part may take its grace for what is in flight, and so much more."""
MAX_RESTARTS, RESTART_WINDOW_SECONDS = 5, 60.0
RESTART_PAUSE_SECONDS = 0.5
ENGINE, SAMPLE_AGENTS = "engine", "sample agents"
MAX_PORT = 65535

T = TypeVar("T")

log = get_logger(__name__)


@dataclass(frozen=True)
class Running:
    """What was started, for the one who shows it."""

    settings: Settings
    server_version: str | None
    data_dir: Path
    sample_agents: str | None
    start_seconds: float
    probe_seconds: float | None


class Supervisor:
    """The parts of one `orchestrator run`.

    Args:
        settings: the configuration of all parts.
        config_path: its file, for the children.
        environment: for the children.
        sample_agents_port: where the sample agents listen; None starts none.
    """

    def __init__(
        self,
        settings: Settings,
        config_path: Path | None,
        environment: Mapping[str, str],
        sample_agents_port: int | None,
    ) -> None:
        self._settings = settings
        self._environment = dict(environment)
        if config_path is not None:
            self._environment["ORCHESTRATOR_CONFIG"] = str(config_path.resolve())
        self._agents_port = sample_agents_port
        self._stop_seconds = (
            settings.temporal.shutdown_grace + settings.agent.drain + EXTRA_STOP_SECONDS
        )
        self._parts: list[Part] = []
        self._flusher: Flusher | None = None
        self._restarts: dict[str, deque[float]] = {}
        self._began = time.monotonic()

    @property
    def api_url(self) -> str:
        """Where the API is reached from this machine."""
        return f"http://{reachable_host(self._settings)}:{self._settings.agent.port}"

    async def start(self, directory: Path | None, version: str | None) -> Running:
        """Start everything and wait until a probe task has gone through.

        Raises:
            StartupError: a port is taken, or a part does not get ready.
        """
        self._check_ports()
        temporal = self._settings.temporal
        if directory is not None:
            was_there = await _lighten_lists(directory / embedded.DATABASE)
            await self._start(self._engine(directory))
        if self._agents_port is not None:
            await self._start(self._sample_agents())
        client = await self._ready(
            connect(
                temporal.model_copy(update={"connect_timeout": START_SECONDS}),
                identity=f"supervisor@{os.getpid()}",
                converter=converter_of(self._settings),
            ),
            "engine",
        )
        if directory is not None:
            timeout = timedelta(seconds=temporal.rpc_timeout)
            await embedded.keep_closed_tasks(client, temporal.embedded.retention_days, timeout)
            if not was_there:
                await _lighten_lists(directory / embedded.DATABASE)
            if temporal.embedded.synchronous == "normal":
                self._flusher = Flusher(directory / embedded.DATABASE)
                self._flusher.start()
        if self._agents_port is not None:
            await self._ready(probe.answers(f"http://127.0.0.1:{self._agents_port}/"), "agents")
        await self._start(self._orchestrator("worker"))
        await self._start(self._orchestrator("api"))
        await self._ready(probe.api_is_healthy(self.api_url), "API and worker")
        # Elsewhere any worker might take the probe, and none but ours can reach its agent.
        took = None
        if directory is not None:
            took = await self._ready(probe.probe_task(client, self._settings), "probe task")
        return Running(
            settings=self._settings,
            server_version=version,
            data_dir=directory or Path(),
            sample_agents=f"http://127.0.0.1:{self._agents_port}" if self._agents_port else None,
            start_seconds=time.monotonic() - self._began,
            probe_seconds=took,
        )

    async def watch(self) -> None:
        """Restart what ends; return never.

        Raises:
            StartupError: a part ends again and again.
        """
        watching = {asyncio.create_task(part.ended()): part for part in self._parts}
        try:
            while True:
                done, _ = await asyncio.wait(watching, return_when=asyncio.FIRST_COMPLETED)
                for ended in done:
                    part = watching.pop(ended)
                    await self._restart(part, ended.result())
                    watching[asyncio.create_task(part.ended())] = part
        finally:
            for task in watching:
                task.cancel()

    async def _restart(self, part: Part, code: int) -> None:
        now = time.monotonic()
        recent = self._restarts.setdefault(part.name, deque())
        while recent and now - recent[0] > RESTART_WINDOW_SECONDS:
            recent.popleft()
        if len(recent) >= MAX_RESTARTS:
            raise StartupError(
                f"The {part.name} ended {MAX_RESTARTS + 1} times within "
                f"{RESTART_WINDOW_SECONDS:g} s, last with {end_of(code)}" + _because(part)
            )
        recent.append(now)
        log.warning("part_restarted", part=part.name, ended_with=end_of(code), restarts=len(recent))
        await asyncio.sleep(RESTART_PAUSE_SECONDS * (len(recent) - 1))
        await _launch(part)

    async def stop(self) -> None:
        """End all parts: first those that take work, then those that serve it, the engine last."""
        stages = (("api", "worker"), (SAMPLE_AGENTS,), (ENGINE,))
        for names in stages:
            stopping = [part for part in self._parts if part.name in names]
            await asyncio.gather(*(part.stop() for part in stopping))
        if self._flusher is not None:
            await asyncio.to_thread(self._flusher.stop)

    def reload(self) -> None:
        """Have the API and the worker read their configuration again."""
        for part in self._parts:
            if part.name in {"api", "worker"}:
                part.hang_up()

    def kill(self) -> None:
        """End all parts by force."""
        for part in self._parts:
            part.kill()

    async def _start(self, part: Part) -> None:
        await _launch(part)
        self._parts.append(part)

    async def _ready(self, readiness: Awaitable[T], name: str) -> T:
        """Wait for a part to get ready, unless time passes or any part ends first."""
        waiting = asyncio.ensure_future(readiness)
        ends = [(asyncio.create_task(part.ended()), part) for part in self._parts]
        everything = [waiting, *(task for task, _ in ends)]
        try:
            async with asyncio.timeout(START_SECONDS):
                await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
            for task, part in ends:
                if task.done():
                    raise StartupError(
                        f"The {part.name} ended while starting, with {end_of(task.result())}"
                        + _because(part)
                    )
            return waiting.result()
        except TemporalError as error:
            raise StartupError(f"The {name} failed: {error}") from None
        except TimeoutError:
            raise StartupError(f"The {name} did not get ready within {START_SECONDS:g} s") from None
        finally:
            for each in everything:
                each.cancel()
            await asyncio.gather(*everything, return_exceptions=True)

    def _engine(self, directory: Path) -> Part:
        arguments = embedded.command(embedded.find_binary(), self._settings.temporal, directory)
        log_file = directory / embedded.LOG
        if log_file.exists():
            log_file.replace(log_file.with_suffix(".log.1"))
        environment = embedded.environment(self._environment)
        return Part(ENGINE, arguments, environment, self._stop_seconds, log_file)

    def _sample_agents(self) -> Part:
        arguments = [
            *(sys.executable, "-m", "examples.agents"),
            *("--host", "127.0.0.1", "--port", str(self._agents_port)),
        ]
        return Part(SAMPLE_AGENTS, arguments, self._environment, self._stop_seconds)

    def _orchestrator(self, name: str) -> Part:
        environment = dict(self._environment)
        if name == "worker":
            environment["ORCHESTRATOR_MONITORING__METRICS_PORT"] = str(
                worker_metrics_port(self._settings)
            )
        arguments = [sys.executable, "-m", "orchestrator", name]
        return Part(name, arguments, environment, self._stop_seconds)

    def _check_ports(self) -> None:
        for host, port, what, remedy in self._ports():
            try:
                family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
                socket.create_server((host, port), family=family).close()
            except OSError as error:
                raise StartupError(
                    f"Port {port} on {host} cannot be used for {what}: {error.strerror}; free it, "
                    f"or choose another by {remedy}"
                ) from None

    def _ports(self) -> Iterator[tuple[str, int, str, str]]:
        settings = self._settings
        host = settings.agent.host
        yield host, settings.agent.port, "the API", "--port"
        if settings.monitoring.enable_metrics:
            remedy = "monitoring.metrics_port"
            yield host, settings.monitoring.metrics_port, "the API's metrics", remedy
            yield host, worker_metrics_port(settings), "the worker's metrics", remedy
        if settings.temporal.is_embedded:
            ports = settings.temporal.embedded
            yield embedded.HOST, ports.port, "the engine", "temporal.embedded.port"
            yield embedded.HOST, ports.ui_port, "the Web UI", "temporal.embedded.ui_port"
        if self._agents_port is not None:
            yield (
                "127.0.0.1",
                self._agents_port,
                "the sample agents",
                "--agents-port (or --no-agents)",
            )


def reachable_host(settings: Settings) -> str:
    """The API's host as this machine reaches it, ready for a URL."""
    host = settings.agent.host
    wildcards = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - compared, not bound
    return wildcards.get(host, f"[{host}]" if ":" in host else host)


def worker_metrics_port(settings: Settings) -> int:
    """On one machine the worker's metrics are beside the API's."""
    port = settings.monitoring.metrics_port
    return port + 1 if port < MAX_PORT else port - 1


async def _launch(part: Part) -> None:
    try:
        await part.start()
    except OSError as error:
        raise StartupError(f"The {part.name} cannot be started: {error}") from None


def uses_sample_agents(settings: Settings, port: int) -> bool:
    """Whether any instance of the configuration is at the sample agents' address."""
    return any(
        urlsplit(instance.url).port == port
        and urlsplit(instance.url).hostname in {"127.0.0.1", "localhost"}
        for agent in settings.agents.values()
        for instance in agent.instances
    )


async def _lighten_lists(database: Path) -> bool:
    """Before the engine starts where it has a database, else once it has made one, which is empty.

    What is begun is ended: whoever stops meanwhile waits for it, since the directory is in use.

    Returns:
        Whether there is a database.
    """
    working = asyncio.create_task(asyncio.to_thread(_lighten, database))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await working
        raise


def _lighten(database: Path) -> bool:
    if not database.exists():
        return False
    try:
        if visibility.needs_lightening(database):
            log.info("lists_are_changed", database=str(database), bytes=database.stat().st_size)
            began = time.monotonic()
            gone = visibility.lighten(database)
            log.info("lists_changed", indexes=gone, seconds=round(time.monotonic() - began, 3))
    except (OSError, sqlite3.Error, visibility.UnknownListsError) as error:
        # They are right as they are; they only cost more.
        log.warning("lists_left_as_they_are", database=str(database), error=str(error))
    return True


def _because(part: Part) -> str:
    words = part.last_words()
    if words:
        return f"; the end of {part.log}:\n{words}"
    return f"; {part.log} is empty" if part.log else "; see its lines above"


@contextlib.contextmanager
def engine_directory(settings: Settings) -> Iterator[tuple[Path | None, str | None]]:
    """The embedded engine's data directory and version; nothing for an engine elsewhere."""
    if not settings.temporal.is_embedded:
        yield None, None
        return
    version = embedded.server_version(embedded.find_binary())
    with embedded.data_directory(settings.storage.data_dir, version) as directory:
        yield directory, version

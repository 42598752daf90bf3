"""The product as it runs in production: two APIs behind a proxy, two workers, a real broker.

What `make production-local` starts, with a test's configuration laid over it. PostgreSQL, the
engine and RabbitMQ take long to start, so the products of a session share them, each in a namespace
of its own.
"""

import asyncio
import contextlib
import os
import re
import signal
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Never

import pytest

from deploy.local.programs import missing, programs, temporal_server
from deploy.local.running import Production
from deploy.local.topology import NOT_HERE, Topology
from tests.support.production import network, temporary
from tests.support.stack import Stack

SHARED = ("postgresql", "temporal-schema", "temporal", "rabbitmq")
OWN = ("secrets", "temporal-namespace", "redis", "worker", "api", "proxy")
METRICS_PORT = 9090
UNLIMITED = {
    "ORCHESTRATOR_RATE_LIMITING__DEFAULT_RATE": "1000000",
    "ORCHESTRATOR_RATE_LIMITING__BURST_SIZE": "1000000",
}
"""Where a configuration has no limits: that Redis is named would put the default ones in force."""


@dataclass
class Kept:
    """A topology in a thread of its own, which starts again what ends.

    Args:
        production: the topology.
    """

    production: Production

    def __post_init__(self) -> None:
        self._ready = Future[None]()
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._keep)

    def start(self) -> None:
        """Return once all is ready."""
        self._thread.start()
        self._ready.result()

    def stop(self) -> None:
        """Return once all is gone."""
        self._enough.set()
        self._thread.join()

    def _keep(self) -> None:
        try:
            with self.production:
                self._ready.set_result(None)
                self.production.keep(self._enough.wait)
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)


@dataclass(frozen=True)
class Shared:
    """What several products use.

    Args:
        addresses: of each service.
        production: who runs them; None where that is another process.
    """

    addresses: Mapping[str, str]
    production: Production | None = None


class ProductionStack(Stack):
    """One running product, beside what it shares with others."""

    def __init__(
        self, shared: Shared, directory: Path, config: dict[str, Any], **options: Any
    ) -> None:
        self.shared = shared
        self._namespace = f"test-{uuid.uuid4().hex[:12]}"
        self.told = list[str]()
        super().__init__(directory, config, **options)
        wanted = {*OWN, "agents"} if "--no-agents" not in self.options else set(OWN)
        chosen = programs(with_postgresql=True)
        self.production = Production(
            self._topology(), {name: chosen[name] for name in chosen if name in wanted}, self._hear
        )
        self._kept: Kept | None = None

    def _hear(self, line: str) -> None:
        self.told.append(line)

    def _topology(self) -> Topology:
        anonymous = "false" if "security" in self.config else "true"
        environ = {"TEMPORAL_NAMESPACE": self.namespace, "ALLOW_ANONYMOUS": anonymous}
        directory = self.directory / "topology"
        directory.mkdir(exist_ok=True)
        plain = Topology(network(), directory, environ, NOT_HERE, self.shared.addresses)
        plain.changes = {name: self._changes(plain, name) for name in ("api", "worker")}
        return plain

    def _changes(self, plain: Topology, service: str) -> dict[str, str | None]:
        """What the test's configuration and variables say in the place of the topology's."""
        told = plain.environment(plain.replicas[service][0])
        withdrawn = {name: None for name in told if _says(self.config, name)}
        return {
            **NOT_HERE[service],
            **({} if "rate_limiting" in self.config else UNLIMITED),
            **withdrawn,
            "ORCHESTRATOR_CONFIG": str(self.config_path),
            "ORCHESTRATOR_STORAGE__DATA_DIR": str(self.data_dir),
            **self.environment,
        }

    @property
    def url(self) -> str:
        """The API, through the proxy."""
        return self.production.url

    @property
    def engine(self) -> str:
        """The engine's address."""
        return f"{self.shared.addresses['temporal']}:7233"

    @property
    def namespace(self) -> str:
        """The engine's namespace, which no other product has."""
        return self._namespace

    @property
    def engine_folder(self) -> Path:
        """Where PostgreSQL keeps what the engine knows, of other products too."""
        if self.shared.production is None:
            _cannot("the engine belongs to another process")
        return self.shared.production.topology.directory

    @property
    def apis(self) -> list[str]:
        """Each API by itself."""
        replicas = self.production.topology.replicas["api"]
        return [f"http://{each.address}:8000" for each in replicas]

    @property
    def web_ui(self) -> str:
        """It is no program of this machine."""
        _cannot("the Web UI does not run here")

    @property
    def metrics_urls(self) -> list[str]:
        """Where each API and worker tells its metrics."""
        replicas = self.production.topology.replicas
        found = [*replicas["api"], *replicas["worker"]]
        return [f"http://{each.address}:{METRICS_PORT}/metrics" for each in found]

    @property
    def parts(self) -> int:
        """The processes that have the configuration."""
        return len(self.metrics_urls)

    def variables(self) -> dict[str, str]:
        """The environment of an API; commands find the product through the proxy."""
        topology = self.production.topology
        replica = topology.replicas["api"][0]
        program = self.production.programs["api"](topology, replica)
        told = self.production.environment(replica, program)
        del told["ORCHESTRATOR_AGENT__HOST"]
        # Where an address is told by the product's own variable, so is the namespace.
        own = {"ORCHESTRATOR_URL": self.url, "ORCHESTRATOR_TEMPORAL__NAMESPACE": self.namespace}
        return {**told, **own, **self.environment}

    async def launch(self) -> None:
        """It is started whole."""
        await self.start()

    async def start(self) -> None:
        """Start it and wait until it is ready."""
        self._kept = Kept(self.production)
        await asyncio.to_thread(self._kept.start)

    async def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Stop it as a user would, whichever signal that is; its exit code."""
        del number
        await self.end()
        return 0

    async def end(self) -> None:
        """Stop it, unless it has been."""
        kept, self._kept = self._kept, None
        if kept is not None:
            await asyncio.to_thread(kept.stop)

    def said(self) -> str:
        """What APIs and workers wrote, in the order of time."""
        logs = self.production.topology.directory / "logs"
        files = [*logs.glob("api-*.log"), *logs.glob("worker-*.log")]
        lines = (line for each in files for line in each.read_text().splitlines(keepends=True))
        return "".join(sorted(lines, key=_time))

    def complained(self) -> str:
        """What of it is no line of a log: it comes from stderr, which goes to the same file."""
        return "".join(each for each in self.said().splitlines(True) if not each.startswith("{"))

    def restarts(self) -> int:
        """How often a process of the product was started again."""
        return sum("started again" in line for line in self.told)

    def hang_up(self) -> None:
        """Have APIs and workers read their configuration again."""
        for part in ("api", "worker"):
            self.send(part, signal.SIGHUP)

    def pids_of(self, part: str) -> list[int]:
        """The processes of a part: engine, worker, api or agents."""
        production = self.shared.production if part == "engine" else self.production
        if production is None:
            _cannot("the engine belongs to another process")
        service = "temporal" if part == "engine" else part
        found = [each for name, each in production.processes.items() if _of(service, name)]
        if not found:
            _cannot(f"no {part} runs here")
        return [each.pid for each in found if each.code is None]

    def pid_of(self, part: str) -> int:
        """The process of a part that has one."""
        pids = self.pids_of(part)
        if len(pids) != 1:
            _cannot(f"one process of {part} is asked for, and there are {len(pids)}")
        return pids[0]


def _time(line: str) -> str:
    """Of a line of a log; of others none."""
    found = re.search(r'"timestamp":"([^"]+)"', line)
    return found[1] if found else ""


def _of(service: str, process: str) -> bool:
    return process.rpartition("-")[0] == service


def _cannot(reason: str) -> Never:
    """Skip the test that asks for what only `orchestrator run` has."""
    pytest.skip(f"production topology: {reason}")


def _says(config: Mapping[str, Any], variable: str) -> bool:
    """Whether the configuration has what a variable would override."""
    section, _, key = variable.removeprefix("ORCHESTRATOR_").lower().partition("__")
    if section == "message_queue":
        return section in config
    return any(name in config.get(section, {}) for name in (key, key.removesuffix("_file")))


@contextlib.contextmanager
def shared() -> Iterator[Shared]:
    """PostgreSQL, Temporal's server and RabbitMQ; without them the development server's file."""
    if lacking := missing():
        pytest.exit(f"install first: apt install {' '.join(lacking)}", 1)
    with tempfile.TemporaryDirectory(prefix="production-", dir=temporary()) as name:
        # Not pytest's folder, which PostgreSQL's own user could not enter.
        directory = Path(name)
        directory.chmod(0o755)
        topology = Topology(network(), directory, os.environ, NOT_HERE)
        chosen = programs(with_postgresql=temporal_server())
        production = Production(topology, {each: chosen[each] for each in chosen if each in SHARED})
        kept = Kept(production)
        try:
            kept.start()
            yield Shared({each: topology.address(each) for each in SHARED}, production)
        finally:
            kept.stop()

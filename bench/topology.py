"""One engine with any number of workers and APIs, and what their processes compute."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from temporalio.client import Client as Temporal

from bench.client import Client
from bench.processes import cpu_seconds, memory_of
from bench.stage import Agent
from tests.support.stack import Stack, eventually, free_port, running

KINDS = ("api", "worker", "engine")
_TICKS = os.sysconf("SC_CLK_TCK")
_START_SECONDS = 120.0


@dataclass(frozen=True)
class Topology:
    """How many processes of each kind there are."""

    workers: int
    apis: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``2x4``, two workers and four APIs.

        Raises:
            ValueError: it is no such text.
        """
        workers, _, apis = text.partition("x")
        return cls(int(workers), int(apis))

    def __str__(self) -> str:
        return f"{self.workers}x{self.apis}"


@dataclass(frozen=True)
class Usage:
    """What has been computed up to a moment, in seconds of a core.

    Args:
        at: the moment.
        own: by kind, the agent and this client included.
        all: by everything on the machine.
    """

    at: float
    own: dict[str, float]
    all: float


@dataclass(frozen=True)
class _Joined:
    """A process beside those of the first start."""

    pid: int
    port: int
    life: AsyncExitStack


@dataclass
class Site:
    """The running product with its agent and its engine."""

    stack: Stack
    agent: Agent
    engine: Temporal
    _joined: dict[str, list[_Joined]] = field(
        default_factory=lambda: {"worker": [], "api": []}, init=False
    )

    @property
    def urls(self) -> list[str]:
        """The APIs."""
        ports = [self.stack.port, *(each.port for each in self._joined["api"])]
        return [f"http://127.0.0.1:{port}" for port in ports]

    @property
    def topology(self) -> Topology:
        """What there is now."""
        return Topology(1 + len(self._joined["worker"]), 1 + len(self._joined["api"]))

    def pids(self, kind: str) -> list[int]:
        """The processes of a kind."""
        joined = self._joined.get(kind, [])
        return [self.stack.pid_of(kind), *(each.pid for each in joined)]

    async def arrange(self, topology: Topology) -> None:
        """Have processes join or leave until there are so many."""
        for part, wanted in (("worker", topology.workers), ("api", topology.apis)):
            while len(self._joined[part]) > wanted - 1:
                await self._joined[part].pop().life.aclose()
            while len(self._joined[part]) < wanted - 1:
                await self.join(part)

    async def join(self, part: str) -> float:
        """Start one more worker or API; the seconds until it was ready."""
        began, port, life = time.perf_counter(), free_port(), AsyncExitStack()
        process = await life.enter_async_context(self.stack.joined(part, port))
        self._joined[part].append(_Joined(process.pid, port, life))
        log = self.stack.directory / f"{part}-{port}.log"

        async def ready() -> bool:
            if process.returncode is not None:
                raise RuntimeError(f"a {part} does not start:\n{log.read_text()[-2000:]}")
            said = log.read_text()
            return "worker_ready" in said if part == "worker" else await _answers(port)

        await eventually(ready, _START_SECONDS, f"a further {part}")
        return time.perf_counter() - began

    def usage(self) -> Usage:
        """What has been computed up to now."""
        own = {kind: sum(map(cpu_seconds, self.pids(kind))) for kind in KINDS}
        own |= {"agent": cpu_seconds(self.agent.pid), "client": time.process_time()}
        return Usage(time.perf_counter(), own, _computed())

    def memory(self) -> dict[str, float]:
        """Private megabytes by kind, of the first process of each."""
        return {kind: round(memory_of(self.pids(kind)[0]).private / 1e6, 1) for kind in KINDS}

    async def leave_all(self) -> None:
        """Stop what has joined."""
        await self.arrange(Topology(1, 1))


@asynccontextmanager
async def site(agent: Agent, config: dict[str, Any]) -> AsyncIterator[Site]:
    """The product on an engine of its own, which is stopped at the end."""
    with TemporaryDirectory() as directory:
        async with running(Path(directory), config) as stack:
            found = Site(stack, agent, await Temporal.connect(stack.engine))
            try:
                yield found
            finally:
                await found.leave_all()


async def _answers(port: int) -> bool:
    try:
        client = await Client.connect(f"http://127.0.0.1:{port}")
    except OSError:
        return False
    try:
        return bool((await client.request("GET", "/health"))["status"] == "healthy")
    except asyncio.IncompleteReadError:
        return False
    finally:
        client.close()


def _computed() -> float:
    """Seconds that all cores together have been busy."""
    ticks = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _wait, *interrupts = ticks
    return (user + nice + system + sum(interrupts)) / _TICKS

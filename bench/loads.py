"""The loads of the scaling measurements, spread over all APIs, and what each cost by process."""

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from bench.client import Client
from bench.stage import PAYLOAD, guarded_config, submit
from bench.topology import Site, Topology

CORES = os.cpu_count() or 1
BATCH = 1000
SLOW_CONNECTIONS = 10
"""Calls of the slow agent that a worker makes at once."""
EACH = "coalesced, 100 each"
_BATCHES_AT_ONCE = 4
_POLL_SECONDS = 0.1
_END_SECONDS = 600.0
_OPEN = "WorkflowType IN ('OrchestrateTask', 'TaskBatch') AND ExecutionStatus = 'Running'"
_WAIT = "Prefer: wait=60\r\n"


@dataclass(frozen=True)
class Load:
    """One way to hand in tasks.

    Args:
        pattern: of its tasks; with ``{}``, the number of an agent.
        connections: for POST /orchestrate; None for batches.
        of_each: the connections are of each API, not of all together.
    """

    pattern: str
    connections: int | None
    of_each: bool = False

    def connections_of_one(self, apis: int) -> int:
        """How many connections each of so many APIs has."""
        return (self.connections or 0) // (1 if self.of_each else apis)

    def group(self, apis: int) -> float:
        """How many coalesced tasks are taken to start together: those of all connections of an API.

        It is what can be at most; seen were 65 of 100, and 43 of 50.
        """
        return float(self.connections_of_one(apis))

    def tasks(self, size: int, agents: int = 1) -> Iterator[dict[str, Any]]:
        """So many tasks, which take turns with the agents."""
        for number in range(size):
            yield {"pattern": self.pattern.format(number % agents), "payload": PAYLOAD}


LOADS = {
    "single": Load("work", 50),
    "coalesced": Load("many", 100),
    EACH: Load("many", 100, of_each=True),
    "batch": Load("work", None),
    "coalesced by 20": Load("many", 20),
    "slow": Load("slow", None),
    "single, spread": Load("work.{}", 50),
    "batch, spread": Load("work.{}", None),
}


@dataclass(frozen=True)
class Run:
    """What was measured of one load.

    Args:
        seconds: until the results of all tasks were stored.
        cpu: seconds by kind of process.
        others: seconds that everything else on the machine computed.
    """

    load: str
    topology: Topology
    tasks: int
    seconds: float
    cpu: dict[str, float]
    others: float

    @property
    def per_second(self) -> float:
        """Tasks a second."""
        return self.tasks / self.seconds

    @property
    def costs(self) -> dict[str, float]:
        """CPU seconds of one task by kind."""
        return {kind: seconds / self.tasks for kind, seconds in self.cpu.items()}

    @property
    def cores(self) -> float:
        """Those that others left to it, on average."""
        return CORES - self.others / self.seconds

    @property
    def busy(self) -> float:
        """The share of those cores that it kept busy; the rest of the time all waited."""
        return sum(self.cpu.values()) / self.seconds / self.cores


def scale_config(url: str) -> dict[str, Any]:
    """Every guard on; besides ``work``, ``many`` is coalesced, and the agent of ``slow`` slow."""
    config = guarded_config(url)
    slow = {"instances": [{"url": url}], "max_connections": SLOW_CONNECTIONS}
    config["agents"]["slow_agent"] = slow
    config["routing_rules"] += [
        {"pattern": "many", "target_agent": "test_agent", "endpoint": "/work"}
        | {"dispatch": "coalesced"},
        {"pattern": "slow", "target_agent": "slow_agent", "endpoint": "/slow"},
    ]
    return config


async def run(site: Site, load: str, size: int, agents: int = 1) -> Run:
    """Hand in so many tasks, and measure until all have ended."""
    return await timed(site, load, size, lambda: hand_in(site, LOADS[load], size, agents))


async def mix(site: Site, sizes: dict[str, int]) -> Run:
    """Hand in several loads at the same time, and measure until all have ended."""

    async def all_of_them() -> None:
        await asyncio.gather(*(hand_in(site, LOADS[load], size) for load, size in sizes.items()))

    return await timed(site, "mix", sum(sizes.values()), all_of_them)


async def timed(
    site: Site, name: str, size: int, work: Callable[[], Coroutine[Any, Any, None]]
) -> Run:
    """What it takes to hand in so many tasks and to carry them out.

    Raises:
        TimeoutError: they have not ended within ten minutes.
        ValueError: the agent had another number of calls.
    """
    calls = await site.agent.calls() + size
    before = site.usage()
    async with asyncio.timeout(_END_SECONDS):
        await work()
        while await site.agent.calls() < calls or await _open(site):  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(_POLL_SECONDS)
    after = site.usage()
    cpu = {kind: after.own[kind] - before.own[kind] for kind in after.own}
    others = max(0.0, after.all - before.all - sum(cpu.values()))
    seconds = after.at - before.at
    return Run(name, site.topology, size, seconds, cpu, others)


async def hand_in(site: Site, load: Load, size: int, agents: int = 1) -> None:
    """Submit so many tasks by all APIs in equal parts."""
    tasks = load.tasks(size, agents)
    if load.connections is None:
        await asyncio.gather(
            *(_batches(_turn(site.urls, n), tasks) for n in range(_BATCHES_AT_ONCE))
        )
    else:
        share = load.connections_of_one(len(site.urls))
        await asyncio.gather(*(submit(url, tasks, share) for url in site.urls))


async def _batches(url: str, tasks: Iterator[dict[str, Any]]) -> None:
    """Post batches of what is left, one after the other has ended."""
    client = await Client.connect(url)
    while body := list(islice(tasks, BATCH)):
        answer = await client.request("POST", "/orchestrate/batch", body)
        if "batch_id" not in answer:
            raise ValueError(f"a batch was not accepted: {answer}")
        batch = f"/batches/{answer['batch_id']}"
        while answer["status"] in {"queued", "running"}:
            answer = await client.request("GET", batch, headers=_WAIT)
    client.close()


def _turn(urls: list[str], number: int) -> str:
    return urls[number % len(urls)]


async def _open(site: Site) -> int:
    return (await site.engine.count_workflows(_OPEN)).count

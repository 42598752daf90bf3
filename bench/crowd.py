"""What many agents cost: each has a task queue of its own, with polls of every worker."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from bench.loads import Run, run, scale_config
from bench.memory import rest
from bench.stage import agent_process
from bench.topology import KINDS, Site, site

IDLE_SECONDS = 5.0
PATTERN = "work.{}"
"""As the loads that are spread have it."""

console = Console(stderr=True)


@dataclass(frozen=True)
class Crowd:
    """What was seen with so many agents.

    Args:
        start_seconds: until ``orchestrator run`` was ready, the engine on a new file included.
        worker_seconds: until one more worker process was ready.
        idle: cores in use with nothing to do, by kind of process.
        memory: private megabytes, by kind of process, before the loads.
        runs: of tasks that take turns with the agents.
    """

    agents: int
    start_seconds: float
    worker_seconds: float
    idle: dict[str, float]
    memory: dict[str, float]
    runs: tuple[Run, ...]


def crowd_config(url: str, agents: int) -> dict[str, Any]:
    """So many agents at one URL, ``work.0`` and so on, beside those of all measurements."""
    config = scale_config(url)
    for number in range(agents):
        name = f"agent_{number}"
        config["agents"][name] = {"instances": [{"url": url}]}
        config["routing_rules"].append(
            {"pattern": PATTERN.format(number), "target_agent": name, "endpoint": "/work"}
        )
    return config


async def measure(numbers: Sequence[int], sizes: dict[str, int]) -> list[Crowd]:
    """What is seen with each number of agents, each on an engine of its own."""
    rows = []
    for number in numbers:
        async with agent_process("--quiet") as agent:
            began = time.perf_counter()
            async with site(agent, crowd_config(agent.url, number)) as found:
                start_seconds = time.perf_counter() - began
                rows.append(await _row(found, number, start_seconds, sizes))
        console.print(f"{number} agents: {rows[-1].idle}")
    return rows


async def _row(found: Site, agents: int, start_seconds: float, sizes: dict[str, int]) -> Crowd:
    await rest(found.stack)
    idle, memory = await _idle(found), found.memory()
    runs = [await run(found, load, size, agents) for load, size in sizes.items()]
    worker_seconds = await found.join("worker")
    return Crowd(agents, start_seconds, worker_seconds, idle, memory, tuple(runs))


async def _idle(found: Site) -> dict[str, float]:
    before = found.usage()
    await asyncio.sleep(IDLE_SECONDS)
    after = found.usage()
    seconds = after.at - before.at
    return {kind: round((after.own[kind] - before.own[kind]) / seconds, 3) for kind in KINDS}

"""What the measurements run against: an agent apart, and the product configured to call it."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from bench.client import Client
from tests.support.stack import agent_config

PAYLOAD = {"text": "a small payload", "number": 1}
CONNECTIONS = 50


class Agent:
    """The agent's process, and what it reports."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.url = url
        self.pid = process.pid
        self._process = process

    async def arrival(self) -> int:
        """Nanoseconds of the monotonic clock at which the next call arrived."""
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        return int(await self._process.stdout.readline())

    async def calls(self) -> int:
        """How many calls it has answered."""
        return (await self.tally())[0]

    async def tally(self) -> tuple[int, int]:
        """How many calls it has answered, and the sum of the nanoseconds at which they arrived."""
        client = await Client.connect(self.url)
        found = await client.request("GET", "/calls")
        client.close()
        return int(found["calls"]), int(found["arrivals"])


@asynccontextmanager
async def agent_process(*options: str) -> AsyncIterator[Agent]:
    """An agent apart, so that it does not wait for what this process does."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.agent", *options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None  # noqa: S101 - they were asked for
    assert process.stdout is not None  # noqa: S101
    try:
        yield Agent(process, (await process.stdout.readline()).decode().strip())
    finally:
        process.stdin.close()
        await process.wait()


def guarded_config(url: str) -> dict[str, Any]:
    """Every guard on, and none that refuses: besides ``work``, ``wait`` is never answered."""
    config = agent_config(url)
    config["agents"]["holding_agent"] = {"instances": [{"url": url}], "max_connections": 10}
    rule = {"pattern": "wait", "target_agent": "holding_agent", "endpoint": "/hold"}
    config["routing_rules"].append({**rule, "timeout": 36_000})
    return config | {
        "error_recovery": {"retry_delay": 0.2},
        "priority_queue": {"max_queue_size": 1_000_000},
        "rate_limiting": {"default_rate": 60_000_000, "burst_size": 1_000_000, "mode": "reject"},
        "temporal": {"shutdown_grace": 2, "rpc_timeout": 60},
    }


async def submit(url: str, bodies: Iterable[Any], connections: int = CONNECTIONS) -> int:
    """POST each to /orchestrate, by so many connections; how many there were.

    Raises:
        ValueError: one was not accepted.
    """
    left = iter(bodies)

    async def work() -> int:
        client = await Client.connect(url)
        done = 0
        for body in left:
            answer = await client.request("POST", "/orchestrate", body)
            if "task_id" not in answer:
                raise ValueError(f"a task was not accepted: {answer}")
            done += 1
        client.close()
        return done

    return sum(await asyncio.gather(*(work() for _ in range(connections))))

"""What the driver and the agent of a comparison note."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.client import Client
from bench.stage import PAYLOAD, agent_process
from bench.subject import Order, Send, submit

TASKS = 20


async def test_arrivals_and_submissions_give_the_mean_way_to_the_agent() -> None:
    """Their sums are of the same clock, so their difference is what all calls waited together."""
    async with agent_process("--quiet") as agent:

        @asynccontextmanager
        async def connection() -> AsyncIterator[Send]:
            client = await Client.connect(agent.url)

            async def send() -> str:
                await client.request("POST", "/work", PAYLOAD)
                return str(time.monotonic_ns())

            yield send
            client.close()

        before = time.monotonic_ns()
        found = await submit(Order("queued", TASKS, 4), connection)
        calls, arrivals = await agent.tally()
        after = time.monotonic_ns()

    assert TASKS == calls == len(found.submit_ms)
    assert 0 < arrivals - found.began_sum_ns < TASKS * (after - before)
    assert before <= arrivals / TASKS <= after

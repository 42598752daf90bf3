"""What calls tell the broker of: beside their work, which waits for no broker."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from orchestrator.messaging.events import News
from orchestrator.messaging.outbox import Outbox
from tests.activities.chunk_stage import chunk, chunking
from tests.activities.stage import calling
from tests.support.agents import Agent, Reply
from tests.support.plans import call


class Told:
    """Keeps what is handed over, once it may."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.types: list[str] = []

    async def keep(self, news: News) -> None:
        """Take it then."""
        await self.may.wait()
        self.types += [each.type for each in news.events]


@pytest.fixture
def told() -> Told:
    """What has been taken."""
    return Told()


@pytest_asyncio.fixture
async def outbox(told: Told) -> AsyncIterator[Outbox]:
    """Of a process whose events are not taken yet."""
    outbox = Outbox(None, told.keep)
    yield outbox
    told.may.set()
    await outbox.close()


async def test_a_call_does_not_wait_for_what_it_tells(outbox: Outbox, told: Told) -> None:
    """Neither one that is answered nor one that fails; who closes the outbox does."""
    async with (
        Agent(Reply(status=500), Reply()) as agent,
        calling(agent.url, outbox=outbox) as caller,
    ):
        async with asyncio.timeout(20):
            await caller.failure(call(events=True))
            await caller.attempt(call(events=True), 2, after=caller.left[-1])
        assert [] == told.types
    told.may.set()
    await outbox.close()
    assert ["task.started", "task.retrying", "task.started"] == told.types


async def test_a_chunk_does_not_wait_for_what_it_tells(outbox: Outbox, told: Told) -> None:
    """Its report is there before."""
    async with Agent() as agent, chunking(agent.url, outbox=outbox) as chunker:
        async with asyncio.timeout(20):
            report = await chunker.run(chunk(2, events=True))
        assert (2, []) == (len(report.outcomes), told.types)
    told.may.set()
    await outbox.close()
    assert ["task.started", "task.started"] == told.types

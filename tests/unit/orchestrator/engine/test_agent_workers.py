"""Workers that come and go with the agents."""

import asyncio
from typing import cast

import pytest
from temporalio.worker import Worker

from orchestrator.config import Agent, Instance, Settings
from orchestrator.engine.agent_workers import AgentWorkers
from orchestrator.resilience.pool import Pool, Pools
from tests.support.stack import eventually

PLACE = Agent(instances=(Instance(url="http://h:1"),))
BOTH = Settings(agents={"reader": PLACE, "writer": PLACE})
READER = Settings(agents={"reader": PLACE})


class Serving:
    """A worker as far as it is used: it runs until it is shut down, or is refused."""

    def __init__(self, agent: str, refusal: Exception | None = None) -> None:
        self.agent = agent
        self._refusal = refusal
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve."""
        if self._refusal is not None:
            raise self._refusal
        await self._stop.wait()

    async def shutdown(self) -> None:
        """Leave."""
        self._stop.set()

    @property
    def stopped(self) -> bool:
        """Whether it was shut down."""
        return self._stop.is_set()


class Stage:
    """The workers of some settings, and all that were ever made."""

    def __init__(self, settings: Settings, refusal: Exception | None = None) -> None:
        self.made: list[Serving] = []
        self.pools = Pools.of(settings)
        self._refusal = refusal
        self.workers = AgentWorkers(self.pools, self._make)
        self.workers.adapt()

    def _make(self, pool: Pool) -> Worker:
        self.made.append(Serving(pool.agent, self._refusal))
        return cast("Worker", self.made[-1])

    def configure(self, settings: Settings) -> None:
        """As a process takes over other settings."""
        self.pools.configure(settings)
        self.workers.adapt()

    @property
    def served(self) -> list[str]:
        """The agents whose workers run."""
        return sorted(each.agent for each in self.made if not each.stopped)

    async def until_served(self, *agents: str) -> None:
        """Wait until those are the ones."""

        async def so() -> bool:
            return self.served == list(agents)

        await eventually(so, what=f"workers of {agents}")


async def test_a_new_agent_gets_a_worker() -> None:
    """Those that are there stay as they are."""
    stage = Stage(READER)
    stage.configure(BOTH)
    assert ["reader", "writer"] == [each.agent for each in stage.made]
    await stage.workers.shutdown()
    assert [] == stage.served


async def test_an_agent_that_is_gone_loses_its_worker() -> None:
    """And gets another when it comes back."""
    stage = Stage(BOTH)
    stage.configure(READER)
    await stage.until_served("reader")
    stage.configure(BOTH)
    await stage.until_served("reader", "writer")
    assert 3 == len(stage.made)
    await stage.workers.shutdown()


async def test_a_call_in_flight_is_waited_for() -> None:
    """However long it takes; no other is begun."""
    stage = Stage(BOTH)
    pool = stage.pools.of_agent("writer")
    with pool.lease("/x"):
        stage.configure(READER)
        assert 0 == pool.capacity()
        for _ in range(5):
            await asyncio.sleep(0)
        assert ["reader", "writer"] == stage.served
    await stage.until_served("reader")
    await stage.workers.shutdown()


async def test_an_agent_that_is_back_in_time_keeps_its_worker() -> None:
    """The engine allows no second one beside it."""
    stage = Stage(BOTH)
    with stage.pools.of_agent("writer").lease("/x"):
        stage.configure(READER)
        await asyncio.sleep(0)
        stage.configure(BOTH)
    for _ in range(5):
        await asyncio.sleep(0)
    assert ["reader", "writer"] == stage.served
    assert 2 == len(stage.made)
    stage.configure(READER)
    await stage.until_served("reader")
    await stage.workers.shutdown()


async def test_a_worker_that_is_refused_is_told() -> None:
    """Whoever watches them ends the process."""
    stage = Stage(READER, ValueError("refused"))
    with pytest.raises(ValueError, match="refused"):
        await stage.workers.broken
    await stage.workers.shutdown()

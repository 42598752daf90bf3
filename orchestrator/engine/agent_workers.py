"""The workers of the agents' queues: one for each agent, as agents come and go."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from temporalio.worker import Worker

from orchestrator.resilience.pool import Pool, Pools
from orchestrator.telemetry.logging import get_logger

log = get_logger(__name__)


class AgentWorkers:
    """Keeps a worker for each agent of the pools.

    Args:
        pools: whose agents are served.
        make: makes the worker of one agent.
    """

    def __init__(self, pools: Pools, make: Callable[[Pool], Worker]) -> None:
        self._pools = pools
        self._make = make
        self._workers: dict[str, Worker] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._retiring: dict[str, asyncio.Task[None]] = {}
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Fails when the engine refuses one of them."""

    def adapt(self) -> None:
        """Serve the agents that there are now, and those no longer that are gone.

        The calls of one that is gone end as they would have: its worker takes no others, and leaves
        once none is in flight.
        """
        for agent in self._pools.agents:
            if agent not in self._workers:
                self._start(agent)
        for agent in self._workers.keys() - set(self._pools.agents) - self._retiring.keys():
            self._retiring[agent] = asyncio.create_task(self._retire(agent))

    def _start(self, agent: str) -> None:
        worker = self._workers[agent] = self._make(self._pools.of_agent(agent))
        running = self._running[agent] = asyncio.create_task(worker.run())
        running.add_done_callback(self._ended)

    def _ended(self, running: asyncio.Task[None]) -> None:
        error = None if running.cancelled() else running.exception()
        if error is not None and not self.broken.done():
            self.broken.set_exception(error)

    async def _retire(self, agent: str) -> None:
        """End the agent's worker when nothing is in flight, unless the agent is back by then."""
        pool, running = self._pools.of_agent(agent), self._running[agent]
        changed = asyncio.Event()
        pool.watch(changed.set)
        while pool.retired and pool.active:
            changed.clear()
            await changed.wait()
        if pool.retired:
            log.info("agent_worker_retires", agent=agent)
            await self._workers[agent].shutdown()
            await asyncio.gather(running, return_exceptions=True)
            del self._workers[agent], self._running[agent]
        del self._retiring[agent]
        self.adapt()

    async def shutdown(self) -> None:
        """End all of them; their calls in flight have their grace."""
        retiring = tuple(self._retiring.values())
        for each in retiring:
            each.cancel()
        await asyncio.gather(*retiring, return_exceptions=True)
        await asyncio.gather(*(each.shutdown() for each in self._workers.values()))
        with suppress(Exception):
            await asyncio.gather(*self._running.values())

"""An admission with its surroundings, and what may be configured of it."""

from typing import Any

from orchestrator.admission import Admission
from orchestrator.config import Agent, AgentRateLimit, Instance, PriorityQueue, Settings
from orchestrator.engine.overview import RENEW_SECONDS, Snapshot
from orchestrator.engine.queues import QueueState
from orchestrator.errors import QueueFull, RateLimited
from orchestrator.models import LimitMode, Plan, Route
from orchestrator.resilience.pool import Pools
from orchestrator.routing import agent_queue
from tests.support.plans import AGENT, plan

SPARE, LAST = "spare", "last"


class Clock:
    """Stands still until it is moved; seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


class Engine:
    """The overview of an engine that counts when it is asked."""

    def __init__(self, clock: Clock, waiting: int = 0) -> None:
        self.waiting = waiting
        self.asked = 0
        self.last = Snapshot()
        self._clock = clock
        self.refresh()

    def refresh(self) -> Snapshot:
        """Count now."""
        queues = {AGENT: QueueState({3: self.waiting}, frozenset({"worker@1"}))}
        self.last = Snapshot(reachable=True, as_of=self._clock.now, queues=queues)
        return self.last

    async def renew(self) -> Snapshot:
        """Count, not at once, and remember that it was asked for."""
        self.asked += 1
        self._clock.now += RENEW_SECONDS
        return self.refresh()


class House:
    """An admission with its surroundings."""

    def __init__(self, waiting: int = 0, queue: int = 10_000, **changes: Any) -> None:
        self.clock = Clock()
        self.engine = Engine(self.clock, waiting)
        agents = {
            name: Agent(instances=(Instance(url=f"http://{name}"),)) for name in (SPARE, LAST)
        }
        agents[AGENT] = Agent(
            instances=(Instance(url=f"http://{AGENT}"),),
            rate_limit=changes.pop("rate_limit", AgentRateLimit()),
        )
        settings = Settings(
            agents=agents, priority_queue=PriorityQueue(max_queue_size=queue), **changes
        )
        self.pools = Pools.of(settings, self.clock)
        self.admission = Admission(settings, self.pools, self.engine, clock=self.clock)

    def trip(self, *agents: str) -> None:
        """Open the breakers of the agents' instances."""
        for agent in agents:
            for instance in self.pools.of_agent(agent).instances:
                instance.breaker.force_open("the test says so")

    async def admit(self, plan_: Plan | None = None, *, replayed: bool = False) -> Plan:
        """Admit a task and have the engine take it."""
        async with self.admission.admitted(plan_ or plan()) as ticket:
            ticket.replayed = replayed
        return ticket.plan

    async def most(self, at_least: int = 0) -> int:
        """How many more are admitted, until one is refused."""
        admitted = 0
        while admitted < at_least + 50:
            try:
                await self.admit()
            except (RateLimited, QueueFull):
                break
            admitted += 1
        return admitted


def limited(burst: int = 3, mode: LimitMode = LimitMode.REJECT) -> dict[str, Any]:
    """One a second."""
    return {"rate_limit": AgentRateLimit(rate=60, burst=burst, mode=mode)}


def fallbacks(*agents: str) -> tuple[Route, ...]:
    """Routes to other agents."""
    return tuple(
        Route(agent=name, endpoint=f"/{name}", task_queue=agent_queue(name)) for name in agents
    )

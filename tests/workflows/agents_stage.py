"""Real agents by real workers: pools, breakers and slots as the worker composes them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import ActivityTaskScheduledEventAttributes
from temporalio.client import Client
from temporalio.worker import Worker

from activities.call_agent import AgentCalls
from activities.chunk_means import Means
from activities.resolve_plan import PlanResolver
from activities.run_chunk import ChunkCalls
from orchestrator.buckets import Buckets
from orchestrator.config import Settings
from orchestrator.engine.queues import describe_queue
from orchestrator.engine.returned import Returned
from orchestrator.engine.tasks import Tasks
from orchestrator.limits import RateLimits
from orchestrator.models import Task
from orchestrator.resilience.pool import Pool, Pools
from orchestrator.routing import Routes, agent_queue
from orchestrator.statuses import TaskStatus
from orchestrator.transports.http import HttpTransport
from tests.support.agents import Agent
from tests.support.stack import eventually
from worker import agent_worker
from workflows.hosting import workflow_worker

RPC_SECONDS = 5.0
WAIT_SECONDS = 20.0
GRACE = timedelta(seconds=1)


@dataclass
class Stage:
    """A rule's agents, the first of which is the chosen one, the others its fallbacks."""

    client: Client
    agents: tuple[Agent, ...]
    names: tuple[str, ...]
    settings: Settings

    def __post_init__(self) -> None:
        self.routes = Routes(self.settings)
        self.returned = Returned()
        self.tasks = Tasks(self.client, RPC_SECONDS, returned=self.returned)
        self.pools = Pools.of(self.settings)
        self.transport = HttpTransport(100_000)
        self.calls = AgentCalls(self.pools, self.transport, {})
        limits = RateLimits(self.settings)
        grace = GRACE.total_seconds()
        means = Means(self.pools, self.transport, {}, limits, Buckets(), grace_seconds=grace)
        self.chunks = ChunkCalls(means)

    def pool(self, which: int = 0) -> Pool:
        """The pool of one of the agents."""
        return self.pools.of_agent(self.names[which])

    def shut(self, *which: int) -> None:
        """Force the breakers of the agents open; of all, if none is named."""
        for number in which or range(len(self.names)):
            for each in self.pool(number).instances:
                each.breaker.force_open("the test")

    def reset(self, *which: int) -> None:
        """Reset them."""
        for number in which or range(len(self.names)):
            for each in self.pool(number).instances:
                each.breaker.reset("the test")

    def workflows(self) -> Worker:
        """A worker for the workflows; outside the sandbox, for tests that change an option."""
        resolver = PlanResolver(self.routes)
        return workflow_worker(
            self.client, self.calls, resolver, GRACE, interceptors=[self.returned]
        )

    def worker(self, which: int = 0) -> Worker:
        """A worker for one agent's calls, as the product makes it."""
        pool = self.pool(which)
        return agent_worker(self.client, self.settings, pool, self.calls, self.chunks)

    async def submit(self, **fields: Any) -> str:
        """Submit a task as the API does; its id."""
        task_id = str(uuid4())
        task = Task.model_validate({"pattern": self.names[0], "payload": {}} | fields)
        plan = self.routes.plan(task)
        task = task.model_copy(update={"plan": plan})
        await self.tasks.submit(task, plan, task_id, datetime.now(UTC))
        return task_id

    async def ended(self, task_id: str) -> TaskStatus:
        """The status of a task once it has ended."""
        status = await self.tasks.status(task_id, WAIT_SECONDS)
        assert status.status.is_final, status
        return status

    async def all_ended(self, task_ids: Iterable[str]) -> list[TaskStatus]:
        """The same of many."""
        return await asyncio.gather(*map(self.ended, task_ids))

    async def until(self, task_id: str, what: Callable[[TaskStatus], object]) -> TaskStatus:
        """The task's status as soon as it is like that."""

        async def found() -> TaskStatus | None:
            status = await self.tasks.status(task_id)
            return status if what(status) else None

        status: TaskStatus = await eventually(found, WAIT_SECONDS, "the status")
        return status

    async def waiting(self, count: int, which: int = 0) -> None:
        """Wait until so many calls wait in an agent's queue."""
        queue, timeout = agent_queue(self.names[which]), timedelta(seconds=RPC_SECONDS)

        async def there() -> bool:
            state = await describe_queue(self.client, queue, timeout)
            return sum(state.backlog.values()) == count

        await eventually(there, WAIT_SECONDS, f"a backlog of {count}")

    async def scheduled(self, task_id: str) -> list[ActivityTaskScheduledEventAttributes]:
        """The calls that went to agents' queues, as the engine was asked for them."""
        history = await self.client.get_workflow_handle(task_id).fetch_history()
        return [
            event.activity_task_scheduled_event_attributes
            for event in history.events
            if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
        ]

    async def asked_for(self, task_id: str, calls: int) -> None:
        """Wait until the engine was asked for so many calls."""

        async def reached() -> bool:
            return len(await self.scheduled(task_id)) == calls

        await eventually(reached, WAIT_SECONDS, f"{calls} calls")


RECOVERY = {
    "retry_delay": 0.05,
    "max_retries": 1,
    "circuit_breaker_threshold": 1000,
    "dead_letter_queue": False,
}


def _rule(names: Sequence[str]) -> dict[str, Any]:
    return {
        "pattern": names[0],
        "target_agent": names[0],
        "endpoint": "/work",
        "fallback_agents": list(names[1:]),
    }


@asynccontextmanager
async def idle(
    client: Client,
    *agents: Agent,
    rule: dict[str, Any] | None = None,
    once: Collection[int] = (),
    **blocks: Any,
) -> AsyncIterator[Stage]:
    """Everything but workers, for agents of names that no other test has.

    Args:
        client: of the engine.
        agents: by default one that answers.
        rule: what the rule of the agents says beside that.
        once: which of the agents must not be called twice.
        blocks: of the configuration; ``error_recovery`` is added to what suits tests.
    """
    async with AsyncExitStack() as stack:
        entered = [await stack.enter_async_context(each) for each in agents or (Agent(),)]
        names = tuple(f"agent-{uuid4()}" for _ in entered)
        recovery = RECOVERY | blocks.pop("error_recovery", {})
        configuration = {
            "agents": {
                name: {"instances": [{"url": agent.url}], "idempotent": which not in once}
                for which, (name, agent) in enumerate(zip(names, entered, strict=True))
            },
            "routing_rules": [_rule(names) | (rule or {})],
            "temporal": {"shutdown_grace": 1},
            "error_recovery": recovery,
        }
        settings = Settings.model_validate(configuration | blocks, strict=False)
        stage = Stage(client, tuple(entered), names, settings)
        stack.push_async_callback(stage.transport.close)
        yield stage


@asynccontextmanager
async def serving(client: Client, *agents: Agent, **settings: Any) -> AsyncIterator[Stage]:
    """The same with its workers."""
    async with AsyncExitStack() as stack:
        stage = await stack.enter_async_context(idle(client, *agents, **settings))
        await stack.enter_async_context(stage.workflows())
        for which in range(len(stage.names)):
            await stack.enter_async_context(stage.worker(which))
        yield stage

"""Aggregates of real tasks: real workflows in the sandbox, a real HTTP agent, a real engine."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.worker import UnsandboxedWorkflowRunner, Worker, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from activities.call_agent import AgentCalls
from activities.chunk_means import Means
from activities.join_tasks import TaskJoiner
from activities.resolve_plan import PlanResolver
from activities.run_chunk import ChunkCalls
from orchestrator.aggregate_status import AggregateState, AggregateStatus
from orchestrator.aggregates import Aggregation
from orchestrator.buckets import Buckets
from orchestrator.config import Settings
from orchestrator.engine.tasks import Tasks
from orchestrator.limits import RateLimits
from orchestrator.models import Task
from orchestrator.resilience.pool import Pools
from orchestrator.routing import Routes
from orchestrator.statuses import TaskStatus
from orchestrator.transports.http import HttpTransport
from tests.support.agents import Agent, Call, Reply
from tests.support.stack import eventually
from worker import agent_worker
from workflows.hosting import workflow_worker

RPC_SECONDS = 10.0
WAIT_SECONDS = 60.0
GRACE = timedelta(seconds=1)


def as_asked(call: Call) -> Reply:
    """What the payload asks for: ``fail``, ``hang``, ``large``; else its own content comes back."""
    wanted = call.body.get("do")
    if wanted == "fail":
        return Reply(status=500, body={"detail": "disk full"})
    if wanted == "large":
        return Reply(body={"text": call.body["of"] * call.body["length"]})
    return Reply(body=call.body, hang=wanted == "hang")


@dataclass
class Stage:
    """One agent of its own, so that tests on one engine do not meet."""

    client: Client
    agent: Agent
    name: str
    settings: Settings
    transport: HttpTransport
    runner: type[WorkflowRunner]

    def __post_init__(self) -> None:
        self.routes = Routes(self.settings)
        self.tasks = Tasks(self.client, RPC_SECONDS)
        pools = Pools.of(self.settings)
        self.pool = pools.of_agent(self.name)
        self.calls = AgentCalls(pools, self.transport, {})
        limits = RateLimits(self.settings)
        self.chunks = ChunkCalls(Means(pools, self.transport, {}, limits, Buckets(None)))

    def workflows(self) -> Worker:
        """A worker for the workflows and what they leave to others."""
        joiner = TaskJoiner.of(self.client, RPC_SECONDS)
        activities = [joiner.join_tasks, joiner.cancel_tasks, joiner.redrive_tasks]
        return workflow_worker(
            self.client,
            self.calls,
            PlanResolver(self.routes),
            GRACE,
            self.runner(),
            long_activities=activities,
        )

    def agents(self) -> Worker:
        """A worker for the agent's calls."""
        return agent_worker(self.client, self.settings, self.pool, self.calls, self.chunks)

    def request(self, **payload: Any) -> dict[str, Any]:
        """A task for the agent."""
        return {"pattern": self.name, "payload": payload}

    async def submit(self, **payload: Any) -> str:
        """Submit a task as the API does; its id."""
        task_id = str(uuid4())
        task = Task.model_validate(self.request(**payload))
        plan = self.routes.plan(task)
        task = task.model_copy(update={"plan": plan})
        await self.tasks.submit(task, plan, task_id, datetime.now(UTC))
        return task_id

    async def ended(self, *task_ids: str) -> list[TaskStatus]:
        """The statuses of tasks once they have ended."""
        found = await asyncio.gather(*(self.tasks.status(each, WAIT_SECONDS) for each in task_ids))
        assert all(each.status.is_final for each in found), found
        return found

    async def start(
        self, workflow_id: str | None = None, **given: Any
    ) -> WorkflowHandle[Any, AggregateStatus]:
        """Start an aggregate by hand, with plain JSON."""
        return await self.start_with(given, workflow_id)

    async def start_with(
        self,
        given: Aggregation | dict[str, Any],
        workflow_id: str | None = None,
        memo: dict[str, Any] | None = None,
    ) -> WorkflowHandle[Any, AggregateStatus]:
        """Start an aggregate."""
        return await self.client.start_workflow(
            "AggregateTasks",
            given,
            id=workflow_id or f"aggregate/{uuid4()}",
            task_queue="orchestrator",
            result_type=AggregateStatus,
            memo=memo,
        )

    async def join(self, **given: Any) -> AggregateStatus:
        """The answer of an aggregate."""
        return await result_of(await self.start(**given))


async def result_of(handle: WorkflowHandle[Any, AggregateStatus]) -> AggregateStatus:
    """The answer of an aggregate that has been started."""
    async with asyncio.timeout(WAIT_SECONDS):
        return await handle.result()


async def reached(
    handle: WorkflowHandle[Any, AggregateStatus], completed: int = 0, failed: int = 0
) -> AggregateStatus:
    """How far an aggregate has come, once so many of its tasks have ended."""

    async def far_enough() -> AggregateStatus | None:
        status: AggregateStatus = await handle.query("status", result_type=AggregateStatus)
        return status if (completed, failed) == (status.completed, status.failed) else None

    found: AggregateStatus = await eventually(far_enough, WAIT_SECONDS, "so many ends")
    return found


async def closed(handle: WorkflowHandle[Any, Any]) -> WorkflowExecutionStatus | None:
    """How a workflow has closed."""

    async def ended() -> bool:
        status = (await handle.describe()).status
        return status is not WorkflowExecutionStatus.RUNNING

    await eventually(ended, WAIT_SECONDS, "the end of the workflow")
    return (await handle.describe()).status


def numbers(status: AggregateStatus) -> tuple[AggregateState, int, int, int, int]:
    """State, then how many completed, failed, were cancelled, and are open."""
    return status.status, status.completed, status.failed, status.cancelled, status.pending


@asynccontextmanager
async def idle(
    client: Client, *, runner: type[WorkflowRunner] = SandboxedWorkflowRunner, **recovery: Any
) -> AsyncIterator[Stage]:
    """Everything but workers; tasks that fail become dead letters at once."""
    name = f"agent-{uuid4()}"
    transport = HttpTransport(2_500_000)
    async with Agent(decide=as_asked) as agent:
        settings = Settings.model_validate(
            {
                "agents": {name: {"instances": [{"url": agent.url}]}},
                "routing_rules": [{"pattern": name, "target_agent": name, "endpoint": "/work"}],
                "temporal": {"shutdown_grace": 1},
                "rate_limiting": {"enabled": False},
                "error_recovery": {"max_retries": 0, "circuit_breaker_threshold": 10_000}
                | recovery,
            },
            strict=False,
        )
        try:
            yield Stage(client, agent, name, settings, transport, runner)
        finally:
            await transport.close()


@asynccontextmanager
async def serving(client: Client, *, sandboxed: bool = True) -> AsyncIterator[Stage]:
    """The same with its workers; outside the sandbox for tests that change an option."""
    runner = SandboxedWorkflowRunner if sandboxed else UnsandboxedWorkflowRunner
    async with AsyncExitStack() as stack:
        stage = await stack.enter_async_context(idle(client, runner=runner))
        for worker in (stage.workflows(), stage.agents()):
            await stack.enter_async_context(worker)
        yield stage

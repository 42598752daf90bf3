"""Tasks that fail for good: real workflows in the sandbox, a real HTTP agent, real dead letters."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from activities.call_agent import AgentCalls
from activities.redrive import Redriver
from activities.resolve_plan import PlanResolver
from orchestrator.config import Agent as AgentSettings
from orchestrator.config import ErrorRecovery, Instance, Rule, Settings
from orchestrator.dead_letters import (
    DEAD_LETTER_WORKFLOW,
    BulkAction,
    BulkOrder,
    BulkState,
    BulkStatus,
    DeadLetterEntry,
    DeadLetterFilter,
    dead_letter_id,
)
from orchestrator.engine.dead_letters import DeadLetters
from orchestrator.engine.redrives import Redrives
from orchestrator.engine.tasks import Tasks
from orchestrator.models import Run, Task
from orchestrator.resilience.pool import Pools
from orchestrator.routing import WORKFLOW_QUEUE, Routes, agent_queue
from orchestrator.statuses import TaskStatus
from orchestrator.transports.http import HttpTransport
from tests.support.agents import Agent, Reply
from tests.support.stack import eventually
from workflows.hosting import workflow_worker

RPC_SECONDS = 5.0
WAIT_SECONDS = 20.0
FAILS = Reply(status=500, body={"detail": "disk full"})
ENDED = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)


@dataclass
class Stage:
    """One agent of its own, so that tests on one engine do not meet."""

    client: Client
    agent: Agent
    name: str
    settings: Settings
    calls: AgentCalls

    def __post_init__(self) -> None:
        self.routes = Routes(self.settings)
        self.tasks = Tasks(self.client, RPC_SECONDS)
        self.dead_letters = DeadLetters(self.client, RPC_SECONDS)
        self.redrives = Redrives(self.client, RPC_SECONDS)
        self.own = DeadLetterFilter(agent=self.name)

    def workflows(self) -> Worker:
        """A worker for the workflows."""
        return workflow_worker(
            self.client,
            self.calls,
            PlanResolver(self.routes),
            timedelta(seconds=1),
            SandboxedWorkflowRunner(),
        )

    def agents(self) -> Worker:
        """A worker for the agent's calls."""
        return Worker(
            self.client, task_queue=agent_queue(self.name), activities=[self.calls.call_agent]
        )

    def redriver(self) -> Worker:
        """A worker for what many dead letters need."""
        redriver = Redriver(self.dead_letters)
        return Worker(
            self.client,
            task_queue=WORKFLOW_QUEUE,
            activities=[redriver.redrive_many, redriver.redrive_agent],
            max_heartbeat_throttle_interval=timedelta(milliseconds=100),
        )

    async def submit(self, **fields: Any) -> str:
        """Submit a task as the API does; its id."""
        task_id = str(uuid4())
        task = Task.model_validate({"pattern": self.name, "payload": {"n": 1}} | fields)
        plan = self.routes.plan(task)
        await self.tasks.submit(
            task.model_copy(update={"plan": plan}), plan, task_id, datetime.now(UTC), "print"
        )
        return task_id

    async def ended(self, task_id: str) -> TaskStatus:
        """The status once the task's present run has ended."""
        status = await self.tasks.status(task_id, WAIT_SECONDS)
        assert status.status.is_final, status
        return status

    async def fail(self, count: int = 1, **fields: Any) -> list[str]:
        """Submit tasks that fail; their ids, once the list shows them."""
        ids = [await self.submit(**fields) for _ in range(count)]
        for task_id in ids:
            assert (await self.ended(task_id)).dead_letter
        await eventually(lambda: self._lists(ids))
        return ids

    async def listed(self, *ids: str) -> None:
        """Wait until the list of the agent's dead letters is just that."""

        async def same() -> bool:
            return await self._lists(ids) and await self.dead_letters.count(self.own) == len(ids)

        await eventually(same, what=f"the list {ids}")

    async def _lists(self, ids: Collection[str]) -> bool:
        page = await self.dead_letters.page(self.own, 100)
        return set(ids) <= {each.task_id for each in page.dead_letters}

    async def bulk(self, action: BulkAction = BulkAction.REDRIVE, **order: Any) -> BulkStatus:
        """Start an order about all dead letters of the agent."""
        defaults = {"filter": self.own, "rate": 100.0, "matched": 0}
        return await self.redrives.start(
            str(uuid4()), BulkOrder(action=action, **(defaults | order))
        )

    async def carried_out(self, redrive_id: str) -> BulkStatus:
        """The order's status once it has ended."""

        async def final() -> BulkStatus | None:
            status = await self.redrives.status(redrive_id)
            return None if status.state is BulkState.RUNNING else status

        found: BulkStatus = await eventually(final, what="the end of the order")
        return found


@asynccontextmanager
async def failing(
    client: Client, *replies: Reply, idempotent: bool = True, **recovery: Any
) -> AsyncIterator[Stage]:
    """Everything that runs, with an agent that fails unless told otherwise."""
    async with AsyncExitStack() as stack:
        stage = await stack.enter_async_context(
            idle(client, *replies, idempotent=idempotent, **recovery)
        )
        for worker in (stage.workflows(), stage.agents(), stage.redriver()):
            await stack.enter_async_context(worker)
        yield stage


@asynccontextmanager
async def idle(
    client: Client, *replies: Reply, idempotent: bool = True, **recovery: Any
) -> AsyncIterator[Stage]:
    """The same without any worker."""
    name = f"agent-{uuid4()}"
    transport = HttpTransport(100_000)
    async with Agent(*(replies or (FAILS,))) as agent:
        settings = Settings(
            agents={
                name: AgentSettings(instances=(Instance(url=agent.url),), idempotent=idempotent)
            },
            routing_rules=(
                Rule(pattern=name, target_agent=name, endpoint="/work", priority=2),
                Rule(pattern="😀*", target_agent=name, endpoint="/work"),
            ),
            error_recovery=ErrorRecovery(
                max_retries=0, circuit_breaker_threshold=10_000, **recovery
            ),
        )
        calls = AgentCalls(Pools.of(settings), transport, {})
        try:
            yield Stage(client, agent, name, settings, calls)
        finally:
            await transport.close()


def entry(**changes: Any) -> DeadLetterEntry:
    """A dead letter that nobody's failure made."""
    defaults: dict[str, Any] = {
        "task": Task(pattern="read_pdf", payload={"file": "document.pdf"}),
        "run": Run(error="all is lost", error_type="AgentFailed", attempts=4, ended_at=ENDED),
        "created_at": ENDED,
        "agent": "reader",
    }
    return DeadLetterEntry(**(defaults | changes))


async def start(
    client: Client, *given: Any, task_id: str | None = None
) -> WorkflowHandle[Any, Any]:
    """Start a dead letter by hand."""
    return await client.start_workflow(
        DEAD_LETTER_WORKFLOW,
        args=list(given),
        id=dead_letter_id(task_id or str(uuid4())),
        task_queue=WORKFLOW_QUEUE,
    )


async def result_of(handle: WorkflowHandle[Any, Any]) -> Any:
    """What a workflow returned."""
    async with asyncio.timeout(WAIT_SECONDS):
        return await handle.result()


async def details(handle: WorkflowHandle[Any, Any]) -> str:
    """What the Web UI says."""
    metadata = await handle.query("__temporal_workflow_metadata")
    return str(metadata.current_details)

"""The courses that a task can take, each played on the real engine for its history."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from temporalio.client import Client, WorkflowHandle
from temporalio.common import TypedSearchAttributes
from temporalio.worker import Worker

from activities.call_agent import AgentCalls
from activities.redrive import Redriver
from activities.resolve_plan import PlanResolver
from activities.watch_health import HealthWatcher
from orchestrator.config import Agent as AgentSettings
from orchestrator.config import Instance, Rule, Settings
from orchestrator.dead_letters import (
    BULK_WORKFLOW,
    DEAD_LETTER_WORKFLOW,
    BulkOrder,
    DeadLetterEntry,
    dead_letter_id,
)
from orchestrator.engine import search_attributes
from orchestrator.engine.dead_letters import DeadLetters
from orchestrator.engine.tasks import summary
from orchestrator.fleet.records import FLEET_ID, FLEET_WORKFLOW
from orchestrator.fleet.state import FleetState
from orchestrator.models import Dispatch, Task
from orchestrator.resilience.pool import Pools
from orchestrator.routing import WORKFLOW_QUEUE, WORKFLOW_TYPE, Routes, agent_queue
from orchestrator.transports.http import HttpTransport
from tests.histories import dead_letter_scenarios, fleet_scenarios
from tests.support.agents import Agent, Reply
from tests.support.plans import AGENT, PAYLOAD, plan, retry
from workflows.hosting import workflow_worker

Handle = WorkflowHandle[Any, Any]
Play = Callable[[Handle, Agent], Awaitable[None]]

QUICK = retry(initial_seconds=0.05, max_attempts=3)
MAX_RESULT_BYTES = 100_000
RPC_SECONDS = 5.0


async def watch(_: Handle, __: Agent) -> None:
    """Let the task take its course."""


async def cancel_while_running(handle: Handle, agent: Agent) -> None:
    """Cancel when the agent has the call."""
    await agent.called()
    await handle.cancel()


async def cancel_while_queued(handle: Handle, _: Agent) -> None:
    """Cancel when the call waits in the agent's queue."""
    async for event in handle.fetch_history_events(wait_new_event=True):
        if event.HasField("activity_task_scheduled_event_attributes"):
            break
    await handle.cancel()


@dataclass(frozen=True)
class Scenario:
    """One course: the input, how the agent answers, and what happens meanwhile."""

    given: Task | DeadLetterEntry | BulkOrder | FleetState | dict[str, Any] | None
    replies: tuple[Reply, ...] = (Reply(),)
    play: Play = watch
    agent_worker: bool = True


def planned(**changes: Any) -> Task:
    """A task as the API starts it."""
    return Task(pattern="read_pdf", payload=PAYLOAD, plan=plan(**changes))


SCENARIOS = {
    "completed_queued": Scenario(planned()),
    "completed_inline": Scenario(planned(dispatch=Dispatch.INLINE)),
    "completed_after_retries": Scenario(
        planned(retry=QUICK), (Reply(status=503), Reply(status=500), Reply())
    ),
    "completed_inline_after_retries": Scenario(
        planned(dispatch=Dispatch.INLINE, retry=QUICK), (Reply(status=503), Reply())
    ),
    "completed_inline_after_long_pause": Scenario(
        planned(dispatch=Dispatch.INLINE),
        (Reply(status=429, headers={"Retry-After": "11"}), Reply()),
    ),
    "completed_by_hand": Scenario({"pattern": "read_pdf", "payload": PAYLOAD}),
    "failed_after_retries": Scenario(planned(retry=QUICK), (Reply(status=500),)),
    "failed_inline_after_retries": Scenario(
        planned(dispatch=Dispatch.INLINE, retry=QUICK), (Reply(status=500),)
    ),
    "failed_permanently": Scenario(planned(), (Reply(status=422),)),
    "failed_unknown_pattern": Scenario({"pattern": "read_pfd", "payload": PAYLOAD}),
    "failed_invalid_input": Scenario({"pattern": 5}),
    "failed_without_input": Scenario(None),
    "failed_deadline_while_retrying": Scenario(
        planned(deadline=3.0, retry=retry(initial_seconds=0.5)), (Reply(status=500),)
    ),
    "failed_deadline_without_worker": Scenario(planned(deadline=0.3), agent_worker=False),
    "cancelled_while_running": Scenario(planned(), (Reply(hang=True),), play=cancel_while_running),
    "cancelled_while_queued": Scenario(planned(), play=cancel_while_queued, agent_worker=False),
    "cancelled_inline": Scenario(
        planned(dispatch=Dispatch.INLINE), (Reply(hang=True),), play=cancel_while_running
    ),
    "failed_inline_deadline_while_retrying": Scenario(
        planned(dispatch=Dispatch.INLINE, deadline=1.0, retry=retry(initial_seconds=0.3)),
        (Reply(status=500),),
    ),
}
SCENARIOS |= {
    name: Scenario(**course)
    for courses in (dead_letter_scenarios.COURSES, fleet_scenarios.COURSES)
    for name, course in courses.items()
}


def identity(part: str) -> str:
    """Who did it, as histories show it: the same on every machine."""
    return f"{part}@recorder"


@asynccontextmanager
async def stage(
    client: Client, scenario: Scenario, task_id: str | None = None
) -> AsyncIterator[tuple[Handle, Agent]]:
    """Start the scenario's task with everything it needs."""
    async with Agent(*scenario.replies) as agent:
        settings = Settings(
            agents={AGENT: AgentSettings(instances=(Instance(url=agent.url),))},
            routing_rules=(Rule(pattern="read_pdf", target_agent=AGENT, endpoint="/read"),),
        )
        transport = HttpTransport(MAX_RESULT_BYTES)
        calls = AgentCalls(Pools.of(settings), transport, {})
        resolver = PlanResolver(Routes(settings))
        try:
            redriver = Redriver(DeadLetters(client, RPC_SECONDS))
            watcher = HealthWatcher(transport.probe)
            long_activities: list[Callable[..., Any]] = [
                redriver.redrive_many,
                redriver.redrive_agent,
                watcher.watch_health,
            ]
            async with workflow_worker(client, calls, resolver, long_activities=long_activities):
                handle = await _start(client, scenario, task_id or str(uuid4()))
                if scenario.agent_worker:
                    async with Worker(
                        client, task_queue=agent_queue(AGENT), activities=[calls.call_agent]
                    ):
                        yield handle, agent
                else:
                    yield handle, agent
        finally:
            await transport.close()


async def _start(client: Client, scenario: Scenario, task_id: str) -> Handle:
    """Start the task as the API does, or as somebody by hand who gives no plan."""
    given = scenario.given
    if isinstance(given, FleetState):
        return await client.start_workflow(
            FLEET_WORKFLOW, given, id=FLEET_ID, task_queue=WORKFLOW_QUEUE
        )
    if isinstance(given, DeadLetterEntry | BulkOrder):
        dead = isinstance(given, DeadLetterEntry)
        return await client.start_workflow(
            DEAD_LETTER_WORKFLOW if dead else BULK_WORKFLOW,
            given,
            id=dead_letter_id(task_id) if dead else task_id,
            task_queue=WORKFLOW_QUEUE,
        )
    if not isinstance(given, Task) or given.plan is None:
        return await client.start_workflow(
            WORKFLOW_TYPE,
            args=[] if given is None else [given],
            id=task_id,
            task_queue=WORKFLOW_QUEUE,
        )
    attributes: TypedSearchAttributes = search_attributes.of_task(given, given.plan)
    return await client.start_workflow(
        WORKFLOW_TYPE,
        given,
        id=task_id,
        task_queue=WORKFLOW_QUEUE,
        search_attributes=attributes,
        static_summary=summary(given, given.plan),
    )

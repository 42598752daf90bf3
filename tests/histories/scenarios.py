"""The courses that a task can take, each played on the real engine for its history."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid4

from temporalio.client import Client, WorkflowHandle
from temporalio.common import TypedSearchAttributes
from temporalio.worker import Worker

from activities.call_agent import AgentCalls
from activities.chunk_means import Means
from activities.deliver_callback import CallbackSender
from activities.publish_events import EventPublisher
from activities.resolve_plan import PlanResolver
from activities.run_chunk import ChunkCalls
from orchestrator.aggregates import AGGREGATE_WORKFLOW, Aggregation
from orchestrator.batches import BATCH_WORKFLOW, Batch
from orchestrator.buckets import Buckets
from orchestrator.callbacks import CALLBACK_WORKFLOW, Callback, callback_workflow_id
from orchestrator.completions import CompletionUrls
from orchestrator.config import Agent as AgentSettings
from orchestrator.config import ErrorRecovery, Instance, Rule, Settings
from orchestrator.dead_letters import (
    BULK_WORKFLOW,
    DEAD_LETTER_WORKFLOW,
    BulkOrder,
    DeadLetterEntry,
    dead_letter_id,
)
from orchestrator.engine import search_attributes
from orchestrator.engine.tasks import summary
from orchestrator.fleet.records import FLEET_ID, FLEET_WORKFLOW
from orchestrator.fleet.state import FleetState
from orchestrator.limits import RateLimits
from orchestrator.messaging.events import News
from orchestrator.messaging.outbox import Outbox
from orchestrator.models import Dispatch, Route, Task
from orchestrator.resilience.pool import Pools
from orchestrator.routing import WORKFLOW_QUEUE, WORKFLOW_TYPE, Routes, agent_queue
from orchestrator.transports.http import HttpTransport
from tests.histories import (
    aggregate_scenarios,
    batch_scenarios,
    callback_scenarios,
    dead_letter_scenarios,
    event_scenarios,
    fleet_scenarios,
    late_scenarios,
)
from tests.histories.callback_scenarios import Scripted
from tests.support.agents import Agent, Reply
from tests.support.plans import AGENT, PAYLOAD, plan, retry
from worker import callback_worker, general_activities
from workflows.hosting import workflow_worker

Handle = WorkflowHandle[Any, Any]
Play = Callable[[Handle, Agent], Awaitable[None]]

QUICK = retry(initial_seconds=0.05, max_attempts=3)
TWICE = retry(initial_seconds=0.05, max_attempts=2)
SECOND = "second"
FALLBACKS = (Route(agent=SECOND, endpoint="/read", task_queue=agent_queue(SECOND)),)
MAX_RESULT_BYTES = 100_000


async def watch(_: Handle, __: Agent) -> None:
    """Let the task take its course."""


async def cancel_while_running(handle: Handle, agent: Agent) -> None:
    """Cancel when the agent has the call."""
    await agent.called()
    await handle.cancel()


async def cancel_while_queued(handle: Handle, _: Agent) -> None:
    """Cancel when the call waits in the agent's queue."""
    await waits_in_queue(handle)
    await handle.cancel()


async def waits_in_queue(handle: Handle) -> None:
    """Wait until the call is in an agent's queue."""
    async for event in handle.fetch_history_events(wait_new_event=True):
        if event.HasField("activity_task_scheduled_event_attributes"):
            break


async def set_priority_while_running(handle: Handle, agent: Agent) -> None:
    """Let the agent answer only after that."""
    await agent.called()
    await handle.signal("set_priority", 5)
    agent.release()


@dataclass(frozen=True)
class Scenario:
    """One course: the input, how the agent answers, and what happens meanwhile.

    Args:
        given: the workflow's input.
        replies: of the agent, and of the fallback, which is the same service.
        play: what somebody does.
        agent_worker: whether anybody makes the first agent's calls.
        away: the agent is not available until a call waits in its queue.
        recovery: ``error_recovery`` of the configuration, for the breaker.
    """

    given: (
        Task
        | DeadLetterEntry
        | BulkOrder
        | Callback
        | FleetState
        | Aggregation
        | Batch
        | dict[str, Any]
        | None
    )
    replies: tuple[Reply, ...] = (Reply(),)
    play: Play = watch
    agent_worker: bool = True
    away: bool = False
    recovery: ErrorRecovery = field(default_factory=ErrorRecovery)


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
    "completed_after_fallback": Scenario(
        planned(retry=TWICE, fallbacks=FALLBACKS),
        (Reply(status=500), Reply(status=503), Reply()),
    ),
    "completed_after_fallback_for_nobody": Scenario(
        planned(fallbacks=FALLBACKS), agent_worker=False
    ),
    "failed_after_fallback": Scenario(
        planned(retry=TWICE, fallbacks=FALLBACKS), (Reply(status=500),)
    ),
    "completed_inline_after_fallback": Scenario(
        planned(dispatch=Dispatch.INLINE, retry=retry(max_attempts=1), fallbacks=FALLBACKS),
        (Reply(status=500), Reply()),
    ),
    "completed_after_unavailable": Scenario(
        planned(retry=TWICE),
        (Reply(status=503), Reply()),
        recovery=ErrorRecovery(circuit_breaker_threshold=1, circuit_breaker_timeout=0.3),
    ),
    "completed_inline_after_unavailable": Scenario(planned(dispatch=Dispatch.INLINE), away=True),
    "completed_after_new_priority": Scenario(
        planned(), (Reply(hang=True),), play=set_priority_while_running
    ),
}
SCENARIOS |= {
    name: Scenario(**course)
    for courses in (
        dead_letter_scenarios.COURSES,
        fleet_scenarios.COURSES,
        aggregate_scenarios.COURSES,
        batch_scenarios.COURSES,
        callback_scenarios.COURSES,
        event_scenarios.COURSES,
        late_scenarios.COURSES,
    )
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
        settings = _settings(agent, scenario)
        transport = HttpTransport(MAX_RESULT_BYTES)
        pools = Pools.of(settings)
        completions = CompletionUrls(agent.url, b"the secret of the scenarios")
        calls = AgentCalls(pools, transport, {}, completions=completions)
        chunks = ChunkCalls(Means(pools, transport, {}, RateLimits(settings), Buckets(None)))
        async with AsyncExitStack() as stack:
            stack.push_async_callback(transport.close)
            sender = CallbackSender(Scripted(), [bytes(32)], callback_scenarios.DELAYS)
            await stack.enter_async_context(callback_worker(client, settings, sender))
            broker = event_scenarios.Confirming()
            await stack.enter_async_context(
                workflow_worker(
                    client,
                    calls,
                    PlanResolver(Routes(settings)),
                    # What another test has left is not waited for.
                    grace=timedelta(seconds=1),
                    long_activities=general_activities(client, settings, transport, {}),
                    events=EventPublisher(Outbox(broker, _no_need), broker),
                )
            )
            [breaker] = (each.breaker for each in pools.of_agent(AGENT).instances)
            if scenario.away:
                breaker.force_open("the scenario")
            handle = await _start(client, scenario, task_id or str(uuid4()))
            if scenario.away:
                await waits_in_queue(handle)
                breaker.reset("the scenario")
            for queue in _queues(scenario):
                activities: list[Callable[..., Any]] = [calls.call_agent, chunks.run_chunk]
                await stack.enter_async_context(
                    Worker(client, task_queue=queue, activities=activities)
                )
            yield handle, agent


def _settings(agent: Agent, scenario: Scenario) -> Settings:
    """Two agents, which are the same."""
    instances = (Instance(url=agent.url),)
    return Settings(
        agents={name: AgentSettings(instances=instances) for name in (AGENT, SECOND)},
        routing_rules=(Rule(pattern="read_pdf", target_agent=AGENT, endpoint="/read"),),
        error_recovery=scenario.recovery,
    )


async def _no_need(_: News) -> None:
    raise AssertionError("the broker of the scenarios confirms all")


def _queues(scenario: Scenario) -> list[str]:
    """The agents' queues that somebody takes calls from."""
    plan = scenario.given.plan if isinstance(scenario.given, Task) else None
    fallbacks = [route.task_queue for route in plan.fallbacks] if plan else []
    return [agent_queue(AGENT), *fallbacks] if scenario.agent_worker else fallbacks


async def _start(client: Client, scenario: Scenario, task_id: str) -> Handle:
    """Start the task as the API does, or as somebody by hand who gives no plan."""
    given = scenario.given
    others: dict[type, tuple[str, str]] = {
        FleetState: (FLEET_WORKFLOW, FLEET_ID),
        Aggregation: (AGGREGATE_WORKFLOW, task_id),
        Batch: (BATCH_WORKFLOW, task_id),
        DeadLetterEntry: (DEAD_LETTER_WORKFLOW, dead_letter_id(task_id)),
        BulkOrder: (BULK_WORKFLOW, task_id),
        Callback: (CALLBACK_WORKFLOW, callback_workflow_id(task_id)),
    }
    if found := others.get(type(given)):
        return await client.start_workflow(found[0], given, id=found[1], task_queue=WORKFLOW_QUEUE)
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

"""OrchestrateTask inside the sandbox, with a scripted activity in place of the agent's calls."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from temporalio import activity
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from activities.call_agent import refuse_needless
from activities.progress import Course
from activities.publish_events import EventPublisher
from activities.resolve_plan import PlanResolver
from orchestrator.config import Agent, Instance, Rule, Settings
from orchestrator.models import AgentCall, AgentReply, Attempt
from orchestrator.routing import (
    WORKFLOW_QUEUE,
    WORKFLOW_TYPE,
    Routes,
    agent_queue,
    backoff_seconds,
)
from tests.support.plans import AGENT
from workflows.hosting import WORKFLOWS

DEADLINE_SECONDS = 12.0
SETTINGS = Settings(
    agents={AGENT: Agent(instances=(Instance(url="http://127.0.0.1:9"),), capabilities=("text",))},
    routing_rules=(Rule(pattern="read_pdf", target_agent=AGENT, endpoint="/read", priority=2),),
)

Behaviour = Callable[[AgentCall], Awaitable[AgentReply]]


def reply(result: Any = None, attempt: int | None = None) -> AgentReply:
    """A success of the running attempt."""
    return AgentReply(
        result={"text": "done"} if result is None else result,
        instance="http://agent",
        status=200,
        attempt=attempt or activity.info().attempt,
        seconds=0.25,
    )


@dataclass(frozen=True)
class Fault:
    """What is wrong with one attempt."""

    kind: str
    permanent: bool
    pause: float | None
    message: str

    def of(self, call: AgentCall, course: Course) -> ApplicationError:
        """The failure that call_agent makes of it."""
        attempt = Attempt(
            attempt=course.number,
            agent=call.agent,
            instance="http://agent",
            outcome=self.kind,
            seconds=0.5,
            status=500,
            error=self.message[:300],
        )
        exhausted = not self.permanent and course.spent >= call.retry.max_attempts
        final = self.permanent or exhausted
        pause = self.pause or backoff_seconds(call.retry, course.spent)
        said = course.failure(
            attempt, retryable=not final, exhausted=exhausted, pause=None if final else pause
        )
        if not final and not activity.info().is_local:
            activity.heartbeat(said.progress)
        return ApplicationError(
            self.message,
            said,
            type=self.kind,
            non_retryable=final,
            next_retry_delay=timedelta(seconds=pause),
        )


def failure(
    kind: str = "AgentFailed",
    *,
    permanent: bool = False,
    pause: float | None = None,
    message: str = "the agent answered 500",
) -> Fault:
    """A failure of the running attempt, as an agent would cause it."""
    return Fault(kind, permanent, pause, message)


@dataclass
class Calls:
    """The activity call_agent as a script: it fails so many times, then behaves as told."""

    failures: int = 0
    behaviour: Behaviour | None = None
    error: Callable[[], Fault] = failure
    seen: list[AgentCall] = field(default_factory=list)
    infos: list[activity.Info] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    started: asyncio.Event = field(default_factory=asyncio.Event)

    @activity.defn
    async def call_agent(self, call: AgentCall) -> AgentReply:
        """One attempt, if the real one would make it."""
        course = Course(call)
        refuse_needless(call, course)
        self.seen.append(call)
        self.infos.append(activity.info())
        self.started.set()
        if len(self.seen) <= self.failures:
            raise self.error().of(call, course)
        return await self.behaviour(call) if self.behaviour else reply()

    @property
    def times(self) -> list[datetime]:
        """When each attempt was started, by the engine's clock."""
        return [info.started_time for info in self.infos]

    async def until_cancelled(self, _: AgentCall) -> AgentReply:
        """A behaviour: work, with heartbeats, until the cancellation comes."""
        try:
            while True:
                activity.heartbeat()
                await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        finally:
            self.ended.set()

    async def in_silence(self, _: AgentCall) -> AgentReply:
        """A behaviour: hang without a sign of life, as a worker that died does."""
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()
        raise AssertionError

    async def in_spite_of_cancellation(self, call: AgentCall) -> AgentReply:
        """A behaviour: the agent's answer comes together with the cancellation."""
        try:
            return await self.until_cancelled(call)
        except asyncio.CancelledError:
            return reply()


@asynccontextmanager
async def hosted(
    client: Client,
    calls: Calls,
    *,
    agent_worker: bool = True,
    sandboxed: bool = True,
    events: EventPublisher | None = None,
) -> AsyncIterator[None]:
    """Workers for the workflow queue and, if wanted, for the agent's.

    The sandbox has its own copy of workflows.options: tests that change one run outside of it.
    """
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(
            Worker(
                client,
                task_queue=WORKFLOW_QUEUE,
                workflows=WORKFLOWS,
                activities=[
                    calls.call_agent,
                    PlanResolver(Routes(SETTINGS)).resolve_plan,
                    *([events.tell] if events else []),
                ],
                no_remote_activities=True,
                workflow_runner=SandboxedWorkflowRunner()
                if sandboxed
                else UnsandboxedWorkflowRunner(),
                # Every workflow task replays from the start, so that non-determinism shows.
                max_cached_workflows=0,
            )
        )
        if agent_worker:
            await stack.enter_async_context(agents_worker(client, calls))
        yield


def agents_worker(client: Client, calls: Calls, **options: Any) -> Worker:
    """The worker of the agent's own queue."""
    return Worker(
        client,
        task_queue=agent_queue(AGENT),
        activities=[calls.call_agent],
        max_heartbeat_throttle_interval=timedelta(milliseconds=50),
        **options,
    )


async def start(client: Client, *arguments: Any, **options: Any) -> WorkflowHandle[Any, Any]:
    """Start OrchestrateTask as anybody may: by name."""
    return await client.start_workflow(
        WORKFLOW_TYPE, args=list(arguments), id=str(uuid4()), task_queue=WORKFLOW_QUEUE, **options
    )


async def run(client: Client, *arguments: Any) -> Any:
    """The result of a task that must complete."""
    return await result_of(await start(client, *arguments))


async def result_of(handle: WorkflowHandle[Any, Any]) -> Any:
    """The result of a started workflow, with a deadline by the real clock."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        return await handle.result()


async def failed(client: Client, *arguments: Any) -> ApplicationError:
    """The failure of a task that must fail."""
    return await failure_of(await start(client, *arguments))


async def failure_of(handle: WorkflowHandle[Any, Any]) -> ApplicationError:
    """The failure of a started task that must fail."""
    with pytest.raises(WorkflowFailureError) as caught:
        await result_of(handle)
    cause = caught.value.cause
    assert isinstance(cause, ApplicationError), repr(cause)
    return cause


async def events(handle: WorkflowHandle[Any, Any]) -> list[str]:
    """The types of a workflow's events, in their order."""
    return [
        EventType.Name(event.event_type).removeprefix("EVENT_TYPE_")
        async for event in handle.fetch_history_events()
    ]


async def scheduled(handle: WorkflowHandle[Any, Any]) -> None:
    """Wait until the call is in the agent's queue."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        async for event in handle.fetch_history_events(wait_new_event=True):
            if event.HasField("activity_task_scheduled_event_attributes"):
                return


async def cancelled(handle: WorkflowHandle[Any, Any]) -> None:
    """Wait for the end of a task that must end as cancelled."""
    with pytest.raises(WorkflowFailureError) as caught:
        await result_of(handle)
    assert isinstance(caught.value.cause, CancelledError), repr(caught.value.cause)


async def happened(event: asyncio.Event) -> None:
    """Wait for the event, with a deadline."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        await event.wait()

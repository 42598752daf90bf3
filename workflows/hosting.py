"""The engine worker that runs our workflows, for every process that hosts them."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from temporalio.client import Client
from temporalio.worker import (
    Interceptor,
    UnsandboxedWorkflowRunner,
    Worker,
    WorkflowRunner,
)

from activities.call_agent import AgentCalls
from activities.heartbeats import HEARTBEAT_SECONDS
from activities.publish_events import EventPublisher
from activities.resolve_plan import PlanResolver
from orchestrator.batches import BATCH_WORKFLOW
from orchestrator.config import Versioning
from orchestrator.engine.search_attributes import BUILD_ID
from orchestrator.engine.versions import deployment_of
from orchestrator.routing import WORKFLOW_QUEUE, WORKFLOW_TYPE
from workflows.aggregate import AggregateTasks
from workflows.batch import TaskBatch
from workflows.callback import DeliverCallback
from workflows.dead_letter import DeadLetter
from workflows.fleet import AgentFleet
from workflows.pinned import PinningRunner
from workflows.publish_events import PublishEvents
from workflows.redrive import RedriveDeadLetters
from workflows.task import OrchestrateTask

LONG_ACTIVITIES_AT_ONCE = 1000
"""Of one worker: each join that is open is one, and does little but wait."""
WORKFLOWS = (
    OrchestrateTask,
    TaskBatch,
    AggregateTasks,
    DeadLetter,
    RedriveDeadLetters,
    DeliverCallback,
    AgentFleet,
    PublishEvents,
)
PINNED = frozenset({WORKFLOW_TYPE, BATCH_WORKFLOW})
"""What temporal.versioning.tasks is about. All others may be open for months: each version has to
carry them on."""
UNVERSIONED = Versioning()
WORKFLOWS_AT_ONCE = 200
"""Workflows that a worker keeps in memory between their steps, and may carry out at the same time.

A start is eager only where one more may be carried out, and a workflow that has left the memory is
read again from the engine: with 100 an inline task cost the engine 11 to 13 ms of CPU in place of
8 to 10. However much waits, no more workflows than these take memory: some 60 KB each, and their
payloads; of a batch a part of up to 1.4 MB.
"""
WORKFLOW_POLLS = 20
"""For steps of workflows. By the SDK's five, of which each may take a busy engine 100 ms, tasks
ended later than they began."""
LARGE_PAYLOAD_SECONDS = 60
"""How long a step may take where payloads may be large: reading 50 MB of JSON takes its time."""


def workflow_worker(
    client: Client,
    calls: AgentCalls,
    resolver: PlanResolver,
    grace: timedelta = timedelta(seconds=30),
    runner: WorkflowRunner | None = None,
    long_activities: Sequence[Callable[..., Any]] = (),
    events: EventPublisher | None = None,
    versioning: Versioning = UNVERSIONED,
    interceptors: Sequence[Interceptor] = (),
) -> Worker:
    """A worker for the workflow queue, with the activities that workflows run beside themselves.

    ``grace`` is how long calls in flight may go on after a polite stop. ``long_activities`` are
    those that workflows leave to whichever worker takes them from the workflow queue. ``events``
    is what tells the broker what happens. ``versioning`` is how the engine is to know this worker's
    version.

    Workflows run outside the sandbox, which costs a third of the CPU of a task; the tests run them
    inside it, and replay recorded histories (docs/decisions/0002-unsandboxed-workflows.md).
    """
    deployment = deployment_of(versioning)
    worker = Worker(
        client,
        task_queue=WORKFLOW_QUEUE,
        workflows=WORKFLOWS,
        build_id=None if deployment else BUILD_ID,
        deployment_config=deployment,
        activities=[*_short_activities(calls, resolver, events), *long_activities],
        no_remote_activities=not long_activities,
        max_concurrent_activities=LONG_ACTIVITIES_AT_ONCE,
        workflow_runner=_pinning(runner or UnsandboxedWorkflowRunner(), versioning),
        interceptors=interceptors,
        max_cached_workflows=WORKFLOWS_AT_ONCE,
        max_concurrent_workflow_tasks=WORKFLOWS_AT_ONCE,
        max_concurrent_workflow_task_polls=WORKFLOW_POLLS,
        max_concurrent_local_activities=WORKFLOWS_AT_ONCE,
        graceful_shutdown_timeout=grace,
        # A heartbeat is how a cancellation reaches an activity, so none is held back for long.
        max_heartbeat_throttle_interval=timedelta(seconds=HEARTBEAT_SECONDS),
        default_heartbeat_throttle_interval=timedelta(seconds=HEARTBEAT_SECONDS),
    )
    if client.data_converter.external_storage is not None:
        _allow_large_payloads(worker)
    return worker


def _short_activities(
    calls: AgentCalls, resolver: PlanResolver, events: EventPublisher | None
) -> list[Callable[..., Any]]:
    """What workflows run beside themselves."""
    telling = [events.tell, events.publish_events] if events else []
    return [calls.call_agent, resolver.resolve_plan, resolver.plan_batch, *telling]


def _pinning(runner: WorkflowRunner, versioning: Versioning) -> WorkflowRunner:
    """The runner; some workflows stay with this version, where that is wanted."""
    if versioning.enabled and versioning.tasks == "pinned":
        return PinningRunner(runner, PINNED)
    return runner


def _allow_large_payloads(worker: Worker) -> None:
    """Let a workflow take longer over its input than the SDK's 2 s, by which it tells a deadlock.

    There is no option for it but ``debug_mode``, which runs workflows on the event loop.
    """
    workflows = worker._workflow_worker  # noqa: SLF001 - see above
    if workflows is not None:
        workflows._deadlock_timeout_seconds = LARGE_PAYLOAD_SECONDS  # noqa: SLF001

"""The engine worker that runs our workflows, for every process that hosts them."""

from datetime import timedelta

from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker, WorkflowRunner

from activities.call_agent import AgentCalls
from activities.resolve_plan import PlanResolver
from orchestrator.routing import WORKFLOW_QUEUE
from workflows.task import OrchestrateTask

WORKFLOWS = (OrchestrateTask,)


def workflow_worker(
    client: Client,
    calls: AgentCalls,
    resolver: PlanResolver,
    grace: timedelta = timedelta(seconds=30),
    runner: WorkflowRunner | None = None,
) -> Worker:
    """A worker for the workflow queue, with the activities that workflows run beside themselves.

    ``grace`` is how long calls in flight may go on after a polite stop.

    Workflows run outside the sandbox, which costs a third of the CPU of a task; the tests run them
    inside it, and replay recorded histories (docs/decisions/0002-unsandboxed-workflows.md).
    """
    return Worker(
        client,
        task_queue=WORKFLOW_QUEUE,
        workflows=WORKFLOWS,
        activities=[calls.call_agent, resolver.resolve_plan],
        no_remote_activities=True,
        workflow_runner=runner or UnsandboxedWorkflowRunner(),
        graceful_shutdown_timeout=grace,
    )

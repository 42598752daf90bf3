"""The workflow AgentFleet from outside: start it, report to it, ask it and order."""

import asyncio
import uuid
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import WorkflowExecutionStatus
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionRequest
from temporalio.client import (
    Client,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import (
    Priority,
    QueryRejectCondition,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from orchestrator.config import Settings
from orchestrator.engine.rpc import engine_call
from orchestrator.errors import EngineUnavailable, OrchestratorError, OrderRefused
from orchestrator.fleet.records import (
    FLEET_ID,
    FLEET_WORKFLOW,
    AgentRecord,
    AgentSpec,
    BreakerReports,
    FleetConfig,
    FleetEvent,
    FleetEvents,
    FleetSnapshot,
    HealthCheckSpec,
    InstanceChange,
    InstanceOrder,
    InstanceSpec,
    LimitOrder,
)
from orchestrator.routing import WORKFLOW_QUEUE

ORDER_AGAIN_SECONDS = 0.1
_ENDED = "The fleet does not run; it was ended by somebody"

Answer = TypeVar("Answer")
Order = InstanceOrder | InstanceChange | LimitOrder


class FleetGone(OrchestratorError):
    """The fleet's workflow is not there, or has been ended by somebody."""


def fleet_config(settings: Settings) -> FleetConfig:
    """What the fleet has to know of a configuration."""
    return FleetConfig(
        agents={name: _spec(settings, name) for name in settings.agents},
        redrive_on_recovery=settings.dead_letters.redrive_on_recovery,
        redrive_rate=settings.dead_letters.redrive_rate,
        events=settings.message_queue.sends_events,
    )


def _spec(settings: Settings, name: str) -> AgentSpec:
    agent = settings.agents[name]
    check = agent.health_check
    return AgentSpec(
        instances=tuple(InstanceSpec(url=each.url, weight=each.weight) for each in agent.instances),
        health_check=HealthCheckSpec(
            path=check.path,
            expected=check.expected,
            interval=check.interval or settings.load_balancing.health_check_interval,
            timeout=check.timeout,
            healthy_threshold=check.healthy_threshold,
            unhealthy_threshold=check.unhealthy_threshold,
        ),
    )


@dataclass(frozen=True)
class Mark:
    """How far the fleet has come; as long as it stays the same, so does what the fleet answers.

    Args:
        run_id: of its present run.
        events: in the history of that run.
    """

    run_id: str
    events: int


class Fleet:
    """The fleet's workflow, each call bounded by ``rpc_timeout`` seconds.

    Every method raises EngineUnavailable when the engine, or the fleet in it, does not answer; all
    but ``ensure`` raise FleetGone when it does not run.
    """

    def __init__(self, client: Client, rpc_timeout: float) -> None:
        self._client = client
        self._deadline = timedelta(seconds=rpc_timeout)

    async def ensure(self, config: FleetConfig) -> None:
        """Have the fleet run, by this configuration."""
        await self._asked(
            self._client.start_workflow(
                FLEET_WORKFLOW,
                id=FLEET_ID,
                task_queue=WORKFLOW_QUEUE,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                start_signal="configure",
                start_signal_args=[config],
                static_summary="The state of all agents",
                # Ahead of every task: it is what tells how the agents are.
                priority=Priority(priority_key=1),
                rpc_timeout=self._deadline,
            )
        )

    async def mark(self) -> Mark:
        """How far it has come: the engine's own answer, for which no worker is asked.

        By the request itself: the SDK knows fewer states of a workflow than the engine may tell.
        """
        request = DescribeWorkflowExecutionRequest(
            namespace=self._client.namespace, execution=WorkflowExecution(workflow_id=FLEET_ID)
        )
        info = (
            await self._asked(
                self._client.workflow_service.describe_workflow_execution(
                    request, retry=True, timeout=self._deadline
                )
            )
        ).workflow_execution_info
        if info.status != WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_RUNNING:
            raise FleetGone(_ENDED)
        return Mark(info.execution.run_id, info.history_length)

    async def snapshot(self, known_version: int | None = None) -> FleetSnapshot:
        """All agents; without them when the fleet is still at this version."""
        return await self._query("snapshot", known_version, FleetSnapshot)

    async def events(self, limit: int) -> tuple[FleetEvent, ...]:
        """What happened, the latest first."""
        return (await self._query("events", limit, FleetEvents)).events

    async def report(self, reports: BreakerReports) -> None:
        """Tell what this process's breakers found out."""
        await self._asked(self._handle().signal("report", reports, rpc_timeout=self._deadline))

    async def order(self, name: str, order: Order) -> AgentRecord:
        """Have an order carried out: drain, resume, trip, reset, set_limit, add_instance, ...

        Returns:
            The agent as it is then.

        Raises:
            OrderRefused: it cannot be carried out.
        """
        try:
            return await self._asked(self._updated(name, order))
        except WorkflowUpdateFailedError as error:
            raise _refusal(error) from None

    async def _updated(self, name: str, order: Order) -> AgentRecord:
        """The order's answer.

        The engine lets go of an order that comes just as the workflow is carried on by a new run;
        it was not carried out then, and is sent again.
        """
        update_id = str(uuid.uuid4())
        while True:
            try:
                record: AgentRecord = await self._handle().execute_update(
                    name, order, id=update_id, result_type=AgentRecord, rpc_timeout=self._deadline
                )
            except RPCError as error:
                if error.status is not RPCStatusCode.FAILED_PRECONDITION:
                    raise
            else:
                return record
            await asyncio.sleep(ORDER_AGAIN_SECONDS)

    def _handle(self) -> WorkflowHandle[Any, Any]:
        return self._client.get_workflow_handle(FLEET_ID)

    async def _query(self, name: str, argument: Any, kind: type[Answer]) -> Answer:
        found: Answer = await self._asked(
            self._handle().query(
                name,
                argument,
                result_type=kind,
                # A workflow that has ended would answer too, for ever the same.
                reject_condition=QueryRejectCondition.NOT_OPEN,
                rpc_timeout=self._deadline,
            )
        )
        return found

    async def _asked(self, answer: Awaitable[Answer]) -> Answer:
        try:
            async with engine_call(self._deadline):
                return await answer
        except WorkflowQueryRejectedError:
            raise FleetGone(_ENDED) from None
        except WorkflowUpdateRPCTimeoutOrCancelledError:
            raise EngineUnavailable("The fleet did not answer in time; is a worker up?") from None
        except WorkflowQueryFailedError as error:
            raise EngineUnavailable(f"The fleet cannot answer: {error.message}") from None
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                raise FleetGone("The fleet does not run; it starts with a worker") from None
            raise EngineUnavailable(f"The engine refuses: {error.message}") from None


def _refusal(error: WorkflowUpdateFailedError) -> OrchestratorError:
    cause = error.cause
    if isinstance(cause, ApplicationError):
        kind = cause.details[0] if cause.type == OrderRefused.__name__ and cause.details else ""
        return OrderRefused(cause.message, kind or "invalid")
    return EngineUnavailable("The fleet ended before it had answered")

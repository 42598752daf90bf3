"""The workflow AgentFleet from outside: start it, report to it, order, and keep a view of it."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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
    BreakerReport,
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
from orchestrator.fleet.state import FleetState
from orchestrator.resilience.breaker_policy import BreakerState, Transition
from orchestrator.resilience.pool import Pools
from orchestrator.routing import WORKFLOW_QUEUE
from orchestrator.telemetry.logging import get_logger

REFRESH_SECONDS = 1.0
ASK_SECONDS = 5.0
"""A fleet to which nothing happens is asked itself this often, to know that it is run.

What the engine tells of it each second costs a fifth of the fleet's own answer, and no worker.
"""
FIRST_LOOK_SECONDS = 3.0
"""How long a process that starts waits for the fleet; then it goes by its configuration."""
GATHER_SECONDS = 0.1
"""What breakers do so soon after a report is told together."""
ORDER_AGAIN_SECONDS = 0.1
_ENDED = "The fleet does not run; it was ended by somebody"
_TOLD = frozenset({BreakerState.OPEN, BreakerState.CLOSED})

log = get_logger(__name__)

Answer = TypeVar("Answer")
Order = InstanceOrder | InstanceChange | LimitOrder
Listener = Callable[[FleetSnapshot, datetime], None]
"""Called with all agents of the fleet, and the time of day."""


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


class FleetView:
    """What this process knows of the fleet, at most a second old while engine and fleet answer.

    It tells the listeners each change, tells the fleet what the process's own breakers find out,
    and starts the fleet if it is gone. While the fleet does not answer, what is known holds, and
    what is to be told is kept. ``clock`` is that of the pools' breakers, and of the looks.
    """

    def __init__(
        self,
        fleet: Fleet,
        config: FleetConfig,
        process: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fleet = fleet
        self._config = config
        self._is_told = False
        self._process = process
        self._clock = clock
        now = datetime.now(UTC)
        self._agents = FleetState().configure(config, now).agents
        self._version: int | None = None
        self._mark: Mark | None = None
        self._ask_at = float("-inf")
        self._listeners: list[Listener] = []
        self._refreshing = asyncio.Lock()
        self._pools: Pools | None = None
        self._untold: dict[tuple[str, str], Transition] = {}
        self._news = asyncio.Event()
        self._told_unreachable = False
        self.known = asyncio.Event()
        """Set once the fleet has answered."""
        self.reachable = False
        """Whether the fleet answered when it was last asked."""
        self.as_of: datetime | None = None
        """When what is known of it was last seen to hold."""

    @property
    def agents(self) -> dict[str, AgentRecord]:
        """All agents by name; by the configuration as long as the fleet has not answered."""
        return self._agents

    @property
    def version(self) -> int:
        """Of what is known; 0 as long as the fleet has not answered."""
        return self._version or 0

    def listen(self, listener: Listener) -> None:
        """Have the listener called with each new snapshot."""
        self._listeners.append(listener)

    def watch(self, pools: Pools) -> None:
        """Keep the pools by the fleet's word, and the fleet by that of their breakers."""
        self._pools = pools
        pools.on_transition = self._note
        self.listen(pools.sync)

    def configure(self, config: FleetConfig) -> None:
        """Go by another configuration, and have the fleet do so soon after."""
        self._config = config
        self._is_told = False

    async def begin(self, seconds: float) -> None:
        """Start the fleet if need be, and wait so long at most for its first answer.

        Who makes calls, or admits tasks, before that would go by the configuration alone, past
        what operators ordered and breakers found out.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._start()
                await self.refresh()

    async def run(self) -> None:
        """Keep the view until cancelled."""
        telling = asyncio.create_task(self._tell_for_ever())
        try:
            while True:
                if not self._is_told:
                    await self._start()
                await self.refresh()
                await asyncio.sleep(REFRESH_SECONDS)
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    async def refresh(self) -> None:
        """Look at the fleet now; afterwards all that it had been told before is known here."""
        async with self._refreshing:
            try:
                await self._look()
            except FleetGone as error:
                self._missed(error)
                await self._start()
            except EngineUnavailable as error:
                self._missed(error)

    async def order(self, name: str, order: Order) -> AgentRecord:
        """As Fleet.order; afterwards this process acts by it."""
        try:
            record = await self._fleet.order(name, order)
        except FleetGone as error:
            raise EngineUnavailable(str(error)) from None
        await self.refresh()
        return record

    async def events(self, limit: int) -> tuple[FleetEvent, ...]:
        """As Fleet.events, without any when the fleet does not answer."""
        try:
            return await self._fleet.events(limit)
        except (EngineUnavailable, FleetGone) as error:
            self._missed(error)
            return ()

    async def _start(self) -> None:
        # Without an engine there is nobody to tell; the next look tries again.
        config = self._config
        with suppress(EngineUnavailable, FleetGone):
            await self._fleet.ensure(config)
            self._is_told = config is self._config

    async def _look(self) -> None:
        """Ask the fleet, unless it is where it was and has answered there not long ago."""
        at, mark = datetime.now(UTC), await self._fleet.mark()
        if mark != self._mark or self._clock() >= self._ask_at:
            self._heard(await self._fleet.snapshot(self._version), at)
            self._mark, self._ask_at = mark, self._clock() + ASK_SECONDS
        self.as_of = at
        if self._untold:
            self._news.set()

    def _missed(self, error: Exception) -> None:
        self.reachable, self._mark = False, None
        if not self._told_unreachable:
            self._told_unreachable = True
            log.warning("fleet_unreachable", error=str(error), as_of=self.as_of)

    def _heard(self, snapshot: FleetSnapshot, at: datetime) -> None:
        self.reachable = True
        self.known.set()
        if self._told_unreachable:
            self._told_unreachable = False
            log.info("fleet_reachable")
        if snapshot.agents is None:
            return
        self._version, self._agents = snapshot.version, snapshot.agents
        for listener in self._listeners:
            try:
                listener(snapshot, at)
            except Exception:
                log.exception("fleet_listener_failed")

    def _note(self, agent: str, instance: str, transition: Transition) -> None:
        """Remember a breaker's change that the other processes should hear of."""
        if transition.own and transition.after in _TOLD:
            self._untold[agent, instance] = transition
            self._news.set()

    async def _tell_for_ever(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await self._tell()
            await asyncio.sleep(GATHER_SECONDS)

    async def _tell(self) -> None:
        """Tell all that is to be told; what could not be told waits for the next look."""
        told, self._untold = self._untold, {}
        reports = tuple(self._report(*of, transition) for of, transition in told.items())
        try:
            await self._fleet.report(BreakerReports(process=self._process, reports=reports))
        except (EngineUnavailable, FleetGone):
            self._untold = {**told, **self._untold}

    def _report(self, agent: str, instance: str, transition: Transition) -> BreakerReport:
        return BreakerReport(
            agent=agent,
            instance=instance,
            state=transition.after,
            age_seconds=self._clock() - transition.at,
            remaining_seconds=self._remaining(agent, instance),
            reason=transition.reason,
        )

    def _remaining(self, agent: str, instance: str) -> float:
        """Seconds that the instance's breaker stays open from now; 0 if it does not."""
        for member in self._pools.of_agent(agent).instances if self._pools else ():
            if member.url == instance:
                return max(0.0, (member.breaker.retry_at or 0.0) - self._clock())
        return 0.0

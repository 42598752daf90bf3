"""Rate limits of mode ``queue``: the engine itself meters what an agent's queue gives out.

The limit holds over all workers together, and the most urgent still go first.
"""

import asyncio
import math
from collections.abc import Iterable
from datetime import timedelta

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import RateLimit as EngineRateLimit
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    DescribeTaskQueueRequest,
    UpdateTaskQueueConfigRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError

from orchestrator.config import Settings
from orchestrator.engine.rpc import engine_call
from orchestrator.errors import EngineUnavailable
from orchestrator.fleet.records import FleetSnapshot
from orchestrator.limits import RateLimits
from orchestrator.models import LimitMode, RateLimit
from orchestrator.resilience.limiter import SECONDS_A_MINUTE
from orchestrator.routing import agent_queue
from orchestrator.telemetry.logging import get_logger

REASON = "the agent's rate_limit, mode queue"
"""Marks the limits that are ours: what others set on a queue without one of ours stays."""
RETRY_SECONDS = 5.0
_ACTIVITIES = TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY

log = get_logger(__name__)


class QueueLimits:
    """Keeps the engine's limits on the agents' queues as ``limits`` wants them."""

    def __init__(
        self,
        client: Client,
        limits: RateLimits,
        timeout: float,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._client = client
        self._limits = limits
        self._timeout = timedelta(seconds=timeout)
        self._retry_seconds = retry_seconds
        self._changed = asyncio.Event()

    def sync(self, snapshot: FleetSnapshot) -> None:
        """Adopt the limits that operators set at run time, soon after."""
        before = self._wanted(self._limits.agents)
        self._limits.sync(snapshot)
        if self._wanted(self._limits.agents) != before:
            self._changed.set()

    def configure(self, settings: Settings) -> None:
        """Go by another configuration, soon after."""
        self._limits.configure(settings)
        self._changed.set()

    async def run(self) -> None:
        """Bring the queues to their limits, now and whenever those change, until cancelled."""
        while True:
            self._changed.clear()
            failed = await self.apply()
            pause = self._retry_seconds if failed else None
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def apply(self) -> tuple[str, ...]:
        """Write what differs from the engine's present limits; the agents where that failed."""
        failed = []
        for agent, wanted in self._wanted(self._limits.agents).items():
            try:
                async with engine_call(self._timeout):
                    await self._bring(agent, wanted)
            except (EngineUnavailable, RPCError) as error:
                log.warning("queue_limit_failed", agent=agent, error=str(error))
                failed.append(agent)
        return tuple(failed)

    def _wanted(self, agents: Iterable[str]) -> dict[str, float | None]:
        """Calls a second by agent; None where the engine is to meter nothing."""
        return {agent: per_second(self._limits.of(agent)) for agent in agents}

    async def _bring(self, agent: str, wanted: float | None) -> None:
        present, ours = await self._present(agent)
        if _same(present, wanted) or (wanted is None and not ours):
            return
        update = UpdateTaskQueueConfigRequest.RateLimitUpdate(reason=REASON)
        if wanted is not None:
            update.rate_limit.CopyFrom(EngineRateLimit(requests_per_second=wanted))
        await self._client.workflow_service.update_task_queue_config(
            UpdateTaskQueueConfigRequest(
                namespace=self._client.namespace,
                identity=self._client.identity,
                task_queue=agent_queue(agent),
                task_queue_type=_ACTIVITIES,
                update_queue_rate_limit=update,
            ),
            timeout=self._timeout,
        )
        log.info("queue_limit_set", agent=agent, calls_per_second=wanted)

    async def _present(self, agent: str) -> tuple[float | None, bool]:
        """Calls a second that the queue is limited to, and whether that limit is ours."""
        answer = await self._client.workflow_service.describe_task_queue(
            DescribeTaskQueueRequest(
                namespace=self._client.namespace,
                task_queue=TaskQueue(name=agent_queue(agent)),
                task_queue_type=_ACTIVITIES,
                report_config=True,
            ),
            timeout=self._timeout,
        )
        limit = answer.config.queue_rate_limit
        if not limit.HasField("rate_limit"):
            return None, False
        return limit.rate_limit.requests_per_second, limit.metadata.reason == REASON


def per_second(limit: RateLimit | None) -> float | None:
    """The calls a second that the engine is to give out; None where it is not to meter."""
    if limit is None or limit.mode is not LimitMode.QUEUE:
        return None
    return limit.rate / SECONDS_A_MINUTE


def _same(present: float | None, wanted: float | None) -> bool:
    if present is None or wanted is None:
        return present is wanted
    # The engine keeps 32 bits.
    return math.isclose(present, wanted, rel_tol=1e-6)

"""Whether a task may be started now: its agent, the agent's token bucket, the bounded queue.

What is refused here was never started. As long as there is room, nothing here asks anybody, but
for Redis where the buckets are shared.
"""

import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from orchestrator.buckets import Buckets
from orchestrator.config import Settings
from orchestrator.engine.overview import Snapshot
from orchestrator.errors import (
    AgentUnavailable,
    EngineBusy,
    EngineUnavailable,
    QueueFull,
    QuotaExceeded,
    RateLimited,
)
from orchestrator.fleet.records import FleetSnapshot
from orchestrator.limits import RateLimits
from orchestrator.models import Dispatch, LimitMode, Plan, RateLimit
from orchestrator.resilience.limiter import Decision
from orchestrator.resilience.pool import Pools
from orchestrator.routing import led_by
from orchestrator.telemetry import metrics

if TYPE_CHECKING:
    from orchestrator.shared_limits import SharedBuckets

SETTLE_SECONDS = 1.0
"""So long after its start was answered, a task's call is in its queue, or was there."""
CLUSTER_SETTLE_SECONDS = 6.0
"""The same where the engine is not ours: by default it counts a queue anew every 5 seconds."""


class Backlog(Protocol):
    """What waits in the agents' queues, as the engine last said; Overview is one."""

    @property
    def last(self) -> Snapshot:
        """The last snapshot; asks nobody."""

    async def renew(self) -> Snapshot:
        """A snapshot that was asked for after this call."""


@dataclass
class Ticket:
    """The leave to start one task.

    Args:
        plan: the plan to start it by, which may be another than was asked about.
        decision: of the agent's token bucket, where it has one.
        replayed: to be set when nothing was started, since the task existed before; its token is
            then given back.
    """

    plan: Plan
    decision: Decision | None = None
    replayed: bool = False


class Admission:
    """Decides for each task, before anything is started."""

    def __init__(
        self,
        settings: Settings,
        pools: Pools,
        backlog: Backlog,
        shared: "SharedBuckets | None" = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = RateLimits(settings)
        self._rejects = _rejects(settings)
        self._pools = pools
        self._buckets = Buckets(shared, clock)
        self._queue = _BoundedQueue(
            settings.priority_queue.max_queue_size,
            backlog,
            SETTLE_SECONDS if settings.temporal.is_embedded else CLUSTER_SETTLE_SECONDS,
            clock,
        )

    def sync(self, snapshot: FleetSnapshot) -> None:
        """Adopt the limits that operators set at run time."""
        self.limits.sync(snapshot)

    def configure(self, settings: Settings) -> None:
        """Go by another configuration."""
        self.limits.configure(settings)
        self._rejects = _rejects(settings)
        self._queue.most = settings.priority_queue.max_queue_size

    @asynccontextmanager
    async def admitted(self, plan: Plan) -> AsyncIterator[Ticket]:
        """Leave to start a task within the block; one that raises has started nothing.

        Raises:
            AgentUnavailable: neither the plan's agent nor a fallback may be called now.
            RateLimited: the agent's bucket is empty.
            QueueFull: as many tasks wait as may.
        """
        ticket = await self._admit(plan)
        started = False
        try:
            yield ticket
            started = not ticket.replayed
        except EngineBusy:
            ticket.replayed = True
            raise
        except EngineUnavailable:
            # The engine may have started it all the same.
            started = True
            raise
        except Exception:
            ticket.replayed = True
            raise
        finally:
            # So may a block that was cancelled: then the token is spent.
            if ticket.plan.dispatch is not Dispatch.INLINE:
                self._queue.leave(started=started)
            if ticket.replayed and ticket.decision is not None:
                await self._buckets.give_back(ticket.plan.agent, ticket.decision.limit)

    async def _admit(self, plan: Plan) -> Ticket:
        plan = self._available(plan)
        limit = self._bucket_limit(plan.agent)
        decision = None
        if limit is not None:
            decision = _allowed(plan.agent, await self._buckets.try_take(plan.agent, limit))
        if plan.dispatch is not Dispatch.INLINE:
            try:
                await self._queue.enter()
            except QueueFull:
                if limit is not None:
                    await self._buckets.give_back(plan.agent, limit)
                raise
        return Ticket(plan, decision)

    async def preview(self, plan: Plan) -> Plan:
        """The plan that a task would be started by; takes nothing.

        Raises:
            AgentUnavailable, RateLimited, QueueFull: as ``admitted``.
        """
        plan = self._available(plan)
        limit = self._bucket_limit(plan.agent)
        if limit is not None:
            _allowed(plan.agent, await self._buckets.look(plan.agent, limit))
        if plan.dispatch is not Dispatch.INLINE:
            await self._queue.check()
        return plan

    async def admitted_batch(self, plans: Iterable[Plan]) -> tuple[Plan, ...]:
        """The plans to start a batch by, one for each of its distinct plans.

        Its items wait in the batch, where their agents' limits pace them: they take no tokens here,
        and no places in the queue.

        Raises:
            AgentUnavailable: neither a plan's agent nor a fallback of it may be called now.
            QueueFull: as many tasks wait as may.
        """
        found = tuple(map(self._available, plans))
        await self._queue.check()
        return found

    def is_metered(self, agent: str) -> bool:
        """Whether the agent's queue paces its calls: it has a limit of mode ``queue``."""
        limit = self.limits.of(agent)
        return limit is not None and limit.mode is LimitMode.QUEUE

    def refusal_of(self, agent: str) -> AgentUnavailable | None:
        """Why the agent takes no call now; None if it does."""
        return self._pools.of_agent(agent).unavailability()

    def _available(self, plan: Plan) -> Plan:
        """The plan with the first agent that may be called now in front."""
        refusals: list[AgentUnavailable] = []
        for position, route in enumerate(plan.routes):
            refusal = self._pools.of_agent(route.agent).unavailability()
            if refusal is None:
                return self._metered(led_by(plan, position))
            refusals.append(refusal)
        if not self._rejects:
            return self._metered(plan)
        first = refusals[0]
        waits = [each.retry_after for each in refusals if each.retry_after is not None]
        raise AgentUnavailable(first.agent, first.blocked_by, min(waits, default=None))

    def _metered(self, plan: Plan) -> Plan:
        """Other calls would pass by the queue that meters them, and may be made twice."""
        if plan.dispatch is Dispatch.QUEUED:
            return plan
        if not plan.idempotent:
            return plan.model_copy(update={"dispatch": Dispatch.QUEUED})
        if any(self.is_metered(route.agent) for route in plan.routes):
            return plan.model_copy(update={"dispatch": Dispatch.QUEUED})
        return plan

    def _bucket_limit(self, agent: str) -> RateLimit | None:
        limit = self.limits.of(agent)
        return limit if limit is not None and limit.mode is LimitMode.REJECT else None


def _rejects(settings: Settings) -> bool:
    """Whether tasks are refused whose agents take no call."""
    return settings.error_recovery.when_unavailable == "reject"


Refusal = AgentUnavailable | RateLimited | QueueFull | QuotaExceeded

_REASONS: dict[type[Exception], str] = {
    AgentUnavailable: "agent_unavailable",
    RateLimited: "rate_limit",
    QueueFull: "queue_full",
    QuotaExceeded: "quota",
}


def count_refusal(agent: str, refusal: Refusal) -> None:
    """Count a refusal that was answered with; a request that repeats an accepted one is not."""
    metrics.admission_refusal(agent, _REASONS[type(refusal)])


def _allowed(agent: str, decision: Decision) -> Decision:
    if not decision.allowed:
        raise RateLimited(agent, decision.retry_after, decision.limit)
    return decision


class _BoundedQueue:
    """How many tasks wait: as the engine last said, and those that it could not count yet."""

    def __init__(
        self, most: int, backlog: Backlog, settle_seconds: float, clock: Callable[[], float]
    ) -> None:
        self.most = most
        self._backlog = backlog
        self._settle_seconds = settle_seconds
        self._clock = clock
        self._starting = 0
        self._started: deque[float] = deque()

    async def enter(self) -> None:
        """Count one more, until ``leave``.

        Raises:
            QueueFull: there is no room, as the engine was asked to confirm.
        """
        await self.check()
        self._starting += 1

    async def check(self) -> None:
        """Raises QueueFull when there is no room for one more.

        Where it is full only of tasks that the engine could not count yet, and which may be short,
        it is waited for that.
        """
        if not self._is_full(self._backlog.last):
            return
        end = self._clock() + self._settle_seconds
        while self._is_full(snapshot := await self._backlog.renew()):
            settled = not snapshot.reachable or snapshot.as_of >= end
            if settled or snapshot.waiting >= self.most:
                raise QueueFull

    def leave(self, *, started: bool) -> None:
        """The start was answered; one that ``started`` counts until the engine counts it."""
        self._starting -= 1
        if started:
            self._started.append(self._clock())

    def _is_full(self, snapshot: Snapshot) -> bool:
        counted = snapshot.as_of - self._settle_seconds
        while self._started and self._started[0] < counted:
            self._started.popleft()
        return snapshot.waiting + self._starting + len(self._started) >= self.most

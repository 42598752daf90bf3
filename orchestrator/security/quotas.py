"""How much each tenant may: submissions a minute, tasks that run, tasks a day.

Submissions are counted by token buckets, which all processes share where ``rate_limiting.redis``
is set. Tasks are counted by the engine's lists, and with them what this process has started since:
other processes' tasks are seen when the lists are asked again.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from orchestrator.buckets import Buckets
from orchestrator.config import Quota
from orchestrator.errors import EngineUnavailable, QuotaExceeded
from orchestrator.models import LimitMode, RateLimit
from orchestrator.resilience.limiter import Decision
from orchestrator.shared_limits import SharedBuckets

RUNNING_SECONDS = 1.0
"""What runs is counted anew so long after it was counted last."""
DAILY_SECONDS = 10.0
SETTLE_SECONDS = 0.5
"""So long after its start a task is in the engine's lists, or was."""
RETRY_SECONDS = 5.0
"""When to come back, where nobody knows when there will be room."""
_OTHERS = "*"
_PREFIX = "tenant/"


class UsageCounts(Protocol):
    """What a tenant uses; orchestrator.engine.usage.Usage is one."""

    async def running(self, tenant: str) -> int:
        """Tasks that have not ended."""

    async def since(self, tenant: str, moment: datetime) -> int:
        """Tasks that were started then or later."""


@dataclass
class Grant:
    """The leave to start some tasks.

    Args:
        tenant: whose they are.
        decision: of the tenant's bucket, where it has one.
        replayed: to be set when nothing was started; nothing is counted then.
    """

    tenant: str
    decision: Decision | None = None
    replayed: bool = False


class Quotas:
    """Decides for each submission; without quotas it costs nothing."""

    def __init__(
        self,
        quotas: Mapping[str, Quota],
        usage: UsageCounts,
        shared: SharedBuckets | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._quotas = quotas
        self._usage = usage
        self._buckets = Buckets(shared, clock)
        self._clock = clock
        self._running: dict[str, _Count] = {}
        self._daily: dict[tuple[str, datetime], _Count] = {}

    def configure(self, quotas: Mapping[str, Quota]) -> None:
        """Go by these from now on; what was counted counts."""
        self._quotas = quotas

    def of(self, tenant: str) -> Quota | None:
        """The tenant's quota."""
        return self._quotas.get(tenant) or self._quotas.get(_OTHERS)

    def counts_tasks(self, tenant: str) -> bool:
        """Whether the tenant's tasks are counted, which takes a workflow of their own for each."""
        quota = self.of(tenant)
        return quota is not None and (quota.running is not None or quota.daily is not None)

    @asynccontextmanager
    async def admitted(self, tenants: Iterable[str], tasks: int = 1) -> AsyncIterator[Grant | None]:
        """Leave to start so many tasks of one tenant within the block; those of several have it.

        Raises:
            QuotaExceeded: the tenant has as much as it may.
        """
        [tenant, *others] = tenants
        quota = None if others else self.of(tenant)
        if quota is None:
            yield None
            return
        counts = await self._counts(tenant, quota, tasks)
        grant = Grant(tenant, await self._submission(tenant, quota))
        for count in counts:
            count.add(tasks)
        try:
            yield grant
        except EngineUnavailable:
            raise  # they may have been started all the same
        except Exception:
            grant.replayed = True
            raise
        finally:
            if grant.replayed:
                for count in counts:
                    count.add(-tasks)
                if grant.decision is not None:
                    await self._buckets.give_back(_PREFIX + tenant, grant.decision.limit)

    async def _submission(self, tenant: str, quota: Quota) -> Decision | None:
        if quota.rate is None:
            return None
        burst = quota.burst or max(1, int(quota.rate))
        limit = RateLimit(rate=quota.rate, burst=burst, mode=LimitMode.REJECT)
        decision = await self._buckets.try_take(_PREFIX + tenant, limit)
        if not decision.allowed:
            what = f"{quota.rate:g} submissions a minute, {burst} at once"
            raise QuotaExceeded(tenant, "rate", what, decision.retry_after, decision)
        return decision

    async def _counts(self, tenant: str, quota: Quota, tasks: int) -> "list[_Count]":
        """The counts that the tasks have room in."""
        found = []
        if quota.running is not None:
            count = self._count_of_running(tenant)
            if not await count.has_room(tasks, quota.running):
                what = f"{quota.running} tasks that have not ended"
                raise QuotaExceeded(tenant, "running", what, RETRY_SECONDS)
            found.append(count)
        if quota.daily is not None:
            now = datetime.now(UTC)
            today = now.replace(hour=0, minute=0, second=0, microsecond=0)
            count = self._count_of_day(tenant, today)
            if not await count.has_room(tasks, quota.daily):
                rest = (today + timedelta(days=1) - now).total_seconds()
                raise QuotaExceeded(tenant, "daily", f"{quota.daily} tasks a day (UTC)", rest)
            found.append(count)
        return found

    def _count_of_running(self, tenant: str) -> "_Count":
        count = self._running.get(tenant)
        if count is None:
            count = _Count(lambda: self._usage.running(tenant), RUNNING_SECONDS, self._clock)
            self._running[tenant] = count
        return count

    def _count_of_day(self, tenant: str, today: datetime) -> "_Count":
        count = self._daily.get((tenant, today))
        if count is None:
            self._daily = {key: old for key, old in self._daily.items() if key[1] == today}
            count = _Count(lambda: self._usage.since(tenant, today), DAILY_SECONDS, self._clock)
            self._daily[tenant, today] = count
        return count


@dataclass
class _Count:
    """What the engine counted last, and what this process has started since."""

    ask: Callable[[], Awaitable[int]]
    period: float
    clock: Callable[[], float]
    _counted: int = 0
    _asked_at: float = float("-inf")
    _added: deque[tuple[float, int]] = field(default_factory=deque)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def add(self, tasks: int) -> None:
        """So many are being started."""
        self._added.append((self.clock(), tasks))

    async def has_room(self, tasks: int, most: int) -> bool:
        """Whether there is room; where only tasks too young to be counted fill it, once they are.

        Raises:
            EngineUnavailable: the engine does not answer.
        """
        if self.clock() - self._asked_at < self.period:
            if self._total() + tasks <= most:
                return True
            if self._counted + tasks > most:
                return False
        end = self.clock() + 2 * SETTLE_SECONDS
        arrived = self.clock()
        async with self._turn:
            while True:
                # Who waited for a turn takes what was counted meanwhile.
                if self._asked_at < arrived:
                    await self._renew()
                    arrived = self.clock()
                if self._total() + tasks <= most:
                    return True
                if self._counted + tasks > most or self.clock() >= end:
                    return False
                await asyncio.sleep(SETTLE_SECONDS / 2)

    def _total(self) -> int:
        return self._counted + sum(tasks for _, tasks in self._added)

    async def _renew(self) -> None:
        asked_at = self.clock()
        self._counted = await self.ask()
        self._asked_at = asked_at
        while self._added and self._added[0][0] < asked_at - SETTLE_SECONDS:
            self._added.popleft()

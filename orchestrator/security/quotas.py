"""How much each tenant may: submissions a minute, tasks that run, tasks a day.

Submissions are counted by token buckets, which all processes share where ``rate_limiting.redis``
is set. Tasks are counted by the engine's lists, and with them what this process has started since:
other processes' tasks are seen when the lists are asked again.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from orchestrator.buckets import Buckets
from orchestrator.config import Quota
from orchestrator.engine.shared import SharedQuestions
from orchestrator.errors import EngineBusy, EngineUnavailable, QuotaExceeded
from orchestrator.models import LimitMode, RateLimit
from orchestrator.resilience.limiter import Decision

if TYPE_CHECKING:
    from orchestrator.shared_limits import SharedBuckets

RUNNING_SECONDS = 1.0
"""What runs is counted anew so long after it was counted last."""
DAILY_SECONDS = 10.0
_SECONDS = {"running": RUNNING_SECONDS, "daily": DAILY_SECONDS}
_WORDS = {"running": "tasks that have not ended", "daily": "tasks a day (UTC)"}
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


@dataclass(frozen=True)
class Allowance:
    """What a tenant may have by one of its counts, and what is left of it.

    Args:
        policy: ``running`` or ``daily``.
        most: all that it may have.
        remaining: what is left, as far as this process knows.
        reset: seconds until all of it is back; None where nobody knows.
    """

    policy: str
    most: int
    remaining: int
    reset: float | None = None


@dataclass
class Grant:
    """The leave to start some tasks.

    Args:
        tenant: whose they are.
        decision: of the tenant's bucket, where it has one.
        allowances: by the tenant's counts, where it has such.
        replayed: to be set when nothing was started; nothing is counted then.
    """

    tenant: str
    decision: Decision | None = None
    allowances: tuple[Allowance, ...] = ()
    replayed: bool = False


class Quotas:
    """Decides for each submission; without quotas it costs nothing."""

    def __init__(
        self,
        quotas: Mapping[str, Quota],
        usage: UsageCounts,
        shared: "SharedBuckets | None" = None,
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
        places = await self._places(tenant, quota, tasks)
        try:
            decision = await self._submission(tenant, quota)
        except BaseException:
            _leave(places)
            raise
        grant = Grant(tenant, decision, tuple(each.allowance for each in places))
        try:
            yield grant
        except EngineBusy:
            grant.replayed = True
            raise
        except EngineUnavailable:
            raise  # they may have been started all the same
        except Exception:
            grant.replayed = True
            raise
        finally:
            _settle(places, self._clock())
            if grant.replayed:
                _leave(places)
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

    async def _places(self, tenant: str, quota: Quota, tasks: int) -> "list[_Place]":
        """The tasks' places in all counts of the tenant's, or none in any."""
        places: list[_Place] = []
        try:
            if quota.running is not None:
                count = self._count_of_running(tenant)
                places.append(await _place(count, tenant, tasks, quota.running))
            if quota.daily is not None:
                count = self._count_of_day(tenant, datetime.now(UTC))
                places.append(await _place(count, tenant, tasks, quota.daily))
        except BaseException:
            _leave(places)
            raise
        return places

    def _count_of_running(self, tenant: str) -> "_Count":
        count = self._running.get(tenant)
        if count is None:
            count = _Count("running", lambda: self._usage.running(tenant), self._clock)
            self._running[tenant] = count
        return count

    def _count_of_day(self, tenant: str, now: datetime) -> "_Count":
        today = now.replace(hour=0, minute=0, second=0, microsecond=0)
        count = self._daily.get((tenant, today))
        if count is None:
            self._daily = {key: old for key, old in self._daily.items() if key[1] == today}
            end = today + timedelta(days=1)
            count = _Count("daily", lambda: self._usage.since(tenant, today), self._clock, end)
            self._daily[tenant, today] = count
        return count


async def _place(count: "_Count", tenant: str, tasks: int, most: int) -> "_Place":
    place = await count.take(tasks, most)
    if place is None:
        rest = count.rest
        wait = RETRY_SECONDS if rest is None else rest
        what = f"{most} {_WORDS[count.policy]}"
        raise QuotaExceeded(tenant, count.policy, what, wait, most=most)
    return place


@dataclass(eq=False)
class _Place:
    """Tasks that are being started, or were, as long as no count is sure to hold them."""

    count: "_Count"
    tasks: int
    allowance: Allowance
    started_at: float = float("inf")


def _settle(places: "Iterable[_Place]", now: float) -> None:
    """The tasks have been started, or may have been."""
    for place in places:
        place.started_at = now


def _leave(places: "Iterable[_Place]") -> None:
    """The tasks were not started."""
    for place in places:
        place.count.leave(place)


@dataclass
class _Count:
    """What the engine counted last, and what this process has started since."""

    policy: str
    ask: Callable[[], Awaitable[int]]
    clock: Callable[[], float]
    until: datetime | None = None
    _counted: int = 0
    _asked_at: float = float("-inf")
    _young: int = 0
    _places: set[_Place] = field(default_factory=set)
    _questions: SharedQuestions[None] = field(default_factory=SharedQuestions)

    async def take(self, tasks: int, most: int) -> _Place | None:
        """A place for so many, taken at once; None where there is no room.

        Where only tasks too young to be counted fill it, it is known once they are.

        Raises:
            EngineUnavailable: the engine does not answer.
        """
        end = self.clock() + 2 * SETTLE_SECONDS
        fresh_for = _SECONDS[self.policy]
        while True:
            if self.clock() - self._asked_at >= fresh_for:
                # One question for all who wait, and one failure: nobody waits for a turn to fail.
                await self._questions.ask(self.policy, self._renew)
            if self._total + tasks <= most:
                return self._taken(tasks, most)
            if self._counted + tasks > most or self.clock() >= end:
                return None
            fresh_for = SETTLE_SECONDS / 2
            await asyncio.sleep(fresh_for)

    def leave(self, place: _Place) -> None:
        """Free the place of tasks that were not started; one that a count holds by now is gone."""
        if place in self._places:
            self._places.remove(place)
            self._young -= place.tasks

    @property
    def rest(self) -> float | None:
        """Seconds until it begins anew; None where it never does."""
        return (self.until - datetime.now(UTC)).total_seconds() if self.until else None

    @property
    def _total(self) -> int:
        return self._counted + self._young

    def _taken(self, tasks: int, most: int) -> _Place:
        self._young += tasks
        allowance = Allowance(self.policy, most, most - self._total, self.rest)
        place = _Place(self, tasks, allowance)
        self._places.add(place)
        return place

    async def _renew(self) -> None:
        asked_at = self.clock()
        self._counted = await self.ask()
        self._asked_at = asked_at
        held = [each for each in self._places if each.started_at < asked_at - SETTLE_SECONDS]
        for place in held:
            self.leave(place)

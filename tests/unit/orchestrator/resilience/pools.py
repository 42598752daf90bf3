"""Pools of the agent ``reader`` with a clock that the test turns."""

from contextlib import AbstractContextManager, ExitStack, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.call_errors import AgentFailed
from orchestrator.errors import AgentUnavailable
from orchestrator.fleet.records import (
    AgentRecord,
    BreakerOrder,
    BreakerRecord,
    HealthState,
    InstanceRecord,
    LimitRecord,
)
from orchestrator.resilience.balancer import RoundRobin
from orchestrator.resilience.breaker_policy import BreakerPolicy, BreakerState
from orchestrator.resilience.member import Member, PoolPolicy
from orchestrator.resilience.pool import Lease, Pool

READER = "reader"
A, B, C = "http://a:1", "http://b:1", "http://c:1"
NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
OPEN_SECONDS, PERMITS = 30.0, 2


class Clock:
    """A clock that the test turns; it tells the seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def policy(**changes: Any) -> PoolPolicy:
    """Opens at the first failure, for 30 s, then lets two trials through."""
    breaker = BreakerPolicy(
        consecutive_failures=1, open_seconds=OPEN_SECONDS, half_open_permits=PERMITS
    )
    defaults: dict[str, Any] = {
        "breaker": breaker,
        "max_connections": 10,
        "slow_start_seconds": 10.0,
    }
    return PoolPolicy(**(defaults | changes))


def pool(*urls: str, clock: Clock | None = None, **changes: Any) -> Pool:
    """A pool of these instances, in turn."""
    return Pool(
        READER, [(url, 1) for url in urls], RoundRobin(), policy(**changes), clock or Clock()
    )


def leased(chosen: Pool, endpoint: str = "/x", tried: tuple[str, ...] = ()) -> Lease:
    """What a call that succeeds at once was given."""
    with chosen.lease(endpoint, tried) as lease:
        return lease


def turns(chosen: Pool, times: int) -> str:
    """The hosts that so many calls in turn go to: one letter each."""
    return "".join(leased(chosen).instance[len("http://")] for _ in range(times))


def fail(chosen: Pool, endpoint: str = "/x", times: int = 1) -> None:
    """So many calls in turn that the agent answers with 500."""
    for _ in range(times):
        with suppress(AgentFailed), chosen.lease(endpoint):
            raise AgentFailed("it answered 500")


def held(chosen: Pool, most: int = 1000) -> ExitStack:
    """As many calls at once as the pool allows; they end when the stack is closed."""
    stack = ExitStack()
    with suppress(AgentUnavailable):
        for _ in range(most):
            stack.enter_context(_lease(chosen))
    return stack


def _lease(chosen: Pool) -> AbstractContextManager[Lease]:
    return chosen.lease("/x")


def in_flight(chosen: Pool) -> list[int]:
    """The calls in flight, by instance."""
    return [each.active for each in chosen.instances]


def member(chosen: Pool, url: str) -> Member:
    """One of its instances."""
    [found] = [each for each in chosen.instances if each.url == url]
    return found


def record(*instances: InstanceRecord, max_connections: int | None = None) -> AgentRecord:
    """The fleet's word about the agent."""
    return AgentRecord(instances=instances, limits=LimitRecord(max_connections=max_connections))


def instance(url: str = A, **changes: Any) -> InstanceRecord:
    """The fleet's word about an instance."""
    return InstanceRecord(url=url, **changes)


UNHEALTHY = {"health": HealthState.UNHEALTHY}
HEALTHY = {"health": HealthState.HEALTHY}


def order(state: BreakerState, version: int = 1, age: float = 0.0) -> BreakerOrder:
    """An operator's order, given so many seconds before NOW."""
    return BreakerOrder(
        state=state, version=version, at=NOW - timedelta(seconds=age), reason="an operator"
    )


def found(
    state: BreakerState, version: int = 1, age: float = 0.0, left: float = 0
) -> BreakerRecord:
    """What another process found out so many seconds before NOW."""
    return BreakerRecord(
        state=state,
        version=version,
        changed_at=NOW - timedelta(seconds=age),
        until=NOW + timedelta(seconds=left) if left else None,
        reason="another process",
    )

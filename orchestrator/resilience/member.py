"""One instance in a pool: its breaker, its ramp, and what the fleet and the operators say of it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.config import Settings
from orchestrator.fleet.records import BreakerOrder, HealthState, InstanceRecord
from orchestrator.resilience.balancer import Instance
from orchestrator.resilience.breaker import Breaker
from orchestrator.resilience.breaker_policy import BreakerPolicy, BreakerState, Transition

LATENCY_HALF_LIFE_SECONDS = 10.0
SMALLEST_SHARE = 0.1
LOST_SECONDS = 60.0
"""A trial call that is so much longer under way than any may take is lost."""

_SHUT = frozenset({BreakerState.OPEN, BreakerState.FORCED_OPEN})


@dataclass(frozen=True, kw_only=True)
class PoolPolicy:
    """How an agent's instances are used; orchestrator/resilience/pool.py says what it means."""

    breaker: BreakerPolicy = field(default_factory=BreakerPolicy)
    max_connections: int = 100
    panic_threshold: float = 0.5
    slow_start_seconds: float = 10.0

    @classmethod
    def of(cls, settings: Settings, agent: str) -> "PoolPolicy":
        """The agent's policy by a configuration."""
        recovery, balancing = settings.error_recovery, settings.load_balancing
        breaker = recovery.circuit_breaker
        longest = max((rule.timeout for rule in settings.routing_rules), default=0.0)
        return cls(
            breaker=BreakerPolicy(
                failure_rate=breaker.failure_rate,
                slow_call_rate=breaker.slow_call_rate,
                slow_call_seconds=breaker.slow_call_seconds,
                window_calls=breaker.window_calls,
                window_seconds=breaker.window_seconds,
                minimum_calls=breaker.minimum_calls,
                consecutive_failures=recovery.circuit_breaker_threshold,
                open_seconds=recovery.circuit_breaker_timeout,
                open_backoff=breaker.open_backoff,
                max_open_seconds=max(breaker.max_open, recovery.circuit_breaker_timeout),
                half_open_permits=breaker.half_open_permits,
                half_open_wait_seconds=max(breaker.half_open_wait, longest + LOST_SECONDS),
            ),
            max_connections=settings.connections(agent),
            panic_threshold=balancing.panic_threshold,
            slow_start_seconds=balancing.slow_start,
        )


class Member(Instance):
    """An instance in a pool.

    ``changed`` is told each change of its breaker.
    """

    def __init__(
        self,
        url: str,
        weight: int,
        policy: PoolPolicy,
        clock: Callable[[], float],
        changed: Callable[["Member", Transition], None],
    ) -> None:
        super().__init__(url, weight)
        self.breaker = Breaker(policy.breaker, clock, self._changed)
        self.draining = False
        self.healthy = True
        self._policy = policy
        self._clock = clock
        self._tell = changed
        self._back_since: float | None = None
        self._measured_at: float | None = None
        self._order_version = 0

    def _changed(self, transition: Transition) -> None:
        if transition.after is BreakerState.CLOSED:
            self.come_back()
        self._tell(self, transition)

    def configure(self, policy: PoolPolicy) -> None:
        """Go by another policy from now on."""
        self._policy = policy
        self.breaker.configure(policy.breaker)

    @property
    def is_shut(self) -> bool:
        """Whether its breaker admits nothing for now."""
        return self.breaker.state in _SHUT

    @property
    def open_seconds(self) -> float:
        """How long its breaker stays open from now; 0 if it is not."""
        end = self.breaker.retry_at
        return 0.0 if end is None else max(0.0, end - self._clock())

    @property
    def is_on_trial(self) -> bool:
        """Whether its breaker admits a few calls, to see how they end."""
        return self.breaker.state is BreakerState.HALF_OPEN

    @property
    def is_ramped(self) -> bool:
        """Whether it is being ramped up."""
        return self._back_since is not None

    def come_back(self) -> None:
        """Ramp it up from now on."""
        self._back_since = self._clock()

    def most(self, max_connections: int) -> int:
        """How many calls it may have in flight now, of those that the agent may have."""
        if self.draining or self.is_shut:
            return 0
        permits = self._policy.breaker.half_open_permits
        if self.is_on_trial:
            return permits
        risen = self._risen()
        self.share = max(SMALLEST_SHARE, risen)
        return math.floor(permits + max(0, max_connections - permits) * risen)

    def _risen(self) -> float:
        """How far it has been ramped up, from 0 to 1."""
        if self._back_since is None:
            return 1.0
        window = self._policy.slow_start_seconds
        risen = (self._clock() - self._back_since) / window if window else 1.0
        if risen >= 1:
            self._back_since = None
        return min(max(risen, 0.0), 1.0)

    def has_room(self, max_connections: int) -> bool:
        """Whether one more call may be made now."""
        return self.breaker.available and self.active < self.most(max_connections)

    def measure(self, seconds: float, *, failed: bool) -> None:
        """Peak EWMA: a slower call counts at once, a faster one by how long ago the last was.

        A failure that came fast says nothing about speed.
        """
        if failed and seconds < self.latency:
            return
        now = self._clock()
        previous, self._measured_at = self._measured_at, now
        if previous is None or seconds >= self.latency:
            self.latency = seconds
            return
        kept = math.exp(-(now - previous) * math.log(2) / LATENCY_HALF_LIFE_SECONDS)
        self.latency = self.latency * kept + seconds * (1 - kept)

    def adopt(self, record: InstanceRecord, now: datetime) -> None:
        """Take over what the fleet says; ``now`` is what its times of day are compared with."""
        healthy = record.health is not HealthState.UNHEALTHY
        if (self.draining and not record.draining) or (healthy and not self.healthy):
            self.come_back()
        self.weight, self.draining, self.healthy = record.weight, record.draining, healthy
        version = record.order.version if record.order else 0
        if version != self._order_version:
            self._order_version = version
            _obey(self.breaker, record.order, now)
        if found := record.breaker:
            self.breaker.adopt(
                found.state,
                version=found.version,
                age_seconds=(now - found.changed_at).total_seconds(),
                remaining_seconds=(found.until - now).total_seconds() if found.until else 0.0,
                reason=found.reason,
            )


def _obey(breaker: Breaker, order: BreakerOrder | None, now: datetime) -> None:
    if order is None:
        # A fleet that was ended and started anew knows of no order any more.
        breaker.reset("no operator's order holds")
    elif order.state is BreakerState.FORCED_OPEN:
        breaker.force_open(order.reason)
    elif order.state is BreakerState.DISABLED:
        breaker.disable(order.reason)
    else:
        breaker.reset(order.reason, (now - order.at).total_seconds())

"""An agent's instances in this process: lease one, call it, give it back.

Left out are instances that are draining, fail their health checks, or whose breaker is open. When
fewer than ``panic_threshold`` of them would be left, health checks are disregarded (Envoy's panic
mode): they may be what is wrong. Breakers and operators are obeyed always.

An instance that comes back is ramped up: for ``slow_start_seconds`` its share of the calls, and how
many it may have in flight, grow from the breaker's trial permits to the whole.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from orchestrator.call_errors import (
    AgentOverloaded,
    AgentTimedOut,
    AgentUnreachable,
    RetryableCallError,
)
from orchestrator.config import Settings
from orchestrator.endpoints import joined, origin
from orchestrator.errors import AgentUnavailable
from orchestrator.fleet.records import AgentRecord, FleetSnapshot
from orchestrator.models import BlockedBy
from orchestrator.resilience.balancer import STRATEGIES, Strategy
from orchestrator.resilience.breaker_policy import BreakerState, Transition
from orchestrator.resilience.member import Member, PoolPolicy
from orchestrator.resilience.slots import Slots

FAIR_SECONDS = 0.9
"""A timeout counts against an instance that had so long; a task's deadline may leave it less."""
BUSY_SECONDS = 0.5
"""When to look again for an instance whose every permit is taken."""
RAMP_STEP_SECONDS = 0.25
LOOK_SECONDS = 1.0
_MAX_STRANGERS = 100

Listener = Callable[[str, str, Transition], None]
"""Told a breaker's change: agent, instance, what changed."""


@dataclass(frozen=True)
class Lease:
    """The leave to make one call.

    Args:
        instance: the URL of the instance.
        url: the whole URL to call.
        trial: the breaker is half-open, and this call shows whether the instance is back.
    """

    instance: str
    url: str
    trial: bool


class Pool:
    """The instances of one agent."""

    def __init__(
        self,
        agent: str,
        instances: Iterable[tuple[str, int]],
        strategy: Strategy,
        policy: PoolPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.agent = agent
        self.policy = policy or PoolPolicy()
        self.max_connections = self.policy.max_connections
        self.on_transition: Listener | None = None
        self._strategy = strategy
        self._clock = clock
        self._watchers: list[Callable[[], None]] = []
        self._members = {url: self._member(url, weight) for url, weight in instances}
        self._strangers: dict[str, Member] = {}
        self._active = 0
        self._ordered_connections: int | None = None
        self.retired = False
        """Its agent is no longer in the configuration: calls in flight go on, no others begin."""
        self.slots = Slots(self.capacity, self.next_look)
        """What this process has in flight, of single calls and of chunks alike."""
        self.watch(self.slots.tell)

    def _member(self, url: str, weight: int = 1) -> Member:
        return Member(url, weight, self.policy, self._clock, self._changed)

    def _changed(self, member: Member, transition: Transition) -> None:
        if self.on_transition is not None:
            self.on_transition(self.agent, member.url, transition)
        self._tell()

    @property
    def instances(self) -> tuple[Member, ...]:
        """All instances, whatever their state."""
        return tuple(self._members.values())

    @property
    def breaker_state(self) -> BreakerState:
        """Of the agent as a whole: closed if any instance is, else half-open if any is."""
        states = {member.breaker.state for member in self.instances}
        if not states or states & {BreakerState.CLOSED, BreakerState.DISABLED}:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if BreakerState.HALF_OPEN in states else BreakerState.OPEN

    def unavailability(self) -> AgentUnavailable | None:
        """Why no call may be made now, not even a trial; None if it may, perhaps after a wait."""
        candidates = self._candidates()
        if candidates or not self._members:
            return None
        return self._why_none(self.instances, candidates)

    @property
    def active(self) -> int:
        """How many calls are in flight."""
        return self._active

    def capacity(self) -> int:
        """How many calls may be in flight now."""
        if self.retired:
            return 0
        if not self._members:
            return self.max_connections
        each = (member.most(self.max_connections) for member in self._candidates())
        return min(self.max_connections, sum(each))

    def next_look(self) -> float:
        """Seconds after which time alone may have changed the capacity."""
        waits = [each.open_seconds for each in self.instances if each.breaker.retry_at is not None]
        if any(member.is_ramped for member in self.instances):
            waits.append(RAMP_STEP_SECONDS)
        return min([*waits, LOOK_SECONDS])

    def watch(self, changed: Callable[[], None]) -> None:
        """Have ``changed`` called whenever the capacity may have become another."""
        self._watchers.append(changed)

    @contextmanager
    def lease(
        self, endpoint: str, tried: Iterable[str] = (), timeout: float = FAIR_SECONDS
    ) -> Iterator[Lease]:
        """Choose an instance for one call; how the block ends is what its breaker learns.

        Args:
            endpoint: a path, joined to the chosen instance's URL, or a whole URL, which names its
                instance itself.
            tried: instances that the task would rather not meet again.
            timeout: seconds that any attempt is given; see FAIR_SECONDS.

        Raises:
            AgentUnavailable: no instance may be called now.
            AgentUnreachable: there is no instance.
        """
        member = self._select(endpoint, frozenset(tried))
        trial = member.is_on_trial
        permit = member.breaker.try_acquire()
        if permit is None:
            raise self._why_none([member], [member])
        url = endpoint if "://" in endpoint else joined(member.url, endpoint)
        member.active += 1
        self._active += 1
        started, failed = self._clock(), True
        try:
            with permit:
                try:
                    yield Lease(member.url, url, trial)
                except RetryableCallError as error:
                    seconds = self._clock() - started
                    if _counts(error, seconds, timeout):
                        permit.failure(seconds, str(error))
                    raise
                permit.success(self._clock() - started)
            failed = False
        finally:
            member.active -= 1
            self._active -= 1
            member.measure(self._clock() - started, failed=failed)
            self._tell()

    def _select(self, endpoint: str, tried: frozenset[str]) -> Member:
        """The instance for the next call, if one may be made."""
        if "://" in endpoint:
            asked = candidates = [self._named_by(endpoint)]
        else:
            asked, candidates = list(self.instances), self._candidates()
        if not asked:
            raise AgentUnreachable(f"{self.agent} has no instances in this process")
        able = [member for member in candidates if member.has_room(self.max_connections)]
        if not able or self._active >= self.max_connections:
            raise self._why_none(asked, candidates)
        if len(able) == 1:
            return able[0]
        chosen = self._strategy.select([each for each in able if each.url not in tried] or able)
        assert isinstance(chosen, Member)  # noqa: S101 - it is one of those given
        return chosen

    def _candidates(self) -> list[Member]:
        """The instances that calls go to, whether or not they have room."""
        present = [member for member in self._members.values() if not member.draining]
        working = [member for member in present if not member.is_shut]
        left = [member for member in working if member.healthy]
        return left if len(left) >= self.policy.panic_threshold * len(present) else working

    def _why_none(self, asked: Sequence[Member], candidates: Sequence[Member]) -> AgentUnavailable:
        """What keeps a call away from all of those."""
        present = [member for member in asked if not member.draining]
        if not present:
            return AgentUnavailable(self.agent, BlockedBy.PAUSED)
        if all(member.is_shut for member in candidates):
            waits = [each.open_seconds for each in present if each.breaker.retry_at is not None]
            return AgentUnavailable(self.agent, BlockedBy.BREAKER, min(waits, default=None))
        on_trial = any(member.is_on_trial for member in present)
        reason = BlockedBy.BREAKER if on_trial else BlockedBy.CAPACITY
        return AgentUnavailable(self.agent, reason, BUSY_SECONDS)

    def _named_by(self, url: str) -> Member:
        """The instance that a whole URL names; one that nobody configured has a breaker too."""
        wanted = origin(url)
        for member in self.instances:
            if origin(member.url) == wanted:
                return member
        if wanted not in self._strangers and len(self._strangers) >= _MAX_STRANGERS:
            del self._strangers[next(iter(self._strangers))]
        return self._strangers.setdefault(wanted, self._member(wanted))

    def _tell(self) -> None:
        for changed in self._watchers:
            changed()

    def sync(self, record: AgentRecord, now: datetime) -> None:
        """Adopt the fleet's word; ``now`` is the time of day that its times are compared with."""
        known, self._members = self._members, {}
        for each in record.instances:
            member = known.get(each.url)
            if member is None:
                member = self._member(each.url)
                member.come_back()
            self._members[each.url] = member
            member.adopt(each, now)
        self._ordered_connections = record.limits.max_connections
        self.max_connections = self._ordered_connections or self.policy.max_connections
        self._tell()

    def configure(self, policy: PoolPolicy, strategy: Strategy, *, retired: bool) -> None:
        """Go by another configuration; the instances are the fleet's word, and stay as they are.

        Args:
            policy: how the instances are used.
            strategy: chooses one of them.
            retired: the configuration lacks the agent.
        """
        self.policy, self.retired = policy, retired
        self.max_connections = self._ordered_connections or policy.max_connections
        self._strategy = strategy
        for member in (*self._members.values(), *self._strangers.values()):
            member.configure(policy)
        self._tell()


class Pools:
    """The pools of all agents of a configuration."""

    def __init__(self, pools: Mapping[str, Pool]) -> None:
        self._pools = dict(pools)
        self.on_transition: Listener | None = None
        for pool in self._pools.values():
            pool.on_transition = self._changed

    @classmethod
    def of(cls, settings: Settings, clock: Callable[[], float] = time.monotonic) -> "Pools":
        """A pool for each agent of the settings."""
        return cls({name: _pool(settings, name, clock) for name in settings.agents})

    def configure(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        """Have a pool for each agent of other settings; those of agents that are gone retire."""
        strategy = STRATEGIES[settings.load_balancing.strategy]
        for name, pool in self._pools.items():
            policy = PoolPolicy.of(settings, name)
            pool.configure(policy, strategy(), retired=name not in settings.agents)
        for name in settings.agents.keys() - self._pools.keys():
            self._pools[name] = _pool(settings, name, clock)
            self._pools[name].on_transition = self._changed

    def _changed(self, agent: str, url: str, transition: Transition) -> None:
        if self.on_transition is not None:
            self.on_transition(agent, url, transition)

    @property
    def agents(self) -> tuple[str, ...]:
        """The agents of the configuration."""
        return tuple(name for name, pool in self._pools.items() if not pool.retired)

    def of_agent(self, agent: str) -> Pool:
        """The agent's pool; an empty one for an agent that this configuration lacks."""
        return self._pools.get(agent) or Pool(agent, (), STRATEGIES["round_robin"]())

    def sync(self, snapshot: FleetSnapshot, now: datetime) -> None:
        """Adopt the fleet's word about every agent that this process knows."""
        for name, record in (snapshot.agents or {}).items():
            if pool := self._pools.get(name):
                pool.sync(record, now)


def _pool(settings: Settings, agent: str, clock: Callable[[], float]) -> Pool:
    return Pool(
        agent,
        [(each.url, each.weight) for each in settings.agents[agent].instances],
        STRATEGIES[settings.load_balancing.strategy](),
        PoolPolicy.of(settings, agent),
        clock,
    )


def _counts(error: RetryableCallError, seconds: float, timeout: float) -> bool:
    """Whether a failed call speaks against the instance.

    One that asks for fewer calls (429) is well; and a task whose own deadline left the call too
    little time says nothing about anybody else's.
    """
    if isinstance(error, AgentTimedOut):
        return seconds >= min(FAIR_SECONDS, 0.9 * timeout)
    return not isinstance(error, AgentOverloaded)

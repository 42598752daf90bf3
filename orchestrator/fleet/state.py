"""What the fleet knows, and how configurations, reports, checks and orders change it.

Pure: the time of day comes in, and every change gives a new state. Each state's version is greater
than that of the one before it.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta

from pydantic import Field

from orchestrator.errors import OrderRefused
from orchestrator.fleet.configured import differences, merged, weights
from orchestrator.fleet.events import about, happening, joined
from orchestrator.fleet.records import (
    AgentRecord,
    AgentSpec,
    BreakerOrder,
    BreakerRecord,
    BreakerReport,
    BreakerReports,
    FleetConfig,
    FleetEvent,
    FleetSnapshot,
    Happened,
    HealthChange,
    HealthChanges,
    HealthState,
    HealthWatch,
    InstanceChange,
    InstanceOrder,
    InstanceRecord,
    LimitOrder,
    LimitRecord,
    WatchedAgent,
)
from orchestrator.models import Internal
from orchestrator.resilience.breaker_policy import BreakerState

EVENTS_KEPT = 200
MAX_INSTANCES = 500
"""Of one agent: the whole fleet must fit into one message of the engine."""
MAX_RETIRED = 100
REASON_CHARACTERS = 500
_NAMED_AT_MOST = 10
_LIMITS = ("rate", "burst", "mode", "max_connections")
_NEWS = {
    HealthState.HEALTHY: Happened.HEALTHY,
    HealthState.UNHEALTHY: Happened.UNHEALTHY,
}


class FleetState(Internal):
    """All that the fleet knows, which is also what one run of its workflow hands to the next.

    Methods that take an order raise OrderRefused when it cannot be carried out; one that would
    change nothing gives the same state.
    """

    version: int = 0
    config: FleetConfig = FleetConfig()
    agents: dict[str, AgentRecord] = Field(default_factory=dict)
    retired: dict[str, AgentRecord] = Field(default_factory=dict)
    """Agents that the configuration has lost: processes of two versions may take turns."""
    events: tuple[FleetEvent, ...] = ()

    def configure(self, config: FleetConfig, now: datetime) -> "FleetState":
        """Take over a configuration; what operators did at run time stays in force."""
        if self.version and config == self.config:
            return self
        known = {**self.retired, **self.agents}
        agents = {
            name: merged(known.get(name, AgentRecord()), spec)
            for name, spec in config.agents.items()
        }
        gone = [(name, each) for name, each in known.items() if name not in agents]
        return self._next(now, agents, differences(self.agents, agents, now)).model_copy(
            update={"config": config, "retired": dict(gone[-MAX_RETIRED:])}
        )

    def report(self, reports: BreakerReports, now: datetime) -> "FleetState":
        """Record what a process's breakers found out; the later word holds."""
        state = self
        for each in reports.reports:
            state = state._reported(each, reports.process, now)
        return state

    def _reported(self, report: BreakerReport, process: str, now: datetime) -> "FleetState":
        instance = self._instance(report.agent, report.instance)
        changed_at = now - timedelta(seconds=max(0.0, report.age_seconds))
        if instance is None or not _is_news(report.state, instance, changed_at):
            return self
        opened = report.state is BreakerState.OPEN
        reason = report.reason[:REASON_CHARACTERS]
        record = BreakerRecord(
            state=report.state,
            version=self._version(now),
            changed_at=changed_at,
            until=now + timedelta(seconds=report.remaining_seconds) if opened else None,
            reason=reason,
            process=process,
        )
        what = Happened.BREAKER_OPENED if opened else Happened.BREAKER_CLOSED
        event = happening(now, what, report.agent, instance.url, reason, process)
        return self._replaced(
            now, report.agent, [instance.model_copy(update={"breaker": record})], [event]
        )

    def check(self, found: HealthChanges, now: datetime) -> "FleetState":
        """Record what health checks found out."""
        state = self
        for each in found.changes:
            state = state._checked(each, now)
        return state

    def _checked(self, change: HealthChange, now: datetime) -> "FleetState":
        instance = self._instance(change.agent, change.instance)
        what = _NEWS.get(change.state)
        if instance is None or what is None or instance.health is change.state:
            return self
        reason = change.reason[:REASON_CHARACTERS]
        changed = instance.model_copy(
            update={"health": change.state, "health_reason": reason, "health_since": now}
        )
        event = happening(now, what, change.agent, instance.url, reason, "health check")
        return self._replaced(now, change.agent, [changed], [event])

    def drain(self, order: InstanceOrder, now: datetime) -> "FleetState":
        """Send no new calls to the instances."""
        return self._obeyed(order, now, Happened.DRAINED, _draining(True))

    def resume(self, order: InstanceOrder, now: datetime) -> "FleetState":
        """Send calls to drained instances again."""
        return self._obeyed(order, now, Happened.RESUMED, _draining(False))

    def trip(self, order: InstanceOrder, now: datetime) -> "FleetState":
        """Hold the breakers open until they are reset."""
        change = _held(self._breaker_order(BreakerState.FORCED_OPEN, order, now))
        return self._obeyed(order, now, Happened.TRIPPED, change)

    def disable_breaker(self, order: InstanceOrder, now: datetime) -> "FleetState":
        """Let the breakers admit every call until they are reset."""
        change = _held(self._breaker_order(BreakerState.DISABLED, order, now))
        return self._obeyed(order, now, Happened.BREAKER_DISABLED, change)

    def reset(self, order: InstanceOrder, now: datetime) -> "FleetState":
        """Close the breakers and forget what they counted."""
        closed = self._breaker_order(BreakerState.CLOSED, order, now)
        return self._obeyed(
            order,
            now,
            Happened.RESET,
            lambda each: each.model_copy(update={"order": closed, "breaker": None}),
        )

    def set_limit(self, order: LimitOrder, now: datetime) -> "FleetState":
        """Set an agent's limits over those of the configuration, or take them back."""
        record = self._agent(order.agent)
        given = {name: getattr(order, name) for name in _LIMITS}
        named = {name: value for name, value in given.items() if value is not None}
        if not named and not order.clear:
            raise OrderRefused(
                "Name what to set: rate, burst, mode or max_connections; or clear to take back "
                "what was set",
                "invalid",
            )
        base = LimitRecord() if order.clear else record.limits
        limits = base.model_copy(update=named)
        if _limits(limits) == _limits(record.limits):
            return self
        words = ["cleared"] if order.clear else []
        words += [f"{name} {value}" for name, value in named.items()]
        event = happening(
            now, Happened.LIMIT_SET, order.agent, None, joined(words, order.reason), order.by
        )
        changed = record.model_copy(update={"limits": limits})
        return self._next(now, {**self.agents, order.agent: changed}, [event])

    def add_instance(self, change: InstanceChange, now: datetime) -> "FleetState":
        """Add an instance, or give a known one another weight."""
        record = self._agent(change.agent)
        known = self._instance(change.agent, change.url)
        if known is not None:
            if change.weight in {None, known.weight}:
                return self
            weighed = known.model_copy(update={"weight": change.weight})
            words = [f"weight {change.weight}"]
            event = about(change, now, Happened.WEIGHT_CHANGED, words)
            return self._replaced(now, change.agent, [weighed], [event])
        if len(record.instances) >= MAX_INSTANCES:
            raise OrderRefused(
                f"Agent '{change.agent}' has {MAX_INSTANCES} instances, which is the most that an "
                "agent may have; remove one first",
                "conflict",
            )
        configured = weights(self.config.agents.get(change.agent, AgentSpec()))
        added = InstanceRecord(
            url=change.url,
            weight=change.weight or configured.get(change.url, 1),
            added=change.url not in configured,
        )
        changed = record.model_copy(
            update={
                "instances": (*record.instances, added),
                "removed": tuple(url for url in record.removed if url != change.url),
            }
        )
        event = about(change, now, Happened.INSTANCE_ADDED)
        return self._next(now, {**self.agents, change.agent: changed}, [event])

    def remove_instance(self, change: InstanceChange, now: datetime) -> "FleetState":
        """Take an instance away; one of the configuration stays away until it is added again."""
        record = self._agent(change.agent)
        gone = _named(change.agent, record, change.url)
        if len(record.instances) == 1:
            raise OrderRefused(
                f"{gone.url} is the last instance of agent '{change.agent}'; add another first, or "
                "drain it to stop its calls",
                "conflict",
            )
        changed = record.model_copy(
            update={
                "instances": tuple(each for each in record.instances if each.url != gone.url),
                "removed": record.removed if gone.added else (*record.removed, gone.url),
            }
        )
        event = about(change, now, Happened.INSTANCE_REMOVED)
        return self._next(now, {**self.agents, change.agent: changed}, [event])

    def noted(self, event: FleetEvent) -> "FleetState":
        """Remember an event that changed nothing."""
        return self.model_copy(update={"events": (*self.events, event)[-EVENTS_KEPT:]})

    def record_of(self, agent: str) -> AgentRecord:
        """The agent's record; raises OrderRefused for one that is not known."""
        return self._agent(agent)

    def snapshot(self, known_version: int | None = None) -> FleetSnapshot:
        """All agents, or only the version if it is the one that the asker knows."""
        if known_version == self.version:
            return FleetSnapshot(version=self.version)
        return FleetSnapshot(version=self.version, agents=self.agents)

    def health_watch(self) -> HealthWatch:
        """Whom to check, and what is known of them."""
        return HealthWatch(
            agents={
                name: WatchedAgent(
                    check=record.health_check,
                    instances={each.url: each.health for each in record.instances},
                )
                for name, record in self.agents.items()
                if record.instances
            }
        )

    def _agent(self, name: str) -> AgentRecord:
        record = self.agents.get(name)
        if record is None:
            raise OrderRefused(unknown_agent(name, self.agents), "not_found")
        return record

    def _instance(self, agent: str, url: str) -> InstanceRecord | None:
        instances = self.agents.get(agent, AgentRecord()).instances
        return next((each for each in instances if each.url == url), None)

    def _obeyed(
        self,
        order: InstanceOrder,
        now: datetime,
        what: Happened,
        change: Callable[[InstanceRecord], InstanceRecord],
    ) -> "FleetState":
        """Change the instance that the order names, or all of its agent."""
        record = self._agent(order.agent)
        chosen = record.instances
        if order.instance is not None:
            chosen = (_named(order.agent, record, order.instance),)
        changed = [after for each in chosen if (after := change(each)) != each]
        events = [
            happening(now, what, order.agent, each.url, order.reason, order.by) for each in changed
        ]
        return self._replaced(now, order.agent, changed, events) if changed else self

    def _breaker_order(
        self, state: BreakerState, order: InstanceOrder, now: datetime
    ) -> BreakerOrder:
        return BreakerOrder(state=state, version=self._version(now), at=now, reason=order.reason)

    def _replaced(
        self,
        now: datetime,
        agent: str,
        changed: Iterable[InstanceRecord],
        events: Iterable[FleetEvent],
    ) -> "FleetState":
        """The state with these instances of an agent in the place of those of the same URL."""
        after = {each.url: each for each in changed}
        record = self.agents[agent]
        instances = tuple(after.get(each.url, each) for each in record.instances)
        updated = record.model_copy(update={"instances": instances})
        return self._next(now, {**self.agents, agent: updated}, events)

    def _next(
        self, now: datetime, agents: Mapping[str, AgentRecord], events: Iterable[FleetEvent]
    ) -> "FleetState":
        return self.model_copy(
            update={
                "version": self._version(now),
                "agents": dict(agents),
                "events": (*self.events, *events)[-EVENTS_KEPT:],
            }
        )

    def _version(self, now: datetime) -> int:
        """The next version: at least the time in milliseconds.

        So those of a fleet that was started anew come after those of the one before it.
        """
        return max(self.version + 1, int(now.timestamp() * 1000))


def unknown_agent(name: str, known: Iterable[str]) -> str:
    """What to say about a name that no agent has."""
    names = list(known)
    text = f"Agent '{name}' is not known"
    if closest := difflib.get_close_matches(name, names, n=1):
        return f"{text}; did you mean '{closest[0]}'?"
    return f"{text}; there are: {_listed(names)}" if names else f"{text}; there are none"


def _named(agent: str, record: AgentRecord, url: str) -> InstanceRecord:
    """The agent's instance of that URL; raises OrderRefused."""
    wanted = url.rstrip("/")
    for each in record.instances:
        if each.url == wanted:
            return each
    has = _listed([each.url for each in record.instances])
    raise OrderRefused(f"Agent '{agent}' has no instance {url}; it has: {has}", "not_found")


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED_AT_MOST
    return ", ".join(names[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")


def _is_news(state: BreakerState, instance: InstanceRecord, changed_at: datetime) -> bool:
    """Whether a report is later than what is known, and differs from it."""
    known, order = instance.breaker, instance.order
    if known is not None and changed_at < known.changed_at:
        return False
    if order is not None and changed_at <= order.at:
        return False
    if state is BreakerState.CLOSED:
        return known is not None and known.state is not BreakerState.CLOSED
    return state is BreakerState.OPEN


def _draining(draining: bool) -> Callable[[InstanceRecord], InstanceRecord]:  # noqa: FBT001 - the one argument
    return lambda each: each.model_copy(update={"draining": draining})


def _held(order: BreakerOrder) -> Callable[[InstanceRecord], InstanceRecord]:
    """Give the order, unless it holds already for the same reason."""

    def change(each: InstanceRecord) -> InstanceRecord:
        if each.order and (each.order.state, each.order.reason) == (order.state, order.reason):
            return each
        return each.model_copy(update={"order": order})

    return change


def _limits(limits: LimitRecord) -> tuple[object, ...]:
    return tuple(getattr(limits, name) for name in _LIMITS)

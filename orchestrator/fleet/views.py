"""The fleet as people see it: API, command line, Web UI."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from pydantic import Field

from orchestrator.config import Agent, Settings
from orchestrator.fleet.records import (
    AgentRecord,
    BreakerOrder,
    BreakerRecord,
    FleetEvent,
    HealthState,
    InstanceRecord,
    LimitRecord,
)
from orchestrator.fleet.state import FleetState
from orchestrator.limits import effective_limit
from orchestrator.models import LimitMode, Model
from orchestrator.resilience.breaker_policy import HELD, BreakerState

EVENTS_SHOWN = 20


class HealthView(Model):
    """What the health checks of an instance say, since when, and why."""

    state: HealthState
    reason: str = ""
    since: datetime | None = None


class BreakerView(Model):
    """What an instance's breaker does, since when, why, and until when if it is open."""

    state: BreakerState
    since: datetime | None = None
    until: datetime | None = None
    reason: str = ""


class InstanceView(Model):
    """An instance of an agent."""

    url: str
    weight: int
    added: bool = Field(description="At run time, rather than by the configuration")
    draining: bool
    health: HealthView
    breaker: BreakerView


class LimitsView(Model):
    """An agent's limits as they hold now; ``rate`` is calls a minute, null where there is none."""

    rate: float | None = None
    burst: int | None = None
    mode: LimitMode | None = None
    max_connections: int = Field(description="Calls that a worker process makes at once")
    set_at_run_time: tuple[str, ...] = Field(description="Those that an operator has set")


class QueueView(Model):
    """What waits for an agent, by priority (``priority_5``), and whether anybody takes it."""

    depth: dict[str, int]
    has_worker: bool | None = Field(description="null as long as the engine has not said")


class AgentView(Model):
    """An agent as the fleet knows it."""

    name: str
    capabilities: tuple[str, ...] = ()
    healthy: bool = Field(description="An instance answers its checks and is not drained")
    breaker: BreakerState = Field(description="closed if that of any instance is")
    instances: tuple[InstanceView, ...]
    removed: tuple[str, ...] = Field(
        default=(), description="Instances of the configuration that an operator took away"
    )
    limits: LimitsView
    queue: QueueView


class FleetStand(Model):
    """How fresh the answer is: when it was last seen to hold, and the fleet's version then."""

    reachable: bool
    as_of: datetime | None = None
    version: int


class AgentDetail(AgentView):
    """An agent with what happened to it, the latest first."""

    events: tuple[FleetEvent, ...]
    fleet: FleetStand


class AgentEvents(Model):
    """What happened to the agents, the latest first; none while the fleet does not answer."""

    events: tuple[FleetEvent, ...]
    fleet: FleetStand


class AgentList(Model):
    """All agents."""

    agents: tuple[AgentView, ...]
    fleet: FleetStand


def agent_view(
    name: str, record: AgentRecord, settings: Settings, queue: QueueView, now: datetime
) -> AgentView:
    """The agent of a record, with its limits by the configuration of this process."""
    return AgentView(
        name=name,
        capabilities=settings.agents.get(name, Agent()).capabilities,
        healthy=is_healthy(record),
        breaker=agent_breaker(record, now),
        instances=tuple(_instance(each, now) for each in record.instances),
        removed=record.removed,
        limits=_limits(name, record.limits, settings),
        queue=queue,
    )


def is_healthy(record: AgentRecord) -> bool:
    """Whether an instance answers its checks and is not drained; unknown is not healthy."""
    return any(
        each.health is HealthState.HEALTHY and not each.draining for each in record.instances
    )


def agent_breaker(record: AgentRecord, now: datetime) -> BreakerState:
    """The most open of its breakers: closed, else half-open, else open.

    Each of ``forced_open`` and ``disabled`` shows when all instances are in it.
    """
    states = {breaker_view(each, now).state for each in record.instances}
    if len(states) == 1:
        return states.pop()
    if not states or states & {BreakerState.CLOSED, BreakerState.DISABLED}:
        return BreakerState.CLOSED
    return BreakerState.HALF_OPEN if BreakerState.HALF_OPEN in states else BreakerState.OPEN


def breaker_view(instance: InstanceRecord, now: datetime) -> BreakerView:
    """An instance's breaker: what an operator holds it in, else what was last found out."""
    order, record = instance.order, instance.breaker
    if order is not None and (order.state in HELD or _is_later(order, record)):
        return BreakerView(state=order.state, since=order.at, reason=order.reason)
    if record is None:
        return BreakerView(state=BreakerState.CLOSED)
    if record.state is BreakerState.OPEN and record.until is not None and record.until <= now:
        return BreakerView(state=BreakerState.HALF_OPEN, since=record.until, reason=record.reason)
    return BreakerView(
        state=record.state, since=record.changed_at, until=record.until, reason=record.reason
    )


def _is_later(order: BreakerOrder, record: BreakerRecord | None) -> bool:
    return record is None or order.version > record.version


def _instance(record: InstanceRecord, now: datetime) -> InstanceView:
    return InstanceView(
        url=record.url,
        weight=record.weight,
        added=record.added,
        draining=record.draining,
        health=HealthView(
            state=record.health, reason=record.health_reason, since=record.health_since
        ),
        breaker=breaker_view(record, now),
    )


def _limits(agent: str, record: LimitRecord, settings: Settings) -> LimitsView:
    limit = effective_limit(settings, agent, record)
    return LimitsView(
        rate=limit.rate if limit else None,
        burst=limit.burst if limit else None,
        mode=limit.mode if limit else None,
        max_connections=record.max_connections or settings.connections(agent),
        set_at_run_time=tuple(
            name
            for name in ("rate", "burst", "mode", "max_connections")
            if getattr(record, name) is not None
        ),
    )


def agent_events(events: Iterable[FleetEvent], agent: str) -> tuple[FleetEvent, ...]:
    """The latest events of one agent, in the order in which they come."""
    return tuple(each for each in events if each.agent == agent)[:EVENTS_SHOWN]


def queue_view(backlog: Mapping[int, int], *, has_worker: bool | None) -> QueueView:
    """A queue's depth by priority, the most urgent first."""
    levels = sorted(backlog, reverse=True)
    return QueueView(
        depth={f"priority_{level}": backlog[level] for level in levels}, has_worker=has_worker
    )


def summary(state: FleetState) -> str:
    """The fleet as a Markdown table, for the Web UI.

    It is made when something changes, so it says until when a breaker is open, not whether it
    still is.
    """
    if not state.agents:
        return "No agents yet: they come with the first process that starts."
    rows = [
        f"| {name} | {each.url} | {each.health} | {_breaker_words(each)} | {_remarks(each)} |"
        for name, record in state.agents.items()
        for each in record.instances
    ]
    return "\n".join(
        ["| agent | instance | health | breaker | |", "| --- | --- | --- | --- | --- |", *rows]
    )


def _breaker_words(instance: InstanceRecord) -> str:
    known = [each.at for each in (instance.order,) if each]
    known += [each.changed_at for each in (instance.breaker,) if each]
    if not known:
        return BreakerState.CLOSED
    view = breaker_view(instance, max(known))
    until = f" until {view.until:%H:%M:%S} UTC" if view.until else ""
    return f"{view.state}{until}"


def _remarks(instance: InstanceRecord) -> str:
    words = [
        word
        for word, holds in (("draining", instance.draining), ("added", instance.added))
        if holds
    ]
    return ", ".join(words)

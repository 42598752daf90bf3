"""How commands show agents."""

from collections.abc import Iterable

from orchestrator.display import Column, print_fields, print_rows
from orchestrator.fleet.records import FleetEvent, HealthState
from orchestrator.fleet.views import AgentDetail, AgentView, BreakerView, InstanceView

_AGENTS = (
    Column("agent", 28, "whole"),
    Column("health", 9),
    Column("breaker", 11),
    Column("instances", 28, "fold"),
    Column("waiting", 7),
    Column("worker", 6),
    Column("limits", fit="fold"),
)
_INSTANCES = (
    Column("instance", 40, "fold"),
    Column("weight", 6),
    Column("health", 9),
    Column("breaker", 11),
    Column("calls", 8),
    Column("why", fit="fold"),
)
_EVENTS = (
    Column("at (UTC)", 19),
    Column("agent", 28),
    Column("what", 20),
    Column("by", 12),
    Column("instance", 40, "fold"),
    Column("why", fit="fold"),
)
_TAKEN = {True: "yes", False: "none", None: "unknown"}


def print_agents(agents: Iterable[AgentView]) -> None:
    """A line for each agent."""
    print_rows(
        _AGENTS,
        (
            (
                each.name,
                "healthy" if each.healthy else "unhealthy",
                each.breaker.value,
                _count(each),
                sum(each.queue.depth.values()),
                _TAKEN[each.queue.has_worker],
                _limits(each),
            )
            for each in agents
        ),
    )


def print_agent(detail: AgentDetail) -> None:
    """One agent, its instances and what happened to it."""
    print_fields(
        {
            "agent": detail.name,
            "capabilities": ", ".join(detail.capabilities),
            "health": "healthy" if detail.healthy else "unhealthy",
            "breaker": detail.breaker.value,
            "limits": _limits(detail),
            "queue": _queue(detail),
            "removed": ", ".join(detail.removed),
        }
    )
    print_instances(detail.instances)
    if detail.events:
        print_events(detail.events)


def print_instances(instances: Iterable[InstanceView]) -> None:
    """A line for each instance."""
    print_rows(
        _INSTANCES,
        (
            (
                each.url,
                each.weight,
                each.health.state.value,
                each.breaker.state.value,
                "draining" if each.draining else "taken",
                _why(each),
            )
            for each in instances
        ),
    )


def print_events(events: Iterable[FleetEvent]) -> None:
    """A line for each event."""
    print_rows(
        _EVENTS,
        ((each.at, each.agent, each.what, each.by, each.instance, each.reason) for each in events),
    )


def _count(view: AgentView) -> str:
    well = sum(one.health.state is HealthState.HEALTHY for one in view.instances)
    drained = sum(one.draining for one in view.instances)
    words = f"{well} of {len(view.instances)} healthy"
    return f"{words}, {drained} draining" if drained else words


def _limits(view: AgentView) -> str:
    limits = view.limits
    words = [f"{limits.max_connections} at once for each worker"]
    if limits.rate is not None:
        words.insert(0, f"{limits.rate:g} a minute, burst {limits.burst}, {limits.mode}")
    if limits.set_at_run_time:
        words.append(f"set at run time: {', '.join(limits.set_at_run_time)}")
    return "; ".join(words)


def _queue(view: AgentView) -> str:
    waiting = ", ".join(f"{name} {count}" for name, count in view.queue.depth.items())
    takers = {True: "a worker takes", False: "no worker takes", None: "unknown who takes"}
    return f"{waiting or 'nothing waits'}; {takers[view.queue.has_worker]} from it"


def _why(instance: InstanceView) -> str:
    added = "added at run time" if instance.added else ""
    words = (_until(instance.breaker), instance.breaker.reason, instance.health.reason, added)
    return "; ".join(filter(None, words))


def _until(breaker: BreakerView) -> str:
    return f"until {breaker.until:%H:%M:%S} UTC" if breaker.until else ""

"""A fleet at a fixed time, and short ways to change it."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.fleet.records import (
    AgentSpec,
    BreakerReport,
    BreakerReports,
    FleetConfig,
    HealthChange,
    HealthChanges,
    HealthState,
    InstanceChange,
    InstanceOrder,
    InstanceRecord,
    InstanceSpec,
)
from orchestrator.fleet.state import FleetState
from orchestrator.resilience.breaker_policy import BreakerState

NOW = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
A, B, C = "http://a", "http://b", "http://c"


def later(seconds: float) -> datetime:
    """So many seconds after now."""
    return NOW + timedelta(seconds=seconds)


def config(
    *urls: str, weight: int = 1, others: Mapping[str, list[str]] | None = None
) -> FleetConfig:
    """``reader`` with instances at the URLs, and other agents by name."""
    return FleetConfig(
        agents={
            name: AgentSpec(instances=tuple(InstanceSpec(url=url, weight=weight) for url in each))
            for name, each in {"reader": list(urls), **(others or {})}.items()
        }
    )


def fleet(*urls: str, **agents: list[str]) -> FleetState:
    """A fleet by that configuration; ``reader`` has a and b if none are named."""
    return FleetState().configure(config(*(urls or (A, B)), others=agents), NOW)


def order(instance: str | None = None, **fields: Any) -> InstanceOrder:
    """An order about ``reader``."""
    return InstanceOrder(agent="reader", instance=instance, **fields)


def change(url: str, **fields: Any) -> InstanceChange:
    """A change of the instances of ``reader``."""
    return InstanceChange(agent="reader", url=url, **fields)


def report(state: BreakerState, url: str = A, **fields: Any) -> BreakerReports:
    """A process's word of one breaker."""
    told = BreakerReport(agent="reader", instance=url, state=state, **fields)
    return BreakerReports(process="worker@1", reports=(told,))


def health(state: HealthState, url: str = A, reason: str = "") -> HealthChanges:
    """What checks found of one instance."""
    return HealthChanges(
        changes=(HealthChange(agent="reader", instance=url, state=state, reason=reason),)
    )


def urls(state: FleetState, agent: str = "reader") -> list[str]:
    """Where an agent's instances are."""
    return [each.url for each in state.agents[agent].instances]


def instance(state: FleetState, url: str = A) -> InstanceRecord:
    """One instance of ``reader``."""
    [found] = [each for each in state.agents["reader"].instances if each.url == url]
    return found


def happened(state: FleetState) -> list[tuple[str, str | None]]:
    """What happened to what, the first event first, without how the fleet came to be."""
    return [(each.what, each.instance) for each in state.events if each.what != "agent_added"]

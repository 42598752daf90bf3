"""Which agents have recovered: what their dead letters may wait for."""

from orchestrator.fleet.records import AgentRecord, HealthState, InstanceRecord
from orchestrator.fleet.state import FleetState
from orchestrator.resilience.breaker_policy import BreakerState


def recovered(before: FleetState, after: FleetState) -> tuple[str, ...]:
    """The agents of which a breaker has closed, or which answer their health checks again."""
    return tuple(
        name
        for name, record in after.agents.items()
        if (old := before.agents.get(name)) is not None
        and (_breaker_closed(old, record) or _healthy_again(old, record))
    )


def _breaker_closed(before: AgentRecord, after: AgentRecord) -> bool:
    opened = {each.url for each in before.instances if _state(each) is BreakerState.OPEN}
    return any(
        each.url in opened and _state(each) is BreakerState.CLOSED for each in after.instances
    )


def _state(instance: InstanceRecord) -> BreakerState | None:
    return instance.breaker.state if instance.breaker else None


def _healthy_again(before: AgentRecord, after: AgentRecord) -> bool:
    old = {each.health for each in before.instances}
    new = {each.health for each in after.instances}
    return (
        HealthState.UNHEALTHY in old
        and HealthState.HEALTHY not in old
        and HealthState.HEALTHY in new
    )

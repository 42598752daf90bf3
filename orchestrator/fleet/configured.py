"""What a configuration makes of the agents that are known, and what it has changed."""

from collections.abc import Mapping
from datetime import datetime

from orchestrator.fleet.events import happening
from orchestrator.fleet.records import (
    AgentRecord,
    AgentSpec,
    FleetEvent,
    Happened,
    InstanceRecord,
)

_BY_CONFIGURATION = "configuration"


def weights(spec: AgentSpec) -> dict[str, int]:
    """The weights that a configuration gives an agent's instances."""
    return {each.url: each.weight for each in spec.instances}


def merged(known: AgentRecord, spec: AgentSpec) -> AgentRecord:
    """An agent by a configuration, with what is known of it."""
    before = {each.url: each for each in known.instances}
    configured = weights(spec)
    instances = [
        before.get(url, InstanceRecord(url=url)).model_copy(
            update={"weight": weight, "added": False}
        )
        for url, weight in configured.items()
        if url not in known.removed
    ]
    instances += [each for each in known.instances if each.added and each.url not in configured]
    return known.model_copy(
        update={
            "instances": tuple(instances),
            "health_check": spec.health_check,
            "removed": tuple(url for url in known.removed if url in configured),
        }
    )


def differences(
    before: Mapping[str, AgentRecord], after: Mapping[str, AgentRecord], now: datetime
) -> list[FleetEvent]:
    """What a configuration has changed."""

    def happened(
        what: Happened, agent: str, url: str | None = None, reason: str = ""
    ) -> FleetEvent:
        return happening(now, what, agent, url, reason, _BY_CONFIGURATION)

    events = [happened(Happened.AGENT_REMOVED, name) for name in before if name not in after]
    for name, record in after.items():
        if name not in before:
            events.append(happened(Happened.AGENT_ADDED, name))
            continue
        old = {each.url: each.weight for each in before[name].instances}
        new = {each.url: each.weight for each in record.instances}
        events += [happened(Happened.INSTANCE_REMOVED, name, url) for url in old if url not in new]
        events += [happened(Happened.INSTANCE_ADDED, name, url) for url in new if url not in old]
        events += [
            happened(Happened.WEIGHT_CHANGED, name, url, f"weight {weight}")
            for url, weight in new.items()
            if old.get(url, weight) != weight
        ]
    return events

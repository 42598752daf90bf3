"""The courses of the fleet, in the terms of tests.histories.scenarios."""

from datetime import UTC, datetime
from typing import Any

from temporalio.client import WorkflowHandle, WorkflowUpdateFailedError

from orchestrator.fleet.records import (
    FLEET_WORKFLOW,
    AgentSpec,
    BreakerReport,
    BreakerReports,
    FleetConfig,
    FleetEvents,
    HealthCheckSpec,
    InstanceSpec,
)
from orchestrator.fleet.state import FleetState
from orchestrator.resilience.breaker_policy import BreakerState
from tests.support.agents import Agent, Reply
from tests.support.plans import AGENT
from tests.support.stack import eventually

Handle = WorkflowHandle[Any, Any]
STARTED = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
NOWHERE = "http://127.0.0.1:9"


def config(*urls: str) -> FleetConfig:
    """One agent, whose dead letters come back with it."""
    check = HealthCheckSpec(interval=0.1, healthy_threshold=1, unhealthy_threshold=1)
    spec = AgentSpec(instances=tuple(InstanceSpec(url=url) for url in urls), health_check=check)
    return FleetConfig(agents={AGENT: spec}, redrive_on_recovery=True)


async def happened(handle: Handle, what: str, times: int = 1) -> None:
    """Wait until the fleet has recorded so many events of a kind."""

    async def enough() -> bool:
        found: FleetEvents = await handle.query("events", result_type=FleetEvents)
        return times <= sum(each.what == what for each in found.events)

    await eventually(enough, what=what)


def reported(state: BreakerState, url: str) -> BreakerReports:
    """What a process says of a breaker."""
    report = BreakerReport(
        agent=AGENT, instance=url, state=state, remaining_seconds=30, reason="it answered 500"
    )
    return BreakerReports(process="worker@recorder", reports=(report,))


async def steer(handle: Handle, agent: Agent) -> None:
    """Give every order there is, one of them in vain."""
    await handle.signal("configure", config(agent.url))
    await happened(handle, "healthy")
    for name in ("drain", "resume", "trip", "reset", "disable_breaker", "reset"):
        await handle.execute_update(name, {"agent": AGENT, "reason": "practice", "by": "ops"})
    await handle.execute_update("set_limit", {"agent": AGENT, "rate": 50})
    await handle.execute_update("add_instance", {"agent": AGENT, "url": NOWHERE})
    await happened(handle, "unhealthy")
    await handle.execute_update("remove_instance", {"agent": AGENT, "url": NOWHERE})
    try:
        await handle.execute_update("remove_instance", {"agent": AGENT, "url": agent.url})
    except WorkflowUpdateFailedError:
        await handle.terminate(reason="the end of the course")


async def recover(handle: Handle, agent: Agent) -> None:
    """The agent's breaker opens and closes, and its checks fail for a while."""
    await handle.signal("configure", config(agent.url))
    await happened(handle, "healthy")
    await handle.signal("report", reported(BreakerState.OPEN, agent.url))
    await handle.signal("report", reported(BreakerState.CLOSED, agent.url))
    agent.script(Reply(status=503))
    await happened(handle, "unhealthy")
    agent.script(Reply())
    await happened(handle, "healthy", times=2)
    await handle.cancel()


async def carry_on(handle: Handle, _: Agent) -> None:
    """A new run does what the one before it would have done."""
    await happened(handle, "unhealthy")
    await handle.execute_update("drain", {"agent": AGENT})
    await handle.cancel()


COURSES: dict[str, dict[str, Any]] = {
    f"{FLEET_WORKFLOW}.steered": {"given": FleetState(), "play": steer},
    f"{FLEET_WORKFLOW}.recovered": {"given": FleetState(), "play": recover},
    f"{FLEET_WORKFLOW}.carried_on": {
        "given": FleetState().configure(config(NOWHERE), STARTED),
        "play": carry_on,
    },
}

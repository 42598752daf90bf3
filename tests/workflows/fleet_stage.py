"""AgentFleet inside the sandbox, with scripted health checks and redrives."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from activities.watch_health import HealthWatcher
from orchestrator.dead_letters import RedriveAgent
from orchestrator.engine.fleet import Fleet
from orchestrator.fleet.records import (
    FLEET_ID,
    AgentRecord,
    AgentSpec,
    BreakerReport,
    BreakerReports,
    FleetConfig,
    HealthCheckSpec,
    InstanceRecord,
    InstanceSpec,
)
from orchestrator.resilience.breaker_policy import BreakerState
from orchestrator.routing import WORKFLOW_QUEUE
from tests.support.stack import eventually
from workflows.fleet import AgentFleet

A, B = "http://a", "http://b"
RPC_SECONDS = 20.0


def config(*urls: str, **changes: Any) -> FleetConfig:
    """One agent, ``reader``, with instances at the URLs."""
    spec = AgentSpec(
        instances=tuple(InstanceSpec(url=url) for url in urls or (A, B)),
        health_check=HealthCheckSpec(interval=0.05, healthy_threshold=1, unhealthy_threshold=1),
    )
    return FleetConfig(agents={"reader": spec}, **changes)


def reported(state: BreakerState, url: str = A, seconds: float = 30.0) -> BreakerReports:
    """What one process says of one breaker."""
    report = BreakerReport(
        agent="reader", instance=url, state=state, remaining_seconds=seconds, reason="it failed"
    )
    return BreakerReports(process="worker@1", reports=(report,))


@dataclass
class Checks:
    """The health of instances as the test says, and the activities as they were asked for."""

    problems: dict[str, str | None] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    redriven: list[RedriveAgent] = field(default_factory=list)
    redrive_error: Exception | None = None

    async def probe(self, url: str, _: float, __: Collection[int]) -> str | None:
        """Check a URL."""
        self.asked.append(url)
        return self.problems.get(url.removesuffix("/health"))

    @activity.defn
    async def redrive_agent(self, order: RedriveAgent) -> None:
        """Redrive."""
        self.redriven.append(order)
        if self.redrive_error:
            raise self.redrive_error


def worker_of(client: Client, checks: Checks, *, sandboxed: bool = True) -> Worker:
    """A worker for the fleet."""
    return Worker(
        client,
        task_queue=WORKFLOW_QUEUE,
        workflows=[AgentFleet],
        activities=[HealthWatcher(checks.probe).watch_health, checks.redrive_agent],
        workflow_runner=SandboxedWorkflowRunner() if sandboxed else UnsandboxedWorkflowRunner(),
        # Every workflow task replays from the start, so that non-determinism shows.
        max_cached_workflows=0,
        # As in the product; an activity that ends just as it is cancelled may keep a worker's stop.
        graceful_shutdown_timeout=timedelta(seconds=5),
        max_heartbeat_throttle_interval=timedelta(milliseconds=50),
        default_heartbeat_throttle_interval=timedelta(milliseconds=50),
    )


@asynccontextmanager
async def fleet_of(
    client: Client,
    checks: Checks | None = None,
    *,
    sandboxed: bool = True,
    keep: bool = False,
) -> AsyncIterator[Fleet]:
    """A worker for the fleet, and the fleet's client; unless kept, the fleet ends with it."""
    try:
        async with worker_of(client, checks or Checks(), sandboxed=sandboxed):
            yield Fleet(client, RPC_SECONDS)
    finally:
        if not keep:
            with suppress(RPCError):
                await client.get_workflow_handle(FLEET_ID).terminate()


async def reader(fleet: Fleet) -> AgentRecord:
    """The agent of the tests, as the fleet knows it."""
    agents = (await fleet.snapshot()).agents
    assert agents is not None
    return agents["reader"]


async def instance(fleet: Fleet, url: str = A) -> InstanceRecord:
    """One of its instances."""
    [found] = [each for each in (await reader(fleet)).instances if each.url == url]
    return found


async def happened(fleet: Fleet, what: str) -> Any:
    """Wait for an event."""

    async def found() -> Any:
        return [each for each in await fleet.events(200) if each.what == what]

    return (await eventually(found, what=what))[0]


async def settled(fleet: Fleet) -> None:
    """Wait until no instance's health is unknown."""

    async def known() -> bool:
        return all(each.health != "unknown" for each in (await reader(fleet)).instances)

    await eventually(known, what="health")

"""The worker: runs workflows, and the calls of every agent from the agent's own task queue."""

import asyncio
import os
from datetime import timedelta
from pathlib import Path

import click
import uvloop
from temporalio.client import Client
from temporalio.worker import PollerBehaviorAutoscaling, Worker

from activities.call_agent import HEARTBEAT_SECONDS, AgentCalls
from activities.resolve_plan import PlanResolver
from orchestrator.cli import config_option, plain_errors, settings_of
from orchestrator.config import Settings
from orchestrator.engine.connect import connect
from orchestrator.errors import StartupError
from orchestrator.parts import (
    grace_of,
    http_transport,
    metrics_server,
    secret_headers,
    stop_on_signals,
)
from orchestrator.resilience.pool import Pools
from orchestrator.routing import Routes, agent_queue
from orchestrator.telemetry import logging
from orchestrator.telemetry.logging import get_logger
from workflows.hosting import workflow_worker

log = get_logger(__name__)


@click.command()
@config_option
@plain_errors
def command(config_path: Path | None) -> None:
    """Run workflows and call agents.

    Stops on SIGINT or SIGTERM after the calls in flight have ended, at the latest after
    temporal.shutdown_grace.

    \b
    Examples:
      orchestrator worker
      orchestrator worker --config production.yaml
    """
    settings = settings_of(config_path)
    logging.configure(settings.logging, "worker")
    uvloop.run(work(settings))


async def work(settings: Settings) -> None:
    """Work until a signal.

    Raises:
        StartupError: the engine is not there, the metrics port is taken, or the engine has
            refused the worker for good.
    """
    stop = stop_on_signals()
    with metrics_server(settings):
        client = await connect(settings.temporal, identity=f"worker@{os.getpid()}")
        transport = http_transport(settings)
        calls = AgentCalls(Pools.of(settings), transport, secret_headers(settings))
        workers = [
            workflow_worker(client, calls, PlanResolver(Routes(settings)), grace_of(settings)),
            *(agent_worker(client, settings, name, calls) for name in settings.agents),
        ]
        running = [asyncio.create_task(each.run()) for each in workers]
        log.info("worker_ready", agents=len(settings.agents), engine=settings.temporal.target)
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({stopping, *running}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        await asyncio.gather(*(each.shutdown() for each in workers))
        ends = await asyncio.gather(*running, return_exceptions=True)
        await transport.close()
    for end in ends:
        if isinstance(end, BaseException):
            raise StartupError(f"The engine refused this worker: {end}") from end
    log.info("worker_stopped")


def agent_worker(client: Client, settings: Settings, agent: str, calls: AgentCalls) -> Worker:
    """The worker of one agent's queue: its slots are the agent's bulkhead in this process."""
    return Worker(
        client,
        task_queue=agent_queue(agent),
        activities=[calls.call_agent],
        max_concurrent_activities=settings.connections(agent),
        activity_task_poller_behavior=PollerBehaviorAutoscaling(minimum=1, maximum=20, initial=2),
        graceful_shutdown_timeout=grace_of(settings),
        # A heartbeat is how a cancellation reaches a call, so none is held back for long.
        max_heartbeat_throttle_interval=timedelta(seconds=HEARTBEAT_SECONDS),
        default_heartbeat_throttle_interval=timedelta(seconds=HEARTBEAT_SECONDS),
    )

"""The parts behind the API, opened and closed in order."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from activities.call_agent import AgentCalls
from activities.resolve_plan import PlanResolver
from api.dependencies import Services
from orchestrator.agent_health import AgentHealth
from orchestrator.config import Settings
from orchestrator.engine.connect import connect
from orchestrator.engine.overview import Overview
from orchestrator.engine.tasks import Tasks
from orchestrator.errors import StartupError
from orchestrator.parts import grace_of, http_transport, secret_headers
from orchestrator.resilience.pool import Pools
from orchestrator.routing import Routes
from workflows.hosting import workflow_worker


@asynccontextmanager
async def open_services(settings: Settings, stopping: asyncio.Event) -> AsyncIterator[Services]:
    """Connect to the engine, and host workflows on the same client.

    The worker beside the API is what makes a start eager: the engine hands a new workflow's first
    task to the process that started it, in the answer to the start call.
    """
    client = await connect(settings.temporal, identity=f"api@{os.getpid()}")
    transport = http_transport(settings)
    routes = Routes(settings)
    calls = AgentCalls(Pools.of(settings), transport, secret_headers(settings))
    tasks = Tasks(client, settings.temporal.rpc_timeout)
    overview = Overview(client, tasks, tuple(settings.agents), settings.temporal.rpc_timeout)
    worker = workflow_worker(client, calls, PlanResolver(routes), grace_of(settings))
    running = asyncio.create_task(worker.run())
    try:
        health = AgentHealth(settings, transport.probe)
        yield Services(settings, routes, tasks, overview, health, stopping, running)
    finally:
        await worker.shutdown()
        await asyncio.gather(running, return_exceptions=True)
        await transport.close()
    if error := running.exception():
        raise StartupError(f"The engine refused the API's workflow worker: {error}") from error

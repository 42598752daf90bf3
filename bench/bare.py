"""The engine calls that requests rest on, made by a process such as the API's but without HTTP.

``python -m bench.bare`` takes its configuration from ``ORCHESTRATOR_`` variables. Each line on
stdin is an order, answered by an empty line when it is done: ``start N`` starts so many tasks,
``describe N ID ...`` describes workflows in turn, so many times in all.
"""

import asyncio
import itertools
import os
import sys
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import uvloop
from temporalio.client import Client

from activities.call_agent import AgentCalls
from activities.resolve_plan import PlanResolver
from bench.stage import CONNECTIONS, PAYLOAD
from orchestrator.cli import settings_of
from orchestrator.config import Settings
from orchestrator.engine.connect import connect
from orchestrator.engine.tasks import Tasks
from orchestrator.models import Task
from orchestrator.parts import agent_transport
from orchestrator.resilience.pool import Pools
from orchestrator.routing import Routes
from workflows.hosting import workflow_worker

PATTERN = "wait"
"""Of tasks that go no further than their agent's queue."""


def starting(client: Client, settings: Settings) -> Callable[[], Awaitable[object]]:
    """The start call of a task whose route is known."""
    tasks = Tasks(client, settings.temporal.rpc_timeout)
    task = Task(pattern=PATTERN, payload=dict(PAYLOAD))
    plan = Routes(settings).plan(task)
    planned = task.model_copy(update={"plan": plan})
    return lambda: tasks.submit(planned, plan, str(uuid.uuid4()), datetime.now(UTC))


async def many(number: int, call: Callable[[], Awaitable[object]]) -> None:
    """Make a call so many times, 50 at a time."""
    left = iter(range(number))

    async def work() -> None:
        for _ in left:
            await call()

    await asyncio.gather(*(work() for _ in range(CONNECTIONS)))


async def serve(settings: Settings) -> None:
    """Carry out orders until stdin closes, with the workers of an API process beside."""
    client = await connect(settings.temporal, "bare")
    transport = agent_transport(settings)
    calls = AgentCalls(Pools.of(settings), transport, {})
    worker = workflow_worker(client, calls, PlanResolver(Routes(settings)), timedelta())
    start = starting(client, settings)
    async with worker:
        while line := await asyncio.to_thread(sys.stdin.readline):
            match line.split():
                case ["start", number]:
                    await many(int(number), start)
                case ["describe", number, *names]:
                    turns = itertools.cycle(map(client.get_workflow_handle, names))
                    await many(int(number), lambda: next(turns).describe())  # noqa: B023 - used here
            print(flush=True)
    await transport.close()


if __name__ == "__main__":
    uvloop.run(serve(settings_of(Path(os.environ["ORCHESTRATOR_CONFIG"]))))
    sys.stdout.flush()
    # A process that used the engine's client can abort when the interpreter ends.
    os._exit(0)

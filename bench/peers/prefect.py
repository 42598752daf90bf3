"""Prefect: background tasks, with its server on PostgreSQL and a task worker."""

import asyncio
import importlib
import os
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import Any

from bench.children import child
from bench.peers.postgres import DURABILITY, Database, postgres
from bench.stage import PAYLOAD
from bench.subject import MOST_AT_ONCE, Order, Outcome, Place, Send, reached, submit
from tests.support.stack import free_port

_TASK = "bench.peers.prefect_task"
"""Imported when Prefect's settings are there, which it reads when it is imported."""
_DONE = "SELECT count(*) FROM task_run WHERE state_type = 'COMPLETED'"
_ENDS = "SELECT id::text, end_time FROM task_run WHERE state_type = 'COMPLETED'"


class Prefect:
    """The server, its database and the worker."""

    durability = f"{DURABILITY}; stores states there, results in files"

    def __init__(
        self, place: Place, database: Database, pids: dict[str, list[int]], call: Any
    ) -> None:
        self._call = call
        self._place = place
        # They stay, since each makes clients of its own.
        self._threads = ThreadPoolExecutor(MOST_AT_ONCE)
        self._database = database
        self.versions = f"prefect {version('prefect')}, {database.version}"
        self._pids = pids

    async def run(self, order: Order) -> Outcome:
        """Delay the tasks and wait until all have completed."""
        goal = await self._done() + order.tasks
        url = self._place.agent + order.path

        loop = asyncio.get_running_loop()

        async def send() -> str:
            future = await loop.run_in_executor(self._threads, self._call.delay, url, PAYLOAD)
            return str(future.task_run_id)

        @asynccontextmanager
        async def connect() -> AsyncIterator[Send]:
            yield send

        submissions = await submit(order, connect)
        await reached(self._done, goal)
        submissions.stored()
        ends = await self._database.rows(_ENDS)
        own = {name: at.timestamp() for name, at in ends if name in submissions.began}
        return submissions.outcome(own)

    async def _done(self) -> int:
        return await self._database.count(_DONE)

    def processes(self) -> dict[str, list[int]]:
        """Server, worker and database."""
        return {**self._pids, "postgres": [self._database.pid]}

    async def stored_bytes(self) -> int:
        """The database; results are files beside it."""
        return await self._database.size()


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[Prefect]:
    """The database, the server and the worker."""
    port = free_port()
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(postgres())
        settings = _settings(place, database, port)
        os.environ.update(settings)

        async def start(kind: str, *words: str, port: int | None = None) -> list[int]:
            log = place.directory / f"{kind}.log"
            command = (sys.executable, "-m", *words)
            process = await stack.enter_async_context(child(*command, log=log, port=port))
            return [process.pid]

        listen = ("--host", "127.0.0.1", "--port", str(port))
        server = await start("server", "prefect", "server", "start", *listen, "--no-ui", port=port)
        pids = {"server": server, "worker": await start("worker", _TASK)}
        yield Prefect(place, database, pids, importlib.import_module(_TASK).call)


def _settings(place: Place, database: Database, port: int) -> dict[str, str]:
    """Where the parts find each other; nobody is told of what runs here."""
    return {
        "PREFECT_HOME": str(place.directory / "home"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_API_DATABASE_CONNECTION_URL": database.url.replace(":", "+asyncpg:", 1),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "DO_NOT_TRACK": "1",
    }

"""procrastinate on PostgreSQL."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import Any

import aiohttp
import procrastinate

from bench.children import child, finished
from bench.peers.postgres import DURABILITY, Database, postgres
from bench.stage import PAYLOAD
from bench.subject import Order, Outcome, Place, Send, reached, submit

WORKERS = 2
CONCURRENCY = 25
"""Of each worker."""
DATABASE = "BENCH_DATABASE"
_APP = "bench.peers.procrastinate.app"
_POOL = 10
_DONE = "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'"
_ENDS = "SELECT job_id::text, at FROM procrastinate_events WHERE type = 'succeeded'"

_sessions: list[aiohttp.ClientSession] = []


def _connector(url: str) -> procrastinate.PsycopgConnector:
    return procrastinate.PsycopgConnector(conninfo=url, min_size=_POOL, max_size=_POOL)


app = procrastinate.App(connector=_connector(os.environ.get(DATABASE, "")))


@app.task(name="call", retry=True)
async def call(url: str, payload: dict[str, Any]) -> None:
    """Call the agent, by the process's one session."""
    if not _sessions:
        _sessions.append(aiohttp.ClientSession(raise_for_status=True))
    async with _sessions[0].post(url, json=payload) as response:
        await response.read()


class Procrastinate:
    """Workers and their database."""

    durability = f"{DURABILITY}; stores each job and its events, not its result"

    def __init__(self, place: Place, database: Database, pids: list[int]) -> None:
        self._place = place
        self._database = database
        self.versions = f"procrastinate {version('procrastinate')}, {database.version}"
        self._pids = pids

    async def run(self, order: Order) -> Outcome:
        """Defer the jobs and wait until all have succeeded."""
        goal = await self._done() + order.tasks
        url = self._place.agent + order.path

        async def send() -> str:
            return str(await call.defer_async(url=url, payload=PAYLOAD))

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
        """The workers and the database."""
        return {"worker": self._pids, "postgres": [self._database.pid]}

    async def stored_bytes(self) -> int:
        """The database."""
        return await self._database.size()


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[Procrastinate]:
    """The database with its tables, and the workers."""
    program = (sys.executable, "-m", "procrastinate", "--app", _APP)
    log = place.directory / "procrastinate.log"
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(postgres())
        environment = {**os.environ, DATABASE: database.url}
        await finished(*program, "schema", "--apply", log=log, environment=environment)
        command = (*program, "worker", "--concurrency", str(CONCURRENCY))
        workers = [
            await stack.enter_async_context(child(*command, log=log, environment=environment))
            for _ in range(WORKERS)
        ]
        connector = _connector(database.url)
        with app.replace_connector(connector):
            await stack.enter_async_context(app.open_async())
            yield Procrastinate(place, database, [worker.pid for worker in workers])

"""DBOS on PostgreSQL: a workflow of one step that calls, started by the process that runs it."""

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import Any

import aiohttp
from dbos import DBOS, DBOSConfig, SetWorkflowID

from bench.peers.postgres import DURABILITY, Database, postgres
from bench.stage import PAYLOAD
from bench.subject import Order, Outcome, Place, Send, reached, submit

_POOL = 20
_DONE = "SELECT count(*) FROM dbos.workflow_status WHERE status = 'SUCCESS'"
_ENDS = "SELECT workflow_uuid, updated_at FROM dbos.workflow_status WHERE status = 'SUCCESS'"

_sessions: list[aiohttp.ClientSession] = []


@DBOS.step(retries_allowed=True)
async def call(url: str, payload: dict[str, Any]) -> Any:
    """Call the agent, by the process's one session."""
    async with _sessions[0].post(url, json=payload) as response:
        return await response.json()


@DBOS.workflow()
async def call_service(url: str, payload: dict[str, Any]) -> Any:
    """One durable call."""
    return await call(url, payload)


class Dbos:
    """The application in this process, and its database."""

    durability = f"{DURABILITY}; stores the workflow, its step and the result"

    def __init__(self, place: Place, database: Database) -> None:
        self._place = place
        self._database = database
        self.versions = f"dbos {version('dbos')}, {database.version}"

    async def run(self, order: Order) -> Outcome:
        """Start the workflows and wait until all have succeeded."""
        goal = await self._done() + order.tasks
        url = self._place.agent + order.path

        async def send() -> str:
            name = str(uuid.uuid4())
            with SetWorkflowID(name):
                await DBOS.start_workflow_async(call_service, url, PAYLOAD)
            return name

        @asynccontextmanager
        async def connect() -> AsyncIterator[Send]:
            yield send

        submissions = await submit(order, connect)
        await reached(self._done, goal)
        submissions.stored()
        ends = await self._database.rows(_ENDS)
        own = {name: at / 1000 for name, at in ends if name in submissions.began}
        return submissions.outcome(own)

    async def _done(self) -> int:
        return await self._database.count(_DONE)

    def processes(self) -> dict[str, list[int]]:
        """This process, which is client and worker, and the database."""
        return {"client and worker": [os.getpid()], "postgres": [self._database.pid]}

    async def stored_bytes(self) -> int:
        """The database."""
        return await self._database.size()


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[Dbos]:
    """The database and the application."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(postgres())
        _sessions.append(
            await stack.enter_async_context(aiohttp.ClientSession(raise_for_status=True))
        )
        config = DBOSConfig(
            name="bench",
            system_database_url=database.url.replace("postgresql:", "postgresql+psycopg:"),
            sys_db_pool_size=_POOL,
            log_level="WARNING",
        )
        DBOS(config=config)
        DBOS.launch()
        try:
            yield Dbos(place, database)
        finally:
            DBOS.destroy()

"""pgqueuer on PostgreSQL. ``python -m bench.peers.pgqueuer URL`` is a worker."""

import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version

import aiohttp
import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from bench.children import child
from bench.contest import PEER_MANY
from bench.peers.postgres import DURABILITY, Database, postgres
from bench.stage import PAYLOAD
from bench.subject import Order, Outcome, Place, Send, Submissions, reached, submit

ENTRYPOINT = "call"
WORKERS = 2
BATCH_SIZE = 100
"""Jobs that a worker takes at once."""
_POOL = 10
_DONE = "FROM pgqueuer_log WHERE status = 'successful'"


async def work(url: str) -> None:
    """Run a worker until it is ended."""
    queuer = PgQueuer(AsyncpgDriver(await asyncpg.connect(url)))
    async with aiohttp.ClientSession(raise_for_status=True) as session:

        @queuer.entrypoint(ENTRYPOINT)
        async def call(job: Job) -> None:
            task = json.loads(job.payload or b"{}")
            async with session.post(task["url"], json=task["payload"]) as response:
                await response.read()

        await queuer.run(batch_size=BATCH_SIZE)


class Pgqueuer:
    """Workers and their database."""

    durability = f"{DURABILITY}; stores that a job succeeded, not its result; no journal"

    def __init__(self, place: Place, database: Database, queries: Queries, pids: list[int]) -> None:
        self._place = place
        self._database = database
        self.versions = f"pgqueuer {version('pgqueuer')}, {database.version}"
        self._queries = queries
        self._pids = pids

    async def run(self, order: Order) -> Outcome:
        """Enqueue the jobs and wait until all are logged as successful."""
        goal = await self._done() + order.tasks
        task = json.dumps({"url": self._place.agent + order.path, "payload": PAYLOAD}).encode()

        if order.mode == PEER_MANY:
            submissions = await self._many(order.tasks, task)
        else:
            submissions = await self._singles(order, task)
        await reached(self._done, goal)
        submissions.stored()
        ends = await self._database.rows(f"SELECT job_id::text, created {_DONE}")
        own = {name: at.timestamp() for name, at in ends if name in submissions.began}
        return submissions.outcome(own)

    async def _singles(self, order: Order, task: bytes) -> Submissions:
        async def send() -> str:
            return str((await self._queries.enqueue(ENTRYPOINT, task))[0])

        @asynccontextmanager
        async def connect() -> AsyncIterator[Send]:
            yield send

        return await submit(order, connect)

    async def _many(self, number: int, task: bytes) -> Submissions:
        submissions, wall = Submissions(began_ns=time.monotonic_ns()), time.time()
        jobs = await self._queries.enqueue([ENTRYPOINT] * number, [task] * number, [0] * number)
        submissions.submit_ms.append((time.monotonic_ns() - submissions.began_ns) / 1e6)
        submissions.began = dict.fromkeys(map(str, jobs), wall)
        return submissions

    async def _done(self) -> int:
        return await self._database.count(f"SELECT count(*) {_DONE}")

    def processes(self) -> dict[str, list[int]]:
        """The workers and the database."""
        return {"worker": self._pids, "postgres": [self._database.pid]}

    async def stored_bytes(self) -> int:
        """The database."""
        return await self._database.size()


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[Pgqueuer]:
    """The database with its tables, and the workers."""
    log = place.directory / "pgqueuer.log"
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(postgres())
        pool = await stack.enter_async_context(
            asyncpg.create_pool(database.url, min_size=_POOL, max_size=_POOL)
        )
        queries = Queries(AsyncpgPoolDriver(pool))
        await queries.install()
        command = (sys.executable, "-m", "bench.peers.pgqueuer", database.url)
        workers = [
            await stack.enter_async_context(child(*command, log=log)) for _ in range(WORKERS)
        ]
        yield Pgqueuer(place, database, queries, [worker.pid for worker in workers])


if __name__ == "__main__":
    uvloop.run(work(sys.argv[1]))

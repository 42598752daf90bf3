"""Celery on RabbitMQ, with late acknowledgement and results in PostgreSQL."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC
from importlib.metadata import version
from typing import Any

import urllib3
from celery import Celery

from bench.children import child
from bench.peers.postgres import DURABILITY, Database, postgres
from bench.peers.rabbitmq import Broker, rabbitmq
from bench.stage import PAYLOAD
from bench.subject import MOST_AT_ONCE, Order, Outcome, Place, Send, reached, submit

PROCESSES = 4
PREFETCH = 16
"""Messages that each process has in reserve."""
BROKER, RESULTS = "BENCH_BROKER", "BENCH_RESULTS"
_APP = "bench.peers.celery"
_DONE = "SELECT count(*) FROM celery_taskmeta WHERE status = 'SUCCESS'"
_ENDS = "SELECT task_id, date_done FROM celery_taskmeta WHERE status = 'SUCCESS'"

app = Celery("bench", broker=os.environ.get(BROKER), backend=os.environ.get(RESULTS))
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    broker_transport_options={"confirm_publish": True},
    worker_prefetch_multiplier=PREFETCH,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    database_create_tables_at_setup=True,
)
_agents = urllib3.PoolManager()


@app.task(name="call", autoretry_for=(Exception,), retry_backoff=True)
def call(url: str, payload: dict[str, Any]) -> Any:
    """Call the agent, by the process's connection pool."""
    response = _agents.request("POST", url, json=payload)
    if response.status >= 300:  # noqa: PLR2004 - redirects are none of the agent's answers
        raise RuntimeError(f"the agent answered {response.status}")
    return response.json()


class CeleryOnRabbit:
    """The broker, the database of results, and the workers."""

    durability = (
        "RabbitMQ, durable queue, persistent messages, publisher confirms, acks_late, "
        f"reject_on_worker_lost; results in {DURABILITY}"
    )

    def __init__(self, place: Place, database: Database, broker: Broker, pid: int) -> None:
        self._place = place
        # They stay, since each makes clients of its own.
        self._threads = ThreadPoolExecutor(MOST_AT_ONCE)
        self._database = database
        self.versions = f"celery {version('celery')}, {broker.version}, {database.version}"
        self._broker = broker
        self._pid = pid

    async def run(self, order: Order) -> Outcome:
        """Publish the tasks and wait until the results of all are stored."""
        goal = await self._done() + order.tasks
        url = self._place.agent + order.path
        loop = asyncio.get_running_loop()

        async def send() -> str:
            result = await loop.run_in_executor(self._threads, call.delay, url, PAYLOAD)
            return str(result.id)

        @asynccontextmanager
        async def connect() -> AsyncIterator[Send]:
            yield send

        submissions = await submit(order, connect)
        await reached(self._done, goal)
        submissions.stored()
        ends = await self._database.rows(_ENDS)
        own = {
            name: at.replace(tzinfo=UTC).timestamp()
            for name, at in ends
            if name in submissions.began
        }
        return submissions.outcome(own)

    async def _done(self) -> int:
        return await self._database.count(_DONE)

    def processes(self) -> dict[str, list[int]]:
        """The workers, the broker and the database."""
        return {
            "worker": [self._pid],
            "rabbitmq": [self._broker.pid],
            "postgres": [self._database.pid],
        }

    async def stored_bytes(self) -> int:
        """The database of results; messages leave nothing."""
        return await self._database.size()


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[CeleryOnRabbit]:
    """Broker, database and workers."""
    log = place.directory / "celery.log"
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(postgres())
        broker = await stack.enter_async_context(rabbitmq())
        results = database.url.replace("postgresql:", "db+postgresql+psycopg2:")
        app.conf.update(broker_url=broker.url, result_backend=results)
        # Makes the tables that the count looks at.
        app.backend.ResultSession().close()
        environment = {**os.environ, BROKER: broker.url, RESULTS: results}
        command = (sys.executable, "-m", "celery", "--app", _APP, "worker")
        options = ("--pool", "prefork", "--concurrency", str(PROCESSES), "--loglevel", "WARNING")
        quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
        worker = await stack.enter_async_context(
            child(*command, *options, *quiet, log=log, environment=environment)
        )
        yield CeleryOnRabbit(place, database, broker, worker.pid)

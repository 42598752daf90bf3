"""The product as users start it, with each way to hand in tasks."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from importlib.metadata import version
from itertools import islice
from typing import Any

from temporalio.client import Client as Temporal

from bench.client import Client
from bench.readings import Readings, database_size, history_of
from bench.stage import PAYLOAD, guarded_config
from bench.subject import (
    SAMPLE,
    MissingError,
    Order,
    Outcome,
    Place,
    Submissions,
    posting,
    reached,
    submit,
)
from bench.subjects.floor import Floor
from orchestrator.batches import item_id
from orchestrator.engine.embedded import DATABASE
from orchestrator.models import Dispatch
from tests.support.stack import Stack, eventually, running

BATCHES = ("batch", "batch by two workers")
_WAIT = "Prefer: wait=60\r\n"


class Ours:
    """One running product."""

    durability = Floor.durability
    versions = f"orchestration-agent {version('orchestration-agent')}, {Floor.versions}"

    def __init__(
        self, place: Place, stack: Stack, engine: Temporal, further: Sequence[int] = ()
    ) -> None:
        """``further``: workers that were added to it."""
        self._stack = stack
        self._further = further
        self._place = place
        self._readings = Readings(engine, ("OrchestrateTask", "TaskBatch"))

    async def run(self, order: Order) -> Outcome:
        """Hand in the tasks and wait until the engine has all their ends."""
        began = time.time()
        if order.mode in BATCHES:
            submissions = await self._batch(order)
        elif order.mode in set(Dispatch):
            submissions = await self._singles(order)
        else:
            raise MissingError(f"this version has no `dispatch: {order.mode}`")
        ends = await self._ends(submissions)
        return submissions.outcome(ends, *history_of(await self._readings.latest(began)))

    async def _singles(self, order: Order) -> Submissions:
        calls = await self._calls() + order.tasks
        body = {"pattern": _pattern(order.mode, order.path), "payload": PAYLOAD}
        submissions = await submit(
            order, lambda: posting(self._stack.url, "/orchestrate", body, "task_id")
        )
        await reached(self._calls, calls)
        await reached(self._none_open, 1)
        submissions.stored()
        return submissions

    async def _calls(self) -> int:
        client = await Client.connect(self._place.agent)
        found = await client.request("GET", "/calls")
        client.close()
        return int(found["calls"])

    async def _none_open(self) -> int:
        return int(await self._readings.open() == 0)

    async def _batch(self, order: Order) -> Submissions:
        body = [{"pattern": "work", "payload": PAYLOAD}] * order.tasks
        submissions = Submissions(began_ns=time.monotonic_ns())
        wall = time.time()
        client = await Client.connect(self._stack.url)
        answer = await client.request("POST", "/orchestrate/batch", body)
        if "batch_id" not in answer:
            raise ValueError(f"a batch was not accepted: {answer}")
        submissions.submit_ms.append((time.monotonic_ns() - submissions.began_ns) / 1e6)
        batch_id = answer["batch_id"]
        while answer["status"] in {"queued", "running"}:
            answer = await client.request("GET", f"/batches/{batch_id}", headers=_WAIT)
        submissions.stored()
        client.close()
        if answer.get("completed") != order.tasks:
            raise ValueError(f"a batch did not complete: {answer}")
        names = (item_id(batch_id, position) for position in range(order.tasks))
        submissions.began = dict.fromkeys(names, wall)
        return submissions

    async def _ends(self, submissions: Submissions) -> dict[str, float]:
        """When the results of a sample of the tasks were stored, as GET /status says."""
        step = max(1, len(submissions.began) // SAMPLE)
        client = await Client.connect(self._stack.url)
        ends = {}
        for name in islice(submissions.began, 0, None, step):
            status = await client.request("GET", f"/status/{name}")
            if status.get("status") != "completed" or "result" not in status:
                raise ValueError(f"a task has no result: {status}")
            ends[name] = datetime.fromisoformat(status["updated_at"]).timestamp()
        client.close()
        return ends

    def processes(self) -> dict[str, list[int]]:
        """The engine, the workers and the API."""
        found = {part: [self._stack.pid_of(part)] for part in ("engine", "worker", "api")}
        found["worker"] += self._further
        return found

    async def stored_bytes(self) -> int:
        """The engine's database."""
        return database_size(self._stack.data_dir / DATABASE)


def _pattern(mode: str, path: str) -> str:
    return f"{mode}{path.replace('/', '-')}"


def _config(agent: str) -> dict[str, Any]:
    """A rule for each way to dispatch and each path of the agent."""
    config = guarded_config(agent)
    config["routing_rules"] += [
        {
            "pattern": _pattern(dispatch, path),
            "target_agent": "test_agent",
            "endpoint": path,
            "dispatch": dispatch,
        }
        for dispatch in Dispatch
        for path in ("/work", "/timed")
    ]
    return config


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[Ours]:
    """`orchestrator run`, on free ports."""
    async with running(place.directory, _config(place.agent)) as stack:
        yield Ours(place, stack, await Temporal.connect(stack.engine))


@asynccontextmanager
async def with_two_workers(place: Place) -> AsyncIterator[Ours]:
    """The same, and `orchestrator worker` beside it."""
    async with (
        running(place.directory, _config(place.agent)) as stack,
        stack.joined("worker", 2) as worker,
    ):
        log = stack.directory / "worker-2.log"

        async def ready() -> bool:
            return "worker_ready" in log.read_text()

        await eventually(ready, what="the second worker")
        yield Ours(place, stack, await Temporal.connect(stack.engine), [worker.pid])

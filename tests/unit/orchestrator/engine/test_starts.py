"""How many starts of tasks the engine is asked for at a time."""

import asyncio
from datetime import UTC, datetime
from typing import Any, cast

from temporalio.client import Client

from orchestrator.engine.converter import data_converter
from orchestrator.engine.embedded import STARTS_AT_ONCE
from orchestrator.engine.tasks import Tasks
from orchestrator.engine.turns import Turns
from orchestrator.models import Task
from tests.support.plans import plan


class Engine:
    """Keeps each start until it is told to go on."""

    data_converter = data_converter

    def __init__(self) -> None:
        self.under_way = self.most = self.started = 0
        self.go = asyncio.Event()

    async def start_workflow(self, *_: Any, **__: Any) -> None:
        """Count those under way."""
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.go.wait()
            await asyncio.sleep(0)
        finally:
            self.under_way -= 1
        self.started += 1


async def test_an_engine_is_asked_for_so_many_starts_at_a_time() -> None:
    """However many come at once; all are made."""
    engine, number = Engine(), 3 * STARTS_AT_ONCE
    tasks = Tasks(cast("Client", engine), rpc_timeout=10, starts=Turns(STARTS_AT_ONCE))
    task, chosen = Task(pattern="read_pdf", payload={}), plan()
    now = datetime.now(UTC)
    submitted = [
        asyncio.create_task(tasks.submit(task, chosen, f"task-{each}", now))
        for each in range(number)
    ]
    async with asyncio.timeout(10):
        while engine.under_way < STARTS_AT_ONCE:  # noqa: ASYNC110 - it takes a few turns of the loop
            await asyncio.sleep(0)
        engine.go.set()
        await asyncio.gather(*submitted)
    assert (engine.most, engine.started) == (STARTS_AT_ONCE, number)


async def test_places_come_and_go_while_calls_are_under_way() -> None:
    """What is under way ends as it would; fewer begin until no more than wanted are left."""
    turns = Turns(3)
    held = [await turns.take(10) for _ in range(3)]
    waiting = asyncio.create_task(turns.take(10))
    await asyncio.sleep(0)
    turns.resize(1)
    for each in held[:2]:
        each.leave(answered=True)
    await asyncio.sleep(0)
    assert not waiting.done()
    held[2].leave(answered=True)
    last = await waiting
    another = asyncio.create_task(turns.take(10))
    await asyncio.sleep(0)
    assert not another.done()
    turns.resize(2)
    await another
    last.leave(answered=True)
    assert 2 == turns.places

"""API processes share the starts that the embedded server is asked for at a time."""

from datetime import timedelta

import pytest
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.client import Client

from orchestrator.config import Temporal
from orchestrator.engine import start_turns
from orchestrator.engine.embedded import STARTS_AT_ONCE
from orchestrator.engine.queues import describe_queue
from orchestrator.engine.start_turns import share_starts
from orchestrator.engine.turns import Turns
from orchestrator.parts import in_background
from orchestrator.routing import WORKFLOW_QUEUE
from tests.support.engine import client_of
from tests.support.stack import eventually
from tests.workflows.stage import Calls, hosted


class Noted(Turns):
    """Turns that note how many they were told to be."""

    def __init__(self) -> None:
        super().__init__(STARTS_AT_ONCE)
        self.told: list[int] = []

    def resize(self, places: int) -> None:
        """Have so many places."""
        super().resize(places)
        self.told.append(places)


async def test_two_processes_have_half_of_the_starts_each(
    engine: Temporal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that comes takes its share; workers that poll the same queue start nothing."""
    monkeypatch.setattr(start_turns, "LOOK_SECONDS", 0.05)
    names = ("share@1", "share@2", "worker@3")
    first, second, worker = [await client_of(engine, name) for name in names]
    turns = Noted()

    async def looked() -> bool:
        return len(turns.told) > 5

    async def halved() -> bool:
        return turns.places == STARTS_AT_ONCE // 2

    async with hosted(first, Calls()), hosted(worker, Calls()):
        await polled_by(worker, "worker@3")
        async with in_background(share_starts(first, turns, "share", 10)):
            await eventually(looked, what="some looks")
            assert {STARTS_AT_ONCE} == set(turns.told)
            async with hosted(second, Calls()):
                await eventually(halved, what="a smaller share")


async def polled_by(client: Client, name: str) -> None:
    """Wait until the engine has seen who polls the workflow queue."""

    async def seen() -> bool:
        queue = await describe_queue(
            client,
            WORKFLOW_QUEUE,
            timedelta(seconds=10),
            TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
        return name in queue.takers

    await eventually(seen, what=f"the polls of {name}")

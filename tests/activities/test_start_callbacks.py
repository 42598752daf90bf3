"""Starting the callbacks of a batch's items."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from temporalio.testing import ActivityEnvironment

from activities import heartbeats
from activities.start_callbacks import CallbackStarter
from orchestrator.callbacks import Callback, ItemCallbacks, ItemEnd
from orchestrator.models import TaskState
from orchestrator.statuses import TaskStatus

BATCH = "3f1c9a52-6a2b-4f0e-9d3b-0c6a5a1c0000"
URL = "https://receiver.example/"


class SlowEngine:
    """Knows how the items have ended, once it answers; keeps the callbacks that are started."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.started: list[Callback] = []

    async def outcomes(self, batch_id: str, positions: Sequence[int]) -> dict[int, TaskStatus]:
        """All of them, at last."""
        await self.answers.wait()
        now = datetime.now(UTC)
        return {
            each: TaskStatus(
                task_id=f"{batch_id}-{each}",
                status=TaskState.COMPLETED,
                created_at=now,
                updated_at=now,
            )
            for each in positions
        }

    async def start(self, callback: Callback) -> None:
        """Keep it."""
        self.started.append(callback)


async def test_a_slow_engine_is_waited_for_with_signs_of_life(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that only a worker that is lost is replaced."""
    monkeypatch.setattr(heartbeats, "HEARTBEAT_SECONDS", 0.01)
    engine, beats, environment = SlowEngine(), list[object](), ActivityEnvironment()

    def beat(*_: object) -> None:
        beats.append(None)
        if len(beats) == 3:
            engine.answers.set()

    environment.on_heartbeat = beat
    tasks = cast("Any", SimpleNamespace(batches=engine))
    ends = tuple(ItemEnd(position=n, state=TaskState.COMPLETED, url=URL) for n in range(3))
    starter = CallbackStarter(tasks, cast("Any", engine))
    async with asyncio.timeout(60):
        items = ItemCallbacks(batch_id=BATCH, ends=ends)
        await environment.run(starter.start_callbacks, items)
    assert len(beats) >= 3
    assert [f"{BATCH}-{n}" for n in range(3)] == sorted(
        each.data["task_id"] for each in engine.started
    )

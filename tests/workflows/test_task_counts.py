"""How many tasks the engine keeps: counted when somebody asks, and not too often."""

import asyncio
from collections.abc import Callable
from functools import partial

import pytest
from structlog.testing import capture_logs
from temporalio.client import Client

from orchestrator.engine import task_counts
from orchestrator.engine.batch_lists import OpenBatches
from orchestrator.engine.task_counts import TaskCounts
from orchestrator.engine.tasks import Tasks
from orchestrator.errors import EngineUnavailable
from orchestrator.models import TaskState
from tests.support.stack import eventually


class Noted(Tasks):
    """Tasks that note how often they were counted; a count is held while ``gate`` is shut."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, 10)
        self.counted = self.held = 0
        self.away = False
        self.gate = asyncio.Event()
        self.gate.set()

    def counted_again(self, before: int) -> bool:
        """Whether they were counted once since."""
        return self.counted == before + 1

    async def counts(self) -> dict[TaskState, int]:
        """How many the engine keeps."""
        self.counted += 1
        self.held += 1
        await self.gate.wait()
        self.held -= 1
        if self.away:
            raise EngineUnavailable("The engine is unreachable")
        return await super().counts()


@pytest.fixture
def tasks(client: Client) -> Noted:
    """Of the engine of the tests."""
    return Noted(client)


@pytest.fixture
def counts(client: Client, tasks: Noted) -> TaskCounts:
    """Their counts."""
    return TaskCounts(client, tasks, 10)


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Has so many seconds pass, for the counts alone."""
    seconds = [1000.0]

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return seconds[0]

    def wait(more: float) -> None:
        seconds[0] += more

    monkeypatch.setattr(task_counts, "time", Clock)
    return wait


async def test_nothing_is_counted_before_somebody_asks(counts: TaskCounts, tasks: Noted) -> None:
    """The first one waits, and those who come with it are answered by the same count."""
    assert not counts.last.is_known
    assert 0 == tasks.counted
    found = await asyncio.gather(*(counts.get(20) for _ in range(20)))
    assert 1 == tasks.counted
    assert all(each is counts.last for each in found)
    assert counts.last.is_known
    assert counts.last.active(OpenBatches()) == counts.last.tasks[TaskState.RUNNING]


async def test_young_counts_are_given_while_newer_ones_are_made(
    counts: TaskCounts, tasks: Noted, passed: Callable[[float], None]
) -> None:
    """Nobody waits for a second or two."""
    first = await counts.get(20)
    passed(task_counts.FRESH_SECONDS - 0.1)
    assert first is await counts.get(20)
    assert 1 == tasks.counted
    passed(0.2)
    tasks.gate.clear()
    assert first is await counts.get(20)
    assert first is await counts.get(20)
    tasks.gate.set()
    await _made(lambda: counts.last is not first)
    assert 2 == tasks.counted


async def test_old_counts_are_waited_for(
    counts: TaskCounts, tasks: Noted, passed: Callable[[float], None]
) -> None:
    """After a while in which nobody looked."""
    first = await counts.get(20)
    passed(task_counts.OLD_SECONDS + 0.1)
    second = await counts.get(20)
    assert second.as_of - first.as_of > task_counts.OLD_SECONDS
    assert 2 == tasks.counted


async def test_a_long_count_is_made_more_seldom(
    counts: TaskCounts, tasks: Noted, passed: Callable[[float], None]
) -> None:
    """So that counting takes a twentieth of the time; but not for ever."""
    for took, pause in ((0.2, 4.0), (3.0, task_counts.LONGEST_PAUSE_SECONDS)):
        tasks.gate.clear()
        asking = asyncio.create_task(counts.get(20))
        await _made(lambda: bool(tasks.held))
        passed(took)
        tasks.gate.set()
        await asking
        counted = tasks.counted
        passed(pause - 0.1)
        await counts.get(20)
        assert counted == tasks.counted
        passed(0.2)
        await counts.get(20)
        await _made(partial(tasks.counted_again, counted))
        await _made(lambda: not tasks.held)
        passed(task_counts.LONGEST_PAUSE_SECONDS)


async def test_an_engine_that_cannot_count_leaves_what_is_known(
    counts: TaskCounts, tasks: Noted, passed: Callable[[float], None]
) -> None:
    """That is told once, and it is asked again when the next count is due."""
    first = await counts.get(20)
    tasks.away = True
    with capture_logs() as logs:
        for _ in range(2):
            passed(task_counts.OLD_SECONDS + 0.1)
            assert first is await counts.get(20)
            assert first is await counts.get(20)
    assert 3 == tasks.counted
    assert ["tasks_not_counted"] == [each["event"] for each in logs]
    tasks.away = False
    passed(task_counts.OLD_SECONDS)
    assert first is not await counts.get(20)


async def _made(condition: Callable[[], bool]) -> None:
    async def made() -> bool:
        return condition()

    await eventually(made)


async def test_nobody_waits_for_ever(
    counts: TaskCounts, tasks: Noted, passed: Callable[[float], None]
) -> None:
    """Who has no patience, or leaves, gets what is known; the count goes on."""
    first = await counts.get(20)
    passed(task_counts.OLD_SECONDS + 0.1)
    tasks.gate.clear()
    assert first is await counts.get(0.01)
    leaving = asyncio.create_task(counts.get(20))
    await _made(lambda: bool(tasks.held))
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    tasks.gate.set()
    await _made(lambda: counts.last is not first)
    assert 2 == tasks.counted


async def test_what_nobody_expected_is_no_more_than_a_count_that_failed(
    counts: TaskCounts, tasks: Noted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged."""

    async def broken() -> dict[TaskState, int]:
        raise ValueError("what is this?")

    monkeypatch.setattr(tasks, "counts", broken)
    with capture_logs() as logs:
        assert not (await counts.get(20)).is_known
    assert ["ValueError: what is this?"] == [each["error"] for each in logs]

"""The gauges that Prometheus reads of the whole."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from api import collector as collector_module
from api.collector import OverviewCollector
from orchestrator.batches import BatchTally
from orchestrator.engine.batch_lists import OpenBatches
from orchestrator.engine.overview import Snapshot
from orchestrator.engine.task_counts import Counts
from orchestrator.models import TaskState

OPEN = OpenBatches(batches=1, items=BatchTally(total=3))
KNOWN = Counts(
    tasks={**dict.fromkeys(TaskState, 0), TaskState.RUNNING: 2, TaskState.FAILED: 5},
    dead_letters=4,
    as_of=1.0,
)


class Scripted:
    """Counts as a test says; they come once ``gate`` is open."""

    def __init__(self, last: Counts, coming: Counts) -> None:
        self.last, self._coming = last, coming
        self.asked = asyncio.Event()
        self.times = 0
        self.gate = asyncio.Event()

    async def get(self, patience: float) -> Counts:
        """The counts."""
        assert patience > 0
        self.times += 1
        self.asked.set()
        await self.gate.wait()
        return self._coming


def registry_of(
    counts: Scripted,
    loop: asyncio.AbstractEventLoop | None = None,
    *,
    reachable: bool = True,
) -> CollectorRegistry:
    """One with the gauges alone, registered within the loop as the application does."""
    services: Any = SimpleNamespace(
        counts=counts,
        overview=SimpleNamespace(last=Snapshot(reachable=reachable, batches=OPEN)),
        fleet=SimpleNamespace(agents={}),
    )
    registry = CollectorRegistry(auto_describe=True)
    registry.register(OverviewCollector(services, loop or asyncio.get_running_loop()))
    return registry


async def read(registry: CollectorRegistry) -> str:
    """What Prometheus reads, in a thread as always."""
    return (await asyncio.to_thread(generate_latest, registry)).decode()


async def test_prometheus_reads_fresh_counts() -> None:
    """It waits for them."""
    counts = Scripted(Counts(), KNOWN)
    registry = registry_of(counts)
    assert 0 == counts.times
    reading = asyncio.create_task(read(registry))
    await counts.asked.wait()
    counts.gate.set()
    text = await reading
    assert 1 == counts.times
    assert "orchestrator_active_tasks 5.0" in text
    assert 'orchestrator_tasks{status="active"} 5.0' in text
    assert 'orchestrator_tasks{status="failed"} 5.0' in text
    assert "orchestrator_dead_letters 4.0" in text
    assert "orchestrator_open_batches 1.0" in text


async def test_counts_that_take_long_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were made before are read."""
    monkeypatch.setattr(collector_module, "COUNT_SECONDS", 0.05)
    text = await read(registry_of(Scripted(KNOWN, Counts())))
    assert "orchestrator_dead_letters 4.0" in text


async def test_what_was_never_counted_is_not_told_as_none() -> None:
    """No dead letters would be a number, and a rise from it an alert."""
    counts = Scripted(Counts(), Counts())
    counts.gate.set()
    text = await read(registry_of(counts))
    assert "orchestrator_engine_up 1.0" in text
    assert "orchestrator_open_batches 1.0" in text
    for name in ("orchestrator_active_tasks", "orchestrator_tasks", "orchestrator_dead_letters"):
        assert name not in text


async def test_a_process_whose_loop_has_ended_tells_what_it_knew() -> None:
    """The port may be read a moment longer."""
    ended = asyncio.new_event_loop()
    ended.close()
    registry = registry_of(Scripted(KNOWN, Counts()), ended)
    assert "orchestrator_dead_letters 4.0" in await read(registry)


async def test_an_engine_that_is_away_is_not_waited_for() -> None:
    """Nor asked."""
    counts = Scripted(KNOWN, Counts())
    registry = registry_of(counts, reachable=False)
    text = await read(registry)
    assert "orchestrator_engine_up 0.0" in text
    assert "orchestrator_dead_letters 4.0" in text
    assert 0 == counts.times

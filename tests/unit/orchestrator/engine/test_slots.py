"""The slots of an agent's worker, without an engine to ask for them."""

import asyncio
import threading
from typing import Any

import pytest

from orchestrator.engine import slots
from orchestrator.engine.slots import AgentSlots
from orchestrator.fleet.records import FleetSnapshot
from orchestrator.resilience.pool import Pool, Pools
from tests.unit.orchestrator.resilience.pools import NOW, A, Clock, fail, instance, pool, record

CONTEXT: Any = None
DEADLINE_SECONDS = 10.0


async def reserved(chosen: AgentSlots, count: int) -> None:
    """Reserve so many, which must be there."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        for _ in range(count):
            await chosen.reserve_slot(CONTEXT)


async def asking(chosen: AgentSlots) -> asyncio.Task[Any]:
    """Somebody who has asked for a slot and must wait for it."""
    waiting = asyncio.create_task(chosen.reserve_slot(CONTEXT))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()
    return waiting


async def given(waiting: asyncio.Task[Any]) -> None:
    """The slot that was waited for comes."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        await waiting


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a slot does not look again by itself."""
    monkeypatch.setattr(Pool, "next_look", lambda _: 1000.0)


@pytest.mark.usefixtures("patient")
async def test_there_are_as_many_slots_as_the_agent_has_capacity() -> None:
    """The next comes when one is given back, from whatever thread."""
    chosen = AgentSlots(pool(A, max_connections=3))
    await reserved(chosen, 3)
    waiting = await asking(chosen)
    threading.Thread(target=chosen.release_slot, args=(CONTEXT,)).start()
    await given(waiting)


@pytest.mark.usefixtures("patient")
async def test_one_slot_given_back_is_one_slot() -> None:
    """Of many who wait, one gets it."""
    chosen = AgentSlots(pool(A, max_connections=2))
    await reserved(chosen, 2)
    waiting = [await asking(chosen) for _ in range(3)]
    chosen.release_slot(CONTEXT)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for _ in range(3):
        await asyncio.sleep(0)
    assert 1 == sum(each.done() for each in waiting)
    for each in waiting:
        each.cancel()


@pytest.mark.usefixtures("patient")
async def test_an_agent_that_is_away_has_no_slots_until_it_is_back() -> None:
    """A change of its breaker is heard at once."""
    leased = pool(A)
    leased.instances[0].breaker.force_open("work")
    chosen = AgentSlots(leased)
    waiting = await asking(chosen)
    leased.instances[0].breaker.reset("done")
    await given(waiting)


@pytest.mark.usefixtures("patient")
async def test_a_limit_that_is_raised_gives_slots_at_once() -> None:
    """As the fleet says."""
    leased = pool(A, max_connections=1)
    chosen = AgentSlots(leased)
    await reserved(chosen, 1)
    waiting = await asking(chosen)
    agents = {"reader": record(instance(A), max_connections=2)}
    Pools({"reader": leased}).sync(FleetSnapshot(version=1, agents=agents), NOW)
    await given(waiting)


async def test_time_gives_slots_without_any_change() -> None:
    """A breaker's time that is up is found by looking again."""
    clock = Clock()
    leased = pool(A, clock=clock)
    fail(leased)
    clock.now += 29.99
    chosen = AgentSlots(leased)
    waiting = await asking(chosen)
    clock.now += 1
    await given(waiting)


@pytest.mark.usefixtures("patient")
async def test_who_gives_up_waiting_takes_no_slot_along() -> None:
    """As when the worker stops."""
    chosen = AgentSlots(pool(A, max_connections=1))
    await reserved(chosen, 1)
    waiting = await asking(chosen)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    chosen.release_slot(CONTEXT)
    await given(asyncio.create_task(chosen.reserve_slot(CONTEXT)))


async def test_no_slot_is_given_for_work_that_does_not_come_by_the_queue() -> None:
    """It would pass by the limits that the engine holds there."""
    assert AgentSlots(pool(A)).try_reserve_slot(CONTEXT) is None


def test_a_slot_may_come_back_after_the_loop_has_ended() -> None:
    """The engine's threads live longer."""

    async def made() -> AgentSlots:
        return AgentSlots(pool(A))

    asyncio.run(made()).release_slot(CONTEXT)


async def test_a_worker_of_an_agent_has_these_slots_for_its_calls() -> None:
    """And hardly any for what it never does."""
    tuner = slots.agent_tuner(pool(A))
    assert isinstance(tuner._get_activity_task_slot_supplier(), AgentSlots)
    assert slots._OTHER_SLOTS is tuner._get_workflow_task_slot_supplier()

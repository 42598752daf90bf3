"""What becomes of a chunk of which some items are cancelled while it is under way."""

import asyncio

import pytest

from orchestrator.batches import ChunkReport, Unwanted
from orchestrator.models import TaskState
from tests.activities.chunk_stage import Chunker, by_position, chunk, chunking, places
from tests.activities.test_run_chunk_course import frail, patient
from tests.support.agents import Agent, Call, Reply
from tests.support.stack import eventually

HANGS = Reply(hang=True)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask often."""
    monkeypatch.setattr("activities.chunk_cancellation.ASK_SECONDS", 0.02)


def unwanted(*positions: int) -> Unwanted:
    """Items that are cancelled."""
    return Unwanted(positions=positions)


def states(report: ChunkReport) -> dict[int, TaskState]:
    """How the items have ended."""
    return {position: each.state for position, each in by_position(report).items()}


def call_of(agent: Agent, position: int) -> Call:
    """The one call of an item."""
    [call] = [call for call in agent.calls if call.body["n"] == position]
    return call


async def told(chunker: Chunker, position: int) -> None:
    """Wait until a heartbeat says that the item is cancelled."""

    async def there() -> bool:
        return bool(chunker.told) and states(chunker.told[-1]).get(position) is TaskState.CANCELLED

    await eventually(there, what=f"word of item {position}")


async def test_only_the_call_of_the_unwanted_item_is_cut_off() -> None:
    """That is told at once; the others go on, and further items can be cancelled."""
    async with Agent(HANGS) as agent, chunking(agent.url, policy=patient(4)) as chunker:
        environment = chunker.environment()
        running = asyncio.create_task(chunker.run_in(environment, chunk(4)))
        await agent.called(4)
        chunker.wishes.unwanted = unwanted(1)
        environment.cancel()
        await call_of(agent, 1).abandonment()
        await told(chunker, 1)
        chunker.wishes.unwanted = unwanted(1, 3)
        await call_of(agent, 3).abandonment()
        await told(chunker, 3)
        assert not running.done()
        agent.release()
        report = await running
    assert {0: "completed", 1: "cancelled", 2: "completed", 3: "cancelled"} == states(report)
    assert ((), (), 4, 0) == (
        report.left,
        report.cancelled,
        len(agent.calls),
        chunker.pool.slots.used,
    )


async def test_an_item_that_is_yet_to_begin_is_not_begun() -> None:
    """The slot of one that was cut off goes to the next."""
    async with Agent(HANGS) as agent, chunking(agent.url, policy=patient(1)) as chunker:
        environment = chunker.environment()
        running = asyncio.create_task(chunker.run_in(environment, chunk(3)))
        await agent.called(1)
        chunker.wishes.unwanted = unwanted(0, 1)
        environment.cancel()
        await agent.called(2)
        agent.release()
        report = await running
    assert {0: "cancelled", 1: "cancelled", 2: "completed"} == states(report)
    assert [0, 2] == [call.body["n"] for call in agent.calls]


async def test_an_item_that_was_to_go_on_alone_does_not() -> None:
    """It was tried once."""
    replies = {0: Reply(status=503), 1: Reply(status=503)}
    async with (
        Agent(decide=lambda call: replies.get(call.body["n"], HANGS)) as agent,
        chunking(agent.url, policy=patient(3)) as chunker,
    ):
        environment = chunker.environment()
        running = asyncio.create_task(chunker.run_in(environment, chunk(3)))
        await agent.called(3)
        chunker.wishes.unwanted = unwanted(0)
        environment.cancel()
        await told(chunker, 0)
        agent.release()
        report = await running
    assert {0: "cancelled", 2: "completed"} == states(report)
    assert [1] == places(report.unfinished)


async def test_what_has_ended_stays_as_it_is() -> None:
    """An outcome is not taken back."""
    async with (
        Agent(decide=lambda call: Reply(hang=call.body["n"] > 0)) as agent,
        chunking(agent.url, policy=patient(3)) as chunker,
    ):
        environment = chunker.environment()
        running = asyncio.create_task(chunker.run_in(environment, chunk(3)))
        await agent.called(3)
        chunker.wishes.unwanted = unwanted(0, 1)
        environment.cancel()
        await told(chunker, 1)
        agent.release()
        report = await running
    assert {0: "completed", 1: "cancelled", 2: "completed"} == states(report)


async def test_who_gets_no_answer_goes_on_and_asks_again() -> None:
    """Nothing is cut off in doubt."""
    async with Agent(HANGS) as agent, chunking(agent.url, policy=patient(2)) as chunker:
        chunker.wishes.unwanted = None
        environment = chunker.environment()
        running = asyncio.create_task(chunker.run_in(environment, chunk(2)))
        await agent.called(2)
        environment.cancel()

        async def asked() -> bool:
            return chunker.wishes.asked > 2

        await eventually(asked)
        assert not any(call.abandoned.is_set() for call in agent.calls)
        chunker.wishes.unwanted = unwanted(1)
        await call_of(agent, 1).abandonment()
        agent.release()
        report = await running
    assert {0: "completed", 1: "cancelled"} == states(report)


async def test_everything_may_be_unwanted_later() -> None:
    """The batch is cancelled after one of its items was."""
    async with Agent(HANGS) as agent, chunking(agent.url, policy=patient(2)) as chunker:
        environment = chunker.environment()
        running = asyncio.create_task(chunker.run_in(environment, chunk(3)))
        await agent.called(2)
        chunker.wishes.unwanted = unwanted(1)
        environment.cancel()
        await call_of(agent, 1).abandonment()
        chunker.wishes.unwanted = Unwanted(everything=True)
        report = await running
        await call_of(agent, 0).abandonment()
    assert ({1: "cancelled"}, (0, 2), ()) == (states(report), report.cancelled, report.left)


async def test_a_worker_that_stops_cuts_off_what_outlasts_its_grace() -> None:
    """The engine would not cut it off: it tells an activity only once to end."""
    async with (
        Agent(HANGS) as agent,
        chunking(agent.url, policy=patient(2), grace_seconds=0.1) as chunker,
    ):
        environment = chunker.environment()
        running = asyncio.create_task(chunker.run_in(environment, chunk(3)))
        await agent.called(2)
        chunker.wishes.unwanted = unwanted(1)
        environment.cancel()
        await call_of(agent, 1).abandonment()
        environment.worker_shutdown()
        report = await running
    assert ({1: "cancelled"}, (), (0, 2)) == (
        states(report),
        report.cancelled,
        tuple(sorted(report.left)),
    )


async def test_what_can_begin_nothing_comes_back_once_it_was_cancelled() -> None:
    """The engine would not let it come again by itself."""
    rate = {"rate": 60, "burst": 1, "mode": "reject"}
    async with Agent() as agent, chunking(agent.url, policy=frail(1), rate=rate) as chunker:
        await chunker.run(chunk(1))
        environment = chunker.environment()
        # It waits for the agent's rate, and finds its breaker open.
        running = asyncio.create_task(chunker.run_in(environment, chunk(3)))
        [member] = chunker.pool.instances
        member.breaker.force_open("the test")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        chunker.wishes.unwanted = unwanted(0, 1)
        environment.cancel()
        report = await running
        assert 1 == len(agent.calls)
    assert ({0: "cancelled", 1: "cancelled"}, (2,)) == (states(report), report.left)


async def test_a_chunk_that_asks_begins_nothing_unwanted() -> None:
    """It asks before, and while its calls are in flight."""
    async with Agent(HANGS) as agent, chunking(agent.url, policy=patient(3)) as chunker:
        chunker.wishes.unwanted = None
        running = asyncio.create_task(chunker.run(chunk(3, asks=True)))

        async def asked() -> bool:
            return chunker.wishes.asked > 2

        await eventually(asked)
        assert [] == agent.calls
        chunker.wishes.unwanted = unwanted(0)
        await agent.called(2)
        chunker.wishes.unwanted = unwanted(0, 2)
        await call_of(agent, 2).abandonment()
        agent.release()
        report = await running
    assert {0: "cancelled", 1: "completed", 2: "cancelled"} == states(report)
    assert {1, 2} == {call.body["n"] for call in agent.calls}


async def test_a_chunk_that_asks_in_vain_gives_everything_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once it may begin no more."""
    monkeypatch.setattr("activities.chunk_cancellation.BEGIN_SECONDS", 0.1)
    async with Agent() as agent, chunking(agent.url) as chunker:
        chunker.wishes.unwanted = None
        report = await chunker.run(chunk(2, asks=True))
        assert [] == agent.calls
    assert ((), (0, 1)) == (report.outcomes, report.left)


async def test_a_chunk_that_asks_is_cancelled_as_a_whole() -> None:
    """Nobody tells it to end but with its batch."""
    async with Agent(HANGS) as agent, chunking(agent.url, policy=patient(2)) as chunker:
        chunker.wishes.unwanted = unwanted()
        environment = chunker.environment()
        running = asyncio.create_task(chunker.run_in(environment, chunk(3, asks=True)))
        await agent.called(2)
        environment.cancel()
        report = await running
        for call in agent.calls:
            await call.abandonment()
    assert ((), (0, 1, 2)) == (report.outcomes, report.cancelled)


async def test_an_undisturbed_chunk_asks_nothing() -> None:
    """What everybody pays is nothing."""
    async with Agent() as agent, chunking(agent.url) as chunker:
        await chunker.run(chunk(3))
    assert 0 == chunker.wishes.asked

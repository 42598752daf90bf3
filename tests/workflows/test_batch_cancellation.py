"""What becomes of a batch that is cancelled, as a whole or in parts, on the real engine."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from temporalio import activity, workflow
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.exceptions import CancelledError
from temporalio.worker import Worker

from orchestrator.batches import (
    CANCEL_ITEMS,
    RUN_CHUNK,
    BatchTally,
    Chunk,
    ChunkReport,
    ItemOutcome,
    item_id,
)
from orchestrator.callbacks import START_CALLBACKS, ItemCallbacks
from orchestrator.dead_letters import dead_letter_id
from orchestrator.models import TaskState
from orchestrator.routing import agent_queue
from tests.support.agents import Agent, Call, Reply
from tests.support.stack import eventually
from tests.workflows.agents_stage import Stage, idle
from tests.workflows.batch_stage import (
    WAIT_SECONDS,
    Handle,
    batching,
    calls_by_item,
    failure_of,
    numbered,
    recorded,
    replayed,
    start,
    tally_of,
    told,
    told_tally,
    workflows,
)
from workflows import batch_burial, batch_lanes, options

FEW = {"max_connections_per_agent": 3, "slow_start": 0}
ONE = {"max_connections_per_agent": 1, "slow_start": 0}


async def cancelled(handle: Handle) -> None:
    """Wait for the end of a batch that must end as cancelled."""
    error = await failure_of(handle)
    assert isinstance(error, CancelledError), repr(error)
    described = await handle.describe()
    assert WorkflowExecutionStatus.CANCELED is described.status


async def counted(handle: Handle, number: int) -> None:
    """Wait until so many are cancelled."""

    async def there() -> bool:
        tally = BatchTally.model_validate(await handle.query("status"))
        return tally.cancelled == number

    await eventually(there, WAIT_SECONDS, f"{number} cancelled")


def of_item(agent: Agent, position: int) -> Call:
    """The one call of an item."""
    [call] = [call for call in agent.calls if call.body["n"] == position]
    return call


async def is_cancelled(stage: Stage, handle: Handle, position: int) -> None:
    """Wait until the item's status says that it is cancelled."""
    task_id = item_id(handle.id, position)
    await stage.until(task_id, lambda status: status.status is TaskState.CANCELLED)


class Lost:
    """A worker that does the first item of a chunk, and is heard of no more."""

    def __init__(self) -> None:
        self.told = asyncio.Event()

    @activity.defn(name=RUN_CHUNK)
    async def run_chunk(self, chunk: Chunk) -> ChunkReport:
        """Tells of it by a heartbeat."""
        done = ItemOutcome(
            position=chunk.positions[0],
            state=TaskState.COMPLETED,
            at=datetime.now(UTC),
            result={"by": "the lost one"},
        )
        report = ChunkReport(agent=chunk.plan.agent, outcomes=(done,))
        activity.heartbeat(report)
        self.told.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return report

    def worker(self, client: Client, queue: str) -> Worker:
        """The worker."""
        return Worker(
            client, task_queue=queue, activities=[self.run_chunk], max_concurrent_activities=1
        )


class Starts:
    """What starts callbacks; the first time it does not come to an end."""

    def __init__(self) -> None:
        self.asked: list[ItemCallbacks] = []
        self.held = asyncio.Event()

    @activity.defn(name=START_CALLBACKS)
    async def start_callbacks(self, items: ItemCallbacks) -> None:
        """Keeps what it is given."""
        self.asked.append(items)
        if not self.held.is_set():
            self.held.set()
            await asyncio.Event().wait()


def reluctant(call: Call) -> Reply:
    """The first completes, the second is to come again in a minute, the others hang."""
    kinds = {0: Reply(), 1: Reply(status=503, headers={"Retry-After": "60"})}
    return kinds.get(call.body["n"], Reply(hang=True))


def again_or_never(call: Call) -> Reply:
    """The first is to come again, the second hangs."""
    return Reply(status=503) if call.body["n"] == 0 else Reply(hang=True)


async def hanging(agent: Agent) -> Call:
    """Wait for a call that will not be answered."""

    async def there() -> Call | None:
        return next((call for call in agent.calls if call.body["n"] > 1), None)

    call: Call = await eventually(there, WAIT_SECONDS, "a call that hangs")
    return call


async def test_a_batch_that_is_cancelled_ends_all_that_has_not_ended(client: Client) -> None:
    """Calls in flight are cut off, items that wait are not begun; what ended stays."""
    async with batching(client, Agent(decide=reluctant), load_balancing=FEW) as stage:
        tasks = [{**each, "priority": max(1, 5 - n)} for n, each in enumerate(numbered(stage, 12))]
        handle = await start(stage, tasks)
        await recorded(handle, "child_workflow_execution_started_event_attributes")
        await recorded(handle, "activity_task_completed_event_attributes", 2)
        in_flight = await hanging(stage.agents[0])
        await handle.cancel()
        await cancelled(handle)
        await in_flight.abandonment()
        seen = [await stage.tasks.status(item_id(handle.id, n)) for n in range(12)]
        await replayed(handle)
    assert BatchTally(total=12, completed=1, cancelled=11) == await told_tally(handle)
    assert [TaskState.COMPLETED, *[TaskState.CANCELLED] * 11] == [each.status for each in seen]
    assert 1 == max(calls_by_item(stage.agents[0], handle.id, 12))


async def test_a_batch_that_waits_for_its_agent_is_cancelled(client: Client) -> None:
    """Nothing was begun."""
    async with batching(client) as stage:
        stage.shut()
        handle = await start(stage, numbered(stage, 5))
        await stage.waiting(1)
        await handle.cancel()
        await cancelled(handle)
        assert [] == stage.agents[0].calls
    assert BatchTally(total=5, cancelled=5) == await told_tally(handle)


async def test_tasks_of_their_own_are_cancelled_with_the_batch(client: Client) -> None:
    """Their calls are cut off."""
    async with batching(client, Agent(Reply(hang=True)), once=[0]) as stage:
        handle = await start(stage, numbered(stage, 2))
        call = await stage.agents[0].called(2)
        await handle.cancel()
        await cancelled(handle)
        await call.abandonment()
        status = await stage.ended(item_id(handle.id, 1))
    assert TaskState.CANCELLED is status.status
    assert BatchTally(total=2, cancelled=2) == await told_tally(handle)


async def test_single_items_are_cancelled_before_they_are_begun(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Be it that a chunk under way has them in hand."""
    monkeypatch.setattr(batch_lanes, "CHUNK_ITEMS", 2)
    monkeypatch.setattr(batch_lanes, "CHUNKS_OF_AGENT", 1)
    agent = Agent(decide=lambda call: Reply(hang=call.body["n"] == 0))
    async with batching(client, agent, load_balancing=ONE) as stage:
        handle = await start(stage, numbered(stage, 6))
        await agent.called(1)
        await handle.signal(CANCEL_ITEMS, [1, 4, 4, 99])
        await counted(handle, 1)
        await is_cancelled(stage, handle, 1)
        agent.release()
        tally, found = await tally_of(handle), await told(handle)
        seen = [await stage.tasks.status(item_id(handle.id, n)) for n in (0, 1, 4)]
        await replayed(handle)
    assert BatchTally(total=6, completed=4, cancelled=2) == tally
    assert [0, 2, 3, 5] == found.positions(TaskState.COMPLETED)
    assert [1, 0, 1, 1, 0, 1] == calls_by_item(agent, handle.id, 6)
    assert ["completed", "cancelled", "cancelled"] == [each.status for each in seen]


async def test_what_failed_before_a_batch_was_cancelled_is_kept(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every item that says it is a dead letter is one, however soon the batch was cancelled."""
    monkeypatch.setattr(batch_burial, "BURIED_AT_ONCE", 2)
    recovery = {"max_retries": 0, "dead_letter_queue": True}
    async with batching(client, Agent(Reply(status=500)), error_recovery=recovery) as stage:
        handle = await start(stage, numbered(stage, 40))
        await recorded(handle, "start_child_workflow_execution_initiated_event_attributes")
        await handle.cancel()
        await cancelled(handle)
        found = await told(handle)
        letters = [
            await client.get_workflow_handle(dead_letter_id(item_id(handle.id, n))).describe()
            for n in found.dead
        ]
        await replayed(handle)
    assert list(range(40)) == sorted(found.dead)
    assert [WorkflowExecutionStatus.RUNNING] * 40 == [each.status for each in letters]
    assert BatchTally(total=40, failed=40) == await told_tally(handle)


async def test_a_batch_is_cancelled_while_receivers_are_told_at_the_end_of_a_run(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No further run goes on with what is left, and the receivers are told again."""
    monkeypatch.setattr(batch_lanes, "CHUNK_ITEMS", 1)
    monkeypatch.setattr(batch_lanes, "CHUNKS_OF_AGENT", 2)
    monkeypatch.setattr(
        "workflows.batch.is_full", lambda _: workflow.info().get_current_history_length() > 5
    )
    starts, agent = Starts(), Agent(decide=again_or_never)
    async with idle(client, agent) as stage, workflows(stage, starts.start_callbacks):
        tasks = numbered(stage, 3)
        tasks[0]["callback_url"] = "https://receiver.example/"
        async with stage.worker():
            handle = await start(stage, tasks)
            await recorded(handle, "activity_task_completed_event_attributes")
            await handle.signal(CANCEL_ITEMS, [0])
            agent.release()
            await asyncio.wait_for(starts.held.wait(), WAIT_SECONDS)
            await handle.cancel()
            await cancelled(handle)
    assert BatchTally(total=3, completed=1, cancelled=2) == await told_tally(handle)
    assert [[0], [0]] == [[end.position for end in each.ends] for each in starts.asked]


async def test_items_that_are_cancelled_at_the_very_start_are_not_begun(client: Client) -> None:
    """The wish may come before the items are known."""
    async with batching(client) as stage:
        handle = await start(
            stage,
            numbered(stage, 3),
            start_signal=CANCEL_ITEMS,
            start_signal_args=[[0, 2]],
        )
        tally = await tally_of(handle)
    assert BatchTally(total=3, completed=1, cancelled=2) == tally
    assert [0, 1, 0] == calls_by_item(stage.agents[0], handle.id, 3)


async def test_the_call_of_a_single_item_is_cut_off(client: Client) -> None:
    """It has ended while the others go on; each is called once, and more can be cancelled."""
    async with batching(client, Agent(Reply(hang=True))) as stage:
        [agent] = stage.agents
        handle = await start(stage, numbered(stage, 5))
        await agent.called(5)
        await handle.signal(CANCEL_ITEMS, [1])
        await of_item(agent, 1).abandonment()
        await is_cancelled(stage, handle, 1)
        await handle.signal(CANCEL_ITEMS, [2])
        await of_item(agent, 2).abandonment()
        await is_cancelled(stage, handle, 2)
        others = [await stage.tasks.status(item_id(handle.id, n)) for n in (0, 3)]
        agent.release()
        tally, found = await tally_of(handle), await told(handle)
        await replayed(handle)
    assert ["running", "running"] == [each.status for each in others]
    assert BatchTally(total=5, completed=3, cancelled=2) == tally
    assert [1, 2] == found.positions(TaskState.CANCELLED)
    assert ([1] * 5, 1) == (calls_by_item(agent, handle.id, 5), len(found.chunks))


async def test_a_batch_is_cancelled_after_one_of_its_items(client: Client) -> None:
    """Its chunk was told to end before; all the same it hears of that."""
    async with batching(client, Agent(Reply(hang=True))) as stage:
        [agent] = stage.agents
        handle = await start(stage, numbered(stage, 4))
        await agent.called(4)
        await handle.signal(CANCEL_ITEMS, [1])
        await of_item(agent, 1).abandonment()
        await handle.cancel()
        await cancelled(handle)
        await of_item(agent, 0).abandonment()
        await replayed(handle)
    assert BatchTally(total=4, cancelled=4) == await told_tally(handle)


async def test_an_item_whose_chunk_waits_for_its_agent_is_cancelled(client: Client) -> None:
    """The others wait anew, once: from then on chunks ask by themselves."""
    async with idle(client) as stage, workflows(stage):
        [agent] = stage.agents
        handle = await start(stage, numbered(stage, 4))
        await recorded(handle, "activity_task_scheduled_event_attributes")
        await handle.signal(CANCEL_ITEMS, [1])
        await counted(handle, 1)
        await is_cancelled(stage, handle, 1)
        await recorded(handle, "activity_task_scheduled_event_attributes", 2)
        await handle.signal(CANCEL_ITEMS, [2])
        await is_cancelled(stage, handle, 2)
        async with stage.worker():
            tally, found = await tally_of(handle), await told(handle)
        await replayed(handle)
    assert BatchTally(total=4, completed=2, cancelled=2) == tally
    assert ([1, 0, 0, 1], 2) == (calls_by_item(agent, handle.id, 4), len(found.chunks))


async def test_an_item_that_has_become_a_task_of_its_own_is_cancelled(client: Client) -> None:
    """Also by who did not know that."""
    async with batching(client, Agent(Reply(hang=True)), once=[0]) as stage:
        [agent] = stage.agents
        handle = await start(stage, numbered(stage, 2))
        await agent.called(2)
        await handle.signal(CANCEL_ITEMS, [1])
        await of_item(agent, 1).abandonment()
        agent.release()
        tally = await tally_of(handle)
        status = await stage.ended(item_id(handle.id, 1))
        await replayed(handle)
    assert BatchTally(total=2, completed=1, cancelled=1) == tally
    assert TaskState.CANCELLED is status.status


async def test_what_a_lost_chunk_had_told_stands(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine gives what it was asked to cancel to no other worker: the rest waits anew."""
    monkeypatch.setattr(options, "HEARTBEAT_TIMEOUT", timedelta(seconds=2))
    lost = Lost()
    async with idle(client) as stage, workflows(stage):
        [agent] = stage.agents
        handle = await start(stage, numbered(stage, 4))
        async with lost.worker(client, agent_queue(stage.names[0])):
            await lost.told.wait()
            await handle.signal(CANCEL_ITEMS, [1])
            await recorded(handle, "activity_task_timed_out_event_attributes")
        async with stage.worker():
            tally = await tally_of(handle)
        seen = [await stage.tasks.status(item_id(handle.id, n)) for n in range(4)]
        await replayed(handle)
    assert BatchTally(total=4, completed=3, cancelled=1) == tally
    assert [0, 0, 1, 1] == calls_by_item(agent, handle.id, 4)
    assert {"by": "the lost one"} == seen[0].result
    assert ["completed", "cancelled", "completed", "completed"] == [each.status for each in seen]


async def test_an_item_and_its_batch_are_cancelled_at_the_same_moment(client: Client) -> None:
    """The batch ends in good order."""
    async with idle(client, Agent(Reply(hang=True))) as stage, stage.worker():
        [agent] = stage.agents
        async with workflows(stage):
            handle = await start(stage, numbered(stage, 4))
            await agent.called(4)
        await handle.signal(CANCEL_ITEMS, [1])
        await handle.cancel()
        async with workflows(stage):
            await cancelled(handle)
        await of_item(agent, 0).abandonment()
        await replayed(handle)
    assert BatchTally(total=4, cancelled=4) == await told_tally(handle)


async def test_an_item_is_cancelled_at_the_moment_when_its_chunk_ends(client: Client) -> None:
    """What has ended stands, and is not done again."""
    async with idle(client, Agent(Reply(hang=True))) as stage, stage.worker():
        [agent] = stage.agents
        async with workflows(stage):
            handle = await start(stage, numbered(stage, 4))
            await agent.called(4)
        await handle.signal(CANCEL_ITEMS, [1])
        agent.release()
        await recorded(handle, "activity_task_completed_event_attributes")
        async with workflows(stage):
            tally = await tally_of(handle)
        await replayed(handle)
    assert (BatchTally(total=4, completed=4), [1] * 4) == (
        tally,
        calls_by_item(agent, handle.id, 4),
    )


async def test_a_worker_stops_in_time_after_an_item_was_cancelled(client: Client) -> None:
    """The others, whose calls outlast its grace, are called by the next worker."""
    async with idle(client, Agent(Reply(hang=True))) as stage, workflows(stage):
        [agent] = stage.agents
        handle = await start(stage, numbered(stage, 3))
        async with asyncio.timeout(WAIT_SECONDS / 3), stage.worker():
            await agent.called(3)
            await handle.signal(CANCEL_ITEMS, [1])
            await of_item(agent, 1).abandonment()
        agent.release()
        async with stage.worker():
            tally = await tally_of(handle)
        await replayed(handle)
    assert (BatchTally(total=3, completed=2, cancelled=1), [2, 1, 2]) == (
        tally,
        calls_by_item(agent, handle.id, 3),
    )

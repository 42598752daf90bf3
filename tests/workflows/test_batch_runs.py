"""Batches of many runs and of many parts, on the real engine."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from temporalio import workflow
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.exceptions import ApplicationError

from orchestrator import batching
from orchestrator.batches import (
    BATCH_WORKFLOW,
    Batch,
    BatchTally,
    batch_id_of,
    item_id,
    part_id,
)
from orchestrator.models import TaskState
from orchestrator.routing import WORKFLOW_QUEUE
from tests.support.agents import Agent, Call, Reply
from tests.support.stack import eventually
from tests.workflows import batch_stage
from tests.workflows.agents_stage import Stage, idle
from tests.workflows.batch_stage import (
    WAIT_SECONDS,
    Handle,
    calls_by_item,
    failure_of,
    numbered,
    recorded,
    replayed,
    start,
    tally_of,
    told,
    told_tally,
)
from workflows import batch_lanes
from workflows.batch import TaskBatch
from workflows.batch_parts import ABANDONED

PART_BYTES = 1_700
COUNT = 60


def some_fail(call: Call) -> Reply:
    """One of ten at first, another for good."""
    last = call.body["n"] % 10
    if last == 3 and call.headers["X-Attempt"] == "1":
        return Reply(status=503)
    return Reply(status=404) if last == 7 else Reply(body={"n": call.body["n"]})


async def test_what_is_left_goes_on_in_a_new_run(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts are exact over all runs, and no item is in two."""
    monkeypatch.setattr(batch_lanes, "CHUNK_ITEMS", 3)
    monkeypatch.setattr(
        "workflows.batch.is_full", lambda _: workflow.info().get_current_history_length() > 20
    )
    async with batch_stage.batching(client, Agent(decide=some_fail)) as stage:
        handle = await start(stage, numbered(stage, COUNT))
        tally, found = await tally_of(handle), await told(handle)
        seen = [await stage.tasks.status(item_id(handle.id, n)) for n in (0, 3, 7)]
        await replayed_unsandboxed(handle)
    assert found.runs >= 3
    assert BatchTally(total=COUNT, completed=54, failed=6) == tally
    assert tally == await told_tally(handle)
    assert [n for n in range(COUNT) if n % 10 == 7] == found.positions(TaskState.FAILED)
    assert [n for n in range(COUNT) if n % 10 not in {3, 7}] == found.positions(TaskState.COMPLETED)
    assert sorted(item_id(handle.id, n) for n in range(3, COUNT, 10)) == sorted(found.alone)
    assert [2 if n % 10 == 3 else 1 for n in range(COUNT)] == calls_by_item(
        stage.agents[0], handle.id, COUNT
    )
    assert [("completed", 1), ("completed", 2), ("failed", 1)] == [
        (each.status, each.attempts) for each in seen
    ]


async def replayed_unsandboxed(handle: Handle) -> None:
    """What the test changed is not known in the sandbox."""
    from temporalio.worker import Replayer, UnsandboxedWorkflowRunner  # noqa: PLC0415

    replayer = Replayer(
        workflows=[TaskBatch],
        workflow_runner=UnsandboxedWorkflowRunner(),
        data_converter=handle._client.data_converter,
    )
    await replayer.replay_workflow(await handle.fetch_history())


async def test_a_cancelled_batch_of_many_runs_counts_all(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ended in the runs before stays."""
    monkeypatch.setattr(batch_lanes, "CHUNK_ITEMS", 3)
    monkeypatch.setattr(
        "workflows.batch.is_full", lambda _: workflow.info().get_current_history_length() > 20
    )
    agent = Agent(decide=lambda call: Reply(hang=call.body["n"] >= COUNT - 2))
    async with batch_stage.batching(client, agent) as stage:
        handle = await start(stage, numbered(stage, COUNT))
        for last in (COUNT - 2, COUNT - 1):
            await agent_has(agent, handle.id, last)
        latest = client.get_workflow_handle(handle.id)

        async def all_other_chunks_ended() -> bool:
            return BatchTally.model_validate(await latest.query("status")).pending == 3

        await eventually(all_other_chunks_ended, WAIT_SECONDS)
        await latest.cancel()
        await failure_of(handle)
        found = await told(handle)
    assert found.runs >= 2
    assert BatchTally(total=COUNT, completed=COUNT - 2, cancelled=2) == await told_tally(handle)


async def agent_has(agent: Agent, batch_id: str, position: int) -> None:
    """Wait until an item is called."""

    async def there() -> bool:
        return bool(agent.calls_of(item_id(batch_id, position)))

    await eventually(there, WAIT_SECONDS, f"call of item {position}")


def parts_of(stage: Stage, batch_id: str, count: int, monkeypatch: Any) -> tuple[Batch, ...]:
    """A batch of several parts, which are smaller than those of the product."""
    monkeypatch.setattr(batching, "PART_BYTES", PART_BYTES)
    intake = batching.Intake(stage.routes, 1_000_000)
    for task in numbered(stage, count):
        intake.offer(task)
    parts = intake.parts(batch_id, intake.plans, stage.settings.rate_limit, datetime.now(UTC))
    assert len(parts) > 2
    return parts


async def begin(stage: Stage, batch: Batch, batch_id: str) -> Handle:
    """Start one part."""
    return await stage.client.start_workflow(
        BATCH_WORKFLOW,
        batch,
        id=part_id(batch_id, batch.part),
        task_queue=WORKFLOW_QUEUE,
        result_type=BatchTally,
    )


async def begin_all(stage: Stage, parts: tuple[Batch, ...], batch_id: str) -> list[Handle]:
    """Start all parts, as they must be: the first, which releases the others, last."""
    handles = [await begin(stage, each, batch_id) for each in reversed(parts)]
    return handles[::-1]


async def test_parts_begin_when_the_first_does(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first counts the items of all."""
    batch_id = batch_id_of(uuid4())
    async with batch_stage.batching(client, Agent(decide=batch_stage.echo)) as stage:
        parts = parts_of(stage, batch_id, 40, monkeypatch)
        further = [await begin(stage, each, batch_id) for each in parts[:0:-1]]
        for each in further:
            await recorded(each, "timer_started_event_attributes")
        assert [] == stage.agents[0].calls
        first = await begin(stage, parts[0], batch_id)
        tally = await tally_of(first)
        tallies = [await tally_of(each) for each in further]
        query = await first.query("status")
        status = await stage.tasks.status(item_id(batch_id, 39))
        for each in (first, *further):
            await replayed(each)
    assert BatchTally(total=40, completed=40) == tally == BatchTally.model_validate(query)
    assert [len(each.items) for each in parts[:0:-1]] == [each.total for each in tallies]
    assert [1] * 40 == calls_by_item(stage.agents[0], batch_id, 40)
    assert {"n": 39} == status.result


async def test_a_part_that_nobody_releases_ends_by_itself(
    skipping: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it was begun, and it may be started again."""
    batch_id = batch_id_of(uuid4())
    async with idle(skipping) as stage, stage.workflows():
        part = parts_of(stage, batch_id, 30, monkeypatch)[1]
        errors = [await failure_of(await begin(stage, part, batch_id)) for _ in range(2)]
        assert [] == stage.agents[0].calls
    assert [ABANDONED] * 2 == [each.type for each in errors if isinstance(each, ApplicationError)]


async def test_parts_are_cancelled_with_the_first(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All calls are cut off."""
    batch_id = batch_id_of(uuid4())
    async with batch_stage.batching(client, Agent(Reply(hang=True))) as stage:
        parts = parts_of(stage, batch_id, 30, monkeypatch)
        handles = await begin_all(stage, parts, batch_id)
        calls = [await stage.agents[0].called(number) for number in (1, len(parts))]
        await handles[0].cancel()
        await failure_of(handles[0])
        for call in calls:
            await call.abandonment()
        ends = [(await each.describe()).status for each in handles]
        tallies = [await told_tally(each) for each in handles]
    assert {WorkflowExecutionStatus.CANCELED} == set(ends)
    assert (30, 30) == (
        sum(each.total for each in tallies),
        sum(each.cancelled for each in tallies),
    )


async def test_a_part_that_is_terminated_counts_as_failed(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of the batch goes on."""
    batch_id = batch_id_of(uuid4())
    async with batch_stage.batching(client) as stage:
        stage.shut()
        parts = parts_of(stage, batch_id, 30, monkeypatch)
        handles = await begin_all(stage, parts, batch_id)
        await stage.waiting(len(parts))
        await handles[1].terminate()
        stage.reset()
        tally = await tally_of(handles[0])
    lost = len(parts[1].items)
    assert BatchTally(total=30, completed=30 - lost, failed=lost) == tally

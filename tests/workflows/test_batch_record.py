"""The states of a batch's items, read from what its workflow has recorded."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import Client

from orchestrator.batches import CANCEL_ITEMS, RECORD, BatchTally
from orchestrator.engine.batch_items import BatchItems, Seen
from orchestrator.engine.batch_parts import Part
from orchestrator.engine.reports import TOO_DEEP
from orchestrator.errors import BatchNotFound, TaskNotFound
from orchestrator.models import Attempt, Progress, TaskState
from orchestrator.statuses import TaskStatus
from tests.support.plans import AGENT
from tests.support.stack import eventually
from tests.workflows.batch_script import (
    CREATED,
    ENDED,
    WAIT_SECONDS,
    items,
    outcome,
    report,
    scripted,
    states,
)

FAILED = {"error": "the agent answered 400", "error_type": "AgentRejected", "status": 400}
RAN = Attempt(
    attempt=1,
    agent=AGENT,
    instance="http://agent",
    outcome="success",
    seconds=0.25,
    status=200,
    at=ENDED - timedelta(seconds=0.25),
)


ENDS = {"cancellation": TaskState.CANCELLED, "termination": TaskState.FAILED}


@pytest.mark.parametrize(
    "told",
    ["report", "heartbeat", "signal", "workflow", "next run", *ENDS],
)
async def test_who_waits_for_an_item_is_told_of_its_end_however_that_is_known(
    client: Client, told: str
) -> None:
    """Soon, and not before; other items of the batch may have ended until then."""
    async with scripted(client) as script:
        await script.start(2)
        waiting = asyncio.create_task(script.batches.look(script.batch_id, 0, 10 * WAIT_SECONDS))
        await script.signal(RECORD, report(outcome(1)))
        await script.reaches(1, TaskState.COMPLETED)
        assert not waiting.done()
        if told == "signal":
            await script.signal(RECORD, report(outcome(0)))
        elif told == "cancellation":
            await script.signal(CANCEL_ITEMS, [0])
        elif told == "workflow":
            await script.step(own=script.task_id(0), result={"n": 0})
        elif told == "next run":
            await script.step(rest=items(0) | {"positions": [0]})
            await script.signal(RECORD, report(outcome(0)))
        elif told == "termination":
            await client.get_workflow_handle(script.batch_id).terminate()
        else:
            await script.chunk(0, told=report(outcome(0)), held=told == "heartbeat")
        async with asyncio.timeout(WAIT_SECONDS):
            status = (await waiting).status
            status = status if told != "workflow" else await script.reaches(0, TaskState.COMPLETED)

    expected = (ENDS[told], None) if told in ENDS else ("completed", {"n": 0})
    assert expected == (status.status, status.result)


async def test_who_waits_for_an_item_of_a_further_part_is_told_of_its_end(client: Client) -> None:
    """The first part tells nothing of it."""
    async with scripted(client) as script:
        await script.start(1, starts=(0, 1))
        await script.start(1, part=1, first=1)
        waiting = asyncio.create_task(script.batches.look(script.batch_id, 1, 10 * WAIT_SECONDS))
        await script.signal(RECORD, report(outcome(0)))
        await script.reaches(0, TaskState.COMPLETED)
        await script.chunk(1, told=report(outcome(1)), part=1)
        async with asyncio.timeout(WAIT_SECONDS):
            assert {"n": 1} == (await waiting).status.result


async def test_the_ends_of_others_are_no_work_for_who_waits(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An item's status is put together when it may have ended."""
    looked: list[int] = []
    item = BatchItems.item

    async def counted(self: BatchItems, batch_id: str, position: int, lead: Part | None) -> Seen:
        looked.append(position)
        return await item(self, batch_id, position, lead)

    async with scripted(client) as script:
        await script.start(4)
        await script.signal(RECORD, report(outcome(1)))
        await script.reaches(1, TaskState.COMPLETED)
        monkeypatch.setattr(BatchItems, "item", counted)
        waiting = asyncio.create_task(script.batches.look(script.batch_id, 0, 10 * WAIT_SECONDS))
        for other in (2, 3):
            also = asyncio.create_task(
                script.batches.look(script.batch_id, other, 10 * WAIT_SECONDS)
            )
            await script.signal(RECORD, report(outcome(other)))
            async with asyncio.timeout(WAIT_SECONDS):
                await also
        assert 0 not in looked
        await script.signal(RECORD, report(outcome(0)))
        async with asyncio.timeout(WAIT_SECONDS):
            await waiting
    assert 1 == looked.count(0)


async def test_a_completed_item_is_shown_as_any_task(client: Client) -> None:
    """With everything that GET /status tells of a task."""
    async with scripted(client) as script:
        await script.start(1)
        await script.chunk(0, told=report(outcome(0)))
        status = await script.reaches(0, TaskState.COMPLETED)
    expected = TaskStatus(
        task_id=script.task_id(0),
        status=TaskState.COMPLETED,
        agent=AGENT,
        pattern="read_pdf",
        priority=4,
        tenant="school",
        result={"n": 0},
        created_at=CREATED,
        updated_at=ENDED,
        execution_time=0.25,
        attempts=1,
        chosen_by="exact pattern read",
        batch_id=script.batch_id,
        attempt_history=(RAN,),
    )
    assert expected.model_dump() == status.model_dump()


async def test_a_failed_item_says_why(client: Client) -> None:
    """And is no dead letter, unless the chunk has said so."""
    async with scripted(client) as script:
        await script.start(1)
        await script.chunk(0, told=report(outcome(0, TaskState.FAILED, **FAILED)))
        status = await script.reaches(0, TaskState.FAILED)
    assert ("the agent answered 400", "AgentRejected", None) == (
        status.error,
        status.error_type,
        status.dead_letter,
    )
    assert [("AgentRejected", 400)] == [(a.outcome, a.status) for a in status.attempt_history]


async def test_a_result_that_is_null_is_a_result(client: Client) -> None:
    """It is not left out."""
    async with scripted(client) as script:
        await script.start(1)
        await script.chunk(0, told=report(outcome(0, result=None)))
        status = await script.reaches(0, TaskState.COMPLETED)
    assert (True, None) == ("result" in status.model_dump(), status.result)


async def test_an_outcome_may_come_by_signal(client: Client) -> None:
    """Where a report has no room for it."""
    async with scripted(client) as script:
        await script.start(2)
        await script.signal(RECORD, report(outcome(1)))
        status = await script.reaches(1, TaskState.COMPLETED)
        assert ({"n": 1}, ["queued", "completed"]) == (status.result, await states(script, 2))


async def test_of_two_outcomes_the_first_counts(client: Client) -> None:
    """A worker that was thought lost may tell one late."""
    async with scripted(client) as script:
        await script.start(2)
        await script.signal(RECORD, report(outcome(0, result="first")))
        await script.signal(RECORD, report(outcome(0, result="second"), outcome(1)))
        await script.reaches(1, TaskState.COMPLETED)
        assert (await script.batches.item(script.batch_id, 0)).result == "first"


async def test_a_result_that_nests_too_deep_is_left_out(client: Client) -> None:
    """The item has ended all the same, and says so; the others of its report are whole."""
    deep: Any = []
    for _ in range(220):
        deep = [deep]
    async with scripted(client) as script:
        await script.start(2)
        await script.signal(RECORD, report(outcome(0, result=deep), outcome(1)))
        item = await script.reaches(0, TaskState.COMPLETED)
        other = await script.batches.item(script.batch_id, 1)
    assert (None, TOO_DEEP) == (item.result, item.error)
    assert (TaskState.COMPLETED, {"n": 1}) == (other.status, other.result)


async def test_what_nobody_can_read_is_passed_over(client: Client) -> None:
    """Anybody may send a workflow a signal."""
    async with scripted(client) as script:
        await script.start(1)
        await script.signal(RECORD, {"outcomes": "none"})
        await script.signal(CANCEL_ITEMS, "all")
        await script.signal(RECORD, report(outcome(0), outcome(7)))
        await script.reaches(0, TaskState.COMPLETED)
        assert ["completed"] == await states(script, 10)


async def test_an_item_that_was_not_begun_is_queued(client: Client) -> None:
    """Everything about it that is known is shown."""
    async with scripted(client) as script:
        await script.start(2)
        status = await script.batches.item(script.batch_id, 1)
    assert ("queued", AGENT, "read_pdf", 4, "school", CREATED) == (
        status.status,
        status.agent,
        status.pattern,
        status.priority,
        status.tenant,
        status.created_at,
    )


async def test_a_position_that_the_batch_does_not_have_is_unknown(client: Client) -> None:
    """So is a batch that was never started, and a workflow that is none."""
    async with scripted(client) as script:
        await script.start(2)
        with pytest.raises(TaskNotFound, match=script.task_id(2)):
            await script.batches.item(script.batch_id, 2)
        with pytest.raises(TaskNotFound, match=r"nightly\.0"):
            await script.tasks.status("nightly.0")
        with pytest.raises(BatchNotFound):
            await script.batches.status(script.task_id(0))


async def test_a_chunk_without_a_worker_leaves_its_items_queued(client: Client) -> None:
    """It waits in its agent's queue."""
    async with scripted(client, chunks=False) as script:
        handle = await script.start(1)
        await script.chunk(0)

        async def waits() -> Any:
            return (await handle.describe()).raw_description.pending_activities

        await eventually(waits)
        status = await script.batches.status(script.batch_id)
        assert (["queued"], "queued") == (await states(script, 1), status.status)


async def test_a_chunk_under_way_tells_of_what_has_ended(client: Client) -> None:
    """Its other items run; the counts know it too."""
    async with scripted(client) as script:
        await script.start(3)
        await script.chunk(0, 1, told=report(outcome(0)), held=True)
        await script.reaches(0, TaskState.COMPLETED)
        status = await script.batches.status(script.batch_id)
        assert (["completed", "running", "queued"], "running", 1, 2) == (
            await states(script, 3),
            status.status,
            status.completed,
            status.pending,
        )
        ended = await script.batches.outcomes(script.batch_id, range(3))
        assert {0: {"n": 0}} == {place: status.result for place, status in ended.items()}


async def test_an_item_that_was_cancelled_before_it_was_begun(client: Client) -> None:
    """One that is under way is not met by that."""
    async with scripted(client) as script:
        await script.start(3)
        await script.chunk(0, held=True)
        await script.reaches(0, TaskState.RUNNING)
        running = await script.batches.cancel_item(script.batch_id, 0)
        await script.batches.cancel_item(script.batch_id, 1)
        await script.reaches(1, TaskState.CANCELLED)
        assert running.status is TaskState.RUNNING
        assert ["running", "cancelled", "queued"] == await states(script, 3)


async def test_an_item_whose_call_was_cut_off_is_cancelled(client: Client) -> None:
    """As the chunk's report says."""
    async with scripted(client) as script:
        await script.start(2)
        await script.chunk(0, 1, told=report(outcome(0), cancelled=(1,)))
        await script.reaches(1, TaskState.CANCELLED)


async def test_an_item_that_was_tried_runs_until_it_is_a_task_of_its_own(client: Client) -> None:
    """Then that task is its record."""
    async with scripted(client) as script:
        await script.start(2)
        tried = {"position": 0, "progress": Progress(sent=1)}
        await script.chunk(0, told=report(unfinished=(tried,)))
        await script.reaches(0, TaskState.RUNNING)
        await script.step(own=script.task_id(0), result={"from": "its own workflow"})
        status = await script.reaches(0, TaskState.COMPLETED)
        assert ({"from": "its own workflow"}, 2, script.batch_id) == (
            status.result,
            status.attempts,
            status.batch_id,
        )


async def test_an_item_with_a_workflow_of_its_own_is_waited_for_and_cancelled_there(
    client: Client,
) -> None:
    """By its task id, as any task."""
    async with scripted(client) as script:
        await script.start(1)
        await script.step(own=script.task_id(0), result=None)

        async def own() -> bool:
            return (await script.batches.look(script.batch_id, 0)).own

        await eventually(own)
        await script.tasks.cancel(script.task_id(0))
        status = await script.tasks.status(script.task_id(0), WAIT_SECONDS)
        assert TaskState.CANCELLED is status.status


@pytest.mark.parametrize(
    ("order", "state", "error"),
    [
        ("cancel", TaskState.CANCELLED, None),
        ("terminate", TaskState.FAILED, "Terminated by an operator: enough"),
        ("fail", TaskState.FAILED, "all is lost"),
    ],
)
async def test_a_batch_that_was_ended_ends_its_items(
    client: Client, order: str, state: TaskState, error: str | None
) -> None:
    """Those that had ended before stay as they are."""
    async with scripted(client) as script:
        handle = await script.start(2)
        await script.chunk(0, told=report(outcome(0)))
        await script.reaches(0, TaskState.COMPLETED)
        await script.step(memo=BatchTally(total=2, completed=1))

        async def counted() -> bool:
            return (await script.batches.status(script.batch_id)).completed == 1

        await eventually(counted)
        if order == "fail":
            await script.step(fail="all is lost")
        elif order == "terminate":
            await handle.terminate(reason="enough")
        else:
            await script.batches.cancel(script.batch_id)
        await script.closes()
        status = await script.batches.status(script.batch_id)
        assert (state, error, 1, 0) == (
            status.status,
            status.error,
            status.completed,
            status.pending,
        )
        assert ["completed", state.value] == await states(script, 2)
        assert state is (await script.batches.cancel_item(script.batch_id, 1)).status


async def test_waiting_for_an_item_ends_with_it(client: Client) -> None:
    """Or with the time."""
    async with scripted(client) as script:
        await script.start(1)
        assert TaskState.QUEUED is (await script.tasks.status(script.task_id(0), 0.3)).status
        await script.chunk(0, told=report(outcome(0)))
        status = await script.tasks.status(script.task_id(0), WAIT_SECONDS)
    assert TaskState.COMPLETED is status.status


async def test_a_batch_that_was_started_by_hand_has_items_too(client: Client) -> None:
    """Its own id leads to theirs; it counts for itself only later."""
    async with scripted(client) as script:
        script.batch_id = f"nightly/{script.batch_id}"
        requests = [{"pattern": "read_pdf", "payload": {}, "priority": 5}] * 2
        await client.start_workflow(
            "TaskBatch",
            {"queue": script.queue, "tasks": requests},
            id=script.batch_id,
            task_queue=script.queue,
        )
        await script.chunk(1, told=report(outcome(1)))
        await script.reaches(1, TaskState.COMPLETED)
        status = await script.tasks.status(f"{script.batch_id}.0")
        assert (TaskState.QUEUED, 5, "read_pdf", None) == (
            status.status,
            status.priority,
            status.pattern,
            status.agent,
        )
        assert 2 == (await script.batches.status(script.batch_id)).total

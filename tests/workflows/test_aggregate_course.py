"""AggregateTasks while it is open: cancelled, redriven, carried on by a new run."""

import gc
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError
from temporalio.exceptions import ApplicationError

from orchestrator.aggregate_status import AggregateState, AggregateStatus
from orchestrator.aggregates import Aggregation, Carried, Counts, FanOut, fan_out_of, redrive_of
from orchestrator.batches import batch_id_of
from orchestrator.routing import WORKFLOW_QUEUE
from tests.support.agents import Reply
from tests.support.stack import eventually
from tests.workflows.aggregate_stage import closed, numbers, reached, result_of, serving
from workflows import full_histories

COMPLETED, FAILED = AggregateState.COMPLETED, AggregateState.FAILED
DONE = Reply()


async def test_an_aggregate_that_is_cancelled_cancels_what_it_started(client: Client) -> None:
    """And nothing else."""
    async with serving(client) as stage:
        other = await stage.submit(do="hang")
        handle = await stage.start(task_ids=[other], tasks=[stage.request(do="hang", own=True)])
        await stage.agent.called(2)
        await handle.cancel()
        end = await closed(handle)
        [own] = [each for each in stage.agent.calls if "own" in each.body]
        await own.abandonment()
        status = await stage.tasks.status(other)
    assert WorkflowExecutionStatus.CANCELED is end
    assert not status.status.is_final


async def test_an_aggregate_may_be_cancelled_after_the_tasks_it_started(client: Client) -> None:
    """Their batch has ended, so there is nothing of it to cancel."""
    async with serving(client) as stage:
        given = {"task_ids": [await stage.submit(do="hang")], "tasks": [stage.request(n=1)]}
        handle = await stage.start_with(given)
        await reached(handle, completed=1)
        info = (await handle.describe()).raw_description.workflow_execution_info
        fan_out = fan_out_of(Aggregation.model_validate(given), handle.id, info.first_run_id)
        assert fan_out is not None
        batch = await closed(client.get_workflow_handle(fan_out.batch_id))
        await handle.cancel()
        end = await closed(handle)
    assert (WorkflowExecutionStatus.COMPLETED, WorkflowExecutionStatus.CANCELED) == (batch, end)


async def test_an_aggregate_may_be_cancelled_while_it_starts_its_tasks(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """They are cancelled with it, and nothing is logged that nobody has waited for."""
    ends = []
    async with serving(client) as stage:
        for _ in range(4):
            given = {"tasks": [stage.request(do="hang")]}
            handle = await stage.start_with(given)
            await handle.cancel()
            ends.append(await closed(handle))
            info = (await handle.describe()).raw_description.workflow_execution_info
            fan_out = fan_out_of(Aggregation.model_validate(given), handle.id, info.first_run_id)
            assert fan_out is not None
            ends.append(await closed(client.get_workflow_handle(fan_out.batch_id)))
    gc.collect()
    assert [WorkflowExecutionStatus.CANCELED] * 8 == ends
    assert [] == [each.getMessage() for each in caplog.records if each.name == "asyncio"]


async def test_a_later_run_learns_that_its_tasks_were_refused(client: Client) -> None:
    """Though their batch was started by the run before."""
    async with serving(client) as stage:
        fan_out = FanOut(batch_id=batch_id_of(uuid4()), total=1)
        batch = await client.start_workflow(
            "TaskBatch",
            {"tasks": [{"pattern": "nobody's", "payload": {}}]},
            id=fan_out.batch_id,
            task_queue=WORKFLOW_QUEUE,
        )
        refused = await closed(batch)
        carried = Carried(
            counts=Counts(total=2, completed=1),
            open=(1,),
            deadline=datetime.now(UTC) + timedelta(hours=1),
        )
        handle = await stage.start_with(
            Aggregation(task_ids=("ended",), fan_out=fan_out, carried=carried)
        )
        with pytest.raises(WorkflowFailureError) as caught:
            await result_of(handle)
    cause = caught.value.cause
    assert WorkflowExecutionStatus.FAILED is refused
    assert isinstance(cause, ApplicationError)
    assert "InvalidInput" == cause.type
    assert "Unknown pattern 'nobody's'" in cause.message


async def test_a_redrive_that_comes_with_a_new_run_is_one(client: Client) -> None:
    """As the API asks for it, which cannot know whether the aggregate is still open."""
    async with serving(client) as stage:
        ids = [await stage.submit(do="fail"), await stage.submit(do="fail")]
        handle = await stage.start(f"joint-{uuid4()}", task_ids=ids)
        await result_of(handle)
        await stage.ended(*ids)
        stage.agent.calls.clear()
        again = await client.start_workflow(
            "AggregateTasks",
            redrive_of(Aggregation(task_ids=tuple(ids)), None),
            id=handle.id,
            task_queue=WORKFLOW_QUEUE,
            start_signal="redrive",
            result_type=AggregateStatus,
        )
        joined = await result_of(again)
        history = await again.fetch_history()
    redrives = [
        event
        for event in history.events
        if event.activity_task_scheduled_event_attributes.activity_type.name == "redrive_tasks"
    ]
    assert (COMPLETED, 0, 2, 0, 0) == numbers(joined)
    assert [1, 1, 1] == [len(redrives), *(len(stage.agent.calls_of(each)) for each in ids)]


async def test_a_failed_task_is_redriven_into_an_open_aggregate(client: Client) -> None:
    """And counts as what it becomes."""
    async with serving(client) as stage:
        bad, slow = await stage.submit(do="fail", n=1), await stage.submit(do="hang")
        handle = await stage.start(task_ids=[bad, slow, "nobody"])
        before = await reached(handle, failed=2)
        stage.agent.behave(lambda _: DONE)
        await handle.signal("redrive")
        after = await reached(handle, completed=1, failed=1)
        stage.agent.release()
        joined = await result_of(handle)
    assert ((AggregateState.RUNNING, 0, 2, 0, 1), (AggregateState.RUNNING, 1, 1, 0, 1)) == (
        numbers(before),
        numbers(after),
    )
    assert (COMPLETED, 2, 1, 0, 0) == numbers(joined)
    assert {"text": "done"} == joined.results[0].result


async def test_an_aggregate_that_has_ended_is_redriven(client: Client) -> None:
    """A new run joins the same tasks, the failed ones run again; also those it had started."""
    async with serving(client) as stage:
        good, bad = await stage.submit(n=1), await stage.submit(do="fail")
        asked = {"task_ids": [good, bad], "tasks": [stage.request(do="fail"), stage.request(n=2)]}
        handle = await stage.start(f"joint-{uuid4()}", **asked)
        first = await result_of(handle)
        info = (await handle.describe()).raw_description.workflow_execution_info
        given = Aggregation.model_validate(asked)
        fan_out = fan_out_of(given, handle.id, info.first_run_id)
        stage.agent.behave(lambda _: DONE)
        again = redrive_of(given, fan_out)
        second = await result_of(await stage.start_with(again, handle.id))
    assert (COMPLETED, 2, 2, 0, 0) == numbers(first)
    assert (COMPLETED, 4, 0, 0, 0) == numbers(second)


async def test_a_join_is_carried_on_as_new(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what was counted; the results stay in the history of the run before."""
    monkeypatch.setattr(full_histories, "MAX_EVENTS", 8)
    async with serving(client, sandboxed=False) as stage:
        good, slow = await stage.submit(n=1), await stage.submit(do="hang")
        await stage.ended(good)
        given = {"task_ids": [good, slow], "deadline": 600.0}
        handle = await stage.start_with(given, memo={"created_at": "2026-01-15T12:00:00Z"})

        async def carried_on() -> bool:
            return (await handle.describe()).run_id != handle.first_execution_run_id

        await eventually(carried_on, 60)
        memo = await (await handle.describe()).memo()
        stage.agent.release()
        joined = await result_of(handle)
    assert {
        "created_at": "2026-01-15T12:00:00Z",
        "tally": {"total": 2, "completed": 1, "failed": 0, "cancelled": 0},
    } == memo
    assert (COMPLETED, 2, 0, 0, 0) == numbers(joined)
    assert () == joined.results
    assert "too many to travel together" in (joined.note or "")

"""AggregateTasks joins tasks whatever state they are in."""

import asyncio
from uuid import uuid4

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from orchestrator.aggregate_status import AggregateState
from orchestrator.models import TaskState
from orchestrator.routing import WORKFLOW_QUEUE
from tests.support.agents import Reply
from tests.workflows.aggregate_stage import idle, numbers, reached, result_of, serving
from tests.workflows.parent import Gathering

COMPLETED, FAILED = AggregateState.COMPLETED, AggregateState.FAILED
DONE = Reply()


async def test_tasks_in_all_states_are_joined(client: Client) -> None:
    """Ended before, still running, cancelled, and not known at all; in the order given."""
    async with serving(client) as stage:
        good, bad, gone, slow = [
            await stage.submit(**payload)
            for payload in ({"n": 1}, {"do": "fail"}, {"do": "hang"}, {"do": "hang", "n": 4})
        ]
        await stage.ended(good, bad)
        await stage.agent.called(4)
        await stage.tasks.cancel(gone)
        await stage.ended(gone)
        handle = await stage.start(task_ids=[good, "nobody", bad, gone, slow, good])
        halfway = await reached(handle, completed=1, failed=2)
        stage.agent.release()
        joined = await result_of(handle)
    assert (AggregateState.RUNNING, 1, 2, 1, 1) == numbers(halfway)
    assert (COMPLETED, 2, 2, 1, 0) == numbers(joined)
    assert 5 == joined.total_tasks
    assert [(good, stage.name, {"n": 1}), (slow, stage.name, {"do": "hang", "n": 4})] == [
        (each.task_id, each.agent, each.result) for each in joined.results
    ]
    assert all(each.execution_time is not None for each in joined.results)
    assert [("nobody", "TaskNotFound"), (bad, "AgentFailed"), (gone, "Cancelled")] == [
        (each.task_id, each.error_type) for each in joined.errors
    ]
    assert "disk full" in joined.errors[1].error


async def test_any_is_met_by_the_first_that_completes(client: Client) -> None:
    """The others are left to go on."""
    async with serving(client) as stage:
        slow, bad = await stage.submit(do="hang"), await stage.submit(do="fail")
        handle = await stage.start(task_ids=[slow, bad], join="any")
        await reached(handle, failed=1)
        late = await stage.start(task_ids=[slow, await stage.submit(n=1)], join="any")
        joined_late = await result_of(late)
        stage.agent.release()
        joined = await result_of(handle)
        [status] = await stage.ended(slow)
    assert (COMPLETED, 1, 0, 0, 1) == numbers(joined_late)
    assert (COMPLETED, 1, 1, 0, 0) == numbers(joined)
    assert TaskState.COMPLETED is status.status


async def test_any_can_fail(client: Client) -> None:
    """When no task is left that may complete."""
    async with serving(client) as stage:
        joined = await stage.join(task_ids=[await stage.submit(do="fail"), "nobody"], join="any")
    assert (FAILED, 0, 2, 0, 0) == numbers(joined)
    assert "None of 2 tasks completed" == joined.reason


async def test_at_least_fails_as_soon_as_it_cannot_hold(client: Client) -> None:
    """Without waiting for the rest."""
    async with serving(client) as stage:
        ids = [await stage.submit(do=what) for what in ("fail", "hang", "hang")]
        joined = await stage.join(task_ids=ids, join={"at_least": 3})
    assert (FAILED, 0, 1, 0, 2) == numbers(joined)
    assert "0 of 3 tasks completed; 3 must" == joined.reason


@pytest.mark.parametrize(("percent", "state"), [(50, COMPLETED), (49, FAILED)])
async def test_so_many_may_fail(client: Client, percent: int, state: AggregateState) -> None:
    """Just as many as were said."""
    async with serving(client) as stage:
        ids = [await stage.submit(n=1), await stage.submit(do="fail")]
        await stage.ended(*ids)
        joined = await stage.join(task_ids=ids, join={"max_failed_percent": percent})
    assert (state, 1, 1, 0, 0) == numbers(joined)


async def test_a_deadline_ends_the_join_with_what_there_is(client: Client) -> None:
    """Tasks that never answer stay as they are, and open."""
    async with serving(client) as stage:
        good, slow = await stage.submit(n=1), await stage.submit(do="hang")
        await stage.ended(good)
        joined = await stage.join(task_ids=[good, slow], deadline=1.0)
        status = await stage.tasks.status(slow)
    assert (FAILED, 1, 0, 0, 1) == numbers(joined)
    assert "The deadline of 1 s passed with 1 of 2 tasks open" == joined.reason
    assert [good] == [each.task_id for each in joined.results]
    assert not status.status.is_final


async def test_a_condition_that_holds_cancels_the_rest(client: Client) -> None:
    """And counts what became of it."""
    async with serving(client) as stage:
        good, slow = await stage.submit(n=1), await stage.submit(do="hang")
        call = await stage.agent.called(2)
        joined = await stage.join(task_ids=[good, slow], join="any", on_met="cancel_rest")
        await next(each for each in stage.agent.calls if not each.answered.is_set()).abandonment()
    assert call is not None
    assert (COMPLETED, 1, 0, 1, 0) == numbers(joined)
    assert [slow] == [each.task_id for each in joined.errors]


@pytest.mark.parametrize("join", ["all", "any", {"at_least": 2}, {"max_failed_percent": 40}])
async def test_a_failure_cancels_the_rest(client: Client, join: object) -> None:
    """Where that was asked for, and the join fails with it."""
    async with serving(client) as stage:
        ids = [await stage.submit(do=what) for what in ("fail", "hang", "hang")]
        joined = await stage.join(task_ids=ids, join=join, on_failure="cancel_rest")
    assert (FAILED, 0, 1, 2, 0) == numbers(joined)


async def test_tasks_are_started_and_joined_with_others(client: Client) -> None:
    """By hand with what nobody has routed; merged as it was asked for."""
    async with serving(client) as stage:
        other = await stage.submit(a=1)
        joined = await stage.join(
            task_ids=[other],
            tasks=[stage.request(b=2), stage.request(do="fail"), stage.request(a=3)],
            merge="deep_merge",
        )
    assert (COMPLETED, 3, 1, 0, 0) == numbers(joined)
    assert {"a": 1, "b": 2} == joined.merged
    assert [("/a", joined.results[2].task_id)] == [
        (each.path, each.task_id) for each in joined.conflicts
    ]


async def test_started_tasks_are_cancelled_with_the_rest(client: Client) -> None:
    """Their batch as a whole."""
    async with serving(client) as stage:
        handle = await stage.start(
            tasks=[stage.request(do="hang") for _ in range(5)] + [stage.request(n=1)],
            join="any",
            on_met="cancel_rest",
        )
        joined = await result_of(handle)
    assert (COMPLETED, 1, 0, 5, 0) == numbers(joined)


async def test_started_tasks_are_left_where_that_was_asked_for(client: Client) -> None:
    """They outlive the aggregate."""
    async with serving(client) as stage:
        joined = await stage.join(
            tasks=[stage.request(n=1), stage.request(do="hang")], join="any", deadline=60.0
        )
        stage.agent.release()
        [good] = joined.results
        number = int(good.task_id[-4:], 16)
        [left] = await stage.ended(f"{good.task_id[:-4]}{number + 1:04x}")
    assert (COMPLETED, 1, 0, 0, 1) == numbers(joined)
    assert TaskState.COMPLETED is left.status


@pytest.mark.parametrize(("of", "length"), [("x", 900_000), ("あ", 300_000)])
async def test_results_that_are_too_large_together_are_left_to_the_history(
    client: Client, of: str, length: int
) -> None:
    """The counts stay; each report fits into the engine's limits."""
    async with serving(client) as stage:
        ids = [await stage.submit(do="large", of=of, length=length) for _ in range(3)]
        await stage.ended(*ids)
        handle = await stage.start(task_ids=ids)
        joined = await result_of(handle)
        history = await handle.fetch_history()
    reports = [
        event
        for event in history.events
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED
    ]
    assert (COMPLETED, 3, 0, 0, 0) == numbers(joined)
    assert (3, ()) == (len(reports), joined.results)
    assert "too many to travel together" in (joined.note or "")


async def test_progress_is_shown(client: Client) -> None:
    """In the Web UI and the memo."""
    async with serving(client) as stage:
        ids = [await stage.submit(n=1), await stage.submit(do="hang")]
        handle = await stage.start(task_ids=ids, join={"at_least": 2})
        await reached(handle, completed=1)
        details = (await handle.query("__temporal_workflow_metadata")).current_details
        memo = await (await handle.describe()).memo()
    assert "1 of 2 tasks have ended: 1 completed" in details
    assert '{"at_least":2}' in details
    assert {"total": 2, "completed": 1, "failed": 0, "cancelled": 0} == memo["tally"]


async def test_another_workflow_joins_tasks_as_its_child(client: Client) -> None:
    """By names and plain JSON."""
    async with (
        serving(client) as stage,
        Worker(client, task_queue=stage.name + "-parents", workflows=[Gathering]),
    ):
        joined = await client.execute_workflow(
            "Gathering",
            {"tasks": [stage.request(n=1), stage.request(do="fail")], "merge": "first"},
            id=str(uuid4()),
            task_queue=stage.name + "-parents",
        )
    assert ("completed", 1, 1, {"n": 1}) == (
        joined["status"],
        joined["completed"],
        joined["failed"],
        joined["merged"],
    )


BAD: list[tuple[object, str]] = [
    (None, "Nothing to join was given"),
    ({}, "Nothing to join was given"),
    ({"task_ids": []}, "Nothing to join was given"),
    ({"task_ids": "one"}, "task_ids"),
    ({"task_ids": ["one"], "join": "most"}, "join"),
    ({"task_ids": ["one"], "join": {"at_least": 0}}, "at_least"),
    ({"task_ids": ["one"], "deadline": -1}, "deadline"),
    ({"tasks": [{"payload": {}}]}, "name a pattern"),
    ({"tasks": [{"pattern": "nobody's", "payload": {}}]}, "Unknown pattern 'nobody's'"),
]


@pytest.mark.parametrize(("given", "text"), BAD)
async def test_bad_input_is_named(client: Client, given: object, text: str) -> None:
    """At once, and for people."""
    async with serving(client):
        handle = await client.start_workflow(
            "AggregateTasks",
            args=[] if given is None else [given],
            id=str(uuid4()),
            task_queue=WORKFLOW_QUEUE,
        )
        with pytest.raises(WorkflowFailureError) as caught:
            async with asyncio.timeout(60):
                await handle.result()
    cause = caught.value.cause
    assert isinstance(cause, ApplicationError)
    assert "InvalidInput" == cause.type
    assert text in cause.message


async def test_a_join_goes_on_when_its_worker_stops(client: Client) -> None:
    """Another takes over at once."""
    async with idle(client) as stage, stage.agents():
        async with stage.workflows():
            good, slow = await stage.submit(n=1), await stage.submit(do="hang")
            handle = await stage.start(task_ids=[good, slow])
            await reached(handle, completed=1)
        stage.agent.release()
        async with stage.workflows():
            joined = await result_of(handle)
    assert (COMPLETED, 2, 0, 0, 0) == numbers(joined)

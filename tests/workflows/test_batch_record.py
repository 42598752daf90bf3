"""The states of a batch's items, read from what its workflow has recorded."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.client import Client

from orchestrator.batches import CANCEL_ITEMS, RECORD, BatchTally
from orchestrator.engine.batch_record import BatchRecords
from orchestrator.engine.histories import Histories, continued_run
from orchestrator.engine.listing import InvalidCursor, encoded
from orchestrator.engine.reports import TOO_DEEP
from orchestrator.errors import BatchNotFound, TaskNotFound
from orchestrator.models import Attempt, Progress, TaskState
from orchestrator.statuses import TaskStatus
from tests.support.plans import AGENT
from tests.support.stack import eventually
from tests.workflows.batch_script import (
    CREATED,
    ENDED,
    RPC_SECONDS,
    WAIT_SECONDS,
    Script,
    items,
    outcome,
    report,
    scripted,
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


async def states(script: Script, count: int) -> list[str]:
    """Those of the first items."""
    page, _ = await script.batches.page(script.batch_id, count)
    return [item.status.value for item in page]


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
        cancelled = [await script.batches.cancel_item(script.batch_id, each) for each in (0, 1)]
        assert [TaskState.RUNNING, TaskState.CANCELLED] == [each.status for each in cancelled]
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


async def test_runs_that_carry_on_are_one_batch(client: Client) -> None:
    """What ended in an earlier run stays; what is left is told by the next."""
    async with scripted(client) as script:
        await script.start(4)
        await script.chunk(0, 2, told=report(outcome(0), outcome(2)))
        await script.reaches(2, TaskState.COMPLETED)
        await script.step(rest=items(1, 3) | {"positions": [1, 3]})
        await script.chunk(3, told=report(outcome(3)))
        await script.reaches(3, TaskState.COMPLETED)
        page, _ = await script.batches.page(script.batch_id, 10)
        assert [{"n": 0}, None, {"n": 2}, {"n": 3}] == [item.result for item in page]
        # The first outcome counts here too.
        await script.signal(RECORD, report(outcome(0, result="late"), outcome(1)))
        await script.reaches(1, TaskState.COMPLETED)
        assert {"n": 0} == (await script.tasks.status(script.task_id(0))).result


async def test_nothing_is_read_twice(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often an item is asked for, each event of its batch is read once."""
    read: list[int] = []
    events = Histories.events

    async def counted(self: Histories, *given: Any) -> Any:
        async for event in events(self, *given):
            read.append(event.event_id)
            yield event

    monkeypatch.setattr(Histories, "events", counted)
    async with scripted(client) as script:
        await script.start(3)
        for position in range(3):
            await script.chunk(position, told=report(outcome(position)))
            await script.reaches(position, TaskState.COMPLETED)
            await states(script, 3)
    assert (list(range(1, len(read) + 1)), True) == (read, len(read) > 10)


async def test_what_is_kept_is_bounded(client: Client) -> None:
    """Runs that had to go are read again, those alone that tell of what is asked for."""
    async with scripted(client) as script:
        first = await script.start(3)
        for position in range(2):
            await script.chunk(position, told=report(outcome(position, result="x" * 10_000)))
            await script.reaches(position, TaskState.COMPLETED)
            rest = list(range(position + 1, 3))
            await script.step(rest=items(*rest) | {"positions": rest})
        await script.chunk(2, told=report(outcome(2)))
        await script.reaches(2, TaskState.COMPLETED)
        info = (await first.describe()).raw_description.workflow_execution_info
        latest = client.get_workflow_handle(first.id)
        info = (await latest.describe()).raw_description.workflow_execution_info
        records = BatchRecords(
            Histories(client, RPC_SECONDS), client.data_converter, kept_bytes=15_000
        )
        for _ in range(2):
            found = await records.find(info.execution, info.history_length, range(3))
            assert [10_002, 10_002] == [
                len(found[place].outcomes[place].read().model_dump_json(include={"result"}))
                - len('{"result":}')
                for place in (0, 1)
            ]
            assert records.size < 15_000


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


async def test_items_of_further_parts_are_found_there(client: Client) -> None:
    """Their positions go on from those of the part before."""
    async with scripted(client) as script:
        await script.start(2, starts=(0, 2))
        await script.start(3, part=1, first=2)
        await script.chunk(3, told=report(outcome(3)), part=1)
        await script.reaches(3, TaskState.COMPLETED)
        await script.step(1, memo=BatchTally(total=3, completed=1))

        async def counted() -> bool:
            status = await script.batches.status(script.batch_id)
            return (status.total, status.completed) == (5, 1)

        await eventually(counted)
        assert ["queued"] * 3 + ["completed", "queued"] == await states(script, 9)
        assert [3] == list(await script.batches.outcomes(script.batch_id, range(9)))
        cancelled = await script.tasks.cancel(script.task_id(4))
        assert (TaskState.QUEUED, TaskState.CANCELLED) == (
            (await script.batches.item(script.batch_id, 2)).status,
            cancelled.status,
        )
        with pytest.raises(TaskNotFound):
            await script.batches.item(script.batch_id, 5)


async def test_pages_follow_on_each_other(client: Client) -> None:
    """In the order of positions, each item once, also where only some states are wanted."""
    async with scripted(client) as script:
        await script.start(5)
        await script.chunk(1, 3, told=report(outcome(1), outcome(3)))
        await script.reaches(3, TaskState.COMPLETED)

        async def all_of(state: TaskState | None) -> list[list[str]]:
            pages: list[list[str]] = []
            cursor = None
            while not pages or cursor:
                page, cursor = await script.batches.page(script.batch_id, 2, cursor, state)
                pages.append([item.task_id for item in page])
            return pages

        ids = [script.task_id(position) for position in range(5)]
        assert [ids[:2], ids[2:4], ids[4:]] == await all_of(None)
        assert [[ids[1], ids[3]]] == await all_of(TaskState.COMPLETED)
        assert [[ids[0], ids[2]], [ids[4]]] == await all_of(TaskState.QUEUED)
        assert [[]] == await all_of(TaskState.FAILED)


async def test_a_page_ends_where_its_results_are_large(client: Client) -> None:
    """But it has at least one."""
    large = "x" * 800_000
    async with scripted(client) as script:
        await script.start(4)
        for position in range(4):
            await script.signal(RECORD, report(outcome(position, result=large)))
        await script.reaches(3, TaskState.COMPLETED)
        page, cursor = await script.batches.page(script.batch_id, 100)
        rest, end = await script.batches.page(script.batch_id, 100, cursor)
    assert ([0, 1], [2, 3], None) == (
        [script_position(item) for item in page],
        [script_position(item) for item in rest],
        end,
    )


def script_position(item: TaskStatus) -> int:
    """Where the item stands, by its id."""
    return int(item.task_id[-4:], 16) - 1


async def test_the_end_of_a_workflow_is_that_of_its_last_run(client: Client) -> None:
    """A run that carries on is not its end."""
    histories = Histories(client, RPC_SECONDS)
    async with scripted(client) as script:
        await script.start(1)
        ends = asyncio.create_task(histories.closing_event(script.batch_id, WAIT_SECONDS))
        await script.step(rest=items(0) | {"positions": [0]})
        await script.chunk(0, told=report(outcome(0)))
        await script.reaches(0, TaskState.COMPLETED)
        await script.step(end=True)
        event = await ends
        info = (await histories.describe(script.batch_id)).workflow_execution_info
        runs = await histories.runs(info.execution)
        first = await histories.first(
            WorkflowExecution(workflow_id=script.batch_id, run_id=runs[-1])
        )
    assert event is not None
    assert "workflow_execution_completed_event_attributes" == event.WhichOneof("attributes")
    assert (2, info.execution.run_id, "") == (len(runs), runs[0], continued_run(first))


async def test_an_item_that_was_tried_in_an_earlier_run_runs(client: Client) -> None:
    """The run that carries on has it go on."""
    async with scripted(client) as script:
        await script.start(2)
        tried = {"position": 1, "progress": {}}
        await script.step(rest=items(0, 1) | {"positions": [0, 1], "unfinished": [tried]})
        await script.reaches(1, TaskState.RUNNING)
        assert ["queued", "running"] == await states(script, 2)


@pytest.mark.parametrize("cursor", ["nonsense", encoded(b"a list's"), encoded(b"batch:-1")])
async def test_a_foreign_cursor_is_refused(client: Client, cursor: str) -> None:
    """Also one that belongs to another list."""
    async with scripted(client) as script:
        await script.start(1)
        with pytest.raises(InvalidCursor):
            await script.batches.page(script.batch_id, 10, cursor)


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

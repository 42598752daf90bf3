"""How what a batch has recorded is read: over runs, parts and pages, and once only."""

import asyncio
from typing import Any

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.client import Client

from orchestrator.batches import RECORD, BatchTally
from orchestrator.engine.batch_records import BatchRecords
from orchestrator.engine.histories import Histories, continued_run
from orchestrator.engine.listing import InvalidCursor, encoded
from orchestrator.errors import TaskNotFound
from orchestrator.models import TaskState
from orchestrator.statuses import TaskStatus
from tests.support.stack import eventually
from tests.workflows.batch_script import (
    RPC_SECONDS,
    WAIT_SECONDS,
    items,
    outcome,
    report,
    scripted,
    states,
)


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

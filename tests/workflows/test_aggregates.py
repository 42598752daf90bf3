"""Aggregates as the API reads and orders them, against an aggregate that follows a script."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from orchestrator.aggregate_status import AggregateState
from orchestrator.aggregates import (
    AGGREGATE_WORKFLOW,
    JOIN_TASKS,
    REDRIVE,
    Aggregation,
    Carried,
    Counts,
    Joined,
    JoinReport,
    aggregate_workflow_id,
)
from orchestrator.engine.aggregates import LEFT_OUT, Aggregates
from orchestrator.errors import AggregateNotFound, IdempotencyConflict, OrderRefused
from orchestrator.models import TaskState
from orchestrator.routing import WORKFLOW_QUEUE
from tests.support.stack import eventually

CREATED_AT = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
LATER = CREATED_AT + timedelta(seconds=1)
IDS = ("a", "b", "c", "d")
HALF = 2
END = "end"


@activity.defn(name=JOIN_TASKS)
async def told(report: JoinReport) -> JoinReport:
    """Whatever the script wants."""
    return report


@workflow.defn(name=AGGREGATE_WORKFLOW)
class Scripted:
    """Reports half of the tasks in one run and the rest in the next, then waits to be ended.

    One that is redriven reports nothing.
    """

    def __init__(self) -> None:
        self._ended = False

    @workflow.run
    async def run(self, given: Aggregation) -> dict[str, Any]:
        """Follow the script."""
        if not given.redrive:
            first = given.carried is None
            for position in range(HALF) if first else range(HALF, len(IDS)):
                await workflow.execute_activity(
                    JOIN_TASKS,
                    JoinReport(outcomes=(completed(position),)),
                    start_to_close_timeout=timedelta(seconds=30),
                )
            if first:
                carried = Carried(counts=Counts(total=4), open=(2, 3), deadline=workflow.now())
                workflow.continue_as_new(given.model_copy(update={"carried": carried}))
        await workflow.wait_condition(lambda: self._ended)
        return {"status": "failed", "reason": "as the script says"}

    @workflow.signal(name=END)
    def end(self) -> None:
        """Go no further."""
        self._ended = True

    @workflow.signal(name=REDRIVE)
    def redrive(self) -> None:
        """Nothing that a script needs."""


def completed(position: int) -> Joined:
    """The outcome of a task: a result of some 100 bytes."""
    return Joined(
        position=position,
        task_id=IDS[position],
        state=TaskState.COMPLETED,
        agent="test_agent",
        result=f"{position}" * 100,
        at=CREATED_AT,
    )


@pytest.fixture
async def scripted(client: Client) -> AsyncIterator[Worker]:
    """The worker of the script."""
    async with Worker(
        client,
        task_queue=WORKFLOW_QUEUE,
        workflows=[Scripted],
        activities=[told],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ) as worker:
        yield worker


@pytest.fixture
def aggregates(client: Client) -> Aggregates:
    """What the tests are about."""
    return Aggregates(client, 10)


async def submitted(aggregates: Aggregates, fingerprint: str | None = None) -> str:
    """A new aggregate, which has reported all."""
    aggregate_id = str(uuid.uuid4())
    await aggregates.submit(aggregate_id, Aggregation(task_ids=IDS), CREATED_AT, fingerprint)
    await reported(aggregates, aggregate_id)
    return aggregate_id


async def reported(aggregates: Aggregates, aggregate_id: str) -> None:
    """Wait until all tasks were reported."""

    async def all_told() -> bool:
        return (await aggregates.status(aggregate_id)).pending == 0

    await eventually(all_told)


async def end(client: Client, workflow_id: str) -> None:
    """Let it go no further."""
    handle = client.get_workflow_handle(workflow_id)
    await handle.signal(END)
    await handle.result()


@pytest.mark.usefixtures("scripted")
async def test_all_runs_of_an_aggregate_are_read(aggregates: Aggregates, client: Client) -> None:
    """Those before it was carried on as well; who waits is answered when it ends."""
    aggregate_id = await submitted(aggregates)
    between = await aggregates.status(aggregate_id)
    early = await aggregates.status(aggregate_id, 0.2)
    waiting = asyncio.create_task(aggregates.status(aggregate_id, 30))

    await end(client, aggregate_workflow_id(aggregate_id))
    after = await waiting

    assert (AggregateState.RUNNING, 4, 4, 0) == (
        between.status,
        between.total_tasks,
        between.completed,
        between.pending,
    )
    assert between == early
    assert list(IDS) == [each.task_id for each in between.results]
    assert [f"{n}" * 100 for n in range(4)] == [each.result for each in after.results]
    assert (AggregateState.FAILED, "as the script says") == (after.status, after.reason)
    assert CREATED_AT == between.created_at == after.created_at
    assert after.updated_at > between.updated_at > CREATED_AT


async def test_an_aggregate_is_known_without_a_worker(client: Client) -> None:
    """One that nobody has begun yet: all is pending."""
    aggregates, aggregate_id = Aggregates(client, 10), str(uuid.uuid4())

    created = await aggregates.submit(aggregate_id, Aggregation(task_ids=IDS), CREATED_AT)
    status = await aggregates.status(aggregate_id)
    cancelled = await aggregates.cancel(aggregate_id)
    await client.get_workflow_handle(aggregate_workflow_id(aggregate_id)).terminate(
        reason="test over"
    )
    ended = await aggregates.cancel(aggregate_id)

    assert (CREATED_AT, True) == (created.created_at, created.created)
    assert (AggregateState.RUNNING, 4, 4) == (status.status, status.total_tasks, status.pending)
    assert AggregateState.RUNNING is cancelled.status
    assert (AggregateState.FAILED, "Terminated by an operator: test over") == (
        ended.status,
        ended.reason,
    )


@pytest.mark.usefixtures("scripted")
async def test_a_redriven_aggregate_begins_anew(aggregates: Aggregates, client: Client) -> None:
    """Under its id: what it had told before counts no more, its creation does."""
    aggregate_id = await submitted(aggregates, "digest")
    workflow_id = aggregate_workflow_id(aggregate_id)
    running = await aggregates.redrive(aggregate_id)
    await end(client, workflow_id)

    again = await aggregates.redrive(aggregate_id)
    await aggregates.existing(aggregate_id, "digest")
    await end(client, workflow_id)

    assert (AggregateState.RUNNING, 4) == (running.status, running.completed)
    assert (AggregateState.RUNNING, 4, 4) == (again.status, again.total_tasks, again.pending)
    assert CREATED_AT == again.created_at


@pytest.mark.usefixtures("scripted")
async def test_an_aggregate_is_started_once(aggregates: Aggregates, client: Client) -> None:
    """Whoever asks again is told so, or refused where the request was another."""
    aggregate_id = await submitted(aggregates, "digest")
    given = Aggregation(task_ids=IDS)

    again = await aggregates.submit(aggregate_id, given, LATER, "digest")
    with pytest.raises(IdempotencyConflict, match=f"aggregate {aggregate_id}"):
        await aggregates.submit(aggregate_id, given, CREATED_AT, "other")
    await end(client, aggregate_workflow_id(aggregate_id))
    later = await aggregates.submit(aggregate_id, given, LATER, "digest")

    assert [(CREATED_AT, False)] * 2 == [(each.created_at, each.created) for each in (again, later)]


@pytest.mark.usefixtures("scripted")
async def test_results_that_are_too_large_together_are_left_out(
    aggregates: Aggregates, client: Client
) -> None:
    """The tasks are listed all the same, and the answer says so."""
    aggregate_id = await submitted(aggregates)

    status = await Aggregates(client, 10, most_bytes=700).status(aggregate_id)
    await end(client, aggregate_workflow_id(aggregate_id))

    kept = [each for each in status.results if not each.left_out]
    assert (4, 4) == (status.completed, len(status.results))
    assert 0 < len(kept) < 4
    assert [f"{n}" * 100 for n in range(len(kept))] == [each.result for each in kept]
    assert {None} == {each.result for each in status.results if each.left_out}
    assert LEFT_OUT == status.note


@pytest.mark.usefixtures("scripted")
async def test_one_that_was_started_by_hand_goes_by_its_workflows_id(
    aggregates: Aggregates, client: Client
) -> None:
    """Whatever that is; bad input is a failure that says why, and cannot be redriven."""
    good, bad = f"nightly-{uuid.uuid4()}", f"wrong-{uuid.uuid4()}"
    await client.start_workflow(
        AGGREGATE_WORKFLOW, {"task_ids": [*IDS]}, id=good, task_queue=WORKFLOW_QUEUE
    )
    await client.start_workflow(
        AGGREGATE_WORKFLOW, {"join": "most"}, id=bad, task_queue=WORKFLOW_QUEUE
    )
    await reported(aggregates, good)

    status = await aggregates.status(good)
    failed = await aggregates.status(bad, 30)
    with pytest.raises(OrderRefused, match="its input does not fit"):
        await aggregates.redrive(bad)
    await end(client, good)

    assert (good, 4) == (status.aggregate_id, status.completed)
    assert (AggregateState.FAILED, 0) == (failed.status, failed.total_tasks)
    assert failed.reason is not None
    assert "join" in failed.reason


async def test_an_unknown_aggregate_is_not_found(aggregates: Aggregates, client: Client) -> None:
    """Nor is a workflow of another kind."""
    other = f"other-{uuid.uuid4()}"
    handle = await client.start_workflow("Other", id=other, task_queue="nobody's")

    for aggregate_id in (str(uuid.uuid4()), other):
        for order in (aggregates.status, aggregates.redrive, aggregates.cancel):
            with pytest.raises(AggregateNotFound, match=f"'{aggregate_id}' is not known"):
                await order(aggregate_id)
    await handle.terminate()

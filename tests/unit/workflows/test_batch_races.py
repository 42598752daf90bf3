"""What comes to a batch in one step: nothing that has ended is lost by what cuts it off."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from pydantic_core import from_json

from orchestrator.batches import (
    CANCEL_ITEMS,
    MEMO_TALLY,
    RECORD,
    Batch,
    BatchPlan,
    BatchTally,
    ChunkReport,
    ItemOutcome,
    Unfinished,
)
from orchestrator.models import Progress, TaskState
from tests.support.activations import (
    START,
    Driven,
    Job,
    cancelled,
    completed,
    has_been_cancelled,
    signalled,
)
from tests.support.plans import AGENT, plan
from workflows.batch import TaskBatch

TEXT = '{"pattern":"read","payload":{"file":"document.pdf"}}'
CALLED_BACK = '{"pattern":"read","payload":{},"callback_url":"https://receiver.example/"}'


def batch(number: int, text: str = TEXT, events: bool = False, **fields: Any) -> Batch:  # noqa: FBT001, FBT002
    """So many items of one plan."""
    entry = BatchPlan(plan=plan(dead_letter=True, events=events))
    return Batch(
        **{"plans": (entry,), "chosen": (0,) * number} | fields,
        items=(text,) * number,
        created_at=START,
    )


def report(positions: Iterable[int], state: TaskState, **further: Any) -> ChunkReport:
    """These items have ended so."""
    failed = {"error": "the agent is broken", "error_type": "AgentFailed", "dead_letter": True}
    outcomes = tuple(
        ItemOutcome(
            position=position,
            state=state,
            at=START,
            attempt=1,
            seconds=0.1,
            **(failed if state is TaskState.FAILED else {}),
        )
        for position in positions
    )
    return ChunkReport(agent=AGENT, outcomes=outcomes, **further)


def together(first: Job, second: Job, order: str) -> tuple[Job, Job]:
    """In the one order, or in the other."""
    return (first, second) if order == "in this order" else (second, first)


ORDERS = pytest.mark.parametrize("order", ["in this order", "the other way round"])


@ORDERS
def test_what_completed_as_the_batch_was_cancelled_has_completed(order: str) -> None:
    """Its report came with the cancellation."""
    flow = Driven(TaskBatch, batch(3))
    [chunk] = flow.activities("run_chunk")

    flow.step(
        *together(completed(chunk, report(range(3), TaskState.COMPLETED)), cancelled(), order)
    )

    assert flow.upserted(MEMO_TALLY, BatchTally) == BatchTally(total=3, completed=3)
    assert flow.ends() == "cancel_workflow_execution"


@ORDERS
def test_what_failed_as_the_batch_was_cancelled_is_a_dead_letter(order: str) -> None:
    """As everything that has used up its attempts."""
    flow = Driven(TaskBatch, batch(2))
    [chunk] = flow.activities("run_chunk")

    flow.step(*together(completed(chunk, report(range(2), TaskState.FAILED)), cancelled(), order))

    assert len(flow.children()) == 2


def test_a_batch_whose_parts_were_cancelled_is_cancelled() -> None:
    """Though its own items had completed before."""
    flow = Driven(TaskBatch, batch(3, starts=(0, 3)), "large")
    [chunk], [following] = flow.activities("run_chunk"), flow.activities("follow_parts")
    flow.step(completed(chunk, report(range(3), TaskState.COMPLETED)))
    flow.step(cancelled())
    [order] = [
        each.request_cancel_external_workflow_execution
        for each in flow.step(has_been_cancelled(following))
        if each.HasField("request_cancel_external_workflow_execution")
    ]
    taken = Job()
    taken.resolve_request_cancel_external_workflow.seq = order.seq
    flow.step(taken)
    [following] = flow.activities("follow_parts")

    flow.step(completed(following, BatchTally(total=3, cancelled=3)))

    assert flow.ends() == "cancel_workflow_execution"


def test_an_item_that_is_cancelled_as_a_full_history_ends_is_not_carried_on() -> None:
    """Nor is its receiver forgotten."""
    flow = Driven(TaskBatch, batch(4, CALLED_BACK))
    [chunk] = flow.activities("run_chunk")
    flow.is_full = True
    tried = (
        Unfinished(position=each, progress=Progress(sent=1, made=1), pause=5) for each in (1, 2)
    )
    flow.step(signalled(CANCEL_ITEMS, [1]))
    told = report((0, 3), TaskState.COMPLETED, unfinished=tuple(tried))
    flow.step(completed(chunk, told))
    [callbacks] = flow.activities("start_callbacks")
    flow.step(completed(callbacks))
    [callbacks] = flow.activities("start_callbacks")
    flow.step(signalled(CANCEL_ITEMS, [2]))

    flow.step(completed(callbacks))
    [callbacks] = flow.activities("start_callbacks")
    flow.step(completed(callbacks))

    assert flow.ends() == "complete_workflow_execution"


def test_all_events_are_told_though_the_batch_is_cancelled_meanwhile() -> None:
    """They are sent by several local activities."""
    number = 1200
    flow = Driven(TaskBatch, batch(number, events=True))
    told: Counter[str] = Counter()
    begun = flow.local_activities()
    flow.step(cancelled())
    while begun:
        for _, news in begun:
            told.update(each["type"] for each in from_json(news.data)["events"])
        flow.step(*(completed(each) for each, _ in begun))
        begun = flow.local_activities()

    assert sorted(told.values()) == [number, number]
    assert flow.ends() == "cancel_workflow_execution"


def test_what_is_recorded_is_buried_by_the_plan_of_its_item() -> None:
    """Not by another one that calls the same agent."""
    plans = (
        BatchPlan(plan=plan(dead_letter=True, priority=1)),
        BatchPlan(plan=plan(dead_letter=True, priority=5, endpoint="/other")),
    )
    flow = Driven(TaskBatch, batch(2, plans=plans, chosen=(0, 1)))

    flow.step(signalled(RECORD, report((1,), TaskState.FAILED)))

    [letter] = [
        each.start_child_workflow_execution
        for each in flow.commands
        if each.HasField("start_child_workflow_execution")
    ]
    assert b"/other" in letter.input[0].data

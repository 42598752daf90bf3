"""What comes to an aggregate in one step together."""

import pytest

from orchestrator.aggregates import REDRIVE, Aggregation, Joined, JoinReport
from orchestrator.models import TaskState
from tests.support.activations import (
    Driven,
    Job,
    cancelled,
    completed,
    has_been_cancelled,
    signalled,
)
from tests.support.plans import AGENT
from workflows.aggregate import AggregateTasks


def one_failed() -> tuple[Driven, int]:
    """An aggregate of two tasks, of which one has failed; and the watch of the other."""
    flow = Driven(AggregateTasks, Aggregation(task_ids=("a", "b")), "aggregate/two")
    [watch] = flow.activities("join_tasks")
    failed = Joined(position=0, task_id="a", agent=AGENT, state=TaskState.FAILED)
    flow.step(completed(watch, JoinReport(outcomes=(failed,))))
    [watch] = flow.activities("join_tasks")
    return flow, watch


@pytest.mark.parametrize("end", ["it ends by that", "it reports"])
def test_a_cancellation_while_the_watch_is_cut_short_for_a_redrive_is_heard(end: str) -> None:
    """However the watch ends."""
    flow, watch = one_failed()
    flow.step(signalled(REDRIVE))
    flow.step(cancelled())

    ended: Job = (
        has_been_cancelled(watch) if end == "it ends by that" else completed(watch, JoinReport())
    )
    flow.step(ended)

    assert flow.ends() == "cancel_workflow_execution"
    assert flow.activities("redrive_tasks") == []


def test_a_redrive_and_a_cancellation_at_once_cancel() -> None:
    """Which was later does not matter."""
    flow, watch = one_failed()
    flow.step(signalled(REDRIVE), cancelled())

    flow.step(has_been_cancelled(watch))

    assert flow.ends() == "cancel_workflow_execution"

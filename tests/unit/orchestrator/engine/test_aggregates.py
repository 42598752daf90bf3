"""What the history of an aggregate tells, event by event."""

from datetime import UTC, datetime
from typing import Any

import pytest
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.exceptions import ApplicationError

from orchestrator.aggregate_status import AggregateState
from orchestrator.aggregates import JOIN_TASKS, REDRIVE_TASKS, Joined, JoinReport
from orchestrator.engine.aggregate_course import Course
from orchestrator.engine.converter import data_converter
from orchestrator.joining import gathered
from orchestrator.models import TaskState

COMPLETED = TaskState.COMPLETED
AT = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)


def completed(position: int, result: Any = None) -> Joined:
    """One that has completed."""
    return Joined(
        position=position,
        task_id=f"task-{position}",
        state=TaskState.COMPLETED,
        agent="test_agent",
        result=result,
        execution_time=0.5,
        at=AT,
    )


def failed(position: int) -> Joined:
    """One that has failed."""
    return Joined(
        position=position, task_id=f"task-{position}", state=TaskState.FAILED, error="no", at=AT
    )


def started() -> HistoryEvent:
    """The first event of a run."""
    event = HistoryEvent(event_id=1)
    event.workflow_execution_started_event_attributes.attempt = 1
    return event


async def reported(event_id: int, report: JoinReport, activity: str) -> list[HistoryEvent]:
    """The events of an activity that answered with that."""
    scheduled, done = HistoryEvent(event_id=event_id), HistoryEvent(event_id=event_id + 2)
    scheduled.activity_task_scheduled_event_attributes.activity_type.name = activity
    attributes = done.activity_task_completed_event_attributes
    attributes.scheduled_event_id = event_id
    attributes.result.payloads.extend(await data_converter.encode([report]))
    done.event_time.FromDatetime(AT)
    return [scheduled, done]


async def course(*events: HistoryEvent, most_bytes: int = 10_000) -> Course:
    """The course after those events."""
    told = Course(data_converter, most_bytes)
    for event in events:
        await told.add(event)
    return told


async def test_reports_are_gathered_through_all_runs() -> None:
    """The numbers of events begin anew with each run."""
    told = await course(
        started(),
        *await reported(5, JoinReport(outcomes=(completed(1, "a"),)), JOIN_TASKS),
        started(),
        *await reported(5, JoinReport(outcomes=(completed(0, None),)), JOIN_TASKS),
    )

    outcomes = gathered(told.reports)

    assert {0: completed(0, None), 1: completed(1, "a")} == outcomes
    assert told.updated_at == AT
    assert told.end is None


async def test_what_was_redriven_is_open_again() -> None:
    """Until it ends anew; then its new end counts."""
    events = [
        started(),
        *await reported(5, JoinReport(outcomes=(completed(0), failed(1))), JOIN_TASKS),
        *await reported(11, JoinReport(reopened=(1,)), REDRIVE_TASKS),
    ]

    between = gathered((await course(*events)).reports)
    events += await reported(17, JoinReport(outcomes=(completed(1, 2),)), JOIN_TASKS)
    after = gathered((await course(*events)).reports)

    assert {0: completed(0)} == between
    assert {0: completed(0), 1: completed(1, 2)} == after


async def test_other_activities_are_no_reports() -> None:
    """Whatever they answer."""
    told = await course(
        started(), *await reported(5, JoinReport(outcomes=(completed(0),)), "another_activity")
    )

    assert [] == told.reports


async def test_results_beyond_the_cap_are_left_out_and_said_to_be() -> None:
    """The tasks stay, and errors stay whole."""
    first = JoinReport(outcomes=(completed(0, "x" * 500),))
    second = JoinReport(outcomes=(completed(1, "y" * 600), failed(2)))
    told = await course(
        started(),
        *await reported(5, first, JOIN_TASKS),
        *await reported(11, second, JOIN_TASKS),
        most_bytes=1000,
    )

    outcomes = gathered(told.reports)

    assert ("x" * 500, False) == (outcomes[0].result, outcomes[0].left_out)
    assert (None, True) == (outcomes[1].result, outcomes[1].left_out)
    assert failed(2) == outcomes[2]


def nested(levels: int) -> Any:
    """So many lists, one in the other."""
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


async def test_a_result_that_nests_too_deep_is_left_out() -> None:
    """Beside it all stays; what can be read is read, though the converter could not."""
    deepest = completed(1, nested(180))
    report = JoinReport(outcomes=(completed(0, nested(220)), deepest, failed(2)))
    told = await course(started(), *await reported(5, report, JOIN_TASKS))

    outcomes = gathered(told.reports)

    assert (COMPLETED, None, True) == (
        outcomes[0].state,
        outcomes[0].result,
        outcomes[0].left_out,
    )
    assert (deepest, failed(2), 0) == (outcomes[1], outcomes[2], told.unread)


@pytest.mark.parametrize("text", [b"nothing", b"[" * 5000, b"[]", b'{"outcomes": [1]}'])
async def test_a_report_that_cannot_be_read_is_counted(text: bytes) -> None:
    """The others stay."""
    events = await reported(11, JoinReport(), JOIN_TASKS)
    result = events[1].activity_task_completed_event_attributes.result
    result.payloads[0].data = text
    told = await course(
        started(), *await reported(5, JoinReport(outcomes=(completed(0),)), JOIN_TASKS), *events
    )

    assert ({0: completed(0)}, 1) == (gathered(told.reports), told.unread)


async def test_an_end_is_read_beside_results_that_nest_too_deep() -> None:
    """They are not what is looked for."""
    result = HistoryEvent()
    result.workflow_execution_completed_event_attributes.result.payloads.extend(
        await data_converter.encode([{"status": "failed", "merged": nested(220)}])
    )

    end = (await course(started(), result)).end

    assert end is not None
    assert AggregateState.FAILED is end.status


async def test_an_end_says_how_and_why() -> None:
    """By the workflow's result, or by how else it was ended."""
    result = HistoryEvent()
    result.workflow_execution_completed_event_attributes.result.payloads.extend(
        await data_converter.encode([{"status": "failed", "reason": "too few", "results": []}])
    )
    terminated = HistoryEvent()
    terminated.workflow_execution_terminated_event_attributes.reason = "stuck"
    timed_out = HistoryEvent()
    timed_out.workflow_execution_timed_out_event_attributes.SetInParent()
    cancelled = HistoryEvent()
    cancelled.workflow_execution_canceled_event_attributes.SetInParent()
    broken = HistoryEvent()
    failure = Failure()
    await data_converter.encode_failure(ApplicationError("it does not fit"), failure)
    broken.workflow_execution_failed_event_attributes.failure.CopyFrom(failure)

    ends = [
        (await course(started(), event)).end
        for event in (result, terminated, timed_out, cancelled, broken)
    ]

    assert [
        (AggregateState.FAILED, "too few"),
        (AggregateState.FAILED, "Terminated by an operator: stuck"),
        (AggregateState.FAILED, "The engine's execution timeout passed"),
        (AggregateState.CANCELLED, "The aggregate was cancelled"),
        (AggregateState.FAILED, "it does not fit"),
    ] == [(end.status, end.reason) for end in ends if end]


@pytest.mark.parametrize("activity", [JOIN_TASKS, REDRIVE_TASKS])
async def test_an_activity_that_is_under_way_tells_nothing_yet(activity: str) -> None:
    """Only its result is a report."""
    [scheduled, _] = await reported(5, JoinReport(outcomes=(completed(0),)), activity)

    assert [] == (await course(started(), scheduled)).reports

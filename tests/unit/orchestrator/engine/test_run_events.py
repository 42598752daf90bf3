"""Recorded histories as events: the same whatever was heard before, and as it happens."""

import json
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse
from temporalio.client import WorkflowHistory

from orchestrator.engine.converter import data_converter
from orchestrator.engine.run_events import RunEvents
from orchestrator.events import Cursor, LiveEvent, Moment

HISTORIES = Path(__file__).parents[3] / "histories"
EXPECTED = {
    "completed_queued": "1 queued, 5.0 started, 11 completed",
    "completed_by_hand": "1 queued, 8.0 started, 14 completed",
    "completed_after_retries": "1 queued, 5.0 started, 5.1 retrying, 5.2 retrying, 11 completed",
    "completed_inline": "1 queued, 1.0 started, 6 completed",
    "completed_inline_after_retries": "1 queued, 1.0 started, 6 retrying, 12 completed",
    "completed_inline_after_fallback": "1 queued, 1.0 started, 6 retrying, 6.0 started, "
    "7 completed",
    "completed_after_fallback": "1 queued, 5.0 started, 5.1 retrying, 11 retrying, 11.0 started, "
    "17 completed",
    "failed_deadline_while_retrying": "1 queued, 5.0 started, 5.1 retrying, 5.2 retrying, "
    "11 failed",
    "failed_inline_after_retries": "1 queued, 1.0 started, 6 retrying, 6.2 retrying, 12 failed",
    "completed_after_late_timeout": "1 queued, 5.0 started, 11 waiting, 17 retrying, 23 completed",
    "completed_polled": "1 queued, 5.0 started, 11 waiting, 17 completed",
    "failed_into_dead_letter": "1 queued, 5.0 started, 12 dead_lettered, 16 failed",
    "failed_invalid_input": "1 queued, 5 failed",
    "failed_deadline_without_worker": "1 queued, 12 failed",
    "cancelled_while_queued": "1 queued, 15 cancelled",
    "cancelled_while_running": "1 queued, 5.0 started, 16 cancelled",
    "cancelled_inline": "1 queued, 1.0 started, 10 cancelled",
}


def described(run_id: str = "run") -> DescribeWorkflowExecutionResponse:
    """A run of a task, as the engine would describe it."""
    record = DescribeWorkflowExecutionResponse()
    record.workflow_execution_info.execution.run_id = run_id
    record.workflow_execution_info.execution.workflow_id = "task"
    return record


def history(name: str) -> WorkflowHistory:
    """A recorded history."""
    text = (HISTORIES / f"OrchestrateTask.{name}.json").read_text()
    return WorkflowHistory.from_json("task", text)


async def events_of(name: str, last: Moment | None = None) -> list[LiveEvent]:
    """All events of a recorded history after that moment."""
    course = RunEvents(data_converter, described(), last)
    told = [each for event in history(name).events for each in await course.take(event)]
    return told + await course.end(described())


def text(told: list[LiveEvent]) -> str:
    """The events in short."""
    return ", ".join(
        f"{each.id.removeprefix('run:')} {each.name.removeprefix('task.')}" for each in told
    )


@pytest.mark.parametrize("name", EXPECTED)
async def test_a_history_is_told_as_events(name: str) -> None:
    """Each with its place in the run."""
    assert EXPECTED[name] == text(await events_of(name))


@pytest.mark.parametrize(
    "name", [each.name.split(".")[1] for each in HISTORIES.glob("OrchestrateTask.*")]
)
async def test_whoever_has_heard_some_hears_the_rest(name: str) -> None:
    """After each of the events of each history exactly those that come after it."""
    whole = await events_of(name)
    assert sorted({each.cursor.at for each in whole if each.cursor}) == [
        each.cursor.at for each in whole if each.cursor
    ]
    for index, event in enumerate(whole, start=1):
        cursor = Cursor.of(event.id)
        assert event.cursor == cursor
        assert cursor is not None
        assert [each.id for each in whole[index:]] == [
            each.id for each in await events_of(name, cursor.at)
        ]


def pending(attempt: int, *, under_way: bool, failed: bool = True) -> PendingActivityInfo:
    """The call of ``completed_after_retries`` as the engine describes it meanwhile."""
    [started] = [
        event.activity_task_started_event_attributes
        for event in history("completed_after_retries").events
        if event.HasField("activity_task_started_event_attributes")
    ]
    states = PendingActivityState
    info = PendingActivityInfo(
        activity_id="1",
        attempt=attempt,
        state=states.PENDING_ACTIVITY_STATE_STARTED
        if under_way
        else states.PENDING_ACTIVITY_STATE_SCHEDULED,
        last_started_time=Timestamp(seconds=1_800_000_000),
    )
    if failed:
        # It has two attempts behind it.
        info.last_failure.CopyFrom(started.last_failure)
    return info


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (pending(1, under_way=False, failed=False), ""),
        (pending(1, under_way=True, failed=False), "5.0 started"),
        # It has left word of its second attempt, and the engine does not know that it has failed.
        (pending(2, under_way=True), "5.0 started, 5.1 retrying"),
        (pending(3, under_way=False), "5.0 started, 5.1 retrying, 5.2 retrying"),
        (pending(3, under_way=True), "5.0 started, 5.1 retrying, 5.2 retrying"),
        # A worker was lost since.
        (pending(4, under_way=True), "5.0 started, 5.1 retrying, 5.2 retrying, 5.3 retrying"),
    ],
)
async def test_a_call_under_way_is_told_before_its_history_is(
    info: PendingActivityInfo, expected: str
) -> None:
    """By what the engine describes; what the history tells later is left out then."""
    course = RunEvents(data_converter, described())
    record = described()
    record.pending_activities.append(info)
    told, live = list[LiveEvent](), ""
    for event in history("completed_after_retries").events:
        told += await course.take(event)
        if event.HasField("activity_task_scheduled_event_attributes"):
            begun = len(told)
            told += await course.look(record)
            live = text(told[begun:])
    assert expected == live
    ids = [each.id for each in told]
    assert len(set(ids)) == len(ids)
    assert {"run:1", "run:5.0", "run:5.1", "run:5.2"} <= set(ids)


async def test_an_event_says_what_has_changed() -> None:
    """The attempt that has failed, and when the next one was made."""
    [event] = [each for each in await events_of("completed_after_retries") if "5.2" in each.id]
    data = json.loads(event.data)
    assert ("task.retrying", "running", 2) == (data["event"], data["status"], data["attempts"])
    assert ("AgentFailed", 500) == (data["attempt"]["outcome"], data["attempt"]["status"])
    assert "500 Internal Server Error" in data["last_error"]
    assert data["attempt"]["at"] < data["updated_at"] < data["next_attempt_at"]


@pytest.mark.parametrize("event_id", ["", "run", "run:", "run:x", "1", "run:5.1.1", "run:5.w1"])
def test_what_is_no_id_names_nothing(event_id: str) -> None:
    """So that it can be refused."""
    assert Cursor.of(event_id) is None


@pytest.mark.parametrize("event_id", ["run:1", "run:5.0", "run:5.12", "run:5.w", "run:5.2w"])
def test_an_id_names_what_it_was_made_of(event_id: str) -> None:
    """Written and read."""
    assert event_id == str(Cursor.of(event_id))

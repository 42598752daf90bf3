"""What a status says of an open task, by the engine's record of its pending call."""

from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.api.common.v1 import Payloads
from temporalio.api.enums.v1 import PendingActivityState, PendingWorkflowTaskState
from temporalio.api.workflow.v1 import PendingActivityInfo, PendingWorkflowTaskInfo
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse
from temporalio.exceptions import ApplicationError

from orchestrator.engine.converter import data_converter
from orchestrator.engine.record import MEMO_DISPATCH, Recorder, Waiting, waited_long
from orchestrator.models import Attempt, BlockedBy, CallFailure, Progress, TaskState
from orchestrator.statuses import TaskStatus

NOW = datetime.now(UTC)
SOON = NOW + timedelta(days=1)
SCHEDULED = PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
STARTED = PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
MADE = Attempt(attempt=1, agent="reader", instance="http://h", outcome="AgentFailed", seconds=1)


async def pending(
    progress: Progress | None = None,
    failure: CallFailure | None = None,
    *,
    state: PendingActivityState.ValueType = SCHEDULED,
    attempt: int = 1,
    next_at: datetime | None = None,
    paused: bool = False,
) -> PendingActivityInfo:
    """A call as the engine describes it."""
    info = PendingActivityInfo(activity_id="1", state=state, attempt=attempt, paused=paused)
    info.scheduled_time.FromDatetime(NOW)
    info.activity_options.task_queue.name = "agent.reader"
    if next_at is not None:
        info.next_attempt_schedule_time.FromDatetime(next_at)
    if progress is not None:
        details = await data_converter.encode([progress])
        info.heartbeat_details.CopyFrom(Payloads(payloads=details))
    if failure is not None:
        error = ApplicationError("it broke", failure, type="AgentFailed")
        await data_converter.encode_failure(error, info.last_failure)
    return info


async def read(*calls: PendingActivityInfo, **record: Any) -> tuple[TaskStatus, Waiting]:
    """What is read from the record of an open workflow."""
    described = DescribeWorkflowExecutionResponse(pending_activities=calls, **record)
    info = described.workflow_execution_info
    info.execution.workflow_id = "task"
    info.task_queue = "orchestrator"
    info.start_time.FromDatetime(NOW)
    return await Recorder(data_converter).open_status(described)


async def test_a_call_that_waits_in_its_queue() -> None:
    """It is queued, was not tried, and may lack a worker."""
    status, waiting = await read(await pending())
    assert (TaskState.QUEUED, 0, None) == (
        status.status,
        status.attempts,
        status.attempt_history,
    )
    assert Waiting(queue="agent.reader", since=NOW) == waiting


async def test_a_call_under_way_is_an_attempt() -> None:
    """Nothing keeps it."""
    status, waiting = await read(await pending(state=STARTED))
    assert (TaskState.RUNNING, 1, Waiting()) == (status.status, status.attempts, waiting)


async def test_a_call_under_way_again() -> None:
    """With what the attempts before it left word of."""
    progress = Progress(sent=1, made=1, attempts=(MADE,))
    status, _ = await read(await pending(progress, state=STARTED, attempt=2))
    assert (2, (MADE,)) == (status.attempts, status.attempt_history)


async def test_a_dispatch_whose_worker_was_lost_was_an_attempt() -> None:
    """It left no word, but the engine has counted it."""
    status, _ = await read(await pending(state=STARTED, attempt=3))
    assert 3 == status.attempts


async def test_waits_are_no_attempts() -> None:
    """Ten dispatches found the agent unavailable; the eleventh makes the first attempt."""
    status, _ = await read(await pending(Progress(waits=10), state=STARTED, attempt=11))
    assert 1 == status.attempts


async def test_a_failed_attempt_that_is_made_again() -> None:
    """When, and what was wrong."""
    progress = Progress(sent=1, made=1, attempts=(MADE,))
    failed = CallFailure(
        progress=progress, attempts=1, retryable=True, blocked_by=BlockedBy.RETRY_BACKOFF
    )
    status, waiting = await read(await pending(progress, failed, attempt=2, next_at=SOON))
    assert (TaskState.RUNNING, 1, "it broke", SOON) == (
        status.status,
        status.attempts,
        status.last_error,
        status.next_attempt_at,
    )
    assert waiting.blocked is not None
    assert (BlockedBy.RETRY_BACKOFF, SOON) == (waiting.blocked.by, waiting.blocked.until)


async def test_a_call_that_waits_for_a_breaker() -> None:
    """Queued as long as nothing was sent, and until when is known."""
    failed = CallFailure(
        progress=Progress(waits=1), retryable=True, pause=20, blocked_by=BlockedBy.BREAKER
    )
    status, waiting = await read(await pending(Progress(waits=1), failed, attempt=2, next_at=SOON))
    assert (TaskState.QUEUED, 0, SOON) == (
        status.status,
        status.attempts,
        status.next_attempt_at,
    )
    assert waiting.blocked is not None
    assert (BlockedBy.BREAKER, SOON) == (waiting.blocked.by, waiting.blocked.until)


async def test_a_failure_that_says_nothing_is_a_backoff() -> None:
    """As the engine's own, when a worker was lost."""
    _, waiting = await read(await pending(attempt=2, next_at=SOON))
    assert waiting.blocked is not None
    assert BlockedBy.RETRY_BACKOFF is waiting.blocked.by


async def test_a_pause_that_is_over_is_a_wait_in_the_queue() -> None:
    """Since it was over."""
    before = NOW - timedelta(seconds=7)
    status, waiting = await read(await pending(attempt=2, next_at=before))
    assert (None, Waiting(queue="agent.reader", since=before)) == (status.next_attempt_at, waiting)


async def test_a_call_that_an_operator_paused() -> None:
    """By the engine's own means."""
    _, waiting = await read(await pending(state=STARTED, paused=True))
    assert waiting.blocked is not None
    assert BlockedBy.PAUSED is waiting.blocked.by


async def test_a_task_whose_workflow_waits_for_a_worker() -> None:
    """It is queued for that."""
    task = PendingWorkflowTaskInfo(
        state=PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_SCHEDULED
    )
    task.scheduled_time.FromDatetime(NOW)
    status, waiting = await read(pending_workflow_task=task)
    assert (TaskState.QUEUED, Waiting(queue="orchestrator", since=NOW)) == (status.status, waiting)


async def test_an_inline_task_is_running_as_long_as_it_is_open() -> None:
    """Its call shows in no record."""
    described = DescribeWorkflowExecutionResponse()
    info = described.workflow_execution_info
    info.start_time.FromDatetime(NOW)
    [payload] = await data_converter.encode(["inline"])
    info.memo.fields[MEMO_DISPATCH].CopyFrom(payload)
    status, waiting = await Recorder(data_converter).open_status(described)
    assert (TaskState.RUNNING, Waiting()) == (status.status, waiting)


def test_a_wait_is_long_after_its_grace() -> None:
    """And one of which nobody knows the beginning is not."""
    grace = timedelta(seconds=5)
    times = (NOW - timedelta(minutes=1), SOON, None)
    assert [True, False, False] == [waited_long(Waiting(since=each), grace) for each in times]

"""A task's status, read from the engine's own record of its workflow.

Works while every worker is down: describing a workflow and reading its history need none.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.common.v1 import Memo, SearchAttributes
from temporalio.api.enums.v1 import PendingActivityState, PendingWorkflowTaskState
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflow.v1 import PendingActivityInfo, WorkflowExecutionInfo
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse
from temporalio.client import WorkflowExecutionStatus
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError

from orchestrator.engine import search_attributes
from orchestrator.engine.search_attributes import value_of
from orchestrator.late_models import LateProgress
from orchestrator.models import BlockedBy, CallFailure, Dispatch, Progress, TaskOutcome, TaskState
from orchestrator.routing import AWAIT_ANSWER, POLL_ANSWER
from orchestrator.statuses import TaskStatus

MEMO_CREATED_AT = "created_at"
MEMO_DISPATCH = "dispatch"
MEMO_TRACE_ID = "trace_id"
MEMO_CHOSEN_BY = "chosen_by"
MEMO_EARLIER_RUNS = "earlier_runs"
"""The runs before the task was redriven, without their attempts: a list of Run."""
MEMO_FINGERPRINT = "fingerprint"

STATES: dict[int, TaskState] = {
    WorkflowExecutionStatus.COMPLETED: TaskState.COMPLETED,
    WorkflowExecutionStatus.FAILED: TaskState.FAILED,
    WorkflowExecutionStatus.TIMED_OUT: TaskState.FAILED,
    WorkflowExecutionStatus.TERMINATED: TaskState.FAILED,
    WorkflowExecutionStatus.CANCELED: TaskState.CANCELLED,
}
"""The final states, by the engine's number; every other number, known to us or not, is open."""


@dataclass(frozen=True)
class Blocked:
    """What keeps a task waiting, and when that ends, where it is known."""

    by: BlockedBy
    until: datetime | None = None


@dataclass(frozen=True)
class Waiting:
    """What an open task waits for, as far as its own record tells; ``queue`` may have no worker."""

    blocked: Blocked | None = None
    queue: str | None = None
    since: datetime | None = None


class Recorder:
    """Turns the engine's records into statuses."""

    def __init__(self, converter: DataConverter) -> None:
        self._converter = converter

    async def memo(self, memo: Memo) -> dict[str, Any]:
        """The decoded memo."""
        if not memo.fields:
            return {}
        names, payloads = zip(*memo.fields.items(), strict=True)
        return dict(zip(names, await self._converter.decode(payloads), strict=True))

    async def head(self, info: WorkflowExecutionInfo) -> TaskStatus:
        """What a list shows: everything that needs neither history nor pending activities."""
        memo = await self.memo(info.memo)
        started = moment(info.start_time)
        created = memo.get(MEMO_CREATED_AT)
        state = STATES.get(info.status)
        return TaskStatus(
            task_id=info.execution.workflow_id,
            status=state or TaskState.QUEUED,
            created_at=datetime.fromisoformat(created) if created else started,
            updated_at=moment(info.close_time) if state else started,
            chosen_by=memo.get(MEMO_CHOSEN_BY),
            earlier_runs=memo.get(MEMO_EARLIER_RUNS),
            trace_id=memo.get(MEMO_TRACE_ID),
            **_attributes(info.search_attributes),
        )

    async def open_status(
        self, record: DescribeWorkflowExecutionResponse
    ) -> tuple[TaskStatus, Waiting]:
        """The status of a task that has not ended, and what it waits for."""
        info = record.workflow_execution_info
        head = await self.head(info)
        if record.pending_activities:
            return await self._pending(head, info, record.pending_activities[0])
        memo = await self.memo(info.memo)
        task = record.pending_workflow_task
        if task.state == PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_SCHEDULED:
            return head, Waiting(queue=info.task_queue, since=moment(task.scheduled_time))
        if memo.get(MEMO_DISPATCH) == Dispatch.INLINE:
            head = head.model_copy(update={"status": TaskState.RUNNING})
        return head, Waiting()

    async def _pending(
        self, head: TaskStatus, info: WorkflowExecutionInfo, activity: PendingActivityInfo
    ) -> tuple[TaskStatus, Waiting]:
        if activity.activity_type.name in {AWAIT_ANSWER, POLL_ANSWER}:
            return await self._late(head, info, activity)
        under_way = (
            activity.state != PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
            and not activity.paused
        )
        progress = await self.progress(activity)
        update: dict[str, Any] = {
            "updated_at": _latest(
                info.start_time, activity.last_started_time, activity.last_attempt_complete_time
            ),
            "attempt_history": progress.attempts or None,
        }
        # What ended without a word counts as an attempt: its worker was lost.
        ended, failure = activity.attempt - 1 - progress.waits, None
        if activity.HasField("last_failure"):
            update["last_error"], _, details = await self._error(activity.last_failure)
            if isinstance(details, CallFailure):
                ended, failure = details.attempts, details
        update["attempts"] = ended + under_way
        update["status"] = TaskState.RUNNING if ended or under_way else TaskState.QUEUED
        if under_way:
            return head.model_copy(update=update), Waiting()
        waiting = await self.waiting(activity, failure)
        if waiting.blocked and waiting.blocked.until:
            update["next_attempt_at"] = waiting.blocked.until
        return head.model_copy(update=update), waiting

    async def _late(
        self, head: TaskStatus, info: WorkflowExecutionInfo, activity: PendingActivityInfo
    ) -> tuple[TaskStatus, Waiting]:
        """The status of a task whose agent answers later."""
        known = await self.late_progress(activity)
        update: dict[str, Any] = {
            "status": TaskState.RUNNING,
            "updated_at": _latest(
                info.start_time, activity.last_started_time, activity.last_heartbeat_time
            ),
        }
        if known:
            update["attempts"] = known.progress.sent
            update["attempt_history"] = known.progress.attempts or None
            update["progress"] = known.said
        until = known.until if known else None
        return head.model_copy(update=update), Waiting(Blocked(BlockedBy.ANSWER, until))

    async def late_progress(self, activity: PendingActivityInfo) -> LateProgress | None:
        """What is known while an answer is waited for; None before the wait has begun."""
        payloads = activity.heartbeat_details.payloads
        if not payloads:
            return None
        found: LateProgress = (await self._converter.decode(payloads, [LateProgress]))[0]
        return found

    async def waiting(
        self, activity: PendingActivityInfo, failure: CallFailure | None = None
    ) -> Waiting:
        """What an activity waits for that is not under way; ``failure`` is its last, if known."""
        if activity.paused:
            return Waiting(Blocked(BlockedBy.PAUSED))
        next_attempt = moment(
            activity.next_attempt_schedule_time
            if activity.HasField("next_attempt_schedule_time")
            else activity.scheduled_time
        )
        if activity.attempt > 1 and next_attempt > datetime.now(UTC):
            if failure is None and activity.HasField("last_failure"):
                _, _, details = await self._error(activity.last_failure)
                failure = details if isinstance(details, CallFailure) else None
            reason = (failure and failure.blocked_by) or BlockedBy.RETRY_BACKOFF
            return Waiting(Blocked(reason, next_attempt))
        return Waiting(queue=activity.activity_options.task_queue.name or None, since=next_attempt)

    async def progress(self, activity: PendingActivityInfo) -> Progress:
        """What the attempts until now have left word of."""
        if not activity.heartbeat_details.payloads:
            return Progress()
        payloads = activity.heartbeat_details.payloads
        found: Progress = (await self._converter.decode(payloads, [Progress]))[0]
        return found

    async def completed_status(
        self, info: WorkflowExecutionInfo, outcome: TaskOutcome
    ) -> TaskStatus:
        """The status of a task that has completed with this outcome."""
        return _completed(await self.head(info), outcome)

    async def closed_status(self, info: WorkflowExecutionInfo, event: HistoryEvent) -> TaskStatus:
        """The status of a task that has ended, by the last event of its history."""
        head = await self.head(info)
        update: dict[str, Any] = {}
        if event.HasField("workflow_execution_completed_event_attributes"):
            payloads = event.workflow_execution_completed_event_attributes.result.payloads
            outcome = (await self._converter.decode(payloads, [TaskOutcome]))[0]
            return _completed(head, outcome)
        if event.HasField("workflow_execution_failed_event_attributes"):
            failure = event.workflow_execution_failed_event_attributes.failure
            error, error_type, failed = await self._error(failure)
            update = (_from_outcome(failed) if isinstance(failed, TaskOutcome) else {}) | {
                "error": error,
                "error_type": error_type,
            }
        elif event.HasField("workflow_execution_terminated_event_attributes"):
            reason = event.workflow_execution_terminated_event_attributes.reason
            update = {
                "error": f"Terminated by an operator: {reason or 'no reason given'}",
                "error_type": "Terminated",
            }
        elif event.HasField("workflow_execution_timed_out_event_attributes"):
            update = {"error": "The engine's execution timeout passed", "error_type": "TimedOut"}
        return head.model_copy(update=update)

    async def _error(self, failure: Failure) -> tuple[str, str, TaskOutcome | CallFailure | None]:
        """A failure's message, type, and what our own failures carry."""
        error = await self._converter.decode_failure(failure)
        if isinstance(error, ApplicationError):
            details = error.details[0] if error.details else None
            carried: TaskOutcome | CallFailure | None = None
            if isinstance(details, dict) and "progress" in details:
                carried = CallFailure.model_validate(details)
            elif isinstance(details, dict) and "attempts" in details:
                carried = TaskOutcome.model_validate(details)
            return error.message, error.type or "Failed", carried
        return str(error), type(error).__name__, None


def _completed(head: TaskStatus, outcome: TaskOutcome) -> TaskStatus:
    return head.model_copy(update=_from_outcome(outcome) | {"result": outcome.result})


def _from_outcome(outcome: TaskOutcome) -> dict[str, Any]:
    return {
        "agent": outcome.agent,
        "attempts": outcome.attempts,
        "execution_time": outcome.execution_time,
        "attempt_history": outcome.attempt_history or None,
        "dead_letter": outcome.dead_letter or None,
    }


def _attributes(attributes: SearchAttributes) -> dict[str, Any]:
    return {
        "agent": value_of(attributes, search_attributes.AGENT),
        "pattern": value_of(attributes, search_attributes.PATTERN),
        "priority": value_of(attributes, search_attributes.PRIORITY),
        "tenant": value_of(attributes, search_attributes.TENANT),
        "batch_id": value_of(attributes, search_attributes.BATCH),
    }


def moment(stamp: Timestamp) -> datetime:
    """A protobuf time as an aware datetime."""
    return stamp.ToDatetime(tzinfo=UTC)


def _latest(*stamps: Timestamp) -> datetime:
    return max(moment(stamp) for stamp in stamps if stamp.seconds)


def waited_long(waiting: Waiting, grace: timedelta) -> bool:
    """Whether a task has waited in its queue so long that it is worth asking who takes from it."""
    return waiting.since is not None and datetime.now(UTC) - waiting.since > grace

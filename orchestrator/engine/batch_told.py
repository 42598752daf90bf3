"""What the record of a batch tells of an item, without asking for a workflow of its own."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from temporalio.api.enums.v1 import PendingWorkflowTaskState, WorkflowExecutionStatus
from temporalio.api.workflow.v1 import PendingActivityInfo

from orchestrator.batches import ItemOutcome, item_id
from orchestrator.engine.batch_parts import Part, is_started
from orchestrator.engine.batch_record import ChunkRecord, Recorded, RunRecord
from orchestrator.engine.record import Waiting, moment
from orchestrator.models import Attempt, Task, TaskRequest, TaskState
from orchestrator.statuses import TaskStatus
from orchestrator.traces import trace_id_in

_ERROR_CHARACTERS = 300
_SUCCESS = "success"
_ENDED_EARLY = {
    WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_TERMINATED: (
        "The batch was terminated by an operator before this task had ended",
        "Terminated",
    ),
    WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_TIMED_OUT: (
        "The engine's execution timeout of the batch passed before this task had ended",
        "TimedOut",
    ),
}
BATCH_FAILED = "BatchFailed"
"""The error type of items whose batch failed before they had ended."""
_FAILED_EARLY = ("The batch failed before this task had ended", BATCH_FAILED)


@dataclass(frozen=True, slots=True)
class Told:
    """What the record of its batch tells of an item.

    Args:
        position: of the item.
        record: of the run that tells it.
        state: as the batch knows it; None where a workflow of its own does.
        at: since when.
        recorded: how it ended, where it did.
        waiting: what it waits for, in no chunk yet.
        held: the chunk that it waits in, for a worker to take it.
        error: why it could not end, and the type of that.
    """

    position: int
    record: RunRecord
    state: TaskState | None
    at: datetime | None = None
    recorded: Recorded | None = None
    waiting: Waiting = field(default_factory=Waiting)
    held: PendingActivityInfo | None = None
    error: tuple[str, str] | None = None

    @property
    def may_be_newer(self) -> bool:
        """Whether the item may have been run again."""
        return self.recorded is not None and self.recorded.dead_letter

    def needs_asking(self, again: Collection[int] | None = None) -> bool:
        """Whether a workflow of its own has the last word; ``again`` are those run again."""
        if self.state is None:
            return True
        return self.may_be_newer and (again is None or self.position in again)

    def may_be(self, state: TaskState | None) -> bool:
        """Whether the item may be in that state; None stands for any."""
        return state is None or self.state in {None, state} or self.may_be_newer


def tell(
    part: Part, record: RunRecord, position: int, chunks: Mapping[str, Mapping[int, Recorded]]
) -> Told:
    """What is known of an item.

    Args:
        part: of the batch.
        record: of the run that tells of the item.
        position: of the item.
        chunks: the outcomes that chunks under way have told, by activity id.
    """
    if recorded := record.outcomes.get(position):
        return Told(position, record, recorded.state, recorded=recorded)
    if position in record.own:
        return Told(position, record, None)
    if part.closed:
        return cut_short(part, record, position)
    if chunk := record.chunk_of(position):
        return _in_hand(part, record, position, chunk, chunks.get(chunk.activity_id, {}))
    if cancelled_at := record.cancelled.get(position):
        return Told(position, record, TaskState.CANCELLED, cancelled_at)
    state = TaskState.RUNNING if position in record.begun else TaskState.QUEUED
    return Told(position, record, state, waiting=_in_batch(part))


def cut_short(part: Part, record: RunRecord, position: int) -> Told:
    """An item without an outcome, in a batch that has ended."""
    at = moment(part.info.close_time)
    if position in record.cancelled or part.closed is TaskState.CANCELLED:
        return Told(position, record, TaskState.CANCELLED, record.cancelled.get(position, at))
    error = _ENDED_EARLY.get(part.info.status, _FAILED_EARLY)
    return Told(position, record, TaskState.FAILED, at, error=error)


def _in_hand(
    part: Part, record: RunRecord, position: int, chunk: ChunkRecord, told: Mapping[int, Recorded]
) -> Told:
    """An item of a chunk that is under way."""
    if recorded := told.get(position):
        return Told(position, record, recorded.state, recorded=recorded)
    activity = part.chunks.get(chunk.activity_id)
    if activity is None and chunk.event_id > part.info.history_length:
        # It was asked for after the batch was described.
        return Told(position, record, TaskState.QUEUED)
    # Its end is known to the engine, but stands in no event yet.
    if activity is None:
        return Told(position, record, TaskState.RUNNING)
    if is_started(activity):
        return Told(position, record, TaskState.RUNNING, moment(activity.last_started_time))
    if chunk.activity_id in record.asking and (cancelled_at := record.cancelled.get(position)):
        return Told(position, record, TaskState.CANCELLED, cancelled_at)
    return Told(position, record, TaskState.QUEUED, held=activity)


def _in_batch(part: Part) -> Waiting:
    """What an item waits for that is in no chunk yet."""
    task = part.described.pending_workflow_task
    if task.state == PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_SCHEDULED:
        return Waiting(queue=part.info.task_queue, since=moment(task.scheduled_time))
    return Waiting()


def status_of(part: Part, told: Told) -> TaskStatus:
    """As GET /status shows the item, by what is told of it."""
    request, entry = told.record.item(told.position)
    fields: dict[str, Any] = {
        "task_id": item_id(part.batch_id, told.position),
        "status": told.state or TaskState.RUNNING,
        "pattern": request.pattern,
        "priority": request.priority,
        "tenant": request.tenant,
        "created_at": part.created_at,
        "updated_at": told.at or part.created_at,
        "batch_id": part.batch_id,
        "trace_id": trace_id_in(told.record.batch.traceparent or _own_trace(request)),
    }
    if entry is not None:
        fields |= {
            "agent": entry.plan.agent,
            "priority": entry.plan.priority,
            "chosen_by": entry.plan.chosen_by,
        }
    if told.error is not None:
        fields["error"], fields["error_type"] = told.error
    if told.recorded is not None:
        fields |= _ended(told.recorded.agent, told.recorded.read())
    return TaskStatus(**fields)


def _own_trace(request: TaskRequest) -> str | None:
    """The trace context that an item has for itself: one that was handed in alone."""
    return request.traceparent if isinstance(request, Task) else None


def _ended(agent: str, outcome: ItemOutcome) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "agent": agent,
        "updated_at": outcome.at,
        "error": outcome.error,
        "error_type": outcome.error_type,
        "execution_time": outcome.seconds,
        "attempts": outcome.attempt or 0,
        "dead_letter": outcome.dead_letter or None,
    }
    if outcome.state is TaskState.COMPLETED:
        fields["result"] = outcome.result
    if outcome.attempt is not None:
        fields["attempt_history"] = (_attempt(agent, outcome, outcome.attempt),)
    return fields


def _attempt(agent: str, outcome: ItemOutcome, number: int) -> Attempt:
    seconds = outcome.seconds or 0
    return Attempt(
        attempt=number,
        agent=agent,
        instance=outcome.instance,
        outcome=_SUCCESS
        if outcome.state is TaskState.COMPLETED
        else outcome.error_type or outcome.state,
        seconds=seconds,
        status=outcome.status,
        at=outcome.at - timedelta(seconds=seconds),
        error=outcome.error[:_ERROR_CHARACTERS] if outcome.error else None,
    )

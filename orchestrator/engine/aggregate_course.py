"""What the history of an aggregate tells: the reports of its tasks, and its end."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from temporalio.api.history.v1 import HistoryEvent
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError

from orchestrator.aggregate_status import AggregateState
from orchestrator.aggregates import JOIN_TASKS, REDRIVE_TASKS, JoinReport
from orchestrator.engine.record import moment
from orchestrator.engine.reports import readable, size_of
from orchestrator.models import Internal, TaskState

MAX_RESULT_BYTES = 64 * 1024 * 1024
"""Of results that one answer holds."""
_REPORTS = {JOIN_TASKS, REDRIVE_TASKS}


class _End(Internal):
    """What the result of an aggregate's workflow says of its end."""

    status: AggregateState
    reason: str | None = None


@dataclass
class Course:
    """What the history of an aggregate tells, event by event.

    Args:
        converter: of the engine's payloads.
        most_bytes: of reports whose results are kept.
        unread: how many reports could not be read.
    """

    converter: DataConverter
    most_bytes: int = MAX_RESULT_BYTES
    reports: list[JoinReport] = field(default_factory=list)
    unread: int = 0
    end: _End | None = None
    updated_at: datetime | None = None
    _bytes: int = 0
    _scheduled: dict[int, str] = field(default_factory=dict)

    async def add(self, event: HistoryEvent) -> None:
        """The next event, through all runs."""
        if event.HasField("workflow_execution_started_event_attributes"):
            self._scheduled.clear()
        elif event.HasField("activity_task_scheduled_event_attributes"):
            name = event.activity_task_scheduled_event_attributes.activity_type.name
            self._scheduled[event.event_id] = name
        elif event.HasField("activity_task_completed_event_attributes"):
            done = event.activity_task_completed_event_attributes
            if self._scheduled.get(done.scheduled_event_id) in _REPORTS:
                await self._report(done.result.payloads)
                self.updated_at = moment(event.event_time)
        else:
            await self._close(event)

    async def _report(self, payloads: Any) -> None:
        self._bytes += size_of(payloads)
        report = await readable(self.converter, payloads, JoinReport)
        if report is None:
            self.unread += 1
            return
        if self._bytes > self.most_bytes:
            bare = tuple(
                each.model_copy(update={"result": None, "left_out": True})
                if each.state is TaskState.COMPLETED
                else each
                for each in report.outcomes
            )
            report = report.model_copy(update={"outcomes": bare})
        self.reports.append(report)

    async def _close(self, event: HistoryEvent) -> None:
        if event.HasField("workflow_execution_completed_event_attributes"):
            payloads = event.workflow_execution_completed_event_attributes.result.payloads
            self.end = await readable(self.converter, payloads, _End)
        elif event.HasField("workflow_execution_failed_event_attributes"):
            failure = event.workflow_execution_failed_event_attributes.failure
            error = await self.converter.decode_failure(failure)
            text = error.message if isinstance(error, ApplicationError) else str(error)
            self.end = _End(status=AggregateState.FAILED, reason=text)
        elif event.HasField("workflow_execution_terminated_event_attributes"):
            reason = event.workflow_execution_terminated_event_attributes.reason
            text = f"Terminated by an operator: {reason or 'no reason given'}"
            self.end = _End(status=AggregateState.FAILED, reason=text)
        elif event.HasField("workflow_execution_timed_out_event_attributes"):
            text = "The engine's execution timeout passed"
            self.end = _End(status=AggregateState.FAILED, reason=text)
        elif event.HasField("workflow_execution_canceled_event_attributes"):
            text = "The aggregate was cancelled"
            self.end = _End(status=AggregateState.CANCELLED, reason=text)

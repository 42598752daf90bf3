"""What the events of a batch's workflow tell of its items."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from pydantic import BaseModel, RootModel
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType, RetryState, TimeoutType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.converter import DataConverter

from orchestrator.batches import (
    CANCEL_ITEMS,
    RECORD,
    RUN_CHUNK,
    Batch,
    ChunkReport,
    place_of,
)
from orchestrator.engine.batch_record import ChunkRecord, RunRecord, outcomes_of
from orchestrator.engine.histories import continued_run
from orchestrator.engine.record import moment
from orchestrator.engine.reports import readable, size_of
from orchestrator.models import Internal
from orchestrator.routing import WORKFLOW_TYPE

_OVERHEAD_BYTES = 300
"""Of one outcome, beside its text."""
_TEXT_OVERHEAD_BYTES = 64
"""Of the text of one item."""

_CLOSING = {
    f"workflow_execution_{end}_event_attributes"
    for end in ("completed", "failed", "timed_out", "canceled", "terminated", "continued_as_new")
}
_CHUNK_ENDED = {
    f"activity_task_{end}_event_attributes" for end in ("failed", "timed_out", "canceled")
}

WORKFLOW_TASKS = {
    EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED,
    EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED,
    EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED,
    EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT,
    EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED,
}
"""They tell nothing, and those that are yet to be done may change."""

M = TypeVar("M", bound=BaseModel)


class _Positions(Internal):
    """What is read of a Chunk."""

    positions: tuple[int, ...] = ()
    asks: bool = False


class _Named(RootModel[tuple[int, ...]]):
    """The argument of signal CANCEL_ITEMS."""


class BatchEvents:
    """Takes what events tell into the record of their run."""

    def __init__(self, converter: DataConverter) -> None:
        self._converter = converter

    async def take(self, record: RunRecord, event: HistoryEvent) -> None:
        """Note what an event tells."""
        kind = event.WhichOneof("attributes")
        if kind in _CLOSING:
            record.closed = True
        elif kind in _CHUNK_ENDED:
            record.chunks.pop(getattr(event, kind).scheduled_event_id, None)
            await self._told_before(record, event)
        elif kind == "workflow_execution_started_event_attributes":
            await self._started(record, event)
        elif kind == "activity_task_scheduled_event_attributes":
            await self._scheduled(record, event)
        elif kind == "activity_task_completed_event_attributes":
            completed = event.activity_task_completed_event_attributes
            if record.chunks.pop(completed.scheduled_event_id, None):
                await self._report(record, event, completed.result.payloads)
        elif kind == "workflow_execution_signaled_event_attributes":
            await self._signaled(record, event)
        elif kind == "start_child_workflow_execution_initiated_event_attributes":
            initiated = event.start_child_workflow_execution_initiated_event_attributes
            place = place_of(initiated.workflow_id)
            if initiated.workflow_type.name == WORKFLOW_TYPE and place:
                record.own.update({place[1]} - record.outcomes.keys())

    async def _started(self, record: RunRecord, event: HistoryEvent) -> None:
        payloads = event.workflow_execution_started_event_attributes.input.payloads
        record.before = continued_run(event)
        record.batch = await self._decoded(payloads, Batch) or record.batch
        record.begun.update(each.position for each in record.batch.unfinished)
        record.size += size_of(payloads)
        record.size += record.total * _TEXT_OVERHEAD_BYTES

    async def _scheduled(self, record: RunRecord, event: HistoryEvent) -> None:
        scheduled = event.activity_task_scheduled_event_attributes
        if scheduled.activity_type.name == RUN_CHUNK:
            chunk = await self._decoded(scheduled.input.payloads, _Positions) or _Positions()
            held = frozenset(chunk.positions)
            record.chunks[event.event_id] = ChunkRecord(scheduled.activity_id, event.event_id, held)
            if chunk.asks:
                record.asking.add(scheduled.activity_id)

    async def _told_before(self, record: RunRecord, event: HistoryEvent) -> None:
        """Of a chunk that is lost, and given to nobody else for it, the last heartbeat counts."""
        lost = event.activity_task_timed_out_event_attributes
        timeout = lost.failure.timeout_failure_info
        late = timeout.timeout_type == TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE
        if late or lost.retry_state == RetryState.RETRY_STATE_CANCEL_REQUESTED:
            await self._report(record, event, timeout.last_heartbeat_details.payloads)

    async def _signaled(self, record: RunRecord, event: HistoryEvent) -> None:
        signaled = event.workflow_execution_signaled_event_attributes
        if signaled.signal_name == RECORD:
            await self._report(record, event, signaled.input.payloads)
        elif signaled.signal_name == CANCEL_ITEMS:
            named = await self._decoded(signaled.input.payloads, _Named)
            _cancel(record, event, named.root if named else ())

    async def _report(
        self, record: RunRecord, event: HistoryEvent, payloads: Sequence[Payload]
    ) -> None:
        """Note the outcomes of a chunk; of two for one item the first counts."""
        report = await self._decoded(payloads, ChunkReport)
        if report is None:
            return
        for position, recorded in outcomes_of(report).items():
            known = position in record.outcomes or position in record.own
            if position in record and not known:
                record.outcomes[position] = recorded
                record.size += len(recorded.outcome) + _OVERHEAD_BYTES
        record.begun.update(each.position for each in report.unfinished)
        _cancel(record, event, report.cancelled)

    async def _decoded(self, payloads: Sequence[Payload], kind: type[M]) -> M | None:
        return await readable(self._converter, payloads, kind)


def _cancel(record: RunRecord, event: HistoryEvent, positions: Iterable[int]) -> None:
    for position in positions:
        if position in record:
            record.cancelled.setdefault(position, moment(event.event_time))

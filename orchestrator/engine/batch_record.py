"""What a batch's workflow has recorded of its items: its events, gathered run by run.

Events are read once. What they told is kept in compact form, up to a bound; of a run that had to go
it is remembered which items it tells of, so that nothing is read again in vain.
"""

import asyncio
from array import array
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from pydantic import BaseModel, RootModel
from temporalio.api.common.v1 import Payload, WorkflowExecution
from temporalio.api.enums.v1 import EventType, RetryState, TimeoutType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.converter import DataConverter

from orchestrator.batches import (
    CANCEL_ITEMS,
    RECORD,
    RUN_CHUNK,
    Batch,
    BatchPlan,
    ChunkReport,
    ItemOutcome,
    place_of,
)
from orchestrator.engine.histories import Histories, WorkflowNotFound, continued_run
from orchestrator.engine.record import moment
from orchestrator.engine.reports import readable, size_of
from orchestrator.models import Internal, Task, TaskRequest, TaskState
from orchestrator.routing import WORKFLOW_TYPE

KEPT_BYTES = 64_000_000
_KEPT_OUTLINES = 2_000
_OVERHEAD_BYTES = 300
"""Of one outcome, beside its text."""
_TEXT_OVERHEAD_BYTES = 64
"""Of the text of one item."""
_WHOLE = 2**62


_CLOSING = {
    f"workflow_execution_{end}_event_attributes"
    for end in ("completed", "failed", "timed_out", "canceled", "terminated", "continued_as_new")
}
_CHUNK_ENDED = {
    f"activity_task_{end}_event_attributes" for end in ("failed", "timed_out", "canceled")
}

_WORKFLOW_TASKS = {
    EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED,
    EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED,
    EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED,
    EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT,
    EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED,
}

M = TypeVar("M", bound=BaseModel)


class _Positions(Internal):
    """What is read of a Chunk."""

    positions: tuple[int, ...] = ()
    asks: bool = False


class _Named(RootModel[tuple[int, ...]]):
    """The argument of signal CANCEL_ITEMS."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """How an item ended: ``outcome`` is an ItemOutcome as JSON."""

    agent: str
    state: TaskState
    dead_letter: bool
    outcome: bytes

    @classmethod
    def of(cls, agent: str, outcome: ItemOutcome) -> "Recorded":
        """The outcome, written down."""
        text = outcome.__pydantic_serializer__.to_json(outcome, exclude_unset=True)
        return cls(agent, outcome.state, outcome.dead_letter, text)

    def read(self) -> ItemOutcome:
        """The outcome again."""
        return ItemOutcome.model_validate_json(self.outcome)


@dataclass(frozen=True, slots=True)
class ChunkRecord:
    """A chunk that was asked for, by the event of that number."""

    activity_id: str
    event_id: int
    positions: frozenset[int]


@dataclass
class RunRecord:
    """What one run has recorded.

    Args:
        known: the number of the last event that was read.
        before: the run that this one carries on.
        closed: it has its last event.
        batch: what it was started with.
        outcomes: of the items that have ended.
        own: items that became tasks of their own.
        begun: items that were tried and are to become such.
        cancelled: items that a cancellation met, and when.
        chunks: what is under way, by the event that scheduled it: activity id and positions.
        asking: activity ids of chunks that begin nothing before they have asked what is cancelled.
        size: about how many bytes this takes.
    """

    known: int = 0
    before: str = ""
    closed: bool = False
    batch: Batch = field(default_factory=Batch)
    outcomes: dict[int, Recorded] = field(default_factory=dict)
    own: set[int] = field(default_factory=set)
    begun: set[int] = field(default_factory=set)
    cancelled: dict[int, datetime] = field(default_factory=dict)
    chunks: dict[int, ChunkRecord] = field(default_factory=dict)
    asking: set[str] = field(default_factory=set)
    size: int = 0
    token: bytes = b""
    """Where to go on following it."""
    _index: dict[int, int] | None = None

    @property
    def total(self) -> int:
        """How many items it was started with."""
        return len(self.batch.items) or len(self.batch.tasks or ())

    @property
    def settled(self) -> set[int]:
        """The items that it has a last word on."""
        return self.outcomes.keys() | self.own | self.cancelled.keys()

    def __contains__(self, position: int) -> bool:
        """Whether the item was handed to this run: it had not ended in an earlier one."""
        return self._place(position) is not None

    def tells_of(self, position: int) -> bool:
        """Whether it has a last word on the item."""
        return position in self.outcomes or position in self.own or position in self.cancelled

    def item(self, position: int) -> tuple[TaskRequest, BatchPlan | None]:
        """An item that was handed to this run; its plan, unless it is resolved by the run."""
        place, batch = self._place(position), self.batch
        assert place is not None  # noqa: S101 - the caller has asked
        if batch.tasks:
            return batch.tasks[place], None
        plan = batch.plans[batch.chosen[place]]
        return Task.model_validate_json(batch.items[place]), plan

    def chunk_of(self, position: int) -> ChunkRecord | None:
        """The chunk that has the item in hand."""
        return next((each for each in self.chunks.values() if position in each.positions), None)

    def _place(self, position: int) -> int | None:
        if self.batch.positions is None:
            place = position - self.batch.first
            return place if 0 <= place < self.total else None
        if self._index is None:
            self._index = {each: place for place, each in enumerate(self.batch.positions)}
        return self._index.get(position)


class BatchRecords:
    """Reads the runs of batches, each event once.

    ``kept_bytes`` bound what is kept of them. Every method raises EngineUnavailable when the engine
    does not answer.
    """

    def __init__(
        self, histories: Histories, converter: DataConverter, kept_bytes: int = KEPT_BYTES
    ) -> None:
        self._histories = histories
        self._converter = converter
        self._kept_bytes = kept_bytes
        self._kept: OrderedDict[str, RunRecord] = OrderedDict()
        self._outlines: OrderedDict[str, tuple[str, array[int]]] = OrderedDict()
        self._turns: dict[str, tuple[asyncio.Lock, int]] = {}

    @property
    def size(self) -> int:
        """Of all that is kept, in bytes."""
        return sum(record.size for record in self._kept.values())

    async def latest(self, execution: WorkflowExecution, last: int) -> RunRecord:
        """What the run has recorded up to the event numbered ``last``.

        Raises:
            WorkflowNotFound: no such run.
        """
        record = self._kept.get(execution.run_id)
        if record is not None and (record.closed or record.known >= last):
            self._kept.move_to_end(execution.run_id)
            return record
        async with self._turn(execution.run_id):
            return await self._read(execution, last)

    @asynccontextmanager
    async def _turn(self, run_id: str) -> AsyncIterator[None]:
        """One at a time reads a run."""
        lock, users = self._turns.get(run_id, (asyncio.Lock(), 0))
        self._turns[run_id] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._turns.pop(run_id)
            if users > 1:
                self._turns[run_id] = lock, users - 1

    def known(self, run_id: str) -> RunRecord | None:
        """What is known here of a run; asks nobody."""
        return self._kept.get(run_id)

    def settled(self, run_id: str, position: int) -> tuple["RunRecord", Recorded] | None:
        """How an item of a run ended for good, if that is known here; asks nobody."""
        record = self._kept.get(run_id)
        recorded = record.outcomes.get(position) if record else None
        if record is None or recorded is None or recorded.dead_letter:
            return None
        return record, recorded

    async def follow(self, execution: WorkflowExecution, seconds: float) -> bool:
        """Take in what the run records next; whether it recorded anything for so long.

        Raises:
            WorkflowNotFound: no such run.
        """
        run_id = execution.run_id
        record = self._kept.get(run_id) or RunRecord()
        if record.closed:
            return False
        found = await self._histories.news(execution, record.token, seconds)
        if found is None:
            return False
        events, token = found
        async with self._turn(run_id):
            current = self._kept.get(run_id) or record
            if record.token and current is not record:
                return True  # what is known now was read anew, and goes less far
            record = current
            for event in events:
                # Workflow tasks tell nothing, and those that are yet to be done may change.
                if event.event_id > record.known and event.event_type not in _WORKFLOW_TASKS:
                    await self._take(record, event)
                    record.known = event.event_id
            record.token = token
            self._keep(run_id, record)
        return True

    async def find(
        self, execution: WorkflowExecution, last: int, positions: Iterable[int]
    ) -> dict[int, RunRecord]:
        """For each item the run that tells of it, the latest where none has a last word.

        Args:
            execution: of a part of the batch, its latest run.
            last: the number of that run's last event.
            positions: of items.

        Returns:
            Without those that none tells of: the engine may have deleted the run that did.

        Raises:
            WorkflowNotFound: no such run.
        """
        latest = await self.latest(execution, last)
        missing = set(positions)
        found = {each: latest for each in missing if each in latest}
        missing -= found.keys()
        before = latest.before
        while before and missing:
            outline = self._outlines.get(before)
            if outline is not None and missing.isdisjoint(outline[1]):
                before = outline[0]
                continue
            run = WorkflowExecution(workflow_id=execution.workflow_id, run_id=before)
            try:
                record = await self.latest(run, _WHOLE)
            except WorkflowNotFound:
                break
            told = dict.fromkeys(missing & record.settled, record)
            found |= told
            missing -= told.keys()
            before = record.before
        return found

    async def _read(self, execution: WorkflowExecution, last: int) -> RunRecord:
        record = self._kept.get(execution.run_id) or RunRecord()
        if not record.closed and record.known < last:
            async for event in self._histories.events(execution, last, record.known):
                await self._take(record, event)
                record.known = event.event_id
        self._keep(execution.run_id, record)
        return record

    def _keep(self, run_id: str, record: RunRecord) -> None:
        self._kept[run_id] = record
        self._kept.move_to_end(run_id)
        if record.closed and run_id not in self._outlines:
            self._outlines[run_id] = record.before, array("L", record.settled)
        while len(self._outlines) > _KEPT_OUTLINES:
            self._outlines.popitem(last=False)
        size = self.size
        while size > self._kept_bytes and len(self._kept) > 1:
            size -= self._kept.popitem(last=False)[1].size

    async def _take(self, record: RunRecord, event: HistoryEvent) -> None:
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


def outcomes_of(report: ChunkReport) -> dict[int, Recorded]:
    """The outcomes that a chunk has told of, by position."""
    return {each.position: Recorded.of(report.agent, each) for each in report.outcomes}


def _cancel(record: RunRecord, event: HistoryEvent, positions: Iterable[int]) -> None:
    for position in positions:
        if position in record:
            record.cancelled.setdefault(position, moment(event.event_time))

"""The workflows that a batch is made of, as the engine describes them.

What has ended is described once and kept for a while, so that the results of a finished batch cost
no call to the engine.
"""

import asyncio
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, TypeVar

from pydantic import ValidationError
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.workflow.v1 import PendingActivityInfo, WorkflowExecutionInfo
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse
from temporalio.converter import DataConverter

from orchestrator.batches import (
    BATCH_WORKFLOW,
    MEMO_STARTS,
    MEMO_TALLY,
    RUN_CHUNK,
    BatchTally,
    ChunkReport,
    part_id,
)
from orchestrator.engine import search_attributes
from orchestrator.engine.batch_record import Recorded
from orchestrator.engine.batch_records import BatchRecords
from orchestrator.engine.histories import Histories, WorkflowNotFound
from orchestrator.engine.record import MEMO_CREATED_AT, STATES, Recorder, moment
from orchestrator.engine.reports import readable
from orchestrator.engine.search_attributes import value_of
from orchestrator.engine.shared import SharedQuestions
from orchestrator.errors import BatchNotFound
from orchestrator.models import Internal, TaskState

KEPT_PARTS = 1000
RECENT_SECONDS = 0.05
"""What is told of single items may be so old: many are asked for at once, and often."""
KEPT_SECONDS = 60.0
"""So long a closed workflow is not asked for again: only an operator's reset can reopen it."""

M = TypeVar("M", bound=Internal)
_SCHEDULED = PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED


class _End(Internal):
    """What is read of an ItemOutcome where only numbers are wanted."""

    state: TaskState


class _Ends(Internal):
    """The same of a ChunkReport."""

    outcomes: tuple[_End, ...] = ()


@dataclass(frozen=True)
class Part:
    """One part of a batch.

    Args:
        batch_id: of the whole.
        number: the first is 0.
        first: the position of its first item.
        described: its workflow.
        memo: of that, decoded.
        tally: how its items have ended, as it has counted them.
    """

    batch_id: str
    number: int
    first: int
    described: DescribeWorkflowExecutionResponse
    memo: Mapping[str, Any]
    tally: BatchTally
    reports: dict[str, Mapping[int, Recorded]] = field(default_factory=dict, compare=False)
    """Outcomes that chunks under way have told, by activity id, as far as somebody asked."""

    @property
    def info(self) -> WorkflowExecutionInfo:
        """What lists show of its workflow."""
        return self.described.workflow_execution_info

    @property
    def execution(self) -> WorkflowExecution:
        """Its workflow, with the latest run."""
        return self.info.execution

    @property
    def closed(self) -> TaskState | None:
        """How its workflow has ended; None while it is open."""
        return STATES.get(self.info.status)

    @property
    def positions(self) -> range:
        """Of its items."""
        return range(self.first, self.first + self.tally.total)

    @property
    def tenant(self) -> str | None:
        """Whose all of the batch's items are; None where they may be of several."""
        return value_of(self.info.search_attributes, search_attributes.TENANT)

    @property
    def starts(self) -> tuple[int, ...]:
        """The first position of every part, as part 0 tells."""
        return tuple(self.memo.get(MEMO_STARTS, (0,)))

    @property
    def created_at(self) -> datetime:
        """When the batch was accepted."""
        created = self.memo.get(MEMO_CREATED_AT)
        return datetime.fromisoformat(created) if created else moment(self.info.start_time)

    @cached_property
    def chunks(self) -> Mapping[str, PendingActivityInfo]:
        """What is under way, by activity id."""
        return {
            each.activity_id: each
            for each in self.described.pending_activities
            if each.activity_type.name == RUN_CHUNK
        }

    @property
    def updated_at(self) -> datetime:
        """When it ended, or last told of something."""
        if self.closed:
            return moment(self.info.close_time)
        told = [
            stamp
            for each in self.chunks.values()
            for stamp in (each.last_started_time, each.last_heartbeat_time)
            if stamp.seconds
        ]
        return max(moment(stamp) for stamp in (self.info.start_time, *told))

    @property
    def is_begun(self) -> bool:
        """Whether anything has been done for any item."""
        return bool(
            self.tally.pending < self.tally.total
            or self.described.pending_children
            or any(map(is_started, self.chunks.values()))
        )


@dataclass(frozen=True, slots=True)
class _Kept:
    """A part as it was described, and when that was asked for, by the monotonic clock."""

    part: Part
    asked_at: float
    outdated: bool = False


class BatchParts:
    """Finds the parts of batches.

    Every method raises EngineUnavailable when the engine does not answer, and BatchNotFound.
    """

    def __init__(
        self, histories: Histories, records: BatchRecords, converter: DataConverter
    ) -> None:
        self._histories = histories
        self._records = records
        self._converter = converter
        self._recorder = Recorder(converter)
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        """The parts that were described last."""
        self._asking = SharedQuestions[Part]()

    async def all(self, batch_id: str) -> list[Part]:
        """Every part; without those that the engine has deleted already."""
        lead = await self.lead(batch_id)
        starts = lead.starts
        further = await asyncio.gather(
            *(self._part(batch_id, number, starts[number]) for number in range(1, len(starts)))
        )
        return [lead, *filter(None, further)]

    async def lead(self, batch_id: str) -> Part:
        """The first part, which stands for the batch."""
        part = await self._part(batch_id, 0, 0)
        if part is None:
            raise BatchNotFound(batch_id)
        return part

    async def holding(self, batch_id: str, position: int, lead: Part | None = None) -> Part | None:
        """The part that has an item, by the first part; None if there is no such item."""
        part: Part | None = lead or await self._recent(batch_id)
        assert part is not None  # noqa: S101 - or it would have been raised
        number = bisect_right(part.starts, position) - 1
        if number > 0:
            part = await self._part(batch_id, number, part.starts[number])
        return part if part and position in part.positions else None

    async def report(self, chunk: PendingActivityInfo) -> ChunkReport:
        """What a chunk under way has told."""
        return await self._told(chunk, ChunkReport) or ChunkReport(agent="")

    async def states(self, chunk: PendingActivityInfo) -> list[TaskState]:
        """How the items have ended of which a chunk under way has told."""
        ends = await self._told(chunk, _Ends)
        return [each.state for each in ends.outcomes] if ends else []

    async def _told(self, chunk: PendingActivityInfo, kind: type[M]) -> M | None:
        payloads = chunk.heartbeat_details.payloads
        return await readable(self._converter, payloads, kind) if payloads else None

    async def _recent(self, batch_id: str) -> Part:
        """The first part, as it was described a moment ago; who asks meanwhile is answered too."""
        kept = self._kept.get(batch_id)
        if kept and not kept.outdated and kept.asked_at > time.monotonic() - RECENT_SECONDS:
            return kept.part
        return await self._asking.ask(batch_id, lambda: self.lead(batch_id))

    def forget(self, batch_id: str) -> None:
        """Something was ordered: what was asked for until now is out of date."""
        self._asking.forget(batch_id)
        if kept := self._kept.get(batch_id):
            self._kept[batch_id] = _Kept(kept.part, time.monotonic(), outdated=True)

    def seen(self, batch_id: str) -> Part | None:
        """The first part as it was described last; asks nobody."""
        kept = self._kept.get(batch_id)
        return kept.part if kept and kept.asked_at > time.monotonic() - KEPT_SECONDS else None

    async def _part(self, batch_id: str, number: int, first: int) -> Part | None:
        workflow_id = part_id(batch_id, number)
        part = self.seen(workflow_id)
        if part is None or not part.closed:
            asked_at = time.monotonic()
            part = await self._described(batch_id, number, first)
            if part is not None:
                self._keep(workflow_id, _Kept(part, asked_at))
        return part

    def _keep(self, workflow_id: str, new: "_Kept") -> None:
        known = self._kept.get(workflow_id)
        # Answers may overtake each other.
        if known is None or known.asked_at < new.asked_at:
            self._kept[workflow_id] = new
            self._kept.move_to_end(workflow_id)
        while len(self._kept) > KEPT_PARTS:
            self._kept.popitem(last=False)

    async def _described(self, batch_id: str, number: int, first: int) -> Part | None:
        try:
            described = await self._histories.describe(part_id(batch_id, number))
            info = described.workflow_execution_info
            if info.type.name != BATCH_WORKFLOW:
                return None
            memo = await self._recorder.memo(info.memo)
            tally = _tally(memo) or await self._uncounted(described)
        except WorkflowNotFound:
            return None
        return Part(batch_id, number, first, described, memo, tally)

    async def _uncounted(self, described: DescribeWorkflowExecutionResponse) -> BatchTally:
        """Of a batch that was started by hand, until it has counted for itself."""
        info = described.workflow_execution_info
        record = await self._records.latest(info.execution, info.history_length)
        return record.batch.tally or BatchTally(total=record.total)


def is_started(chunk: PendingActivityInfo) -> bool:
    """Whether a worker has it in hand."""
    return chunk.state != _SCHEDULED and not chunk.paused


def _tally(memo: Mapping[str, Any]) -> BatchTally | None:
    try:
        tally = BatchTally.model_validate(memo.get(MEMO_TALLY))
    except ValidationError:
        return None
    return tally if tally.total else None

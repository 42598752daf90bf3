"""What a batch's workflow has recorded, gathered run by run.

Events are read once. What they told is kept in compact form, up to a bound; of a run that had to go
it is remembered which items it tells of, so that nothing is read again in vain.
"""

import asyncio
from array import array
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.converter import DataConverter

from orchestrator.engine.batch_events import WORKFLOW_TASKS, BatchEvents
from orchestrator.engine.batch_record import Recorded, RunRecord
from orchestrator.engine.histories import Histories, WorkflowNotFound

KEPT_BYTES = 64_000_000
_KEPT_OUTLINES = 2_000
_WHOLE = 2**62


class BatchRecords:
    """Reads the runs of batches, each event once.

    ``kept_bytes`` bound what is kept of them. Every method raises EngineUnavailable when the engine
    does not answer.
    """

    def __init__(
        self, histories: Histories, converter: DataConverter, kept_bytes: int = KEPT_BYTES
    ) -> None:
        self._histories = histories
        self._events = BatchEvents(converter)
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

    def settled(self, run_id: str, position: int) -> tuple[RunRecord, Recorded] | None:
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
                if event.event_id > record.known and event.event_type not in WORKFLOW_TASKS:
                    await self._events.take(record, event)
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
                await self._events.take(record, event)
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

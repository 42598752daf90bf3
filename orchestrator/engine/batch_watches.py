"""Waiting for items of a batch: however many wait, the engine is asked once for all of them."""

from orchestrator.engine.batch_parts import BatchParts, Part
from orchestrator.engine.batch_records import BatchRecords
from orchestrator.engine.histories import WorkflowNotFound
from orchestrator.engine.shared import SharedQuestions
from orchestrator.errors import BatchNotFound


class BatchWatches:
    """The watches of all batches that somebody waits for; each lasts until there is news."""

    def __init__(self, parts: BatchParts, records: BatchRecords) -> None:
        self._parts = parts
        self._records = records
        self._watches = SharedQuestions[Part]()

    async def next(self, batch_id: str, seconds: float) -> Part:
        """The batch's first part, once it has recorded something new, or after so many seconds.

        Who joins others that wait already is answered with them.

        Raises:
            BatchNotFound: no such batch.
            EngineUnavailable: the engine does not answer.
        """
        return await self._watches.ask(batch_id, lambda: self._watch(batch_id, seconds))

    async def _watch(self, batch_id: str, seconds: float) -> Part:
        part = self._parts.seen(batch_id) or await self._parts.lead(batch_id)
        if part.closed:
            return part
        try:
            if await self._records.follow(part.execution, seconds):
                return part
        except WorkflowNotFound:
            raise BatchNotFound(batch_id) from None
        # What a chunk has done while it is under way, only the engine's description tells.
        return await self._parts.lead(batch_id)

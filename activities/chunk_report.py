"""What is known of a chunk's items: in its report and heartbeats, and in signals beside them."""

import asyncio
from collections.abc import Collection

from pydantic_core import to_json
from temporalio import activity
from temporalio.service import RPCError, RPCStatusCode

from orchestrator.batches import RECORD, Chunk, ChunkReport, ItemOutcome, Unfinished
from orchestrator.engine.rpc import names_missing_namespace

REPORT_BYTES = 1_400_000
"""The outcomes of one report; the engine takes 2 MiB."""
SIGNAL_PAUSE_SECONDS = 1.0


class Ledger:
    """The outcomes of a chunk, with those that an earlier dispatch of it left word of."""

    def __init__(self, chunk: Chunk) -> None:
        details = activity.info().heartbeat_details
        agent = chunk.plan.agent
        before = ChunkReport.model_validate(details[0]) if details else ChunkReport(agent=agent)
        self.waits = before.waits
        self._agent = agent
        self._outcomes = list(before.outcomes)
        self._unfinished = list(before.unfinished)
        self._recorded = list(before.recorded)
        self._bytes = len(to_json(self._outcomes)) if self._outcomes else 0
        self.spent = 0
        """Bytes of the outcomes of this dispatch, as the history will keep them."""
        self._overflow: list[tuple[ItemOutcome, int]] = []
        self._overflow_bytes = 0

    @property
    def positions(self) -> set[int]:
        """Of the items that are done with."""
        ended = {each.position for each in self._outcomes}
        return ended.union(self._recorded, (each.position for each in self._unfinished))

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known of any item."""
        return not (self._outcomes or self._unfinished or self._recorded or self._overflow)

    @property
    def overflows(self) -> bool:
        """Whether it is time to ``flush``."""
        return self._overflow_bytes > REPORT_BYTES

    def end(self, outcome: ItemOutcome, size: int) -> None:
        """An item has ended; its outcome has about ``size`` bytes."""
        self.spent += size
        if self._bytes + size > REPORT_BYTES:
            self._overflow.append((outcome, size))
            self._overflow_bytes += size
        else:
            self._bytes += size
            self._outcomes.append(outcome)

    def go_on(self, unfinished: Unfinished) -> None:
        """An item is to go on as a task of its own."""
        self._unfinished.append(unfinished)

    def withdraw(self, positions: Collection[int]) -> list[int]:
        """Let none of these items go on; those that were to."""
        found = [each for each in self._unfinished if each.position in positions]
        for each in found:
            self._unfinished.remove(each)
        return [each.position for each in found]

    async def hand_over(self) -> None:
        """Have the batch know now what has ended, and not only with the report.

        Until it knows, a crash must not lose what is told: some may be told twice.
        """
        told = tuple(self._outcomes)
        if not told:
            return
        await _signal(ChunkReport(agent=self._agent, outcomes=told))
        self._outcomes = self._outcomes[len(told) :]
        self._bytes = len(to_json(self._outcomes)) if self._outcomes else 0
        self._recorded += [each.position for each in told]

    async def flush(self) -> None:
        """Send the outcomes that the report has no room for, in signals of a size they may have."""
        while self._overflow:
            outcome, size = self._overflow.pop()
            taken = [outcome]
            while self._overflow and size + self._overflow[-1][1] <= REPORT_BYTES:
                outcome, further = self._overflow.pop()
                taken.append(outcome)
                size += further
            self._overflow_bytes -= size
            await _signal(ChunkReport(agent=self._agent, outcomes=tuple(taken)))
            self._recorded += [each.position for each in taken]

    def known(
        self, *, waits: int = 0, left: tuple[int, ...] = (), cancelled: tuple[int, ...] = ()
    ) -> ChunkReport:
        """What is done, for the engine to keep, and what becomes of the others."""
        return ChunkReport(
            agent=self._agent,
            outcomes=tuple(self._outcomes),
            unfinished=tuple(self._unfinished),
            recorded=tuple(self._recorded),
            left=left,
            cancelled=cancelled,
            waits=self.waits + waits,
        )


async def _signal(report: ChunkReport) -> None:
    """Hand outcomes to the batch's workflow, however long the engine is away."""
    info = activity.info()
    handle = activity.client().get_workflow_handle(
        info.workflow_id or "", run_id=info.workflow_run_id
    )
    while True:
        try:
            await handle.signal(RECORD, report)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND and not names_missing_namespace(error):
                return  # the batch was ended meanwhile
            await asyncio.sleep(SIGNAL_PAUSE_SECONDS)
        else:
            return
